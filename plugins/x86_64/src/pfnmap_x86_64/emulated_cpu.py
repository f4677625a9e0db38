"""The emulated CPU whose MMU judges the tables of this architecture; unicorn's, written from the CPU's manual."""

from __future__ import annotations

from typing import ClassVar

from unicorn import unicorn_const as unicorn
from unicorn import x86_const as x86

from pfnmap import Geometry, Refused
from pfnmap.testing.unicorn_cpu import JUMP, LOAD, START, STORE, UnicornCpu

__all__ = ["X86_64"]


class X86_64(UnicornCpu):
    """An Ice Lake server. Words of 4 and of 5 levels; physical addresses of 40 bits, as of every model in unicorn."""

    physical_bits = 40
    MACHINE = (unicorn.UC_ARCH_X86, unicorn.UC_MODE_64, x86.UC_CPU_X86_ICELAKE_SERVER)
    ADDRESS = x86.UC_X86_REG_RAX
    VALUE = x86.UC_X86_REG_RCX
    SNIPPETS: ClassVar = {
        LOAD: bytes.fromhex("488b08"),  # mov (%rax), %rcx
        STORE: bytes.fromhex("488908"),  # mov %rcx, (%rax)
        JUMP: bytes.fromhex("ffe0"),  # jmp *%rax
        START: bytes.fromhex("480f07"),  # sysretq
    }
    TRAP = (3, bytes.fromhex("cc"))  # int3
    FAULTS = frozenset({14})  # #PF

    def enter_user_mode(self, geometry: Geometry, root: int) -> int:
        top = geometry.walk[0]
        # Present, writable and user at every level: the program itself begins with the kernel's privileges.
        self.map_program(root, top.ptrs - 1, len(geometry.walk), 0x7, 0x7, 0)
        program = -(1 << top.shift) & ((1 << 64) - 1)
        uc = self.uc
        uc.reg_write(x86.UC_X86_REG_CR3, root)
        la57 = 1 << 12 if len(geometry.walk) == 5 else 0
        uc.reg_write(x86.UC_X86_REG_CR4, uc.reg_read(x86.UC_X86_REG_CR4) | 1 << 5 | la57)  # PAE
        uc.msr_write(0xC0000080, 0xD01)  # EFER: NXE, LMA, LME, SCE
        uc.msr_write(0xC0000081, 0x23 << 48)  # STAR: user segments
        uc.reg_write(x86.UC_X86_REG_CR0, 0x80010001)  # PG, WP, PE
        uc.reg_write(x86.UC_X86_REG_RCX, program + LOAD)
        uc.reg_write(x86.UC_X86_REG_R11, 0x2)
        self.emulate(program + START, program + LOAD)
        if uc.reg_read(x86.UC_X86_REG_CS) & 3 != 3:
            raise Refused("sysretq", "the emulated CPU did not enter user mode")
        return program
