"""Operations on PMD entries. Source: Linux 6.12 and 6.1, arch/x86/include/asm/{pgtable.h, pgalloc.h} and
arch/x86/mm/pgtable.c."""

from __future__ import annotations

from typing import Final

from pfnmap import Entry, hookimpl

from .bits import (
    ACCESSED,
    ALL,
    BIT_ACCESSED,
    BIT_DIRTY,
    BIT_PRESENT,
    BIT_PROTNONE,
    BIT_PSE,
    BIT_RW,
    BIT_SPECIAL,
    DIRTY,
    PAGE_SHIFT,
    PSE,
    RW,
    SPECIAL,
    USER,
    VM_SHADOW_STACK,
    bit,
    clear,
    protnone_mask,
    zero,
)
from .boot import X86Boot

__all__ = ["PmdOps"]

_NOT_ACCESSED_DIRTY: Final = clear(ALL, ACCESSED | DIRTY)


class PmdOps(X86Boot):
    """The pmd_ ops."""

    def pmd_pfn_mask(self, pmd: Entry) -> Entry:
        """Return the address bits of a PMD entry: a leaf has fewer than a table entry."""
        return self.pfn_mask ^ (((pmd >> BIT_PSE) & 1) * (self.pfn_mask ^ self.pmd_page_mask))

    def pfn_pmd(self, pfn: Entry, prot: Entry) -> Entry:
        return self.pfn_entry(pfn, prot, self.pmd_page_mask)

    def pmd_pfn(self, pmd: Entry) -> Entry:
        return ((pmd ^ protnone_mask(pmd)) & self.pmd_pfn_mask(pmd)) >> PAGE_SHIFT

    @hookimpl
    def pmd_pgprot(self, pmd: Entry) -> Entry:
        return clear(pmd, self.pmd_pfn_mask(pmd))

    def pmd_pgtable(self, pmd: Entry) -> Entry:
        return pmd & self.pmd_pfn_mask(pmd)

    def pmd_populate(self, pa: Entry) -> Entry:
        return pa | self.page_table

    def pmd_present(self, pmd: Entry) -> Entry:
        # A leaf that is being split loses present for a moment, but not PSE.
        return ((pmd >> BIT_PRESENT) | (pmd >> BIT_PROTNONE) | (pmd >> BIT_PSE)) & 1

    def pmd_none(self, pmd: Entry) -> Entry:
        entry = pmd & _NOT_ACCESSED_DIRTY
        return (entry == 0) | (entry & 0)

    def pmd_leaf(self, pmd: Entry) -> Entry:
        return bit(pmd, BIT_PSE)

    def pmd_bad(self, pmd: Entry) -> Entry:
        flags = clear(clear(pmd, self.pmd_pfn_mask(pmd)), USER | ACCESSED)
        return 1 ^ zero(flags ^ clear(self.kernpg_table, ACCESSED))

    def pmd_trans_huge(self, pmd: Entry) -> Entry:
        return bit(pmd, BIT_PSE) & zero(pmd & self.devmap) & self.thp

    def pmd_write(self, pmd: Entry) -> Entry:
        return bit(pmd, BIT_RW) | (bit(pmd, BIT_DIRTY) & bit(pmd, BIT_PSE) & self.shstk)

    def pmd_dirty(self, pmd: Entry) -> Entry:
        return self.is_dirty(pmd)

    def pmd_young(self, pmd: Entry) -> Entry:
        return bit(pmd, BIT_ACCESSED)

    @hookimpl
    def pmd_special(self, pmd: Entry) -> Entry:
        return bit(pmd, BIT_SPECIAL)

    @hookimpl
    def pmd_devmap(self, pmd: Entry) -> Entry:
        return 1 ^ zero(pmd & self.devmap)

    @hookimpl
    def pmd_access_permitted(self, pmd: Entry, write: int) -> Entry:
        return self.is_permitted(pmd, write)

    def pmd_mkhuge(self, pmd: Entry) -> Entry:
        return pmd | PSE

    @hookimpl
    def pmd_mkspecial(self, pmd: Entry) -> Entry:
        return pmd | SPECIAL

    def pmd_mkdevmap(self, pmd: Entry) -> Entry:
        return pmd | self.devmap

    def pmd_mkwrite_novma(self, pmd: Entry) -> Entry:
        return pmd | RW

    @hookimpl
    def pmd_mkwrite(self, pmd: Entry, vm_flags: int) -> Entry:
        if self.shadow_stack_vmas and vm_flags & VM_SHADOW_STACK:
            return clear(pmd, RW) | DIRTY
        return self.mkwrite(pmd)

    def pmd_wrprotect(self, pmd: Entry) -> Entry:
        return self.wrprotect(pmd)

    def pmd_mkdirty(self, pmd: Entry) -> Entry:
        return self.mkdirty(pmd)

    def pmd_mkclean(self, pmd: Entry) -> Entry:
        return clear(pmd, self.dirty_bits)

    @hookimpl
    def pmd_mksoft_dirty(self, pmd: Entry) -> Entry:
        return pmd | self.soft_dirty

    @hookimpl
    def pmd_soft_dirty(self, pmd: Entry) -> Entry:
        return 1 ^ zero(pmd & self.soft_dirty)

    def pmd_mkyoung(self, pmd: Entry) -> Entry:
        return pmd | ACCESSED

    def pmd_mkold(self, pmd: Entry) -> Entry:
        return clear(pmd, ACCESSED)

    def pmd_modify(self, pmd: Entry, newprot: Entry) -> Entry:
        return self.modify(pmd, newprot, self.hpage_chg_mask, self.pmd_modify_mask, self.pmd_page_mask)
