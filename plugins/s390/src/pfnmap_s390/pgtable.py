"""The page-table entry helpers of s390 under their kernel names.

Read from arch/s390/include/asm/pgtable.h and pgalloc.h, arch/s390/mm/mmap.c and pgtable.c (6.12; mainline of 6.16 for
what `s390-segment-software-bits` changed). The vectors of 6.12.117 and 7.3.4 pin every helper but the
*_set_access_flags; both are of a CPU with the no-execute facility: the helpers without it are read and not run.

No entry is zero: an empty one has an invalid bit, and region entries say which table they are of. Access and dirty
state are software's: an entry that is old is invalid to the CPU, one that is clean is protected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pfnmap import Arch, BadInput, Entry, Geometry, Has, Level, WalkLevel, hookimpl
from pfnmap_s390.bits import (
    MASK64,
    NEWER_SEGMENT_BITS,
    OLDER_SEGMENT_BITS,
    PAGE_DIRTY,
    PAGE_INVALID,
    PAGE_KERNEL,
    PAGE_KERNEL_RO,
    PAGE_LARGE,
    PAGE_MASK,
    PAGE_NOEXEC,
    PAGE_NONE,
    PAGE_PRESENT,
    PAGE_PROTECT,
    PAGE_READ,
    PAGE_RO,
    PAGE_RW,
    PAGE_RX,
    PAGE_SOFT_DIRTY,
    PAGE_SPECIAL,
    PAGE_WRITE,
    PAGE_YOUNG,
    PROTECTION_MAP,
    REGION1_EMPTY,
    REGION1_ENTRY,
    REGION2_EMPTY,
    REGION2_ENTRY,
    REGION3_EMPTY,
    REGION3_ENTRY,
    REGION3_ORIGIN_LARGE,
    REGION_FOREIGN_BITS,
    REGION_INVALID,
    REGION_ORIGIN,
    REGION_TYPE_MASK,
    REGION_TYPE_R1,
    REGION_TYPE_R2,
    REGION_TYPE_R3,
    SEGMENT_DIRTY,
    SEGMENT_EMPTY,
    SEGMENT_FOREIGN_BITS,
    SEGMENT_INVALID,
    SEGMENT_LARGE,
    SEGMENT_NOEXEC,
    SEGMENT_ORIGIN,
    SEGMENT_ORIGIN_LARGE,
    SEGMENT_PROTECT,
    SEGMENT_TYPE_MASK,
    SEGMENT_YOUNG,
    any_of,
    zero,
)
from pfnmap_s390.pci_mmio import ZPCI_IOMAP_ADDR_BASE

__all__ = ["Pgtable"]

_EMPTY: Final[Mapping[Level, int]] = {
    "pte": PAGE_INVALID,
    "pmd": SEGMENT_EMPTY,
    "pud": REGION3_EMPTY,
    "p4d": REGION2_EMPTY,
    "pgd": REGION1_EMPTY,
}

_GEOMETRY: Final = Geometry(
    PAGE_SHIFT=12,
    PMD_SHIFT=20,
    PUD_SHIFT=31,
    P4D_SHIFT=42,
    PGDIR_SHIFT=53,
    PTRS_PER_PTE=256,
    PTRS_PER_PMD=2048,
    PTRS_PER_PUD=2048,
    PTRS_PER_P4D=2048,
    PTRS_PER_PGD=2048,
    walk=(
        WalkLevel("pgd", 53, 2048),
        WalkLevel("p4d", 42, 2048),
        WalkLevel("pud", 31, 2048),
        WalkLevel("pmd", 20, 2048),
        WalkLevel("pte", 12, 256),
    ),
    task_size=(1 << 64) - (1 << 12),
    new_process_levels=3,
)
"""TASK_SIZE_MAX ends a page early. A new process begins with a region-third table (init_new_context), which holds 4T:
its stack and all that mmap chooses an address for lie below (STACK_TOP_MAX); asce_limit is what its tables reach."""


def _pgd_folded(pgd: Entry) -> Entry:
    return zero((pgd & REGION_TYPE_MASK) ^ REGION_TYPE_R1) ^ 1


def _p4d_folded(p4d: Entry) -> Entry:
    return any_of(p4d, REGION_TYPE_R2) ^ 1


def _pud_folded(pud: Entry) -> Entry:
    return any_of(pud, REGION_TYPE_MASK) ^ 1


def _is_region3(pud: Entry) -> Entry:
    return zero((pud & REGION_TYPE_MASK) ^ REGION_TYPE_R3)


class Pgtable(Arch):
    """The helpers, and what of configuration, CPU and release they hang on."""

    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Has) -> None:
        """See `pfnmap.Arch.setup_arch`."""
        mask = cpu["mio_wb_bit_mask"]
        if not isinstance(mask, int) or isinstance(mask, bool) or not 0 <= mask <= MASK64:
            raise BadInput("cpu mio_wb_bit_mask", f"{mask!r} is no 64-bit mask")
        self._mio_wb_bit_mask = mask if cpu["mio"] else 0
        self.cookies_from = None if cpu["mio"] else ZPCI_IOMAP_ADDR_BASE
        self.geometry = _GEOMETRY

        moved = has("s390-segment-software-bits")
        segment = NEWER_SEGMENT_BITS if moved else OLDER_SEGMENT_BITS
        soft_dirty = config.get("MEM_SOFT_DIRTY", "n") == "y"
        self._soft_dirty = PAGE_SOFT_DIRTY if soft_dirty else 0
        self._segment_soft_dirty = segment.soft_dirty if soft_dirty else 0
        self._segment_read, self._segment_write, self._segment_present = segment.read, segment.write, segment.present
        self._page_chg_mask = PAGE_MASK | PAGE_SPECIAL | PAGE_DIRTY | PAGE_YOUNG | self._soft_dirty
        self._segment_chg_mask = (
            SEGMENT_ORIGIN_LARGE | SEGMENT_DIRTY | SEGMENT_YOUNG | SEGMENT_LARGE | self._segment_soft_dirty
        )

        # Without the facility the bit is taken out of an entry as it is made; later kernels have it in no protection.
        # That those came with the change is inference: 6.16 has both.
        self._nx = bool(cpu["nx"])
        self._noexec_in_entries = MASK64 if cpu["nx"] or moved else MASK64 ^ PAGE_NOEXEC
        protections = MASK64 if cpu["nx"] or not moved else MASK64 ^ PAGE_NOEXEC  # SEGMENT_NOEXEC is the same bit
        self._protection_map = tuple(prot & protections for prot in PROTECTION_MAP)
        self._kernel, self._kernel_ro = PAGE_KERNEL & protections, PAGE_KERNEL_RO & protections
        read, write, none = segment.read, segment.write, SEGMENT_INVALID | SEGMENT_PROTECT
        self._segment_rwx = segment.present | read | write
        # A dict: without the facility PAGE_RO is PAGE_RX, and PAGE_RW is PAGE_RWX. What is no key is PAGE_RWX.
        self._segment_prots = {
            page & protections: (segment.present | bits) & protections
            for page, bits in (
                (PAGE_NONE, none),
                (PAGE_RO, read | SEGMENT_PROTECT | SEGMENT_NOEXEC),
                (PAGE_RX, read | SEGMENT_PROTECT),
                (PAGE_RW, read | write | SEGMENT_NOEXEC),
            )
        }

        self._thp = int(config.get("TRANSPARENT_HUGEPAGE", "n") == "y")
        undefined = set[str]()
        if not self._thp:
            undefined |= {"pmdp_set_access_flags", "has_transparent_hugepage"}
        if config.get("HUGETLB_PAGE", "n") != "y":
            undefined.add("pte_mkhuge")
        self.undefined = frozenset(undefined)

    def empty(self, level: Level) -> int:
        """See `pfnmap.Arch.empty`: the region tables' entries also tell which table they are of."""
        return _EMPTY[level]

    # pfn and prot to entry and back

    def pfn_pte(self, pfn: Entry, prot: Entry) -> Entry:
        # mk_pte_phys: an entry is born young.
        return self.pte_mkyoung((((pfn << 12) & MASK64) | prot) & self._noexec_in_entries)

    def pfn_pmd(self, pfn: Entry, prot: Entry) -> Entry:
        # mk_pmd_phys adds: the low bits of an unaligned pfn carry into the software bits.
        return (((pfn << 12) & MASK64) + self._massage_pgprot_pmd(prot)) & MASK64

    def _massage_pgprot_pmd(self, prot: Entry) -> Entry:
        segment = self._segment_rwx
        result = (prot & 0) | segment
        for page, bits in self._segment_prots.items():
            result = result ^ (zero(prot ^ page) * (bits ^ segment))
        return result

    def pte_pfn(self, pte: Entry) -> Entry:
        return pte >> 12

    def pmd_pfn(self, pmd: Entry) -> Entry:
        return self._pmd_deref(pmd) >> 12

    def _pmd_deref(self, pmd: Entry) -> Entry:
        return pmd & (SEGMENT_ORIGIN ^ (self.pmd_leaf(pmd) * (SEGMENT_ORIGIN ^ SEGMENT_ORIGIN_LARGE)))

    @hookimpl
    def pud_pfn(self, pud: Entry) -> Entry:
        return self.pud_pgtable(pud) >> 12

    def p4d_pfn(self, p4d: Entry) -> Entry:
        return p4d >> 12

    pgd_pfn = p4d_pfn

    def pmd_pgtable(self, pmd: Entry) -> Entry:
        return pmd & SEGMENT_ORIGIN

    def pud_pgtable(self, pud: Entry) -> Entry:
        # pud_deref
        return pud & (REGION_ORIGIN ^ (self.pud_leaf(pud) * (REGION_ORIGIN ^ REGION3_ORIGIN_LARGE)))

    def p4d_pgtable(self, p4d: Entry) -> Entry:
        return p4d & REGION_ORIGIN

    pgd_pgtable = p4d_pgtable

    @hookimpl
    def pte_pgprot(self, pte: Entry) -> Entry:
        """The pgprot of a kernel mapping of the same page: present, young and dirty; the pfn stays in it."""
        kernel = self._kernel_ro ^ (self.pte_write(pte) * (self._kernel_ro ^ self._kernel))
        return (pte & (self._page_chg_mask | self._mio_wb_bit_mask)) | kernel

    # Predicates of a PTE

    def pte_present(self, pte: Entry) -> Entry:
        return any_of(pte, PAGE_PRESENT)

    def pte_none(self, pte: Entry) -> Entry:
        return zero(pte ^ PAGE_INVALID)

    def pte_write(self, pte: Entry) -> Entry:
        return any_of(pte, PAGE_WRITE)

    def pte_dirty(self, pte: Entry) -> Entry:
        return any_of(pte, PAGE_DIRTY)

    def pte_young(self, pte: Entry) -> Entry:
        return any_of(pte, PAGE_YOUNG)

    @hookimpl
    def pte_special(self, pte: Entry) -> Entry:
        return any_of(pte, PAGE_SPECIAL)

    @hookimpl
    def pte_soft_dirty(self, pte: Entry) -> Entry:
        return any_of(pte, self._soft_dirty)

    # Predicates of a PMD

    def pmd_present(self, pmd: Entry) -> Entry:
        if self._segment_present:
            return any_of(pmd, self._segment_present)
        return self.pmd_none(pmd) ^ 1

    def pmd_none(self, pmd: Entry) -> Entry:
        return zero(pmd ^ SEGMENT_EMPTY)

    def pmd_leaf(self, pmd: Entry) -> Entry:
        large = any_of(pmd, SEGMENT_LARGE)
        return large & self.pmd_present(pmd) if self._segment_present else large

    def pmd_bad(self, pmd: Entry) -> Entry:
        return any_of(pmd, SEGMENT_TYPE_MASK | SEGMENT_FOREIGN_BITS) | self.pmd_leaf(pmd)

    def pmd_trans_huge(self, pmd: Entry) -> Entry:
        return self.pmd_leaf(pmd) & self._thp

    def pmd_write(self, pmd: Entry) -> Entry:
        return any_of(pmd, self._segment_write)

    def pmd_dirty(self, pmd: Entry) -> Entry:
        return any_of(pmd, SEGMENT_DIRTY)

    def pmd_young(self, pmd: Entry) -> Entry:
        return any_of(pmd, SEGMENT_YOUNG)

    @hookimpl
    def pmd_soft_dirty(self, pmd: Entry) -> Entry:
        return any_of(pmd, self._segment_soft_dirty)

    # Predicates of the region tables' entries

    def pud_present(self, pud: Entry) -> Entry:
        present = any_of(pud, self._segment_present or REGION_ORIGIN)
        return _pud_folded(pud) | present

    def pud_none(self, pud: Entry) -> Entry:
        return zero(pud ^ REGION3_EMPTY)

    def pud_leaf(self, pud: Entry) -> Entry:
        large = _is_region3(pud) & any_of(pud, SEGMENT_LARGE)
        return large & self.pud_present(pud) if self._segment_present else large

    def pud_bad(self, pud: Entry) -> Entry:
        return any_of(pud, REGION_TYPE_R2) | (_is_region3(pud) & any_of(pud, REGION_FOREIGN_BITS))

    @hookimpl
    def pud_write(self, pud: Entry) -> Entry:
        return self.pmd_write(pud)

    @hookimpl
    def p4d_present(self, p4d: Entry) -> Entry:
        return _p4d_folded(p4d) | any_of(p4d, REGION_ORIGIN)

    @hookimpl
    def p4d_none(self, p4d: Entry) -> Entry:
        return zero(p4d ^ REGION2_EMPTY)

    @hookimpl
    def p4d_bad(self, p4d: Entry) -> Entry:
        foreign = any_of(p4d, REGION_FOREIGN_BITS) | (_pgd_folded(p4d) ^ 1)
        return (_p4d_folded(p4d) ^ 1) & foreign

    @hookimpl
    def pgd_present(self, pgd: Entry) -> Entry:
        return _pgd_folded(pgd) | any_of(pgd, REGION_ORIGIN)

    @hookimpl
    def pgd_none(self, pgd: Entry) -> Entry:
        return (_pgd_folded(pgd) ^ 1) & any_of(pgd, REGION_INVALID)

    @hookimpl
    def pgd_bad(self, pgd: Entry) -> Entry:
        return (_pgd_folded(pgd) ^ 1) & any_of(pgd, REGION_FOREIGN_BITS)

    # mk* of a PTE

    def pte_mkwrite_novma(self, pte: Entry) -> Entry:
        return _cleared_where(pte | PAGE_WRITE, self.pte_dirty(pte), PAGE_PROTECT)

    def pte_wrprotect(self, pte: Entry) -> Entry:
        return (pte & (MASK64 ^ PAGE_WRITE)) | PAGE_PROTECT

    def pte_mkdirty(self, pte: Entry) -> Entry:
        return _cleared_where(pte | PAGE_DIRTY | self._soft_dirty, self.pte_write(pte), PAGE_PROTECT)

    def pte_mkclean(self, pte: Entry) -> Entry:
        return (pte & (MASK64 ^ PAGE_DIRTY)) | PAGE_PROTECT

    def pte_mkyoung(self, pte: Entry) -> Entry:
        return _cleared_where(pte | PAGE_YOUNG, any_of(pte, PAGE_READ), PAGE_INVALID)

    def pte_mkold(self, pte: Entry) -> Entry:
        return (pte & (MASK64 ^ PAGE_YOUNG)) | PAGE_INVALID

    def pte_modify(self, pte: Entry, newprot: Entry) -> Entry:
        # The protections are those of an old, clean page; what the page allows at once is cleared.
        new = (pte & self._page_chg_mask) | newprot
        new = _cleared_where(new, self.pte_young(new) & any_of(new, PAGE_READ), PAGE_INVALID)
        return _cleared_where(new, self.pte_dirty(new) & self.pte_write(new), PAGE_PROTECT)

    def pte_mkhuge(self, pte: Entry) -> Entry:
        return pte | PAGE_LARGE

    @hookimpl
    def pte_mkspecial(self, pte: Entry) -> Entry:
        return pte | PAGE_SPECIAL

    @hookimpl
    def pte_mksoft_dirty(self, pte: Entry) -> Entry:
        return pte | self._soft_dirty

    @hookimpl
    def pte_clear_soft_dirty(self, pte: Entry) -> Entry:
        return pte & (MASK64 ^ self._soft_dirty)

    @hookimpl
    def ptep_set_access_flags(self, pte: Entry, entry: Entry) -> Entry:
        """The new entry as it is; arch/s390 defines it for the order of TLB flushes."""
        return entry

    # mk* of a PMD leaf, and of a PUD leaf as far as there are any: the bits are the same

    def pmd_mkhuge(self, pmd: Entry) -> Entry:
        return pmd | SEGMENT_LARGE | SEGMENT_YOUNG | SEGMENT_PROTECT

    def pmd_mkwrite_novma(self, pmd: Entry) -> Entry:
        return _cleared_where(pmd | self._segment_write, self.pmd_dirty(pmd), SEGMENT_PROTECT)

    def pmd_wrprotect(self, pmd: Entry) -> Entry:
        return (pmd & (MASK64 ^ self._segment_write)) | SEGMENT_PROTECT

    def pmd_mkdirty(self, pmd: Entry) -> Entry:
        return _cleared_where(pmd | SEGMENT_DIRTY | self._segment_soft_dirty, self.pmd_write(pmd), SEGMENT_PROTECT)

    def pmd_mkclean(self, pmd: Entry) -> Entry:
        return (pmd & (MASK64 ^ SEGMENT_DIRTY)) | SEGMENT_PROTECT

    def pmd_mkyoung(self, pmd: Entry) -> Entry:
        return _cleared_where(pmd | SEGMENT_YOUNG, any_of(pmd, self._segment_read), SEGMENT_INVALID)

    def pmd_mkold(self, pmd: Entry) -> Entry:
        return (pmd & (MASK64 ^ SEGMENT_YOUNG)) | SEGMENT_INVALID

    def pmd_modify(self, pmd: Entry, newprot: Entry) -> Entry:
        new = (pmd & self._segment_chg_mask) | self._massage_pgprot_pmd(newprot)
        clean, old = self.pmd_dirty(new) ^ 1, self.pmd_young(new) ^ 1
        return new | (clean * SEGMENT_PROTECT) | (old * SEGMENT_INVALID)

    pud_mkwrite = pmd_mkwrite_novma
    pud_wrprotect = pmd_wrprotect
    pud_mkdirty = pmd_mkdirty
    pud_mkclean = pmd_mkclean

    @hookimpl
    def pmd_mksoft_dirty(self, pmd: Entry) -> Entry:
        return pmd | self._segment_soft_dirty

    @hookimpl
    def pmdp_set_access_flags(self, pmd: Entry, entry: Entry) -> Entry:
        """The new entry made young; a caller whose access is a write has made it dirty."""
        return self.pmd_mkyoung(entry)

    # Table entries

    def pmd_populate(self, pa: Entry) -> Entry:
        return pa | self._segment_present

    def pud_populate(self, pa: Entry) -> Entry:
        return pa | REGION3_ENTRY

    @hookimpl
    def p4d_populate(self, pa: Entry) -> Entry:
        return pa | REGION2_ENTRY

    @hookimpl
    def pgd_populate(self, pa: Entry) -> Entry:
        return pa | REGION1_ENTRY

    # Protection. Caching belongs to the address, not to the page: the generic fallbacks leave a pgprot as it is.

    def pgprot_writecombine(self, prot: Entry) -> Entry:
        return prot | self._mio_wb_bit_mask

    @property
    def protection_map(self) -> tuple[int, ...]:
        return self._protection_map

    @hookimpl
    def has_transparent_hugepage(self) -> bool:
        """EDAT1, which every machine that these kernels run on has (z10 and later)."""
        return True


def _cleared_where(entry: Entry, condition: Entry, bit: int) -> Entry:
    """Clear a bit where the condition is 1."""
    return entry & (MASK64 ^ (condition * bit))
