"""The page-table entry helpers of arm64 under their kernel names.

Read from arch/arm64/include/asm/pgtable.h and pgalloc.h, arch/arm64/mm/mmap.c (protection_map,
vm_get_page_prot) and arch/arm64/mm/fault.c (__ptep_set_access_flags), 6.12. The vectors of 6.12.117 (4K, 4K
with LPA2, 16K, 64K) and 7.3.4 (4K) pin every helper but the *_set_access_flags, which the recording of a
Cortex-A72 pins. PMD and PUD leaves have the bits of a PTE, and most of their helpers are the PTE's, as in the
kernel, whose macros go through pmd_pte() and pud_pte().
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pfnmap import Arch, Entry, Has, hookimpl
from pfnmap.contract.plan import LeafLevel
from pfnmap_arm64.bits import (
    MASK64,
    MT_NORMAL_NC,
    PROTECTION_MAP,
    PTE_ACCESS_FLAGS,
    PTE_AF,
    PTE_ATTRINDX_MASK,
    PTE_DEVMAP,
    PTE_DIRTY,
    PTE_MODIFY_MASK,
    PTE_PROT_NONE,
    PTE_PXN,
    PTE_RDONLY,
    PTE_SHARED,
    PTE_SPECIAL,
    PTE_TABLE_BIT,
    PTE_UXN,
    PTE_VALID,
    PTE_WRITE,
    TABLE_PXN,
    TYPE_TABLE,
    MT_DEVICE_nGnRE,
    MT_DEVICE_nGnRnE,
)
from pfnmap_arm64.geometry import Boot

__all__ = ["Pgtable"]

_DEVMAP_OPS: Final = frozenset({"pte_devmap", "pmd_devmap", "pud_devmap", "pte_mkdevmap", "pmd_mkdevmap"})
_PUD_DRAFT_OPS: Final = frozenset(
    {"pud_trans_huge"}
    | {f"pud_{op}" for op in ("dirty", "mkold", "mkdirty", "mkclean", "mkwrite", "wrprotect", "modify")}
)


def _is_zero(value: Entry) -> Entry:
    return (value == 0) | (value & 0)


PTE_CONT = 1 << 52
_CONT_PTES = {12: 16, 14: 128, 16: 32}
"""CONT_PTES, by PAGE_SHIFT (arch/arm64/include/asm/pgtable-hwdef.h)."""


class Pgtable(Arch):
    """The helpers, and what of configuration, CPU and release they hang on."""

    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Has) -> None:
        boot = Boot.read(config, cpu)
        self._lpa2, self._pa_52 = boot.lpa2, boot.pa_52
        geometry = self.geometry = boot.geometry()
        self._page_shift = geometry.PAGE_SHIFT
        if has("arm64-contpte") and config.get("TRANSPARENT_HUGEPAGE") == "y":  # CONFIG_ARM64_CONTPTE, on by default
            self.cont_ptes, self.PTE_CONT = _CONT_PTES[geometry.PAGE_SHIFT], PTE_CONT
        self._pmd_mask = MASK64 ^ (geometry.size("pmd") - 1)
        self._pud_mask = MASK64 ^ (geometry.size("pud") - 1)

        # Where a physical address sits in an entry: bits 49..PAGE_SHIFT, with 52 bits the rest elsewhere.
        shared = 0 if boot.lpa2 else PTE_SHARED
        large_pages = self._page_shift == 16
        self._addr_low = (1 << 50) - (1 << self._page_shift)
        high = 0xF << 12 if large_pages else 0x3 << 8
        self._addr_high_shift = 36 if large_pages else 42
        self._addr_high = high & (MASK64 ^ shared) if boot.pa_52 else 0
        self._phys_fold = MASK64 if boot.pa_52 else 0
        self._phys_field = MASK64
        if boot.pa_52:
            self._phys_field = self._addr_low | high if large_pages else (1 << 50) - (1 << 8)

        # What makes an entry without PTE_VALID present: PTE_NG, which user entries have anyway, or a bit of its own.
        own_bit = 0 if has("arm64-present-invalid") else PTE_PROT_NONE
        self._present_shift = 58 if own_bit else 11
        self._modify_mask = PTE_MODIFY_MASK | own_bit
        self._protection_map = tuple(
            prot & (MASK64 ^ PTE_SHARED) | shared | (0 if prot & PTE_VALID else own_bit) for prot in PROTECTION_MAP
        )
        self._hw_access_dirty = bool(cpu["hw_access_dirty"]) and config.get("ARM64_HW_AFDBM", "n") == "y"

        table_af = has("arm64-table-entry-af")
        self._table = TYPE_TABLE | TABLE_PXN | (PTE_AF if table_af else 0)
        self._upper_table_bits = TYPE_TABLE if table_af else PTE_TABLE_BIT
        self._thp = int(config.get("TRANSPARENT_HUGEPAGE", "n") == "y")
        self._l4, self._l5 = int(boot.l4_enabled), int(boot.l5_enabled)
        self._has_pmd = int(boot.levels > 2)
        self._pud_leaves = int(boot.levels > 2 and not large_pages)

        undefined = set[str]()
        if has("devmap-removed"):
            undefined |= _DEVMAP_OPS
        if not self._thp:
            undefined |= {"pmd_devmap", "pud_devmap", "pmdp_set_access_flags"}
        for level, levels in (("p4d", 4), ("pgd", 5)):
            if boot.levels < levels:
                undefined |= {f"{level}_{op}" for op in ("present", "none", "bad", "populate")}
        # pud_mkwrite_novma was seen in 7.3.4 and not in 6.12.117; that it came with this change is inference.
        undefined.add("pte_mkhuge" if table_af else "pud_mkwrite_novma")
        four_k = config.get("ARM64_4K_PAGES") == "y"
        self.leaf_changes: Mapping[LeafLevel, tuple[str, ...]] = {"pud": ("arm64-pud-pfnmap",)} if four_k else {}
        if not has("arm64-pud-pfnmap"):
            undefined |= _PUD_DRAFT_OPS
        self.undefined = frozenset(undefined)

    # Physical addresses in entries: __pte_to_phys, __phys_to_pte_val

    def _to_phys(self, entry: Entry) -> Entry:
        return (entry & self._addr_low) | ((entry & self._addr_high) << self._addr_high_shift)

    def _from_phys(self, phys: Entry) -> Entry:
        return (phys | ((phys >> self._addr_high_shift) & self._phys_fold)) & self._phys_field

    def pfn_pte(self, pfn: Entry, prot: Entry) -> Entry:
        return self._from_phys((pfn << self._page_shift) & MASK64) | prot

    pfn_pmd = pfn_pte
    pfn_pud = pfn_pte

    def pte_pfn(self, pte: Entry) -> Entry:
        return self._to_phys(pte) >> self._page_shift

    def pmd_pfn(self, pmd: Entry) -> Entry:
        return (self._to_phys(pmd) & self._pmd_mask) >> self._page_shift

    @hookimpl
    def pud_pfn(self, pud: Entry) -> Entry:
        return (self._to_phys(pud) & self._pud_mask) >> self._page_shift

    @hookimpl
    def pte_pgprot(self, pte: Entry) -> Entry:
        return self.pfn_pte(self.pte_pfn(pte), 0) ^ pte

    @hookimpl
    def pmd_pgprot(self, pmd: Entry) -> Entry:
        return self.pfn_pte(self.pmd_pfn(pmd), 0) ^ pmd

    @hookimpl
    def pud_pgprot(self, pud: Entry) -> Entry:
        return self.pfn_pte(self.pud_pfn(pud), 0) ^ pud

    pmd_pgtable = _to_phys
    pud_pgtable = _to_phys
    p4d_pgtable = _to_phys
    pgd_pgtable = _to_phys

    # Predicates of leaves

    def pte_present(self, pte: Entry) -> Entry:
        # Valid, or PTE_PRESENT_INVALID without valid: either bit, whatever the other is.
        return (pte | (pte >> self._present_shift)) & 1

    def pte_none(self, pte: Entry) -> Entry:
        return _is_zero(pte)

    def pte_write(self, pte: Entry) -> Entry:
        return (pte >> 51) & 1

    def pte_young(self, pte: Entry) -> Entry:
        return (pte >> 10) & 1

    def pte_dirty(self, pte: Entry) -> Entry:
        return ((pte >> 55) & 1) | self._hw_dirty(pte)

    def _hw_dirty(self, pte: Entry) -> Entry:
        # DBM without RDONLY: a write went through.
        return (pte >> 51) & ((pte >> 7) ^ 1) & 1

    @hookimpl
    def pte_special(self, pte: Entry) -> Entry:
        return (pte >> 56) & 1

    @hookimpl
    def pte_devmap(self, pte: Entry) -> Entry:
        return (pte >> 57) & 1

    @hookimpl
    def pte_access_permitted(self, pte: Entry, write: int) -> Entry:
        return pte & (pte >> 6) & ((pte >> 51) | (1 - write)) & 1

    pmd_present = pte_present
    pmd_none = pte_none
    pmd_write = pte_write
    pmd_young = pte_young
    pmd_dirty = pte_dirty
    pud_young = pte_young
    pud_dirty = pte_dirty

    @hookimpl
    def pud_write(self, pud: Entry) -> Entry:
        return self.pte_write(pud)

    @hookimpl
    def pmd_special(self, pmd: Entry) -> Entry:
        return (pmd >> 56) & 1

    @hookimpl
    def pud_special(self, pud: Entry) -> Entry:
        return (pud >> 56) & 1

    @hookimpl
    def pmd_devmap(self, pmd: Entry) -> Entry:
        return (pmd >> 57) & 1

    @hookimpl
    def pud_devmap(self, pud: Entry) -> Entry:
        return pud & 0

    @hookimpl
    def pmd_access_permitted(self, pmd: Entry, write: int) -> Entry:
        return self.pte_access_permitted(pmd, write)

    @hookimpl
    def pud_access_permitted(self, pud: Entry, write: int) -> Entry:
        return self.pte_access_permitted(pud, write)

    # Leaf or table. Bits 1:0 are 3 for a table, 1 for a block.

    def _table_type(self, entry: Entry) -> Entry:
        return entry & (entry >> 1) & 1

    def pmd_leaf(self, pmd: Entry) -> Entry:
        return self.pte_present(pmd) & (self._table_type(pmd) ^ 1)

    def pmd_bad(self, pmd: Entry) -> Entry:
        return self._table_type(pmd) ^ 1

    def pmd_trans_huge(self, pmd: Entry) -> Entry:
        # A present entry that is not a table even if it were valid: bit 1 decides alone.
        return self.pte_present(pmd) & ((pmd >> 1) ^ 1) & self._thp

    def pud_none(self, pud: Entry) -> Entry:
        return _is_zero(pud) & self._has_pmd

    def pud_present(self, pud: Entry) -> Entry:
        return self.pte_present(pud) | (self._has_pmd ^ 1)

    def pud_leaf(self, pud: Entry) -> Entry:
        # With 64K pages pud_table() is always true.
        return self.pmd_leaf(pud) & self._pud_leaves

    def pud_bad(self, pud: Entry) -> Entry:
        return self.pmd_bad(pud) & self._has_pmd

    @hookimpl
    def pud_trans_huge(self, pud: Entry) -> Entry:
        """Only with the change arm64-pud-pfnmap, and there inference: what pmd_trans_huge is for a PMD."""
        return self.pmd_trans_huge(pud) & self._pud_leaves

    # mk*

    def pte_mkwrite_novma(self, pte: Entry) -> Entry:
        # Sets PTE_WRITE, and clears PTE_RDONLY where the entry is dirty in software.
        return self._read_only_unless(pte | PTE_WRITE, pte >> 55)

    def pte_mkdirty(self, pte: Entry) -> Entry:
        # Sets PTE_DIRTY, and clears PTE_RDONLY where the entry is writable.
        return self._read_only_unless(pte | PTE_DIRTY, pte >> 51)

    def _read_only_unless(self, pte: Entry, condition: Entry) -> Entry:
        return pte & (MASK64 ^ ((condition & 1) * PTE_RDONLY))

    def pte_mkclean(self, pte: Entry) -> Entry:
        return (pte & (MASK64 ^ PTE_DIRTY)) | PTE_RDONLY

    def pte_wrprotect(self, pte: Entry) -> Entry:
        return ((self._save_hw_dirty(pte)) & (MASK64 ^ PTE_WRITE)) | PTE_RDONLY

    def _save_hw_dirty(self, pte: Entry) -> Entry:
        return pte | (self._hw_dirty(pte) * PTE_DIRTY)

    def pte_mkold(self, pte: Entry) -> Entry:
        return pte & (MASK64 ^ PTE_AF)

    def pte_mkyoung(self, pte: Entry) -> Entry:
        return pte | PTE_AF

    def pte_modify(self, pte: Entry, newprot: Entry) -> Entry:
        kept = self._save_hw_dirty(pte) & (MASK64 ^ self._modify_mask)
        new = kept | (newprot & self._modify_mask)
        # pte_mkdirty where dirty: the entry that is writable and dirty is not read-only.
        return self._read_only_unless(new, (new >> 55) & (new >> 51))

    def pmd_mkhuge(self, pmd: Entry) -> Entry:
        return pmd & (MASK64 ^ PTE_TABLE_BIT)

    def pte_mkdevmap(self, pte: Entry) -> Entry:
        return pte | PTE_DEVMAP | PTE_SPECIAL

    def pmd_mkdevmap(self, pmd: Entry) -> Entry:
        return pmd | PTE_DEVMAP

    pte_mkhuge = pmd_mkhuge
    pud_mkhuge = pmd_mkhuge
    pmd_mkwrite_novma = pte_mkwrite_novma
    pmd_mkdirty = pte_mkdirty
    pmd_mkclean = pte_mkclean
    pmd_wrprotect = pte_wrprotect
    pmd_mkold = pte_mkold
    pmd_mkyoung = pte_mkyoung
    pmd_modify = pte_modify
    pud_mkyoung = pte_mkyoung
    pud_mkwrite_novma = pte_mkwrite_novma

    # Only with the change arm64-pud-pfnmap; that they are the PTE's too is inference.
    pud_mkold = pte_mkold
    pud_mkdirty = pte_mkdirty
    pud_mkclean = pte_mkclean
    pud_mkwrite = pte_mkwrite_novma
    pud_wrprotect = pte_wrprotect
    pud_modify = pte_modify

    @hookimpl
    def pte_mkspecial(self, pte: Entry) -> Entry:
        return pte | PTE_SPECIAL

    @hookimpl
    def pmd_mkspecial(self, pmd: Entry) -> Entry:
        return pmd | PTE_SPECIAL

    @hookimpl
    def pud_mkspecial(self, pud: Entry) -> Entry:
        return pud | PTE_SPECIAL

    @hookimpl
    def ptep_set_access_flags(self, pte: Entry, entry: Entry) -> Entry:
        """Merge as __ptep_set_access_flags: AF, write and dirty are added, read-only stays if in both."""
        return ((pte ^ PTE_RDONLY) | ((entry & PTE_ACCESS_FLAGS) ^ PTE_RDONLY)) ^ PTE_RDONLY

    @hookimpl
    def pmdp_set_access_flags(self, pmd: Entry, entry: Entry) -> Entry:
        return self.ptep_set_access_flags(pmd, entry)

    # Table entries of user space, and the upper levels, which this boot may fold

    def pmd_populate(self, pa: Entry) -> Entry:
        return self._from_phys(pa) | self._table

    def pud_populate(self, pa: Entry) -> Entry:
        return self.pmd_populate(pa) * self._has_pmd

    @hookimpl
    def p4d_populate(self, pa: Entry) -> Entry:
        return self.pmd_populate(pa) * self._l4

    @hookimpl
    def pgd_populate(self, pa: Entry) -> Entry:
        return self.pmd_populate(pa) * self._l5

    def _upper_bad(self, entry: Entry) -> Entry:
        return _is_zero((entry & self._upper_table_bits) ^ self._upper_table_bits) ^ 1

    @hookimpl
    def p4d_none(self, p4d: Entry) -> Entry:
        return _is_zero(p4d) & self._l4

    @hookimpl
    def p4d_present(self, p4d: Entry) -> Entry:
        return self.p4d_none(p4d) ^ 1

    @hookimpl
    def p4d_bad(self, p4d: Entry) -> Entry:
        return self._upper_bad(p4d) & self._l4

    @hookimpl
    def pgd_none(self, pgd: Entry) -> Entry:
        return _is_zero(pgd) & self._l5

    @hookimpl
    def pgd_present(self, pgd: Entry) -> Entry:
        return self.pgd_none(pgd) ^ 1

    @hookimpl
    def pgd_bad(self, pgd: Entry) -> Entry:
        return self._upper_bad(pgd) & self._l5

    # Protection

    def _memory_type(self, prot: Entry, attrindx: int) -> Entry:
        return (prot & (MASK64 ^ PTE_ATTRINDX_MASK)) | attrindx | PTE_PXN | PTE_UXN

    @hookimpl
    def pgprot_noncached(self, prot: Entry) -> Entry:
        return self._memory_type(prot, MT_DEVICE_nGnRnE)

    @hookimpl
    def pgprot_device(self, prot: Entry) -> Entry:
        return self._memory_type(prot, MT_DEVICE_nGnRE)

    def pgprot_writecombine(self, prot: Entry) -> Entry:
        return self._memory_type(prot, MT_NORMAL_NC)

    @property
    def protection_map(self) -> tuple[int, ...]:
        return self._protection_map

    @hookimpl
    def vm_get_page_prot(self, vm_flags: int) -> int:
        return self._protection_map[vm_flags & 15]
