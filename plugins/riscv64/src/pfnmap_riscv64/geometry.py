"""The geometry of Sv39, Sv48 and Sv57: constants of the running kernel, and the levels that are walked.

Read from arch/riscv/include/asm/pgtable-64.h (shifts by pgtable_l4_enabled and pgtable_l5_enabled) and pgtable.h
(TASK_SIZE_64), arch/riscv/mm/init.c (set_satp_mode). One kernel image runs in each mode: what is folded is settled at
boot, and a folded level keeps 512 entries in its macros.
"""

from __future__ import annotations

from typing import Final

from pfnmap import BadInput, Geometry, Level, WalkLevel

__all__ = ["PAGE_OFFSET", "geometry", "levels", "linear_map"]

_WALKED: Final[dict[str, tuple[Level, ...]]] = {
    "sv39": ("pgd", "pmd", "pte"),
    "sv48": ("pgd", "pud", "pmd", "pte"),
    "sv57": ("pgd", "p4d", "pud", "pmd", "pte"),
}
PAGE_OFFSET: Final = {3: 0xFFFF_FFD6_0000_0000, 4: 0xFFFF_AF80_0000_0000, 5: 0xFF60_0000_0000_0000}
"""Levels walked -> PAGE_OFFSET_L3, _L4, _L5: where the linear map begins. The `bits` of the vector files have all."""

_PAGE_SHIFT: Final = 12
_BITS: Final = 9


def levels(mode: object) -> int:
    """Return how many levels a mode walks; raise BadInput where there is no such mode."""
    if mode not in _WALKED:
        raise BadInput("cpu mode", f"{mode!r} is none of {', '.join(_WALKED)}")
    return len(_WALKED[str(mode)])


def linear_map(geometry: Geometry) -> int:
    """Return KERN_VIRT_SIZE (bytes), what the linear map reaches: a quarter of the top table, 128G with Sv39.

    setup_bootmem (arch/riscv/mm/init.c) takes RAM beyond it out of use.
    """
    return (geometry.PTRS_PER_PGD // 4) << geometry.PGDIR_SHIFT


def geometry(mode: str) -> Geometry:
    """Return the geometry of a boot in ``sv39``, ``sv48`` or ``sv57``."""
    names = _WALKED[mode]
    walk = tuple(
        WalkLevel(name, _PAGE_SHIFT + _BITS * below, 1 << _BITS)
        for name, below in zip(names, reversed(range(len(names))), strict=True)
    )
    top = walk[0].shift
    return Geometry(
        PAGE_SHIFT=_PAGE_SHIFT,
        PMD_SHIFT=21,
        PUD_SHIFT=30,
        P4D_SHIFT=min(39, top),
        PGDIR_SHIFT=top,
        PTRS_PER_PTE=512,
        PTRS_PER_PMD=512,
        PTRS_PER_PUD=512,
        PTRS_PER_P4D=512,
        PTRS_PER_PGD=512,
        walk=walk,
        task_size=1 << (top + _BITS - 1),  # half of the top table
    )
