"""The emulated CPU whose MMU judges the tables of this architecture; unicorn's, written from the CPU's manual."""

from __future__ import annotations

import struct
from typing import ClassVar

from unicorn import arm64_const as arm64
from unicorn import unicorn_const as unicorn

from pfnmap import Geometry, Refused
from pfnmap.testing.unicorn_cpu import JUMP, LOAD, OWN_TABLES, PAGE, STORE, UnicornCpu

__all__ = ["Aarch64"]


class Aarch64(UnicornCpu):
    """A CPU with all that unicorn has: 4K, 16K and 64K pages, addresses of 48 bits. It sets no access flag.

    The program is in the kernel's half (TTBR1), with 4K pages whatever the tables under judgement have.
    """

    physical_bits = 48
    MACHINE = (unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM, arm64.UC_CPU_ARM64_MAX)
    ADDRESS = arm64.UC_ARM64_REG_X0
    VALUE = arm64.UC_ARM64_REG_X1
    SNIPPETS: ClassVar = {
        LOAD: struct.pack("<I", 0xF9400001),  # ldr x1, [x0]
        STORE: struct.pack("<I", 0xF9000001),  # str x1, [x0]
        JUMP: struct.pack("<I", 0xD61F0000),  # br x0
    }
    TRAP = (2, struct.pack("<I", 0xD4000001))  # svc #0
    FAULTS = frozenset({3, 4})  # prefetch abort, data abort

    _KERNEL_BITS = 39  # three levels of 4K tables
    _GRANULE: ClassVar = {12: 0b00, 14: 0b10, 16: 0b01}  # TCR_EL1.TG0
    _SCR_EL3, _HCR_EL2 = (1, 1, 3, 6, 0), (1, 1, 3, 4, 0)  # CRn, CRm, op0, op1, op2
    _SCTLR_EL1, _MAIR_EL1, _TCR_EL1 = (1, 0, 3, 0, 0), (10, 2, 3, 0, 0), (2, 0, 3, 0, 2)
    _TTBR0_EL1, _TTBR1_EL1 = (2, 0, 3, 0, 0), (2, 0, 3, 0, 1)

    def enter_user_mode(self, geometry: Geometry, root: int) -> int:
        bits = (geometry.task_size - 1).bit_length()
        if bits > 48:
            raise Refused(f"{bits} bits of virtual addresses", "unicorn's aarch64 has 48")
        kernel_root = OWN_TABLES + 4 * PAGE
        # Page: access flag, inner shareable, read-only for all.
        self.map_program(kernel_root, 0, 3, 0x3, 0x7C3, 0)
        user_half = (64 - bits) | 1 << 8 | 1 << 10 | 3 << 12 | self._GRANULE[geometry.PAGE_SHIFT] << 14
        kernel_half = (64 - self._KERNEL_BITS) << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 0b10 << 30  # TG1: 4K
        registers = {
            self._SCR_EL3: 1 << 10 | 1,  # RW, NS: the levels below are 64-bit and not secure
            self._HCR_EL2: 1 << 31,  # RW: EL1 is 64-bit; without it the MMU reads the tables of 32-bit Arm
            self._MAIR_EL1: 0,  # every memory type alike: the emulated CPU has no caches
            self._TCR_EL1: user_half | kernel_half | 0b101 << 32,  # IPS: 48 bits
            self._TTBR0_EL1: root,
            self._TTBR1_EL1: kernel_root,
            self._SCTLR_EL1: 0xC50838 | 1,  # its value at reset, and M: the MMU is on
        }
        self.uc.reg_write(arm64.UC_ARM64_REG_PSTATE, 0)  # EL0
        for register, value in registers.items():
            self.uc.reg_write(arm64.UC_ARM64_REG_CP_REG, (*register, value))
        return -(1 << self._KERNEL_BITS) & ((1 << 64) - 1)
