"""Arm64: the architecture and its CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pfnmap import Has, Level, MmuCpu, WordFormat, hookimpl
from pfnmap.kconfig import fragment
from pfnmap_arm64.bits import (
    MASK64,
    MEMORY_TYPES,
    PTE_AF,
    PTE_ATTRINDX_MASK,
    PTE_RDONLY,
    PTE_TABLE_BIT,
    PTE_USER,
    PTE_VALID,
    PTE_WRITE,
)
from pfnmap_arm64.pgtable import Pgtable

__all__ = ["Arm64"]


class Arm64(Pgtable):
    """The architecture. Not modelled, taken as absent: Enhanced PAN, BTI, MTE, permission overlays, GCS."""

    name: ClassVar[str] = "arm64"
    aliases: ClassVar[tuple[str, ...]] = ("aarch64",)
    config_symbol: ClassVar[str] = "ARM64"
    release_suffixes: ClassVar[Mapping[str, str]] = {"16k": "16K", "64k": "64K", "64kb": "64K"}
    """Flavours of Debian, Fedora, RHEL, SUSE and Ubuntu."""

    cpu_defaults: ClassVar[Mapping[str, object]] = {
        "va_bits": 0,
        "lpa2": False,
        "hw_access_dirty": True,
        "s2fwb": True,
        "cache_dic": True,
    }
    """`va_bits`: 39, 48, 52, ...; 0 is what the configuration says or, where that is 52, what a CPU boots
    with: 52 with `lpa2`, else 48 (16K pages: 47). With 64K pages 52 needs FEAT_LVA, not LPA2: ask for it.
    `lpa2`: the CPU has LPA2 at this page size; without effect where the kernel has no ARM64_LPA2.
    `hw_access_dirty`: the CPU sets the access flag and the dirty state itself.
    `s2fwb`, `cache_dic`: FEAT_S2FWB and CTR_EL0.DIC, without which KVM maps no cacheable device memory."""

    expected_failures: ClassVar[Mapping[str, str]] = {
        "format-leaf-read:pud@*64K*": "pud_table() is always true with 64K pages, so that no PUD is a leaf",
    }
    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "4K 39 bits": {"given": {"ARM64_VA_BITS": "39"}},
        "16K 36 bits": {"page_size": "16K", "given": {"EXPERT": "y", "ARM64_VA_BITS": "36"}},
        "16K 52 bits, LPA2": {"page_size": "16K", "cpu": {"lpa2": True}},
        "16K 47 bits": {"page_size": "16K", "given": {"ARM64_VA_BITS": "47"}},
        "64K 48 bits": {"page_size": "64K", "given": {"ARM64_VA_BITS": "48"}},
        "64K 42 bits": {"page_size": "64K", "given": {"ARM64_VA_BITS": "42"}},
        "64K 52 bits": {"page_size": "64K", "given": {"ARM64_PA_BITS": "52"}, "cpu": {"va_bits": 52}},
        "6.1.192": {"release": "6.1.192"},
        "4K 39 bits hw_access_dirty=off": {"given": {"ARM64_VA_BITS": "39"}, "cpu": {"hw_access_dirty": False}},
        "64K 42 bits hw_access_dirty=off": {
            "page_size": "64K",
            "given": {"ARM64_VA_BITS": "42"},
            "cpu": {"hw_access_dirty": False},
        },
    }

    mmu_cpu = MmuCpu("pfnmap_arm64.emulated_cpu:Aarch64", {"lpa2": False, "hw_access_dirty": False})

    def word_format(self, level: Level) -> WordFormat:
        """See `pfnmap.Arch.word_format`. Source: the Arm architecture's manual (DDI 0487), "VMSAv8-64 descriptors".

        Bit 0: valid; bit 1: table (at the last level always set, a page). An address is in bits 47 to the size of what
        is mapped; with 52 bits its top is in 15:12 (64K pages) or, under LPA2, in 9:8, and then 49:48 belong to it too.
        """
        geometry = self.geometry
        shift = next(walked.shift for walked in geometry.walk if walked.name == level)
        top = 50 if self._lpa2 else 48
        high: tuple[tuple[int, int], ...] = ()
        if self._lpa2:
            high = ((0x3 << 8, 42),)
        elif geometry.PAGE_SHIFT == 16 and self._pa_52:
            high = ((0xF << 12, 36),)
        low, pages = (1 << top) - (1 << shift), (1 << top) - (1 << geometry.PAGE_SHIFT)
        return WordFormat(
            valid=(3, 3) if level == "pte" else (1, 1),
            table=None if level == "pte" else (2, 2),
            address=((low, 0), *high),
            next_table=((pages, 0), *high),
            load=(1 << 6, 1 << 6),  # AP[1]: EL0 too
            execute=(1 << 54, 0),  # UXN: no execution at EL0
            store=(3 << 6, 1 << 6),  # AP[2]: read-only
            uncached=(7 << 2, 3 << 2),  # AttrIndx 3, which Linux sets to Device-nGnRnE
            combining=(7 << 2, 2 << 2),  # AttrIndx 2: Normal Non-cacheable
            software=0xF << 55,
            marks=1 << 51 | 1 << 10,  # DBM: a store takes AP[2] away; AF
        )

    def cache_mode(self, level: Level, leaf: int) -> str | None:
        """See `pfnmap.Arch.cache_mode`: the MT_ name of the index into MAIR_EL1 (asm/memory.h of 6.12)."""
        return MEMORY_TYPES.get((leaf & PTE_ATTRINDX_MASK) >> 2)

    @hookimpl
    def kconfig(self, has: Has) -> str:
        return fragment(__package__, has)

    def mmu_access(self, level: Level, entry: int, write: bool) -> tuple[int, bool]:
        """Walk as EL0 does. A refused access leaves the entry alone (inference: a CPU may have set AF).

        Recordings of a Cortex-A72 (no hardware flags) and of a Neoverse-N1 (with them) show the values.
        """
        needed = PTE_USER | PTE_VALID | (PTE_TABLE_BIT if level == "pte" else 0)  # which makes a page of the last level
        if entry & needed != needed:
            return entry, False
        if self._hw_access_dirty:
            entry_after = entry | PTE_AF
            if write and entry & PTE_WRITE:
                entry_after &= MASK64 ^ PTE_RDONLY
        else:
            entry_after = entry
        allowed = bool(entry_after & PTE_AF) and not (write and entry_after & PTE_RDONLY)
        return (entry_after if allowed else entry), allowed

    def copy_tries_again(self, address: int, length: int, done: int, write: bool) -> bool:
        """See `pfnmap.Arch.copy_tries_again`: one byte is tried if nothing could be copied, unless a byte was what
        failed (arch/arm64/lib/copy_template.S, which first aligns a source of 16 bytes and more;
        `unpinned.buffer.*.off.*`)."""
        byte_first = length == 1 or (length >= 16 and not write and bool(address & 1))
        return not done and not byte_first

    def arch_wants_old_prefaulted_pte(self) -> bool:
        """See `pfnmap.Arch.arch_wants_old_prefaulted_pte`: where the CPU sets the access flag."""
        return self._hw_access_dirty
