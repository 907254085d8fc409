; The payload of kvm.ts: what an accelerator must be able to do before a guest is entrusted to it.
;
; It is offset 0 of a 64 KiB ROM at 0xF0000; the reset vector at 0xFFFF0 jumps to F000:0000. Each stage
; that worked prints its letter on QEMU's debug port 0xE9, and the end is told by isa-debug-exit on 0xF4:
; 0x10 becomes exit code 33 (all stages), 0x11 becomes 35 (a check failed, after the letter '!').
;
; A  runs at all, in real mode          E  an interrupt, taken and returned from, with its registers
; B  32-bit protected mode              F  the interrupt flag is what cli and sti made it
; C  64-bit long mode with paging       G  ring 0, and swapgs swaps
; D  the high half, where kernels live
;
;   nasm -f bin -o kvm-probe.bin kvm-probe.asm && base64 kvm-probe.bin

TRACE   equ 0xE9
EXIT    equ 0xF4
ROM     equ 0xF0000
HIGH    equ 0xFFFFFFFF80000000
STACK   equ 0x7000
IDT     equ 0x8000

%macro letter 1
        mov     al, %1
        out     TRACE, al
%endmacro

        bits    16
        cli
        letter  'A'
        lgdt    [cs:gdt_pointer]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     dword 0x08:ROM + protected

        bits    32
protected:
        mov     ax, 0x10
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        mov     esp, STACK
        letter  'B'

        ; Page tables at 0x1000: the first 4 MiB in pages of 2 MiB, at 0 and once more at HIGH.
        mov     edi, 0x1000
        xor     eax, eax
        mov     ecx, 0x1000
        rep stosd
        mov     dword [0x1000], 0x2003
        mov     dword [0x1ff8], 0x4003
        mov     dword [0x2000], 0x3003
        mov     dword [0x4ff0], 0x3003
        mov     dword [0x3000], 0x83
        mov     dword [0x3008], 0x200083
        mov     eax, 0x1000
        mov     cr3, eax
        mov     eax, cr4
        or      eax, byte 0x20          ; PAE
        mov     cr4, eax
        mov     ecx, 0xC0000080         ; EFER: long mode, syscall
        rdmsr
        or      eax, strict dword 0x101
        wrmsr
        mov     eax, cr0
        or      eax, 0x80000001         ; paging
        mov     cr0, eax
        jmp     dword 0x18:ROM + long_mode

        bits    64
long_mode:
        letter  'C'
        mov     rax, strict qword HIGH + ROM + high
        jmp     rax
high:
        letter  'D'

        ; One interrupt gate, for vector 3.
        mov     rdi, HIGH + IDT
        mov     rax, strict qword HIGH + ROM + breakpoint
        mov     [rdi + 3 * 16], ax
        mov     word [rdi + 3 * 16 + 2], 0x18
        mov     word [rdi + 3 * 16 + 4], 0x8E00
        shr     rax, 16
        mov     [rdi + 3 * 16 + 6], ax
        shr     rax, 16
        mov     [rdi + 3 * 16 + 8], eax
        mov     word [rdi + 0x100], 0xFF
        mov     [rdi + 0x102], rdi
        lidt    [rdi + 0x100]
        mov     rsp, HIGH + STACK
        mov     ebx, 0x1234
        int3
        cmp     rbx, 0x4321
        jne     failed
        letter  'E'

        cli
        pushfq
        pop     rax
        test    eax, 0x200
        jnz     failed
        sti
        pushfq
        pop     rax
        test    eax, 0x200
        jz      failed
        cli
        letter  'F'

        mov     ax, cs
        test    al, 3
        jnz     failed
        mov     ecx, 0xC0000101         ; GS base
        mov     eax, 0x5000
        mov     edx, 0
        wrmsr
        swapgs
        swapgs
        rdmsr
        cmp     eax, 0x5000
        jne     failed
        letter  'G'
        mov     al, 0x10
        out     EXIT, al
failed:
        letter  '!'
        mov     al, 0x11
        out     EXIT, al
halt:   hlt
        jmp     halt

breakpoint:
        mov     ebx, 0x4321
        iretq

gdt:    dq      0
        dq      0x00CF9A000000FFFF      ; 0x08 code, 32 bits
        dq      0x00CF92000000FFFF      ; 0x10 data
        dq      0x00AF9A000000FFFF      ; 0x18 code, 64 bits
gdt_pointer:
        dw      gdt_pointer - gdt - 1
        dw      gdt - $$                ; the low half of ROM + gdt
        db      ROM >> 16
