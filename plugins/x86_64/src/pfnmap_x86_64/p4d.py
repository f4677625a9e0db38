"""Operations on P4D and PGD entries, of 4 and 5 levels. Source: Linux 6.12, arch/x86/include/asm/{pgtable.h,
pgtable_64.h, pgalloc.h} and arch/x86/mm/pti.c.

With 4 levels the P4D is the PGD's slot: its ops do the work, those of the PGD answer as a folded level does.
"""

from __future__ import annotations

from pfnmap import Entry, hookimpl

from .bits import ACCESSED, BIT_PRESENT, DIRTY, PAGE_SHIFT, USER, bit, clear, zero
from .boot import X86Boot

__all__ = ["UpperOps"]


class UpperOps(X86Boot):
    """The p4d_ and pgd_ ops."""

    def p4d_pfn(self, p4d: Entry) -> Entry:
        """Return the page frame number of the PUD table that a P4D entry points to."""
        return (p4d & self.pfn_mask) >> PAGE_SHIFT

    def p4d_pgtable(self, p4d: Entry) -> Entry:
        """Return the physical address (bytes) of the PUD table that a P4D entry points to."""
        return p4d & self.pfn_mask

    @hookimpl
    def p4d_populate(self, pa: Entry) -> Entry:
        return pa | (self.pgd_page_table if self.levels == 4 else self.page_table)

    @hookimpl
    def p4d_present(self, p4d: Entry) -> Entry:
        return bit(p4d, BIT_PRESENT)

    @hookimpl
    def p4d_none(self, p4d: Entry) -> Entry:
        return zero(clear(p4d, ACCESSED | DIRTY))

    @hookimpl
    def p4d_bad(self, p4d: Entry) -> Entry:
        return 1 ^ zero(clear(clear(p4d, self.pfn_mask), self.kernpg_table | USER | self.top_ignored))

    @hookimpl
    def p4d_leaf(self, p4d: Entry) -> Entry:
        return p4d & 0

    def pgd_pfn(self, pgd: Entry) -> Entry:
        """Return the page frame number of the P4D table that a PGD entry points to."""
        return (pgd & self.pfn_mask) >> PAGE_SHIFT

    def pgd_pgtable(self, pgd: Entry) -> Entry:
        """Return the physical address (bytes) of the P4D table that a PGD entry points to."""
        return pgd & self.pfn_mask

    @hookimpl
    def pgd_populate(self, pa: Entry) -> Entry:
        return pa | self.pgd_page_table if self.levels == 5 else pa & 0

    @hookimpl
    def pgd_present(self, pgd: Entry) -> Entry:
        return bit(pgd, BIT_PRESENT) if self.levels == 5 else (pgd & 0) | 1

    @hookimpl
    def pgd_none(self, pgd: Entry) -> Entry:
        return zero(pgd) if self.levels == 5 else pgd & 0

    @hookimpl
    def pgd_bad(self, pgd: Entry) -> Entry:
        if self.levels == 4:
            return pgd & 0
        return 1 ^ zero(clear(clear(pgd, self.pfn_mask), USER | self.top_ignored) ^ self.kernpg_table)

    @hookimpl
    def pgd_leaf(self, pgd: Entry) -> Entry:
        return pgd & 0
