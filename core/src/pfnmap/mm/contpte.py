"""Contiguous PTEs (arch/arm64/mm/contpte.c): an aligned block of entries that map consecutive pages of one large folio
is marked as one translation. `min.mthp.inherit` of arm64 shows the mark; how it comes off is read.

Changing a part of a block takes the mark off all of it (unfolding); changing all of it alike leaves it. That entries
which have become alike again are marked once more (folding) is not modelled.
"""

from __future__ import annotations

from pfnmap.contract.slot import Table
from pfnmap.contract.vma import MmStruct
from pfnmap.errors import Refused

__all__ = ["contpte_fold", "contpte_unfold"]


def contpte_fold(mm: MmStruct, table: Table, first: int, count: int) -> None:
    """Mark the whole blocks among `count` entries that were just set to consecutive pages of a folio (set_ptes)."""
    block, cont = mm.kernel.arch.cont_ptes, mm.kernel.arch.PTE_CONT
    for start in range(-(-first // block) * block, first + count - block + 1, block) if cont else ():
        for n in range(start, start + block):
            table[n] |= cont


def contpte_unfold(mm: MmStruct, table: Table, first: int, count: int) -> None:
    """Take the mark off the blocks of which `count` entries from `first` on, about to be changed, are a part."""
    block, cont = mm.kernel.arch.cont_ptes, mm.kernel.arch.PTE_CONT
    if not cont or not count:
        return
    for start in {first - first % block, (first + count - 1) - (first + count - 1) % block}:
        if start >= first and start + block <= first + count:
            continue
        marked = [n for n in range(start, start + block) if table[n] & cont]
        if marked and start + block <= first + count:
            raise Refused("contpte", "whether a block whose end is changed is folded again")
        for n in marked:
            table[n] ^= cont
