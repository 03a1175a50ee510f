/* The firmware of the sample guest: from the reset vector to 64-bit code, on both processors.
 *
 * The image is the machine's whole ROM (64 KiB at 0xF0000 and at the top of 4 GiB), so the guest's memory holds nothing
 * that anybody else wrote. Layout of the low memory it uses:
 *   0x1000 PML4, 0x2000 PDPT (low), 0x3000 page directory (first GiB), 0x4000 PDPT (kernel), 0x5000 PDPT (devices),
 *   0x6000 page directory and 0x7000 page table of user space; the kernel is copied to 0x100000.
 */
        .set    KERNEL_PHYSICAL, 0x100000
        .set    KERNEL_VIRTUAL, 0xffffffff80100000
        .set    PML4, 0x1000

        .section .text
        .code16
        .globl  trampoline
trampoline:                             /* F000:0000, where the start-up interrupt sends the second processor */
        cli
        movl    $1, %ebp                /* which processor this is */
        jmp     enter_protected

first_processor:
        cli
        xorl    %ebp, %ebp
enter_protected:
        movw    $0xf000, %ax            /* after reset CS is at the top of 4 GiB, the data is reached at 0xF0000 */
        movw    %ax, %ds
        lgdtl   gdt_pointer - trampoline
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $0x08, $protected

        .code32
protected:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        xorl    %eax, %eax
        movw    %ax, %fs
        movw    %ax, %gs
        testl   %ebp, %ebp
        jnz     enter_long

        movl    $0x1000, %edi           /* clear the tables, then fill them */
        movl    $0x7000 / 4, %ecx
        rep stosl
        movl    $0x2007, PML4           /* low half: identity map, user space */
        movl    $0x4003, PML4 + 511 * 8 /* high half: the kernel */
        movl    $0x3007, 0x2000
        movl    $0x5003, 0x2000 + 3 * 8 /* the fourth GiB: devices */
        movl    $0x3003, 0x4000 + 510 * 8
        movl    $0x83, 0x3000           /* 0 to 2 MiB in one large page */
        movl    $0x6007, 0x3000 + 2 * 8 /* 4 to 6 MiB: user space, in small pages */
        movl    $0xe0000093, 0x5000 + (0xe0000000 - 0xc0000000) / 0x200000 * 8
        movl    $0xfee00093, %eax
        andl    $0xffe00fff, %eax
        movl    %eax, 0x5000 + (0xfee00000 - 0xc0000000) / 0x200000 * 8
        movl    $0x140007, 0x6000       /* user code */
        movl    $0x141007, 0x6000 + 8   /* user stack */

        movl    $kernel_image, %esi
        movl    $KERNEL_PHYSICAL, %edi
        movl    $kernel_image_end, %ecx
        subl    %esi, %ecx
        rep movsb

enter_long:
        movl    $0x6a0, %eax            /* PAE, PGE, OSFXSR, OSXMMEXCPT */
        movl    %eax, %cr4
        movl    $PML4, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       /* EFER: SCE, LME, NXE */
        movl    $0x901, %eax
        xorl    %edx, %edx
        wrmsr
        movl    $0x80050033, %eax
        movl    %eax, %cr0
        lgdtl   gdt_pointer
        ljmpl   $0x18, $long_mode

        .code64
long_mode:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movq    $KERNEL_VIRTUAL + 0x30000, %rsp
        movl    %ebp, %edi
        testl   %ebp, %ebp
        jz      1f
        addq    $0x4000, %rsp
1:      movq    $KERNEL_VIRTUAL, %rax
        jmp     *%rax

        .balign 16
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      /* 08 code, 32 bits */
        .quad   0x00cf93000000ffff      /* 10 data */
        .quad   0x00af9b000000ffff      /* 18 code, 64 bits */
        .quad   0x00cff3000000ffff      /* 20 user data */
        .quad   0x00affb000000ffff      /* 28 user code, 64 bits */
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt

        .section .reset, "ax"
        .code16
        .byte   0xe9                    /* jmp near: the assembler would not find the distance across the sections */
        .word   first_processor - reset_end
        .globl  reset_end
reset_end:
        .balign 16, 0

        .section .kernel, "a"
kernel_image:
        .incbin "kernel.bin"
kernel_image_end:
