"""Riscv64: the architecture and its CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pfnmap import Has, Level, MmuCpu, WordFormat, hookimpl
from pfnmap.contract.fault import SEGV_ACCERR
from pfnmap.contract.plan import LeafLevel
from pfnmap.kconfig import fragment
from pfnmap.vm_flags import VM_READ, VM_WRITE
from pfnmap_riscv64.bits import ACCESSED, DIRTY, PRESENT, READ, USER, WRITE
from pfnmap_riscv64.pgtable import Pgtable

__all__ = ["Riscv64"]


class Riscv64(Pgtable):
    """The architecture. Not modelled, taken as absent: Svnapot, shadow stacks, the memory types of T-Head CPUs."""

    name: ClassVar[str] = "riscv64"
    config_symbol: ClassVar[str] = "ARCH_RV64I"
    leaf_changes: Mapping[LeafLevel, tuple[str, ...]] = {
        "pmd": ("riscv-huge-pfnmap",),
        "pud": ("riscv-huge-pfnmap", "riscv-pud-thp"),
    }

    cpu_defaults: ClassVar[Mapping[str, object]] = {
        "mode": "sv48",
        "svpbmt": True,
        "svrsw60t59b": False,
        "hw_access_dirty": True,
    }
    """`mode`: sv39, sv48 or sv57, what the CPU has and satp is set to. `svpbmt`: memory types in entries.
    `svrsw60t59b`: bits 59 and 60 are software's, so that there is soft-dirty. `hw_access_dirty`: the CPU sets the
    accessed and dirty bits itself (Svadu); without, it faults (Svade)."""

    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sv39": {"cpu": {"mode": "sv39"}},
        "sv57": {"cpu": {"mode": "sv57"}},
        "sv39 svpbmt=off": {"cpu": {"mode": "sv39", "svpbmt": False}},
        "sv57 svpbmt=off": {"cpu": {"mode": "sv57", "svpbmt": False}},
        "soft dirty": {"given": {"MEM_SOFT_DIRTY": "y"}, "cpu": {"svrsw60t59b": True}},
        "6.1.192": {"release": "6.1.192"},
    }
    expected_failures: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("leaf-is-a-leaf:pud", "mm-protection:pud", "words-protection:pud"),
            "FINDINGS F17: PROT_NONE makes a PUD leaf an entry that is bad, not present and no leaf",
        ),
        "cache-modes@*svpbmt=off": "without Svpbmt an entry has no memory type",
    }

    mmu_cpu = MmuCpu(
        "pfnmap_riscv64.emulated_cpu:Riscv64", {"svpbmt": False, "svrsw60t59b": False, "hw_access_dirty": True}
    )

    def word_format(self, level: Level) -> WordFormat:
        """See `pfnmap.Arch.word_format`. Source: the privileged specification, "Sv39" and what follows it.

        Bit 0: valid; any of bits 3:1 (execute, write, read): maps memory; bit 4: user; bits 6 and 7: accessed and
        dirty; bits 9:8: for software, under Svrsw60t59b also 60:59. Address bits 55:12 are in 53:10; a large leaf with
        address bits below its size faults. Svpbmt's bits 62:61 are 2 for device memory, 1 for memory
        that is not cached. Bits that no extension
        of this CPU gives a meaning must be 0.
        """
        shift = next(walked.shift for walked in self.geometry.walk if walked.name == level)
        address, table = ((((1 << 56) - (1 << shift)) >> 2, 2),), (((1 << 54) - (1 << 10), 2),)
        return WordFormat(
            (1, 1),
            None if level == "pte" else (0xE, 0),
            address,
            table,
            load=(0x12, 0x12),
            execute=(0x18, 0x18),
            store=(0x16, 0x16),
            uncached=(3 << 61, 2 << 61) if self._mtmask else None,
            combining=(3 << 61, 1 << 61) if self._mtmask else None,
            software=3 << 8 | (3 << 59 if self._svrsw60t59b else 0),
            marks=3 << 6,
            reserved=1 << 63 | (0 if self._mtmask else 3 << 61) | (0 if self._svrsw60t59b else 3 << 59) | 0x1F << 54,
        )

    @hookimpl
    def kconfig(self, has: Has) -> str:
        return fragment(__package__, has)

    def mmu_access(self, level: Level, entry: int, write: bool) -> tuple[int, bool]:
        """Walk as user mode does, with sstatus.MXR clear. From the privileged specification.

        The kit's check ``mmu-access`` holds it to an emulated CPU that sets accessed and dirty; that one without faults
        on old and clean entries is inference.

        An entry that may be written and not read is reserved. A refused access changes nothing, since accessed and
        dirty are set after all checks. Reserved bits and misaligned large leaves, which fault too, are not looked at.
        """
        needed = PRESENT | USER | READ | (WRITE if write else 0)
        flags = ACCESSED | (DIRTY if write else 0)
        allowed = entry & needed == needed and (self._hw_access_dirty or entry & flags == flags)
        return (entry | flags if allowed else entry), allowed

    def access_error(self, vm_flags: int, write: bool) -> int:
        """Refuse as access_error in arch/riscv/mm/fault.c: write implies read, execute does not."""
        return 0 if vm_flags & (VM_WRITE if write else VM_READ | VM_WRITE) else SEGV_ACCERR
