"""Operations on PUD entries. Source: Linux 6.12 and 6.1, arch/x86/include/asm/{pgtable.h, pgalloc.h}."""

from __future__ import annotations

from pfnmap import Entry, hookimpl

from .bits import (
    ACCESSED,
    BIT_ACCESSED,
    BIT_PRESENT,
    BIT_PSE,
    BIT_RW,
    BIT_SPECIAL,
    DIRTY,
    PAGE_SHIFT,
    PSE,
    SPECIAL,
    USER,
    bit,
    clear,
    protnone_mask,
    zero,
)
from .boot import X86Boot

__all__ = ["PudOps"]


class PudOps(X86Boot):
    """The pud_ ops. There is no pud_mkwrite_novma, and shadow stacks have no PUD leaves to write."""

    def pud_pfn_mask(self, pud: Entry) -> Entry:
        """Return the address bits of a PUD entry: a leaf has fewer than a table entry."""
        return self.pfn_mask ^ (bit(pud, BIT_PSE) * (self.pfn_mask ^ self.pud_page_mask))

    def pfn_pud(self, pfn: Entry, prot: Entry) -> Entry:
        """Return the PUD entry for `pfn` with `prot`."""
        return self.pfn_entry(pfn, prot, self.pud_page_mask)

    @hookimpl
    def pud_pfn(self, pud: Entry) -> Entry:
        return ((pud ^ protnone_mask(pud)) & self.pud_pfn_mask(pud)) >> PAGE_SHIFT

    @hookimpl
    def pud_pgprot(self, pud: Entry) -> Entry:
        return clear(pud, self.pud_pfn_mask(pud))

    def pud_pgtable(self, pud: Entry) -> Entry:
        return pud & self.pud_pfn_mask(pud)

    def pud_populate(self, pa: Entry) -> Entry:
        return pa | self.page_table

    def pud_present(self, pud: Entry) -> Entry:
        # Unlike at the other levels, a PROT_NONE leaf is not present here.
        return bit(pud, BIT_PRESENT)

    def pud_none(self, pud: Entry) -> Entry:
        return zero(clear(pud, ACCESSED | DIRTY))

    def pud_leaf(self, pud: Entry) -> Entry:
        # Before 6.12 (inference: with huge pfnmaps, which need it so) a leaf that is not present was none.
        return bit(pud, BIT_PSE) & (bit(pud, BIT_PRESENT) | (1 ^ self.pud_leaf_present))

    def pud_bad(self, pud: Entry) -> Entry:
        return 1 ^ zero(clear(clear(pud, self.pud_pfn_mask(pud)), self.kernpg_table | USER))

    @hookimpl
    def pud_trans_huge(self, pud: Entry) -> Entry:
        return bit(pud, BIT_PSE) & zero(pud & self.devmap)

    @hookimpl
    def pud_write(self, pud: Entry) -> Entry:
        return bit(pud, BIT_RW)

    def pud_dirty(self, pud: Entry) -> Entry:
        """Return 1 where the PUD leaf is dirty or saved dirty."""
        return self.is_dirty(pud)

    def pud_young(self, pud: Entry) -> Entry:
        """Return 1 where the PUD leaf was accessed."""
        return bit(pud, BIT_ACCESSED)

    @hookimpl
    def pud_special(self, pud: Entry) -> Entry:
        return bit(pud, BIT_SPECIAL)

    @hookimpl
    def pud_devmap(self, pud: Entry) -> Entry:
        return 1 ^ zero(pud & self.devmap)

    @hookimpl
    def pud_access_permitted(self, pud: Entry, write: int) -> Entry:
        return self.is_permitted(pud, write)

    def pud_mkhuge(self, pud: Entry) -> Entry:
        """Return the PUD entry made a leaf."""
        return pud | PSE

    @hookimpl
    def pud_mkspecial(self, pud: Entry) -> Entry:
        return pud | SPECIAL

    def pud_mkdevmap(self, pud: Entry) -> Entry:
        """Return the PUD leaf made devmap."""
        return pud | self.devmap

    def pud_mkwrite(self, pud: Entry) -> Entry:
        """Return the PUD leaf made writable, saved dirty moved back to dirty."""
        return self.mkwrite(pud)

    def pud_wrprotect(self, pud: Entry) -> Entry:
        """Return the PUD leaf made read-only, dirty moved to saved dirty."""
        return self.wrprotect(pud)

    def pud_mkdirty(self, pud: Entry) -> Entry:
        """Return the PUD leaf made dirty; saved dirty if it is read-only."""
        return self.mkdirty(pud)

    def pud_mkclean(self, pud: Entry) -> Entry:
        """Return the PUD leaf made clean."""
        return clear(pud, self.dirty_bits)

    def pud_mkyoung(self, pud: Entry) -> Entry:
        """Return the PUD leaf made accessed."""
        return pud | ACCESSED

    def pud_mkold(self, pud: Entry) -> Entry:
        """Return the PUD leaf made not accessed."""
        return clear(pud, ACCESSED)

    def pud_modify(self, pud: Entry, newprot: Entry) -> Entry:
        """Return the PUD leaf with the protection of `newprot`."""
        return self.modify(pud, newprot, self.hpage_chg_mask, self.hpage_chg_mask, self.pud_page_mask)
