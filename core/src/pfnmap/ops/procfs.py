"""Ops that look at mappings, or clear what was noted of them: the files of /proc, and mincore.

Sources: fs/proc/task_mmu.c and mm/mincore.c of 6.12 and 6.1. The procfs.*, entry.*.clear_refs and fuzz.* records pin
what a pfnmap shows; of anonymous memory no record shows anything, and what is said of it here is read and not run.
The reader is root, as in the records.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOMEM, ENOTTY
from typing import TYPE_CHECKING, Any

from pfnmap import vm_flags
from pfnmap.contract.kernel import LinkedKernel
from pfnmap.contract.slot import Slot
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.errors import BadInput, Refused
from pfnmap.limits import bounded
from pfnmap.mm.huge_memory import is_cow_mapping, thp_vma_allowable_order
from pfnmap.mm.mmap import vma_set_page_prot
from pfnmap.mm.mmu_notifier import mmu_notifier_invalidate_range
from pfnmap.mm.pagewalk import MmWalkOps, pmd_trans_huge_lock, pte_slots, walk_page_range, walk_page_vma
from pfnmap.mm.vm_normal_page import vm_normal_page
from pfnmap.ops.op import Op, errno_result
from pfnmap.vm_flags import VM_PFNMAP, VM_PKEY_MASK, VM_PKEY_SHIFT, VM_SOFTDIRTY

if TYPE_CHECKING:
    from pfnmap.run import Run

__all__ = ["OPS"]

# pagemap

PM_ENTRY_BYTES = 8
PM_SOFT_DIRTY = 1 << 55
PM_MMAP_EXCLUSIVE = 1 << 56
PM_PRESENT = 1 << 63


def _pagemap(run: Run, mm: MmStruct, va: int, count: int) -> dict[str, Any]:
    """pagemap_read: 64 bits a page. A pfnmap is a hole of which only the vma's soft-dirty flag shows (RULES 31)."""
    geometry = mm.kernel.geometry
    start = va & -geometry.PAGE_SIZE
    end = min(start + count * geometry.PAGE_SIZE, geometry.task_size)
    bounded("pagemap", (end - start) >> geometry.PAGE_SHIFT)
    entries: list[int] = []

    def pte_hole(vma: VmArea | None, start: int, end: int) -> None:
        entries.extend([_vma_soft_dirty(vma)] * ((end - start) >> geometry.PAGE_SHIFT))

    def pmd_entry(vma: VmArea, slot: Slot, start: int, end: int) -> None:
        if pmd_trans_huge_lock(vma, slot):
            raise Refused("pagemap", f"a PMD leaf outside a pfnmap at {start:#x}")
        for address, (table, i) in pte_slots(vma, slot, start, end):
            entries.append(_vma_soft_dirty(vma) | _pagemap_entry(vma, address, table[i]))

    if start < end:
        walk_page_range(mm, start, end, MmWalkOps(pmd_entry, pte_hole))
    return {"bytes": len(entries) * PM_ENTRY_BYTES, "entries": [hex(entry) for entry in entries]}


def _vma_soft_dirty(vma: VmArea | None) -> int:
    return PM_SOFT_DIRTY if vma is not None and vma.vm_flags & VM_SOFTDIRTY else 0


def _pagemap_entry(vma: VmArea, address: int, pte: int) -> int:
    """pte_to_pagemap_entry, for a PTE of anonymous memory."""
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    if not kernel.ops.pte_present(pte):
        return 0
    flags = PM_PRESENT
    if kernel.ops.pte_soft_dirty(pte):
        flags |= PM_SOFT_DIRTY
    page = vm_normal_page(vma, address, pte)
    if page is not None and machine.phys.ram[page << kernel.geometry.PAGE_SHIFT].mapcount == 1:
        flags |= PM_MMAP_EXCLUSIVE
    return flags | int(kernel.ops.pte_pfn(pte))


# PAGEMAP_SCAN

PM_SCAN_CATEGORIES = 0xFF


