"""The page-table entry helpers of powerpc64 (book3s) under their kernel names.

Read from arch/powerpc/include/asm/book3s/64/{pgtable,radix,hash,hash-4k,hash-64k,pgalloc}.h, asm/pgtable.h and
arch/powerpc/mm/book3s64/pgtable.c, all of 6.12. The vectors of 6.12.117 and 7.3.4 (radix, 64K pages) pin every helper
in their scope, and with them what 7.3 does otherwise; radix with 4K pages and hash are read from the source, not run.
Leaves have the same bits at every level, and most helpers of PMD and PUD are the PTE's, as in the kernel, whose macros
go through pmd_pte() and pud_pte().
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pfnmap import Arch, Entry, Has, Refused, hookimpl
from pfnmap.vm_flags import VM_ACCESS_FLAGS, VM_ARCH_1, VM_EXEC, VM_READ
from pfnmap_powerpc64.bits import (
    ACCESS_FLAGS,
    ACCESSED,
    CACHE_CTL,
    CHG_MASK,
    DEVMAP,
    DIRTY,
    LEAF,
    MASK64,
    NON_IDEMPOTENT,
    PA_MAX,
    PROTECTION_MAP,
    RW,
    SAO,
    SOFT_DIRTY,
    SPECIAL,
    TABLE_MASKED,
    TOLERANT,
    WRITE,
)
from pfnmap_powerpc64.boot import Boot

__all__ = ["Pgtable"]

_DEVMAP_OPS: Final = frozenset(f"{level}_{op}" for level in ("pte", "pmd", "pud") for op in ("devmap", "mkdevmap"))
_HUGE_SPECIAL_OPS: Final = frozenset(f"{level}_{op}" for level in ("pmd", "pud") for op in ("special", "mkspecial"))
_PGPROT_OPS: Final = frozenset({"pmd_pgprot", "pud_pgprot"})
_BUG_ON_HASH: Final = frozenset({"pfn_pud", "pud_mkdevmap"})
"""BUG() there, whatever the configuration promises (FINDINGS F18)."""
_THP_OPS: Final = frozenset(
    {"pmd_devmap", "pud_devmap", "pmd_mkdevmap", "pud_mkdevmap", "pfn_pud", "pud_mkhuge", "pud_modify"}
    | {"pmdp_set_access_flags", "arch_needs_pgtable_deposit", "pud_trans_huge"}
    | {"has_transparent_hugepage", "has_transparent_pud_hugepage"}
)
"""Behind CONFIG_TRANSPARENT_HUGEPAGE."""

_VM_SAO: Final = VM_ARCH_1


def _is_zero(value: Entry) -> Entry:
    return (value == 0) | (value & 0)


def _all_set(entry: Entry, mask: int) -> Entry:
    return _is_zero((entry & mask) ^ mask)


class Pgtable(Arch):
    """The helpers, and what of configuration, CPU and release they hang on."""

    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Has) -> None:
        boot = Boot.read(config, cpu)
        self.geometry = boot.geometry()
        self._radix = boot.radix
        self._page_shift = boot.page_shift
        self._rpn_mask = (1 << PA_MAX) - (1 << boot.page_shift)
        self._hw_access_dirty = bool(cpu["hw_access_dirty"])

        # An empty entry may still get reference and change bits from radix; from hash, notes of its own.
        self._pte_none_ignores = DIRTY | ACCESSED if boot.radix else boot.hpteflags
        self._pmd_val_bits, self._pud_val_bits, self._pgd_val_bits = boot.table_bits
        self._pmd_bad_bits, self._pud_bad_bits = boot.bad_bits

        # __pmd_mkhuge and pmd_trans_huge; hash has no such leaves with 4K pages.
        self._pfn_pmd_is_bug = not boot.radix and not boot.large_pages
        self._has_thp = boot.thp and not self._pfn_pmd_is_bug
        self._thp_leaf = LEAF if boot.radix else LEAF | boot.thp_huge
        devmap_removed = has("devmap-removed")
        devmap = 0 if devmap_removed else DEVMAP
        self._pmd_leaf_mask = self._thp_leaf | devmap
        self._pud_leaf_mask = LEAF | devmap

        kept = self._rpn_mask | boot.hpteflags | CHG_MASK | devmap
        special_kept = SPECIAL if has("powerpc-modify-masks") else 0
        self._chg_mask = kept | SPECIAL
        self._hpage_chg_mask = kept | boot.thp_huge | special_kept

        undefined = set[str]()
        if devmap_removed or config.get("ARCH_HAS_PTE_DEVMAP", "n") != "y":
            undefined |= _DEVMAP_OPS
        if not has("powerpc-modify-masks"):
            undefined |= _PGPROT_OPS
        if not has("powerpc-huge-pfnmap"):
            undefined |= _HUGE_SPECIAL_OPS
        if not boot.thp:
            undefined |= _THP_OPS
        if config.get("HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD", "n") != "y":
            undefined |= {"pud_trans_huge", "pud_devmap"}  # the headers' are 0
        if not boot.radix:
            undefined |= _BUG_ON_HASH
        if self._pfn_pmd_is_bug:
            undefined.add("pmd_mkdevmap")
        self.undefined = frozenset(undefined)

    # pfn and prot to entry and back

    def pfn_pte(self, pfn: Entry, prot: Entry) -> Entry:
        return ((pfn << self._page_shift) & MASK64) | prot | LEAF

    def pfn_pmd(self, pfn: Entry, prot: Entry) -> Entry:
        if self._pfn_pmd_is_bug:
            raise Refused("pfn_pmd", "BUG() under the hash MMU with 4K pages")
        return ((pfn << self._page_shift) & self._rpn_mask) | prot | self._thp_leaf

    def pfn_pud(self, pfn: Entry, prot: Entry) -> Entry:
        return ((pfn << self._page_shift) & self._rpn_mask) | prot | LEAF

    def pte_pfn(self, pte: Entry) -> Entry:
        return (pte & self._rpn_mask) >> self._page_shift

    pmd_pfn = pte_pfn

    @hookimpl
    def pud_pfn(self, pud: Entry) -> Entry:
        return self.pte_pfn(pud)

    @hookimpl
    def pte_pgprot(self, pte: Entry) -> Entry:
        return pte & (MASK64 ^ self._rpn_mask)

    @hookimpl
    def pmd_pgprot(self, pmd: Entry) -> Entry:
        return self.pte_pgprot(pmd)

    @hookimpl
    def pud_pgprot(self, pud: Entry) -> Entry:
        return self.pte_pgprot(pud)

    def pmd_pgtable(self, pmd: Entry) -> Entry:
        return pmd & (MASK64 ^ TABLE_MASKED)

    pud_pgtable = pmd_pgtable
    p4d_pgtable = pmd_pgtable

    # Predicates of leaves

    def pte_present(self, pte: Entry) -> Entry:
        # Present, or with _PAGE_INVALID (bit 61) for a while (ptep_modify_prot_start): either bit, with LEAF.
        return ((pte >> 63) | (pte >> 61)) & (pte >> 62) & 1

    def pte_none(self, pte: Entry) -> Entry:
        return _is_zero(pte & (MASK64 ^ self._pte_none_ignores))

    def pte_write(self, pte: Entry) -> Entry:
        return (pte >> 1) & 1

    def pte_dirty(self, pte: Entry) -> Entry:
        return (pte >> 7) & 1

    def pte_young(self, pte: Entry) -> Entry:
        return (pte >> 8) & 1

    @hookimpl
    def pte_special(self, pte: Entry) -> Entry:
        return (pte >> 10) & 1

    @hookimpl
    def pte_devmap(self, pte: Entry) -> Entry:
        return _all_set(pte, DEVMAP | LEAF)

    @hookimpl
    def pte_access_permitted(self, pte: Entry, write: int) -> Entry:
        user_read = ((pte >> 3) ^ 1) & (pte >> 2) & 1
        return self.pte_present(pte) & user_read & (self.pte_write(pte) | (1 - write))

    pmd_write = pte_write
    pmd_dirty = pte_dirty
    pmd_young = pte_young
    pud_dirty = pte_dirty
    pud_young = pte_young

    @hookimpl
    def pud_write(self, pud: Entry) -> Entry:
        return self.pte_write(pud)

    @hookimpl
    def pmd_special(self, pmd: Entry) -> Entry:
        return self.pte_special(pmd)

    @hookimpl
    def pud_special(self, pud: Entry) -> Entry:
        return self.pte_special(pud)

    @hookimpl
    def pmd_devmap(self, pmd: Entry) -> Entry:
        return self.pte_devmap(pmd)

    @hookimpl
    def pud_devmap(self, pud: Entry) -> Entry:
        return self.pte_devmap(pud)

    @hookimpl
    def pmd_access_permitted(self, pmd: Entry, write: int) -> Entry:
        # Not while it is being split: invalid and not present (pmd_is_serializing).
        serializing = (pmd >> 61) & ((pmd >> 63) ^ 1) & 1
        return self.pte_access_permitted(pmd, write) & (serializing ^ 1)

    @hookimpl
    def pud_access_permitted(self, pud: Entry, write: int) -> Entry:
        return self.pte_access_permitted(pud, write)

    # Leaf or table

    def pmd_none(self, pmd: Entry) -> Entry:
        return _is_zero(pmd)

    def pmd_present(self, pmd: Entry) -> Entry:
        return ((pmd >> 63) | (pmd >> 61)) & 1

    def pmd_leaf(self, pmd: Entry) -> Entry:
        return (pmd >> 62) & 1

    def pmd_bad(self, pmd: Entry) -> Entry:
        return _is_zero(pmd & self._pmd_bad_bits) ^ 1

    def pmd_trans_huge(self, pmd: Entry) -> Entry:
        leaf = _is_zero((pmd & self._pmd_leaf_mask) ^ self._thp_leaf)
        return self.pmd_present(pmd) & leaf & int(self._has_thp)

    pud_none = pmd_none
    pud_leaf = pmd_leaf

    def pud_present(self, pud: Entry) -> Entry:
        return (pud >> 63) & 1

    def pud_bad(self, pud: Entry) -> Entry:
        return _is_zero(pud & self._pud_bad_bits) ^ 1

    @hookimpl
    def pud_trans_huge(self, pud: Entry) -> Entry:
        leaf = _is_zero((pud & self._pud_leaf_mask) ^ LEAF)
        return self.pud_present(pud) & leaf & int(self._radix)

    # mk*

    def pte_mkwrite_novma(self, pte: Entry) -> Entry:
        return pte | RW

    def pte_wrprotect(self, pte: Entry) -> Entry:
        return pte & (MASK64 ^ WRITE)

    def pte_mkdirty(self, pte: Entry) -> Entry:
        return pte | DIRTY | SOFT_DIRTY

    def pte_mkclean(self, pte: Entry) -> Entry:
        return pte & (MASK64 ^ DIRTY)

    def pte_mkyoung(self, pte: Entry) -> Entry:
        return pte | ACCESSED

    def pte_mkold(self, pte: Entry) -> Entry:
        return pte & (MASK64 ^ ACCESSED)

    def pte_modify(self, pte: Entry, newprot: Entry) -> Entry:
        return (pte & self._chg_mask) | newprot

    def pmd_modify(self, pmd: Entry, newprot: Entry) -> Entry:
        return (pmd & self._hpage_chg_mask) | newprot

    def pmd_mkhuge(self, pmd: Entry) -> Entry:
        """Change nothing: pfn_pmd made the leaf. The WARNING of DEBUG_VM where it is none is left out."""
        return pmd

    def pte_mkdevmap(self, pte: Entry) -> Entry:
        return pte | SPECIAL | DEVMAP

    def pmd_mkdevmap(self, pmd: Entry) -> Entry:
        return pmd | self._thp_leaf | DEVMAP

    def pud_mkdevmap(self, pud: Entry) -> Entry:
        return pud | LEAF | DEVMAP

    pte_mkhuge = pmd_mkhuge
    pmd_mkwrite_novma = pte_mkwrite_novma
    pmd_wrprotect = pte_wrprotect
    pmd_mkdirty = pte_mkdirty
    pmd_mkclean = pte_mkclean
    pmd_mkyoung = pte_mkyoung
    pmd_mkold = pte_mkold
    pud_mkhuge = pmd_mkhuge
    pud_mkwrite = pte_mkwrite_novma
    pud_wrprotect = pte_wrprotect
    pud_mkdirty = pte_mkdirty
    pud_mkclean = pte_mkclean
    pud_mkyoung = pte_mkyoung
    pud_mkold = pte_mkold
    pud_modify = pmd_modify

    @hookimpl
    def pte_mkspecial(self, pte: Entry) -> Entry:
        return pte | SPECIAL

    @hookimpl
    def pmd_mkspecial(self, pmd: Entry) -> Entry:
        return self.pte_mkspecial(pmd)

    @hookimpl
    def pud_mkspecial(self, pud: Entry) -> Entry:
        return self.pte_mkspecial(pud)

    @hookimpl
    def ptep_set_access_flags(self, pte: Entry, entry: Entry) -> Entry:
        """Add access, dirty and protection bits to the slot (radix__ and hash__ptep_set_access_flags)."""
        return pte | (entry & ACCESS_FLAGS)

    @hookimpl
    def pmdp_set_access_flags(self, pmd: Entry, entry: Entry) -> Entry:
        return self.ptep_set_access_flags(pmd, entry)

    # Soft-dirty

    @hookimpl
    def pte_soft_dirty(self, pte: Entry) -> Entry:
        return (pte >> 9) & 1

    @hookimpl
    def pte_mksoft_dirty(self, pte: Entry) -> Entry:
        return pte | SOFT_DIRTY

    @hookimpl
    def pte_clear_soft_dirty(self, pte: Entry) -> Entry:
        return pte & (MASK64 ^ SOFT_DIRTY)

    @hookimpl
    def pmd_soft_dirty(self, pmd: Entry) -> Entry:
        return self.pte_soft_dirty(pmd)

    @hookimpl
    def pmd_mksoft_dirty(self, pmd: Entry) -> Entry:
        return self.pte_mksoft_dirty(pmd)

    # Table entries; the P4D is the top level

    def pmd_populate(self, pa: Entry) -> Entry:
        return pa | self._pmd_val_bits

    def pud_populate(self, pa: Entry) -> Entry:
        return pa | self._pud_val_bits

    @hookimpl
    def p4d_populate(self, pa: Entry) -> Entry:
        return pa | self._pgd_val_bits

    @hookimpl
    def p4d_none(self, p4d: Entry) -> Entry:
        return _is_zero(p4d)

    @hookimpl
    def p4d_present(self, p4d: Entry) -> Entry:
        return self.pud_present(p4d)

    @hookimpl
    def p4d_bad(self, p4d: Entry) -> Entry:
        # radix__p4d_bad looks for the bits that a PUD must not have either, hash__p4d_bad for an empty entry.
        return self.pud_bad(p4d) if self._radix else _is_zero(p4d)

    # Transparent huge pages

    @hookimpl
    def arch_needs_pgtable_deposit(self) -> bool:
        """Hash keeps the slots of a leaf's parts in a PTE table behind it."""
        return not self._radix

    @hookimpl
    def has_transparent_hugepage(self) -> bool:
        """A CPU with 2M pages (radix) or 16M pages (hash, with 64K base pages) is taken for granted."""
        return self._has_thp

    @hookimpl
    def has_transparent_pud_hugepage(self) -> bool:
        """As `has_transparent_hugepage`, with 1G pages; hash has none."""
        return self._radix

    # Protection

    def _cache_mode(self, prot: Entry, mode: int) -> Entry:
        return (prot & (MASK64 ^ CACHE_CTL)) | mode

    @hookimpl
    def pgprot_noncached(self, prot: Entry) -> Entry:
        return self._cache_mode(prot, NON_IDEMPOTENT)

    def pgprot_writecombine(self, prot: Entry) -> Entry:
        return self._cache_mode(prot, TOLERANT)

    @property
    def protection_map(self) -> tuple[int, ...]:
        return PROTECTION_MAP

    @hookimpl
    def vm_get_page_prot(self, vm_flags: int) -> int:
        """Hash has no execute-only protection; strong access ordering is a property of the mapping."""
        if not self._radix and vm_flags & VM_ACCESS_FLAGS == VM_EXEC:
            vm_flags |= VM_READ
        return PROTECTION_MAP[vm_flags & 15] | (SAO if vm_flags & _VM_SAO else 0)
