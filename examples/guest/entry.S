/* Entry, the switch to user mode, and the state in which processor 0 is frozen. */
        .section .entry, "ax"
        .globl  entry
entry:  call    kernel

        .text
        .globl  user_mode               /* (ip, sp) */
user_mode:
        movl    $0xc0000101, %ecx       /* GS base: as kernels use it for their processor's data */
        movl    $0x80120000, %eax
        movl    $0xffffffff, %edx
        wrmsr
        pushq   $0x23
        pushq   %rsi
        pushq   $0x202 & ~0x200
        pushq   $0x2b
        pushq   %rdi
        iretq

        .globl  stop
stop:   movl    $0xc0000101, %ecx
        movl    $0x80110000, %eax
        movl    $0xffffffff, %edx
        wrmsr
        leaq    pattern(%rip), %rsi
        movups  (%rsi), %xmm0
        movups  16(%rsi), %xmm7
        movups  32(%rsi), %xmm15
        movabsq $0x400008, %rax
        movq    %rax, %dr0
        fninit
        fldpi
        leaq    banner(%rip), %rdi
        movabsq $0x1111111111111111, %rax
        movabsq $0x2222222222222222, %rbx
        movabsq $0x8888888888888888, %r8
        movabsq $0xffffffffffff0015, %r15
        outb    %al, $0xf4              /* tells make_sample.py that the screen is drawn; nothing answers there */
1:      hlt
        jmp     1b

        .balign 16
pattern:
        .ascii  "this is register", "xmm7 holds this.", "xmm15 holds this"

        .globl  user_program, user_program_end
user_program:
        movabsq $0x5555555555555555, %rbx
        xorl    %eax, %eax
1:      incq    %rax
        movq    %rax, 0x401000
        jmp     1b
user_program_end:
