"""The emulated CPU whose MMU judges the tables of this architecture; unicorn's, written from the CPU's manual."""

from __future__ import annotations

import struct
from typing import ClassVar

from unicorn import riscv_const as riscv
from unicorn import unicorn_const as unicorn

from pfnmap import Geometry
from pfnmap.testing.unicorn_cpu import JUMP, LOAD, STORE, UnicornCpu

__all__ = ["Riscv64"]


class Riscv64(UnicornCpu):
    """A SiFive U54, and more than that chip: Sv39, Sv48 and Sv57. It sets accessed and dirty, and has no Svpbmt."""

    physical_bits = 56
    MACHINE = (unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64, riscv.UC_CPU_RISCV64_SIFIVE_U54)
    ADDRESS = riscv.UC_RISCV_REG_A0
    VALUE = riscv.UC_RISCV_REG_A1
    SNIPPETS: ClassVar = {
        LOAD: struct.pack("<I", 0x00053583),  # ld a1, 0(a0)
        STORE: struct.pack("<I", 0x00B53023),  # sd a1, 0(a0)
        JUMP: struct.pack("<I", 0x00050067),  # jr a0
    }
    TRAP = (8, struct.pack("<I", 0x00000073))  # ecall
    FAULTS = frozenset({12, 13, 15})  # instruction, load, store page fault

    def enter_user_mode(self, geometry: Geometry, root: int) -> int:
        top, levels = geometry.walk[0], len(geometry.walk)
        # V; and V, R, X, U, A for the page.
        self.map_program(root, top.ptrs - 1, levels, 0x01, 0x5B, -2)
        self.uc.reg_write(riscv.UC_RISCV_REG_SATP, (levels + 5) << 60 | root >> 12)
        self.uc.reg_write(riscv.UC_RISCV_REG_PRIV, 0)
        return -(1 << top.shift) & ((1 << 64) - 1)
