"""What configuration and CPU make of one boot: page size, MMU, the sizes of the levels.

One kernel image runs on either MMU; which one decides the index sizes, and so the sizes of leaves, when the kernel
boots. Read from arch/powerpc/include/asm/book3s/64/{hash,radix}-{4k,64k}.h, hash.h, radix.h, pgtable.h, task_size_64.h,
arch/powerpc/mm/book3s64/hash_utils.c (hash__early_init_mmu) and radix_pgtable.c (radix__early_init_mmu), 6.12.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pfnmap import BadInput, Geometry, WalkLevel
from pfnmap.records import dataclass

__all__ = ["Boot"]

_PAGE_SHIFTS: Final = {"PPC_4K_PAGES": 12, "PPC_64K_PAGES": 16}
_MMUS: Final = {"radix": "PPC_RADIX_MMU", "hash": "PPC_64S_HASH_MMU"}

_INDEX_SIZES: Final = {
    ("radix", 12): (9, 9, 9, 13),
    ("radix", 16): (5, 9, 9, 13),
    ("hash", 12): (9, 7, 9, 9),
    ("hash", 16): (8, 10, 10, 8),
}
"""Bits of the index into a PTE, PMD, PUD and PGD table."""

_TASK_SIZE: Final = {12: 1 << 46, 16: 1 << 52}
"""TASK_SIZE_USER64: 64 TiB, 4 PiB. What mmap gives without a hint ends lower with 64K pages, at 128 TiB."""


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of one build. `thp` and `hugetlb`: whether the build has transparent huge pages and hugetlbfs."""

    page_shift: int
    radix: bool
    thp: bool
    hugetlb: bool
    pte_table_size: int

    @classmethod
    def read(cls, config: Mapping[str, str], cpu: Mapping[str, Any]) -> Boot:
        """Return the boot of a resolved configuration on a CPU; raise BadInput where the two cannot be."""
        chosen = [shift for symbol, shift in _PAGE_SHIFTS.items() if config.get(symbol, "n") == "y"]
        if len(chosen) != 1:
            raise BadInput("config", f"exactly one of {', '.join(_PAGE_SHIFTS)} must be y")
        mmu = cpu["mmu"]
        if mmu == "auto":
            # early_init_mmu: disable_radix is what PPC_RADIX_MMU_DEFAULT says, and the CPU has both.
            radix = all(config.get(symbol, "n") == "y" for symbol in ("PPC_RADIX_MMU", "PPC_RADIX_MMU_DEFAULT"))
            mmu = "radix" if radix else "hash"
        if mmu not in _MMUS:
            raise BadInput("cpu mmu", f"{mmu!r} is none of auto, {', '.join(_MMUS)}")
        if config.get(_MMUS[mmu], "n") != "y":
            raise BadInput("cpu mmu", f"{mmu} in a kernel without {_MMUS[mmu]}")
        return cls(
            chosen[0],
            mmu == "radix",
            config.get("TRANSPARENT_HUGEPAGE", "n") == "y",
            config.get("HUGETLB_PAGE", "n") == "y",
            _table_size(cpu["pte_table_size"]),
        )

    @property
    def large_pages(self) -> bool:
        """Base pages have 64K."""
        return self.page_shift == 16

    @property
    def _index_sizes(self) -> tuple[int, int, int, int]:
        return _INDEX_SIZES["radix" if self.radix else "hash", self.page_shift]

    @property
    def hpteflags(self) -> int:
        """_PAGE_HPTEFLAGS: where hash notes that and where an entry is in the hash table. Radix leaves them alone."""
        busy = 1 << 6
        if self.large_pages:
            return busy | 1 << 55 | 1 << 12  # H_PAGE_BUSY, HASHPTE, COMBO
        return busy | 1 << 60 | 1 << 56 | 0b111 << 53  # H_PAGE_BUSY, HASHPTE, F_SECOND, F_GIX

    @property
    def thp_huge(self) -> int:
        """H_PAGE_THP_HUGE: marks hash's transparent huge pages, of which there are none with 4K pages."""
        return 1 << 13 if self.large_pages else 0

    @property
    def table_bits(self) -> tuple[int, int, int]:
        """PMD_VAL_BITS, PUD_VAL_BITS, PGD_VAL_BITS: what a table's entry has besides the address. Radix notes the index
        size of the table."""
        valid = 1 << 63
        if not self.radix:
            return valid, valid, valid
        pte, pmd, pud, _ = self._index_sizes
        return valid | pte, valid | pmd, valid | pud

    @property
    def bad_bits(self) -> tuple[int, int]:
        """RADIX_PMD_BAD_BITS and RADIX_PUD_BAD_BITS, or hash's: the size of the table below, less one."""
        if self.radix:
            return 0x6000_0000_0000_00E0, 0x6000_0000_0000_00E0
        pte, pmd, _, _ = self._index_sizes
        # With 64K pages a second half of a table keeps slots of the hash table, a PMD table's for huge pages only.
        second_half = (self.large_pages, self.large_pages and (self.thp or self.hugetlb))
        pte_table_size = self.pte_table_size or 8 << pte << second_half[0]
        return pte_table_size - 1, (8 << pmd << second_half[1]) - 1

    def geometry(self) -> Geometry:
        """Return the constants and the levels of this boot; asm-generic/pgtable-nop4d.h folds the P4D into the PGD."""
        pte, pmd, pud, pgd = self._index_sizes
        pmd_shift = self.page_shift + pte
        pud_shift = pmd_shift + pmd
        pgdir_shift = pud_shift + pud
        return Geometry(
            PAGE_SHIFT=self.page_shift,
            PMD_SHIFT=pmd_shift,
            PUD_SHIFT=pud_shift,
            P4D_SHIFT=pgdir_shift,
            PGDIR_SHIFT=pgdir_shift,
            PTRS_PER_PTE=1 << pte,
            PTRS_PER_PMD=1 << pmd,
            PTRS_PER_PUD=1 << pud,
            PTRS_PER_P4D=1,
            PTRS_PER_PGD=1 << pgd,
            walk=(
                WalkLevel("pgd", pgdir_shift, 1 << pgd),
                WalkLevel("pud", pud_shift, 1 << pud),
                WalkLevel("pmd", pmd_shift, 1 << pmd),
                WalkLevel("pte", self.page_shift, 1 << pte),
            ),
            task_size=_TASK_SIZE[self.page_shift],
        )


def _table_size(size: int) -> int:
    if size < 0 or size & (size - 1):
        raise BadInput("cpu pte_table_size", f"{size} is no power of two")
    return size
