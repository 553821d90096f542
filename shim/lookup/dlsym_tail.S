// dlsym, interposed. For every lookup but ours it jumps to the real one, with the caller's return
// address in place: the real one takes RTLD_NEXT and RTLD_DEFAULT to mean whoever returns there. An
// ordinary call would make every library's RTLD_NEXT mean "after the shim", and some recurse for
// ever.
//
//   void* dlsym(void* handle, const char* name) {
//     DlsymWay way = cmp_way_of_dlsym(handle, name, return address);  // shim/lookup/lookup.cpp
//     if (way.function == nullptr) return way.value;
//     goto *way.function(handle, way.value);
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
        call    cmp_way_of_dlsym
        popq    %rdi
        .cfi_adjust_cfa_offset -8
        testq   %rax, %rax
        je      1f
        movq    %rdx, %rsi
        jmp     *%rax
1:      movq    %rdx, %rax
        ret
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
        str     x0, [sp, 16]
        mov     x2, x30
        bl      cmp_way_of_dlsym
        mov     x16, x0                 // from x16 a jump may land on bti c
        mov     x9, x1
        ldr     x0, [sp, 16]
        ldp     x29, x30, [sp], 32
        .cfi_adjust_cfa_offset -32
        .cfi_restore 29
        .cfi_restore 30
        cbz     x16, 1f
        mov     x1, x9
        br      x16
1:      mov     x0, x9
        ret
        .cfi_endproc
        .size   dlsym, .-dlsym
#else
#error "dlsym_tail.S knows x86-64 and aarch64"
#endif
        .section .note.GNU-stack, "", %progbits
