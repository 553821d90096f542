// dlopen, interposed: it jumps to the real one, with the caller's return address in place, which says
// in whose RUNPATH the library is looked for (as in dlsym_tail.S).
//
//   void* dlopen(const char* file, int mode) {
//     goto *cmp_way_of_dlopen(file, mode)(file, mode);  // shim/state/deep_loads.cpp
//   }
#if defined(__x86_64__)
        .text
        .globl  dlopen
        .type   dlopen, @function
dlopen:
        .cfi_startproc
        endbr64
        pushq   %rdi
        .cfi_adjust_cfa_offset 8
        pushq   %rsi
        .cfi_adjust_cfa_offset 8
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        call    cmp_way_of_dlopen
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %rsi
        .cfi_adjust_cfa_offset -8
        popq    %rdi
        .cfi_adjust_cfa_offset -8
        jmp     *%rax
        .cfi_endproc
        .size   dlopen, .-dlopen
#elif defined(__aarch64__)
        .text
        .globl  dlopen
        .type   dlopen, %function
dlopen:
        .cfi_startproc
        hint    34                      // bti c
        stp     x29, x30, [sp, -32]!
        .cfi_adjust_cfa_offset 32
        .cfi_offset 29, -32
        .cfi_offset 30, -24
        mov     x29, sp
        stp     x0, x1, [sp, 16]
        bl      cmp_way_of_dlopen
        mov     x16, x0                 // from x16 a jump may land on bti c
        ldp     x0, x1, [sp, 16]
        ldp     x29, x30, [sp], 32
        .cfi_adjust_cfa_offset -32
        .cfi_restore 29
        .cfi_restore 30
        br      x16
        .cfi_endproc
        .size   dlopen, .-dlopen
#else
#error "dlopen_tail.S knows x86-64 and aarch64"
#endif
        .section .note.GNU-stack, "", %progbits
