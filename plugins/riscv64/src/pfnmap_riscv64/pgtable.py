"""The page-table entry helpers of riscv64 under their kernel names.

Read from arch/riscv/include/asm/pgtable.h, pgtable-64.h and pgalloc.h, arch/riscv/mm/init.c (protection_map), pgtable.c
and fault.c, all of 6.12. The vectors of 6.12.117 and 7.3.4 (Sv48, without Svpbmt and Svrsw60t59b) pin every helper in
their scope, and with them what 7.3 does otherwise; what bits 59, 61 and 62 do is read from the sources (6.12, and
mainline's pgtable.h of early 2026 for bit 59) and not run. Leaves have the same bits at every level, and most
helpers of PMD and PUD are the PTE's, as in the kernel, whose functions go through pmd_pte() and pud_pte().
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pfnmap import Arch, Entry, Has, hookimpl
from pfnmap.vm_flags import VM_READ, VM_WRITE
from pfnmap_riscv64.bits import (
    ACCESSED,
    DEVMAP,
    DIRTY,
    IO,
    MASK64,
    MTMASK,
    NOCACHE,
    PAGE_COPY,
    PAGE_SHADOWSTACK,
    PFN_MASK,
    PFN_SHIFT,
    PRESENT,
    PROT_BITS,
    PROTECTION_MAP,
    READ,
    SOFT_DIRTY,
    SPECIAL,
    WRITE,
)
from pfnmap_riscv64.geometry import PAGE_OFFSET, geometry, levels, linear_map

__all__ = ["Pgtable"]

_DEVMAP_OPS: Final = frozenset(f"{level}_{op}" for level in ("pte", "pmd", "pud") for op in ("devmap", "mkdevmap"))
_HUGE_SPECIAL_OPS: Final = frozenset(f"{level}_{op}" for level in ("pmd", "pud") for op in ("special", "mkspecial"))
_PGPROT_OPS: Final = frozenset({"pte_pgprot", "pmd_pgprot", "pud_pgprot"})
_PUD_OPS: Final = frozenset(
    f"pud_{op}"
    for op in (
        *("mkhuge", "mkyoung", "mkold", "mkdirty", "mkclean", "mkwrite", "wrprotect", "modify", "mkdevmap"),
        *("young", "dirty", "trans_huge"),
    )
)
_SOFT_DIRTY_OPS: Final = frozenset(
    {"pte_soft_dirty", "pte_mksoft_dirty", "pte_clear_soft_dirty", "pmd_soft_dirty", "pmd_mksoft_dirty"}
)
_SHADOW_STACK_OPS: Final = frozenset({"pte_mkwrite", "pmd_mkwrite", "arch_calc_vm_prot_bits"})


class Pgtable(Arch):
    """The helpers, and what of configuration, CPU and release they hang on."""

    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Has) -> None:
        walked = levels(cpu["mode"])
        self.geometry = geometry(cpu["mode"])
        self._l4, self._l5 = int(walked >= 4), int(walked >= 5)
        self._page_offset = PAGE_OFFSET[walked]
        self.linear_map = linear_map(self.geometry)
        self._hw_access_dirty = bool(cpu["hw_access_dirty"])

        thp = config.get("TRANSPARENT_HUGEPAGE", "n") == "y"
        self._thp = int(thp)
        # ALT_SVPBMT patches the bits in where the kernel knows the extension and the CPU has it.
        svpbmt = bool(cpu["svpbmt"]) and config.get("RISCV_ISA_SVPBMT", "n") == "y"
        self._mtmask, self._nocache, self._io = (MTMASK, NOCACHE, IO) if svpbmt else (0, 0, 0)
        self._chg_mask = MASK64 ^ (PROT_BITS | self._mtmask)
        self._svrsw60t59b = bool(cpu["svrsw60t59b"])
        soft_dirty = self._svrsw60t59b and all(
            config.get(symbol, "n") == "y" for symbol in ("RISCV_ISA_SVRSW60T59B", "MEM_SOFT_DIRTY")
        )
        self._soft_dirty = SOFT_DIRTY if soft_dirty else 0

        # The PUD's helpers came with leaves at that level, and so did telling them apart from tables.
        pud_leaves = has("riscv-pud-thp")
        self._pud_leaves = int(pud_leaves)

        # Shadow stacks (writable entries that cannot be read) brought both.
        shadow_stack = has("riscv-wrprotect-sets-read")
        self._wrprotect_sets = READ if shadow_stack else 0
        of_write = PAGE_SHADOWSTACK if shadow_stack else PAGE_COPY
        self._protection_map = (*PROTECTION_MAP[:VM_WRITE], of_write, *PROTECTION_MAP[VM_WRITE + 1 :])

        undefined = set[str]()
        if has("devmap-removed") or config.get("ARCH_HAS_PTE_DEVMAP", "n") != "y":
            undefined |= _DEVMAP_OPS
        if not pud_leaves:
            undefined |= _PUD_OPS
        if not has("riscv-pgprot"):
            undefined |= _PGPROT_OPS
        if not has("riscv-huge-pfnmap"):
            undefined |= _HUGE_SPECIAL_OPS
        if config.get("HAVE_ARCH_SOFT_DIRTY", "n") != "y":
            undefined |= _SOFT_DIRTY_OPS
        if not shadow_stack:
            undefined |= _SHADOW_STACK_OPS
        if not thp:
            undefined |= _PUD_OPS | {"pmd_devmap", "pud_devmap", "pmdp_set_access_flags"}
        self.undefined = frozenset(undefined)

    # pfn and prot to entry and back

    def pfn_pte(self, pfn: Entry, prot: Entry) -> Entry:
        return ((pfn << PFN_SHIFT) & MASK64) | prot

    pfn_pmd = pfn_pte
    pfn_pud = pfn_pte

    def pte_pfn(self, pte: Entry) -> Entry:
        return (pte & PFN_MASK) >> PFN_SHIFT

    def pmd_pfn(self, pmd: Entry) -> Entry:
        return self.pte_pfn(pmd) & (MASK64 ^ ((1 << self.geometry.PMD_ORDER) - 1))

    @hookimpl
    def pud_pfn(self, pud: Entry) -> Entry:
        return self.pte_pfn(pud) & (MASK64 ^ ((1 << self.geometry.PUD_ORDER) - 1))

    @hookimpl
    def pte_pgprot(self, pte: Entry) -> Entry:
        return pte & (MASK64 ^ PFN_MASK)

    @hookimpl
    def pmd_pgprot(self, pmd: Entry) -> Entry:
        return self.pte_pgprot(pmd)

    @hookimpl
    def pud_pgprot(self, pud: Entry) -> Entry:
        return self.pte_pgprot(pud)

    def pmd_pgtable(self, pmd: Entry) -> Entry:
        return self.pte_pfn(pmd) << self.geometry.PAGE_SHIFT

    pud_pgtable = pmd_pgtable
    p4d_pgtable = pmd_pgtable
    pgd_pgtable = pmd_pgtable

    # Predicates of leaves

    def pte_present(self, pte: Entry) -> Entry:
        return (pte | (pte >> 5)) & 1

    def pte_none(self, pte: Entry) -> Entry:
        return (pte == 0) | (pte & 0)

    def pte_write(self, pte: Entry) -> Entry:
        return (pte >> 2) & 1

    def pte_young(self, pte: Entry) -> Entry:
        return (pte >> 6) & 1

    def pte_dirty(self, pte: Entry) -> Entry:
        return (pte >> 7) & 1

    @hookimpl
    def pte_special(self, pte: Entry) -> Entry:
        return (pte >> 8) & 1

    @hookimpl
    def pte_devmap(self, pte: Entry) -> Entry:
        return (pte >> 9) & 1

    pmd_none = pte_none
    pmd_write = pte_write
    pmd_young = pte_young
    pmd_dirty = pte_dirty
    pud_none = pte_none
    pud_young = pte_young
    pud_dirty = pte_dirty

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
        return self.pte_devmap(pud) & self._pud_leaves

    # Leaf or table: any of read, write, execute makes a leaf

    def _rwx(self, entry: Entry) -> Entry:
        return ((entry >> 1) | (entry >> 2) | (entry >> 3)) & 1

    def pmd_present(self, pmd: Entry) -> Entry:
        # A leaf that is being split has neither PRESENT nor PROT_NONE for a while.
        return self.pte_present(pmd) | (self._rwx(pmd) & self._thp)

    def pmd_leaf(self, pmd: Entry) -> Entry:
        return self.pmd_present(pmd) & self._rwx(pmd)

    def pmd_bad(self, pmd: Entry) -> Entry:
        return (self.pmd_present(pmd) ^ 1) | self._rwx(pmd)

    def pmd_trans_huge(self, pmd: Entry) -> Entry:
        return self.pmd_leaf(pmd) & self._thp

    def pud_present(self, pud: Entry) -> Entry:
        """Only PRESENT counts: a PROT_NONE leaf is not none, not present, no leaf, and bad (FINDINGS F17)."""
        return pud & PRESENT

    def pud_leaf(self, pud: Entry) -> Entry:
        return pud & self._rwx(pud)

    def pud_bad(self, pud: Entry) -> Entry:
        return (self.pud_present(pud) ^ 1) | (self._rwx(pud) & self._pud_leaves)

    @hookimpl
    def pud_trans_huge(self, pud: Entry) -> Entry:
        return self.pud_leaf(pud)

    # mk*

    def pte_mkwrite_novma(self, pte: Entry) -> Entry:
        return pte | WRITE

    def pte_wrprotect(self, pte: Entry) -> Entry:
        return (pte & (MASK64 ^ WRITE)) | self._wrprotect_sets

    def pte_mkdirty(self, pte: Entry) -> Entry:
        return pte | DIRTY | self._soft_dirty

    def pte_mkclean(self, pte: Entry) -> Entry:
        return pte & (MASK64 ^ DIRTY)

    def pte_mkyoung(self, pte: Entry) -> Entry:
        return pte | ACCESSED

    def pte_mkold(self, pte: Entry) -> Entry:
        return pte & (MASK64 ^ ACCESSED)

    def pte_modify(self, pte: Entry, newprot: Entry) -> Entry:
        return (pte & self._chg_mask) | newprot

    def pmd_mkhuge(self, pmd: Entry) -> Entry:
        return pmd

    def pte_mkdevmap(self, pte: Entry) -> Entry:
        return pte | DEVMAP

    pte_mkhuge = pmd_mkhuge
    pmd_mkdevmap = pte_mkdevmap
    pmd_mkwrite_novma = pte_mkwrite_novma
    pmd_wrprotect = pte_wrprotect
    pmd_mkdirty = pte_mkdirty
    pmd_mkclean = pte_mkclean
    pmd_mkyoung = pte_mkyoung
    pmd_mkold = pte_mkold
    pmd_modify = pte_modify
    pud_mkhuge = pmd_mkhuge
    pud_mkdevmap = pte_mkdevmap
    pud_mkwrite = pte_mkwrite_novma
    pud_wrprotect = pte_wrprotect
    pud_mkdirty = pte_mkdirty
    pud_mkclean = pte_mkclean
    pud_mkyoung = pte_mkyoung
    pud_mkold = pte_mkold
    pud_modify = pte_modify

    @hookimpl
    def pte_mkwrite(self, pte: Entry, vm_flags: int) -> Entry:
        """A shadow stack's vma would get an entry without READ here; no pfnmap is one."""
        return self.pte_mkwrite_novma(pte)

    @hookimpl
    def pmd_mkwrite(self, pmd: Entry, vm_flags: int) -> Entry:
        """See `pte_mkwrite`."""
        return self.pmd_mkwrite_novma(pmd)

    @hookimpl
    def pte_mkspecial(self, pte: Entry) -> Entry:
        return pte | SPECIAL

    @hookimpl
    def pmd_mkspecial(self, pmd: Entry) -> Entry:
        return pmd | SPECIAL

    @hookimpl
    def pud_mkspecial(self, pud: Entry) -> Entry:
        return pud | SPECIAL

    @hookimpl
    def ptep_set_access_flags(self, pte: Entry, entry: Entry) -> Entry:
        return entry

    @hookimpl
    def pmdp_set_access_flags(self, pmd: Entry, entry: Entry) -> Entry:
        return entry

    # Soft-dirty: no bit of the entry without Svrsw60t59b, and then all of this changes nothing

    @hookimpl
    def pte_soft_dirty(self, pte: Entry) -> Entry:
        return ((pte & self._soft_dirty) >> 59) & 1

    @hookimpl
    def pte_mksoft_dirty(self, pte: Entry) -> Entry:
        return pte | self._soft_dirty

    @hookimpl
    def pte_clear_soft_dirty(self, pte: Entry) -> Entry:
        return pte & (MASK64 ^ self._soft_dirty)

    @hookimpl
    def pmd_soft_dirty(self, pmd: Entry) -> Entry:
        return self.pte_soft_dirty(pmd)

    @hookimpl
    def pmd_mksoft_dirty(self, pmd: Entry) -> Entry:
        return self.pte_mksoft_dirty(pmd)

    # Table entries, and the upper levels, which this boot may fold

    def _virt_to_pfn_of(self, pa: Entry) -> Entry:
        """Return the pfn that virt_to_pfn makes of the kernel's address of physical address `pa`.

        The rule is that of __va_to_pa_nodebug (asm/page.h, 6.12): an address past the linear map is taken for one of
        the kernel's image, from which va_kernel_pa_offset is subtracted. No kernel has a table there, see `linear_map`.
        The offset is that of a kernel_map without an image, 0: inference, nothing pins it.
        """
        image = ((pa >> (self.linear_map.bit_length() - 1)) != 0) | (pa & 0)
        return ((pa + image * self._page_offset) & MASK64) >> self.geometry.PAGE_SHIFT

    def pmd_populate(self, pa: Entry) -> Entry:
        return self.pfn_pte(self._virt_to_pfn_of(pa), PRESENT)

    pud_populate = pmd_populate

    @hookimpl
    def p4d_populate(self, pa: Entry) -> Entry:
        return self.pmd_populate(pa) * self._l4

    @hookimpl
    def pgd_populate(self, pa: Entry) -> Entry:
        return self.pmd_populate(pa) * self._l5

    @hookimpl
    def p4d_none(self, p4d: Entry) -> Entry:
        return self.pte_none(p4d) & self._l4

    @hookimpl
    def p4d_present(self, p4d: Entry) -> Entry:
        return (p4d & PRESENT) | (self._l4 ^ 1)

    @hookimpl
    def p4d_bad(self, p4d: Entry) -> Entry:
        return self.p4d_present(p4d) ^ 1

    @hookimpl
    def pgd_none(self, pgd: Entry) -> Entry:
        return self.pte_none(pgd) & self._l5

    @hookimpl
    def pgd_present(self, pgd: Entry) -> Entry:
        return (pgd & PRESENT) | (self._l5 ^ 1)

    @hookimpl
    def pgd_bad(self, pgd: Entry) -> Entry:
        return self.pgd_present(pgd) ^ 1

    # Protection

    def _memory_type(self, prot: Entry, memory_type: int) -> Entry:
        return (prot & (MASK64 ^ self._mtmask)) | memory_type

    @hookimpl
    def pgprot_noncached(self, prot: Entry) -> Entry:
        return self._memory_type(prot, self._io)

    def pgprot_writecombine(self, prot: Entry) -> Entry:
        return self._memory_type(prot, self._nocache)

    @property
    def protection_map(self) -> tuple[int, ...]:
        return self._protection_map

    @hookimpl
    def arch_calc_vm_prot_bits(self, vm_flags: int) -> int:
        """PROT_WRITE brings VM_READ, since VM_WRITE alone stands for a shadow stack (mainline's asm/mman.h)."""
        return VM_READ | VM_WRITE if vm_flags & VM_WRITE else 0
