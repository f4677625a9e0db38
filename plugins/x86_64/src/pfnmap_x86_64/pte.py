"""Operations on PTEs. Source: Linux 6.12 and 6.1, arch/x86/include/asm/pgtable.h and arch/x86/mm/pgtable.c."""

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
    BIT_RW,
    BIT_SPECIAL,
    DIRTY,
    PAGE_SHIFT,
    PSE,
    RW,
    SPECIAL,
    VM_SHADOW_STACK,
    bit,
    clear,
    protnone_mask,
    zero,
)
from .boot import X86Boot

__all__ = ["PteOps"]

_NOT_ACCESSED_DIRTY: Final = clear(ALL, ACCESSED | DIRTY)


class PteOps(X86Boot):
    """The pte_ ops."""

    def pfn_pte(self, pfn: Entry, prot: Entry) -> Entry:
        return self.pfn_entry(pfn, prot, self.pfn_mask)

    def pte_pfn(self, pte: Entry) -> Entry:
        return ((pte ^ protnone_mask(pte)) & self.pfn_mask) >> PAGE_SHIFT

    @hookimpl
    def pte_pgprot(self, pte: Entry) -> Entry:
        return clear(pte, self.pfn_mask)

    def pte_present(self, pte: Entry) -> Entry:
        return ((pte >> BIT_PRESENT) | (pte >> BIT_PROTNONE)) & 1

    def pte_none(self, pte: Entry) -> Entry:
        # A CPU erratum may leave accessed and dirty behind in an empty slot.
        entry = pte & _NOT_ACCESSED_DIRTY
        return (entry == 0) | (entry & 0)

    def pte_write(self, pte: Entry) -> Entry:
        return bit(pte, BIT_RW) | (bit(pte, BIT_DIRTY) & self.shstk)

    def pte_dirty(self, pte: Entry) -> Entry:
        return self.is_dirty(pte)

    def pte_young(self, pte: Entry) -> Entry:
        return bit(pte, BIT_ACCESSED)

    @hookimpl
    def pte_special(self, pte: Entry) -> Entry:
        return bit(pte, BIT_SPECIAL)

    @hookimpl
    def pte_devmap(self, pte: Entry) -> Entry:
        return 1 ^ zero(pte & self.devmap)

    @hookimpl
    def pte_access_permitted(self, pte: Entry, write: int) -> Entry:
        return self.is_permitted(pte, write)

    @hookimpl
    def pte_mkspecial(self, pte: Entry) -> Entry:
        return pte | SPECIAL

    def pte_mkdevmap(self, pte: Entry) -> Entry:
        return pte | SPECIAL | self.devmap

    def pte_mkhuge(self, pte: Entry) -> Entry:
        return pte | PSE

    def pte_mkwrite_novma(self, pte: Entry) -> Entry:
        return pte | RW

    @hookimpl
    def pte_mkwrite(self, pte: Entry, vm_flags: int) -> Entry:
        if self.shadow_stack_vmas and vm_flags & VM_SHADOW_STACK:
            return clear(pte, RW) | DIRTY
        return self.mkwrite(pte)

    def pte_wrprotect(self, pte: Entry) -> Entry:
        return self.wrprotect(pte)

    def pte_mkdirty(self, pte: Entry) -> Entry:
        return self.mkdirty(pte)

    def pte_mkclean(self, pte: Entry) -> Entry:
        return clear(pte, self.dirty_bits)

    @hookimpl
    def pte_mksoft_dirty(self, pte: Entry) -> Entry:
        return pte | self.soft_dirty

    @hookimpl
    def pte_soft_dirty(self, pte: Entry) -> Entry:
        return 1 ^ zero(pte & self.soft_dirty)

    @hookimpl
    def pte_clear_soft_dirty(self, pte: Entry) -> Entry:
        return clear(pte, self.soft_dirty)

    def pte_mkyoung(self, pte: Entry) -> Entry:
        return pte | ACCESSED

    def pte_mkold(self, pte: Entry) -> Entry:
        return clear(pte, ACCESSED)

    def pte_modify(self, pte: Entry, newprot: Entry) -> Entry:
        return self.modify(pte, newprot, self.chg_mask, self.chg_mask, self.pfn_mask)
