"""Page sizes and levels (arch/loongarch/include/asm/pgtable.h and processor.h of 6.12).

A kernel is built for one page size and for two to four levels; tables have a page each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pfnmap import BadInput, Geometry, Level, WalkLevel

__all__ = ["geometry", "page_shift"]

_PAGE_SIZES: Final = {"PAGE_SIZE_4KB": 12, "PAGE_SIZE_16KB": 14, "PAGE_SIZE_64KB": 16}
_WALKED: Final[Mapping[int, tuple[Level, ...]]] = {
    2: ("pgd", "pte"),
    3: ("pgd", "pmd", "pte"),
    4: ("pgd", "pud", "pmd", "pte"),
}
_CPU_VABITS: Final = 48
"""Virtual address bits of user space that the CPU has: those of the 3A5000 and 3A6000 (cpu_vabits)."""


def page_shift(config: Mapping[str, str]) -> int:
    """Return PAGE_SHIFT (bits); a release from before that symbol says it with the page size alone."""
    if shift := config.get("PAGE_SHIFT"):
        return int(shift)
    return next(shift for symbol, shift in _PAGE_SIZES.items() if config.get(symbol) == "y")


def geometry(config: Mapping[str, str]) -> Geometry:
    """Return the geometry of a configuration. Raises BadInput for a number of levels that no layout has."""
    page, levels = page_shift(config), int(config["PGTABLE_LEVELS"])
    if levels not in _WALKED:
        raise BadInput("PGTABLE_LEVELS", f"{levels} is none of 2, 3, 4")
    bits = page - 3
    pgdir = page + (levels - 1) * bits
    pmd = page + bits
    pud = pmd + bits if levels == 4 else pgdir
    shifts = {"pgd": pgdir, "pud": pud, "pmd": pmd, "pte": page}
    return Geometry(
        PAGE_SHIFT=page,
        PMD_SHIFT=pmd,
        PUD_SHIFT=pud,
        P4D_SHIFT=pgdir,
        PGDIR_SHIFT=pgdir,
        PTRS_PER_PTE=1 << bits,
        PTRS_PER_PMD=1 << bits if levels > 2 else 1,
        PTRS_PER_PUD=1 << bits if levels > 3 else 1,
        PTRS_PER_P4D=1,
        PTRS_PER_PGD=1 << bits,
        walk=tuple(WalkLevel(name, shifts[name], 1 << bits) for name in _WALKED[levels]),
        task_size=1 << min(pgdir + bits, _CPU_VABITS),
    )
