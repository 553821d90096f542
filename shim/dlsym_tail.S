// dlsym, interposed. For every lookup but ours it jumps to the real one, with the caller's return
// address in place: the real one takes RTLD_NEXT and RTLD_DEFAULT to mean whoever returns there. An
// ordinary call would make every library's RTLD_NEXT mean "after the shim", and some recurse for
// ever.
//
//   void* dlsym(void* handle, const char* name) {
//     if (void* answer = cmp_answer_dlsym(handle, name, return address)) return answer;
//     goto *cmp_real_dlsym;
//   }
#if defined(__x86_64__)
        .text
        .globl  dlsym
        .type   dlsym, @function
dlsym:
        .cfi_startproc
        endbr64
        movq    (%rsp), %rdx
        pushq   %rdi
        .cfi_adjust_cfa_offset 8
        pushq   %rsi
        .cfi_adjust_cfa_offset 8
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        call    cmp_answer_dlsym
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %rsi
        .cfi_adjust_cfa_offset -8
        popq    %rdi
        .cfi_adjust_cfa_offset -8
        testq   %rax, %rax
        jne     1f
        jmp     *cmp_real_dlsym(%rip)
1:      ret
        .cfi_endproc
        .size   dlsym, .-dlsym
#elif defined(__aarch64__)
        .text
        .globl  dlsym
        .type   dlsym, %function
dlsym:
        .cfi_startproc
        hint    34                      // bti c
        stp     x29, x30, [sp, -32]!
        .cfi_adjust_cfa_offset 32
        .cfi_offset 29, -32
        .cfi_offset 30, -24
        mov     x29, sp
        stp     x0, x1, [sp, 16]
        mov     x2, x30
        bl      cmp_answer_dlsym
        mov     x9, x0
        ldp     x0, x1, [sp, 16]
        ldp     x29, x30, [sp], 32
        .cfi_adjust_cfa_offset -32
        .cfi_restore 29
        .cfi_restore 30
        cbz     x9, 1f
        mov     x0, x9
        ret
1:      adrp    x9, cmp_real_dlsym
        ldr     x9, [x9, :lo12:cmp_real_dlsym]
        br      x9
        .cfi_endproc
        .size   dlsym, .-dlsym
#else
#error "dlsym_tail.S knows x86-64 and aarch64"
#endif
        .section .note.GNU-stack, "", %progbits