def _pagemap_scan(run: Run, mm: MmStruct, start: int, end: int, any_of: int, return_mask: int) -> dict[str, Any]:
    """do_pagemap_scan: it never walks a pfnmap, so there is no region to report, whatever is asked for."""
    page = mm.kernel.geometry.PAGE_SIZE
    if not mm.kernel.has("pagemap-scan"):
        error = -ENOTTY
    elif (any_of | return_mask) & ~PM_SCAN_CATEGORIES or start % page:
        error = -EINVAL
    elif not start <= end <= mm.kernel.geometry.task_size:
        error = -EFAULT
    else:
        if any(not vma.vm_flags & VM_PFNMAP for vma in mm.intersecting(start, end)):
            raise Refused("pagemap_scan", "anonymous memory")
        return {"ret": 0, "walk_end": hex(-(-end // page) * page), "regions": []}
    return {**errno_result(error), "ret": -1, "walk_end": "0x0", "regions": []}


# mincore


def _mincore(run: Run, mm: MmStruct, addr: int, length: int) -> dict[str, Any]:
    """mincore: vma by vma, until a hole (-ENOMEM). `resident` counts what was told to be resident before it."""
    geometry = mm.kernel.geometry
    page = geometry.PAGE_SIZE
    pages = -(-length // page)
    if addr % page:
        return errno_result(-EINVAL)
    if addr + length > geometry.task_size:
        return errno_result(-ENOMEM)
    counted = _Resident(mm.kernel)
    end = addr + pages * page
    while addr < end:
        vma = mm.vma_lookup(addr)
        if vma is None:
            return {**errno_result(-ENOMEM), "pages": pages, "resident": counted.pages}
        stop = min(vma.vm_end, end)
        walk_page_range(mm, addr, stop, counted.walk)
        addr = stop
    return {"pages": pages, "resident": counted.pages}


class _Resident:
    """Counts the pages that have an entry. The walk leaves pfnmaps out: a file without page cache has nothing resident.

    From `mincore-pfnmap` on it walks them too and splits no PUD leaf. How it does that is inferred from what 7.3.4
    shows: every page under a leaf counts, and the leaf stays.
    """

    def __init__(self, kernel: LinkedKernel) -> None:
        self.pages = 0
        self._kernel = kernel
        if kernel.has("mincore-pfnmap"):
            self.walk = MmWalkOps(self._pmd_entry, pud_entry=self._pud_entry, test_walk=lambda vma: True)
        else:
            self.walk = MmWalkOps(self._pmd_entry)

    def _pud_entry(self, vma: VmArea, slot: Slot, start: int, end: int) -> bool:
        ops = self._kernel.ops
        entry = slot.entry
        leaf = bool(ops.pud_trans_huge(entry) or ops.pud_devmap(entry))
        if leaf:
            self.pages += (end - start) >> self._kernel.geometry.PAGE_SHIFT
        return leaf

    def _pmd_entry(self, vma: VmArea, slot: Slot, start: int, end: int) -> None:
        if pmd_trans_huge_lock(vma, slot):
            self.pages += (end - start) >> self._kernel.geometry.PAGE_SHIFT
            return
        none = self._kernel.ops.pte_none
        self.pages += sum(not none(table[i]) for _, (table, i) in pte_slots(vma, slot, start, end))


# smaps, smaps_rollup, numa_maps

_SIZES = (
    *("Rss", "Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced"),
    *("Anonymous", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb"),
    *("Private_Hugetlb", "Swap", "SwapPss", "Locked"),
)
"""The sizes that smaps tells of what struct pages stand behind: none for a pfnmap."""

_MNEMONICS = {
    getattr(vm_flags, f"VM_{name}"): mnemonic
    for name, mnemonic in (
        *(("READ", "rd"), ("WRITE", "wr"), ("EXEC", "ex"), ("SHARED", "sh")),
        *(("MAYREAD", "mr"), ("MAYWRITE", "mw"), ("MAYEXEC", "me"), ("MAYSHARE", "ms")),
        *(("PFNMAP", "pf"), ("LOCKED", "lo"), ("IO", "io"), ("SEQ_READ", "sr"), ("RAND_READ", "rr")),
        *(("DONTCOPY", "dc"), ("DONTEXPAND", "de"), ("NORESERVE", "nr"), ("ARCH_1", "ar"), ("WIPEONFORK", "wf")),
        *(("DONTDUMP", "dd"), ("SOFTDIRTY", "sd"), ("MIXEDMAP", "mm"), ("HUGEPAGE", "hg"), ("NOHUGEPAGE", "nh")),
        *(("MERGEABLE", "mg"), ("SEALED", "sl")),
    )
}
"""show_smap_vma_flags; any other flag shows as "??", protection keys not at all."""


def _walk_every_vma(mm: MmStruct) -> None:
    """Read one of the files that walk all of every vma, a pfnmap or not: PUD leaves do not survive it (FINDINGS F5)."""
    for vma in mm:
        walk_page_vma(vma, MmWalkOps(lambda vma, slot, start, end: None))


def _mapping(mm: MmStruct, va: int, op: str) -> VmArea:
    """Read a whole file of /proc, and return the vma that holds `va`."""
    _walk_every_vma(mm)
    vma = mm.vma_lookup(va)
    if vma is None:
        raise BadInput(op, f"no mapping at {va:#x}")
    if not vma.vm_flags & VM_PFNMAP or is_cow_mapping(vma.vm_flags):
        raise Refused(op, "a mapping with pages of its own")
    return vma


def _smaps(run: Run, mm: MmStruct, va: int) -> dict[str, Any]:
    """show_smap of the vma that holds `va`, sizes in kB, after reading the whole file."""
    kernel = mm.kernel
    vma = _mapping(mm, va, "smaps")
    page_kib = kernel.geometry.PAGE_SIZE >> 10
    fields: dict[str, Any] = {"Size": vma.size >> 10, "KernelPageSize": page_kib, "MMUPageSize": page_kib}
    fields.update(dict.fromkeys(_SIZES, 0))
    if kernel.has("smaps-ksm"):
        fields["KSM"] = 0
    fields["THPeligible"] = int(_thp_eligible(vma))
    if kernel.ops.arch_pkeys_enabled():
        fields["ProtectionKey"] = (vma.vm_flags & VM_PKEY_MASK) >> VM_PKEY_SHIFT
    fields["VmFlags"] = _vm_flags(vma)
    return {"fields": fields}


def _thp_eligible(vma: VmArea) -> bool:
    """thp_vma_allowable_orders as smaps asks it: as for a fault, if a PMD leaf fits the vma and its file offset.

    Until 6.12 no pfnmap is eligible; none has a huge_fault there (FINDINGS F6, F16). A PUD leaf fits only where a PMD
    leaf does.
    """
    geometry = vma.vm_mm.kernel.geometry
    size = geometry.size("pmd")
    if vma.vm_ops is None or vma.vm_ops.huge_fault is None or not thp_vma_allowable_order(vma):
        return False
    congruent = (vma.vm_start - (vma.vm_pgoff << geometry.PAGE_SHIFT)) % size == 0
    return congruent and vma.vm_start <= (vma.vm_end - size) & -size


def _vm_flags(vma: VmArea) -> list[str]:
    flags = vma.vm_flags & ~VM_PKEY_MASK
    return [_MNEMONICS.get(1 << bit, "??") for bit in range(64) if flags >> bit & 1]


def _smaps_rollup(run: Run, mm: MmStruct) -> dict[str, Any]:
    """show_smaps_rollup; what it prints is not modelled, what it does to the tables is."""
    _walk_every_vma(mm)
    return {}


def _numa_maps(run: Run, mm: MmStruct, va: int) -> dict[str, Any]:
    """show_numa_map of the vma that holds `va`, after reading the whole file: the memory policy and the file."""
    vma = _mapping(mm, va, "numa_maps")
    assert vma.vm_file is not None
    return {"tokens": [str(vma.vm_policy or "default"), f"file={vma.vm_file.f_op.path(vma.vm_file)}"]}


# clear_refs

CLEAR_REFS_ALL = 1
CLEAR_REFS_ANON = 2
CLEAR_REFS_MAPPED = 3
CLEAR_REFS_SOFT_DIRTY = 4
CLEAR_REFS_MM_HIWATER_RSS = 5


def _clear_refs(run: Run, mm: MmStruct, value: int) -> dict[str, Any]:
    """clear_refs_write. Entries of pfnmaps are never changed (RULES 31); what 4 changes of them is the vma: no longer
    soft-dirty, it has its first writes notified, and leaves made from then on are read-only (FINDINGS F21)."""
    if not CLEAR_REFS_ALL <= value <= CLEAR_REFS_MM_HIWATER_RSS:
        return errno_result(-EINVAL)
    if value == CLEAR_REFS_MM_HIWATER_RSS:
        return {}
    if value == CLEAR_REFS_SOFT_DIRTY:
        for vma in mm:
            if vma.vm_flags & VM_SOFTDIRTY:
                vma.vm_flags &= ~VM_SOFTDIRTY
                vma_set_page_prot(vma)
        mmu_notifier_invalidate_range(mm, 0, mm.kernel.geometry.task_size)
    clear = _clear_soft_dirty if value == CLEAR_REFS_SOFT_DIRTY else _clear_young
    present = mm.kernel.ops.pte_present

    def pmd_entry(vma: VmArea, slot: Slot, start: int, end: int) -> None:
        if pmd_trans_huge_lock(vma, slot):
            raise Refused("clear_refs", f"a PMD leaf outside a pfnmap at {start:#x}")
        for address, (table, i) in pte_slots(vma, slot, start, end):
            if present(table[i]):
                table[i] = clear(vma, address, table[i])

    def test_walk(vma: VmArea) -> bool:
        skipped = {CLEAR_REFS_ANON: vma.vm_file is not None, CLEAR_REFS_MAPPED: vma.vm_file is None}
        return not vma.vm_flags & VM_PFNMAP and not skipped.get(value)

    walk_page_range(mm, 0, mm.kernel.geometry.task_size, MmWalkOps(pmd_entry, test_walk=test_walk))
    return {}


def _clear_soft_dirty(vma: VmArea, address: int, pte: int) -> int:
    kernel = vma.vm_mm.kernel
    if not kernel.config.enabled("MEM_SOFT_DIRTY"):
        return pte
    return int(kernel.ops.pte_clear_soft_dirty(kernel.ops.pte_wrprotect(pte)))


def _clear_young(vma: VmArea, address: int, pte: int) -> int:
    return pte if vm_normal_page(vma, address, pte) is None else int(vma.vm_mm.kernel.ops.pte_mkold(pte))


OPS = {
    "pagemap": Op(_pagemap, {"va": "address", "count": "int"}),
    "pagemap_scan": Op(
        _pagemap_scan, {"start": "address", "end": "address", "any_of": "address", "return_mask": "address"}
    ),
    "mincore": Op(_mincore, {"addr": "address", "length": "size"}),
    "smaps": Op(_smaps, {"va": "address"}),
    "smaps_rollup": Op(_smaps_rollup, {}),
    "numa_maps": Op(_numa_maps, {"va": "address"}),
    "clear_refs": Op(_clear_refs, {"value": "signed"}),
}
