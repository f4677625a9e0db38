"""Faults, inserting base pages, zapping (mm/memory.c).

Order of locks, as in the kernel: the per-VMA lock or mmap_lock, then the driver's own, then the page-table lock. The
model is sequential; what it keeps of the locks is which pass of a fault runs under which (FINDINGS F9).
"""

from __future__ import annotations

from array import array
from errno import EINVAL

from pfnmap.contract.fault import (
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_VMA_LOCK,
    FAULT_FLAG_WRITE,
    VM_FAULT_FALLBACK,
    VM_FAULT_NOPAGE,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    vm_fault_name,
)
from pfnmap.contract.phys import Page
from pfnmap.contract.slot import Slot
from pfnmap.contract.vma import AddressSpace, AnonVma, VmArea, VmFault
from pfnmap.errors import Refused
from pfnmap.limits import PTES, bounded
from pfnmap.mm import huge_memory
from pfnmap.mm.mmu_notifier import mmu_notifier_invalidate_range
from pfnmap.mm.pfnmap_track import setup_cachemode, track_remap, untrack_remap
from pfnmap.mm.vm_normal_page import vm_normal_page
from pfnmap.trace import Call, Fault, Install
from pfnmap.vm_flags import (
    VM_ACCESS_FLAGS,
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_IO,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
)

__all__ = [
    "copy_page_range",
    "handle_mm_fault",
    "insert_pfns",
    "remap_pfn_range",
    "unmap_mapping_range",
    "unmap_single_vma",
    "vmf_insert_pfn",
    "zap_vma_ptes",
]


def handle_mm_fault(vma: VmArea, address: int, flags: int) -> int:
    """Handle a fault at a byte address: from the largest order down, each only where its level's entry is empty.

    Returns a VM_FAULT code: 0 or NOPAGE when there is something to retry the access with, RETRY when the per-VMA lock
    does not do and mmap_lock is needed, SIGBUS, SIGSEGV, OOM.
    """
    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    geometry = kernel.geometry
    tables = mm.tables
    machine.trace.emit(Call("handle_mm_fault", address))
    vmf = VmFault(vma, address & -geometry.PAGE_SIZE, address, flags)
    write = bool(flags & FAULT_FLAG_WRITE)

    p4d = tables.p4d_alloc(tables.pgd_offset(address), address)
    vmf.pud = pud = tables.pud_alloc(p4d, address)
    entry = pud.entry
    allowed = huge_memory.thp_vma_allowable_order(vma)
    if ops.pud_none(entry) and allowed:
        ret = _create_huge_pud(vmf)
        if not ret & VM_FAULT_FALLBACK:
            return ret
    elif ops.pud_trans_huge(entry) or ops.pud_devmap(entry):
        if not write or ops.pud_write(entry):
            huge_memory.huge_pud_set_accessed(vmf)
            return 0
        ret = _wp_huge_pud(vmf)
        if not ret & VM_FAULT_FALLBACK:
            return ret

    vmf.pmd = pmd = tables.pmd_alloc(pud, address)
    entry = pmd.entry
    if ops.pmd_none(entry):
        if allowed:
            ret = _huge_fault(vmf, geometry.PMD_ORDER)
            if not ret & VM_FAULT_FALLBACK:
                return ret
    elif not ops.pmd_present(entry):
        raise Refused("handle_mm_fault", f"PMD entry {entry:#x} is neither empty nor present")
    elif ops.pmd_trans_huge(entry) or ops.pmd_devmap(entry):
        if not write or ops.pmd_write(entry):
            huge_memory.huge_pmd_set_accessed(vmf)
            return 0
        ret = _wp_huge_pmd(vmf)
        if not ret & VM_FAULT_FALLBACK:
            return ret
    return _handle_pte_fault(vmf)


def _create_huge_pud(vmf: VmFault) -> int:
    kernel = vmf.vma.vm_mm.kernel
    if not kernel.config.enabled("HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"):
        return VM_FAULT_FALLBACK
    return _huge_fault(vmf, kernel.geometry.PUD_ORDER)


def _huge_fault(vmf: VmFault, order: int) -> int:
    """Ask the driver's huge_fault, if it has one, for an order."""
    ops = vmf.vma.vm_ops
    if ops is None or ops.huge_fault is None:
        return VM_FAULT_FALLBACK
    return _traced(vmf, order, ops.huge_fault(vmf, order))


def _traced(vmf: VmFault, order: int, ret: int) -> int:
    lock = bool(vmf.flags & FAULT_FLAG_VMA_LOCK)
    vmf.vma.vm_mm.machine.trace.emit(Fault(order, vm_fault_name(ret), vmf.address, vmf.write, lock))
    return ret


def _wp_huge_pud(vmf: VmFault) -> int:
    kernel = vmf.vma.vm_mm.kernel
    if not kernel.config.enabled("HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"):
        return VM_FAULT_FALLBACK
    if vmf.vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        ret = _huge_fault(vmf, kernel.geometry.PUD_ORDER)
        if not ret & VM_FAULT_FALLBACK:
            return ret
    assert vmf.pud is not None
    huge_memory.split_huge_pud(vmf.vma, vmf.pud, vmf.address)
    return VM_FAULT_FALLBACK


def _wp_huge_pmd(vmf: VmFault) -> int:
    if vmf.vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        ret = _huge_fault(vmf, vmf.vma.vm_mm.kernel.geometry.PMD_ORDER)
        if not ret & VM_FAULT_FALLBACK:
            return ret
    assert vmf.pmd is not None
    huge_memory.split_huge_pmd(vmf.vma, vmf.pmd, vmf.address)
    return VM_FAULT_FALLBACK


def _handle_pte_fault(vmf: VmFault) -> int:
    vma = vmf.vma
    mm = vma.vm_mm
    ops = mm.kernel.ops
    assert vmf.pmd is not None
    table, index = vmf.pmd
    if ops.pmd_none(table[index]):
        return _do_fault(vmf)
    pte, at = mm.tables.pte_offset(vmf.pmd, vmf.address)
    entry = pte[at]
    if ops.pte_none(entry):
        return _do_fault(vmf)
    if not ops.pte_present(entry):
        raise Refused("do_swap_page", f"PTE {entry:#x} is neither empty nor present")
    if vmf.flags & (FAULT_FLAG_WRITE | FAULT_FLAG_UNSHARE) and not ops.pte_write(entry):
        return _do_wp_page(vmf, Slot(pte, at))
    if vmf.write:
        pte[at] = ops.ptep_set_access_flags(entry, ops.pte_mkyoung(ops.pte_mkdirty(entry)))
    else:
        pte[at] = ops.ptep_set_access_flags(entry, ops.pte_mkyoung(entry))
    return 0


def _do_fault(vmf: VmFault) -> int:
    """do_pte_missing: the driver's fault for one page, which the per-VMA lock does not cover (vmf_can_call_fault)."""
    ops = vmf.vma.vm_ops
    if ops is None:
        return _do_anonymous_page(vmf)
    if ops.fault is None:
        return VM_FAULT_SIGBUS
    if vmf.flags & FAULT_FLAG_VMA_LOCK:
        return VM_FAULT_RETRY
    return _traced(vmf, 0, ops.fault(vmf))


def _do_anonymous_page(vmf: VmFault) -> int:
    """Private anonymous memory, base pages: a read maps the zero page, a write a new one."""
    vma = vmf.vma
    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    if vma.vm_flags & VM_SHARED:
        raise Refused("shared anonymous memory")
    assert vmf.pmd is not None
    if ops.pmd_none(vmf.pmd[0][vmf.pmd[1]]) and huge_memory.anonymous_thp_allowable(vma, vmf.address):
        raise Refused("anonymous huge page")
    shift = kernel.geometry.PAGE_SHIFT
    if vmf.write:
        anon_vma_prepare(vma)
        entry = ops.pfn_pte(machine.phys.alloc_page() >> shift, vma.vm_page_prot)
        if vma.vm_flags & VM_WRITE:
            entry = ops.pte_mkwrite(ops.pte_mkdirty(entry), vma.vm_flags)
    else:
        entry = ops.pte_mkspecial(ops.pfn_pte(machine.phys.zero_page >> shift, vma.vm_page_prot))
    table, index = mm.tables.pte_alloc(vmf.pmd, vmf.address)
    table[index] = entry
    return 0


def anon_vma_prepare(vma: VmArea) -> None:
    """Give a vma an anon_vma: that of an adjacent one that it could merge with, else a new one (mm/rmap.c)."""
    if vma.anon_vma is not None:
        return
    changeable = VM_ACCESS_FLAGS | VM_SOFTDIRTY
    for other in (vma.vm_mm.find_vma(vma.vm_end), vma.vm_mm.previous(vma.vm_start)):
        if other is None or other.anon_vma is None or not other.anon_vma.singular or other.vm_file is not vma.vm_file:
            continue
        below, above = (vma, other) if other.vm_start == vma.vm_end else (other, vma)
        pages = below.size >> vma.vm_mm.kernel.geometry.PAGE_SHIFT
        adjacent = below.vm_end == above.vm_start and below.vm_pgoff + pages == above.vm_pgoff
        if adjacent and not (other.vm_flags ^ vma.vm_flags) & ~changeable and other.vm_policy is vma.vm_policy:
            vma.anon_vma = other.anon_vma
            return
    vma.anon_vma = AnonVma()


def _do_wp_page(vmf: VmFault, slot: Slot) -> int:
    """A write to a PTE that is not writable, or a page that is to be unshared before it is pinned.

    A shared pfnmap without pfn_mkwrite is made writable in place (wp_pfn_shared), and so is a private page that
    nobody else has (wp_page_reuse); else the page is copied (wp_page_copy). Unsharing leaves the entry read-only.
    """
    vma = vmf.vma
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    table, index = slot
    old = table[index]
    unshare = bool(vmf.flags & FAULT_FLAG_UNSHARE)
    if not vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        page = _private_page(vma, vmf.address, old)
        if page is None or not (page.exclusive or page.can_reuse):
            table[index] = _wp_page_copy(vma, vmf.address, old, unshare)
            return 0
        page.exclusive = True
    if unshare:
        return 0
    entry = ops.pte_mkdirty(ops.pte_mkyoung(old))
    if vma.vm_flags & VM_WRITE:
        entry = ops.pte_mkwrite(entry, vma.vm_flags)
    table[index] = ops.ptep_set_access_flags(old, entry)
    return 0


def _wp_page_copy(vma: VmArea, address: int, old: int, unshare: bool) -> int:
    """Return the PTE of a new page that takes the place of what `old` maps."""
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    anon_vma_prepare(vma)
    pfn = machine.phys.alloc_page() >> kernel.geometry.PAGE_SHIFT
    _unmap_page(vma, address, old)
    entry = ops.pfn_pte(pfn, vma.vm_page_prot)
    if unshare:
        return int(ops.pte_mksoft_dirty(entry) if ops.pte_soft_dirty(old) else entry)
    entry = ops.pte_mkdirty(ops.pte_mkyoung(entry))
    return int(ops.pte_mkwrite(entry, vma.vm_flags) if vma.vm_flags & VM_WRITE else entry)


def _private_page(vma: VmArea, address: int, entry: int) -> Page | None:
    """The private page that a PTE of a vma maps: neither the zero page nor a pfnmap's."""
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    pfn = vm_normal_page(vma, address, entry)
    return None if pfn is None else machine.phys.ram.get(pfn << kernel.geometry.PAGE_SHIFT)


def _unmap_page(vma: VmArea, address: int, entry: int) -> None:
    """An entry goes: the page behind it, if there is one, is mapped once less."""
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    pfn = vm_normal_page(vma, address, entry)
    if pfn is not None:
        machine.phys.unmap_page(pfn << kernel.geometry.PAGE_SHIFT)


def vmf_insert_pfn(vma: VmArea, address: int, pfn: int) -> int:
    """Insert the PTE for one page; a PTE that is already there stays. Returns a VM_FAULT code."""
    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    tables = mm.tables
    machine.trace.emit(Call("vmf_insert_pfn", address))
    huge_memory.bug_on_cow(vma, "vmf_insert_pfn_prot")
    if not vma.vm_start <= address < vma.vm_end:
        return VM_FAULT_SIGBUS
    p4d = tables.p4d_alloc(tables.pgd_offset(address), address)
    pmd = tables.pmd_alloc(tables.pud_alloc(p4d, address), address)
    table, index = tables.pte_alloc(pmd, address)
    if ops.pte_none(table[index]):
        table[index] = entry = ops.pte_mkspecial(ops.pfn_pte(pfn, setup_cachemode(vma, pfn)))
        machine.trace.emit(Install("pte", address, pfn, entry))
    return VM_FAULT_NOPAGE


def insert_pfns(vma: VmArea, address: int, pfn: int, size: int, prot: int) -> None:
    """Map `size` bytes from `address` on to consecutive base pages from `pfn`, with special PTEs (remap_p4d_range and
    below). The entries must be empty. Those under one PUD entry are computed in one numpy operation.
    """
    mm = vma.vm_mm
    tables = mm.tables
    span = mm.kernel.geometry.size("pud")
    shift = mm.kernel.geometry.PAGE_SHIFT
    bounded("insert_pfns", size >> shift, PTES, "PTEs")
    end = address + size
    while address < end:
        stop = min((address & -span) + span, end)
        p4d = tables.p4d_alloc(tables.pgd_offset(address), address)
        pmd = tables.pmd_alloc(tables.pud_alloc(p4d, address), address)
        _insert_under_pud(vma, pmd, address, stop, pfn, prot)
        pfn += (stop - address) >> shift
        address = stop


def _insert_under_pud(vma: VmArea, pmd: Slot, start: int, end: int, pfn: int, prot: int) -> None:
    """Fill [start, end), whose first PMD slot is `pmd`."""
    import numpy as np

    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    geometry = kernel.geometry
    shift, span = geometry.PAGE_SHIFT, geometry.size("pmd")
    pfns = np.arange(pfn, pfn + ((end - start) >> shift), dtype=np.uint64)
    entries = array("Q", ops.pte_mkspecial(ops.pfn_pte(pfns, prot)).tobytes())
    table, index = pmd
    done = 0
    address = start
    while address < end:
        stop = min((address & -span) + span, end)
        count = (stop - address) >> shift
        ptes, first = mm.tables.pte_alloc(Slot(table, index), address)
        ptes[first : first + count] = entries[done : done + count]
        machine.trace.emit(Install("pte", address, pfn + done, entries[done], count))
        done += count
        address = stop
        index += 1


def remap_pfn_range(vma: VmArea, address: int, pfn: int, size: int, prot: int) -> int:
    """Map `size` bytes from `address` on to consecutive base pages from `pfn`, with PTEs (PMD leaves with
    `remap-pfn-range-pmd`).

    Returns 0, or -EINVAL for a part of a COW mapping, whose vm_pgoff must tell the pfn of all of it, and where the
    architecture has other caching for some of it.
    """
    page = vma.vm_mm.kernel.geometry.PAGE_SIZE
    size = -(-size // page) * page
    prot = track_remap(vma, prot, pfn, address, size)
    if prot < 0:
        return prot
    if vma.vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE:
        if (address, address + size) != (vma.vm_start, vma.vm_end):
            untrack_remap(vma, pfn, size)
            return -EINVAL
        vma.vm_pgoff = pfn
    vma.vm_flags |= VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP
    kernel = vma.vm_mm.kernel
    if kernel.has("remap-pfn-range-pmd") and kernel.pfnmap("pmd"):
        _remap_pmds(vma, address, pfn, size, prot)
    else:
        insert_pfns(vma, address, pfn, size, prot)
    return 0


def _remap_pmds(vma: VmArea, address: int, pfn: int, size: int, prot: int) -> None:
    """The unmerged change: PMD leaves for the blocks that are aligned and wholly inside, PTEs before and after.

    From the letter of the posted series; nothing of it was run.
    """
    mm = vma.vm_mm
    machine = mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    tables = mm.tables
    shift, span = kernel.geometry.PAGE_SHIFT, kernel.geometry.size("pmd")
    end = address + size
    congruent = (address - (pfn << shift)) % span == 0
    while address < end:
        stop = min((address & -span) + span, end)
        if congruent and stop - address == span:
            p4d = tables.p4d_alloc(tables.pgd_offset(address), address)
            table, index = tables.pmd_alloc(tables.pud_alloc(p4d, address), address)
            table[index] = entry = ops.pmd_mkspecial(ops.pmd_mkhuge(ops.pfn_pmd(pfn, prot)))
            machine.trace.emit(Install("pmd", address, pfn, entry))
        else:
            insert_pfns(vma, address, pfn, stop - address, prot)
        pfn += (stop - address) >> shift
        address = stop


def unmap_single_vma(vma: VmArea, start: int, end: int, *, mmap_locked: bool = True) -> None:
    """Drop every entry of [start, end) of a vma, and what the architecture tracks of a pfnmap; tables stay."""
    mmu_notifier_invalidate_range(vma.vm_mm, start, end)
    if vma.vm_flags & VM_PFNMAP:
        vma.vm_mm.kernel.ops.untrack_pfn(vma, 0, 0)
    _zap(vma, vma.vm_mm.tables.pgd, 0, start, end, mmap_locked)


def _zap(vma: VmArea, table: array[int], depth: int, start: int, end: int, mmap_locked: bool) -> None:
    """unmap_page_range and the zap_X_range below it, over the entries of one table."""
    mm = vma.vm_mm
    ops = mm.kernel.ops
    tables = mm.tables
    walked = tables.levels[depth]
    if walked.name == "pte":
        first = (start >> walked.shift) & (walked.ptrs - 1)
        _zap_ptes(vma, table, first, start, (end - start) >> walked.shift)
        return
    step = tables.steps[walked.name]
    size = 1 << walked.shift
    address = start
    while address < end:
        stop = min((address & -size) + size, end)
        slot = Slot(table, (address >> walked.shift) & (walked.ptrs - 1))
        entry = table[slot[1]]
        if step.op == "pud" and (ops.pud_trans_huge(entry) or ops.pud_devmap(entry)):
            if stop - address == size:
                huge_memory.zap_huge_pud(vma, slot, address)
            else:
                if not mmap_locked and not mm.kernel.has("unmap-no-vma-lock-warning"):
                    mm.machine.warn_once("include/linux/rwsem.h unmap_page_range", "F4")
                huge_memory.split_huge_pud(vma, slot, address)
        elif step.op == "pmd" and (ops.pmd_trans_huge(entry) or ops.pmd_devmap(entry)):
            if stop - address == size:
                huge_memory.zap_huge_pmd(vma, slot, address)
            else:
                huge_memory.split_huge_pmd(vma, slot, address)
        elif not tables.none_or_clear_bad(walked.name, slot):
            child = mm.machine.phys.tables[step.pgtable(table[slot[1]])]
            _zap(vma, child, depth + 1, address, stop, mmap_locked)
        address = stop


def _zap_ptes(vma: VmArea, table: array[int], first: int, start: int, count: int) -> None:
    """zap_pte_range from the byte address `start` on: the pages of private memory are mapped once less."""
    kernel = vma.vm_mm.kernel
    if vma.is_anonymous or huge_memory.is_cow_mapping(vma.vm_flags):
        size = kernel.geometry.PAGE_SIZE
        for n, entry in enumerate(table[first : first + count]):
            if not kernel.ops.pte_none(entry):
                _unmap_page(vma, start + n * size, entry)
    table[first : first + count] = array("Q", [kernel.arch.empty("pte")]) * count


def zap_vma_ptes(vma: VmArea, address: int, size: int) -> None:
    """Drop the entries of a part of a pfnmap vma (bytes)."""
    if vma.vm_flags & VM_PFNMAP and vma.vm_start <= address and address + size <= vma.vm_end:
        unmap_single_vma(vma, address, address + size)


def unmap_mapping_range(mapping: AddressSpace, holebegin: int, holelen: int) -> None:
    """Drop what every vma of a mapping has of the file range [holebegin, holebegin + holelen) (bytes; 0: to the
    end)."""
    machine = mapping.machine
    kernel = machine.kernel
    machine.trace.emit(Call("unmap_mapping_range"))
    shift = kernel.geometry.PAGE_SHIFT
    for vma in list(mapping.i_mmap.values()):
        begin = vma.vm_pgoff << shift
        low = max(holebegin, begin)
        high = begin + vma.size
        if holelen:
            high = min(high, holebegin + holelen)
        if low < high:
            start = vma.vm_start - begin
            unmap_single_vma(vma, start + low, start + high, mmap_locked=False)


def copy_page_range(dst: VmArea, src: VmArea) -> int:
    """fork: copy the entries of a vma to the child's (RULES 11, 19, 20). Tables are made also where they stay empty.

    A pfnmap is always copied, other memory only where it has private pages (vma_needs_copy). Returns 0, or the errno
    with which the architecture refuses to track the copy.
    """
    if not src.vm_flags & (VM_PFNMAP | VM_MIXEDMAP) and src.anon_vma is None:
        return 0
    if src.vm_flags & VM_PFNMAP and (error := src.vm_mm.kernel.ops.track_pfn_copy(dst, src)):
        return int(error)
    mm = src.vm_mm
    tables = mm.tables
    walked = tables.levels[0]
    size = 1 << walked.shift
    address = src.vm_start
    while address < src.vm_end:
        stop = min((address & -size) + size, src.vm_end)
        _copy(dst, src, dst.vm_mm.tables.pgd_offset(address), tables.pgd_offset(address), 0, address, stop)
        address = stop
    return 0


def _copy(dst: VmArea, src: VmArea, dst_slot: Slot, src_slot: Slot, depth: int, start: int, end: int) -> None:
    """copy_X_range below one entry: leaves are copied, tables gone into."""
    machine = src.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    tables = src.vm_mm.tables
    level = tables.levels[depth].name
    step = tables.steps[level]
    entry = src_slot.entry
    if step.op == "pud" and (ops.pud_trans_huge(entry) or ops.pud_devmap(entry)):
        huge_memory.copy_huge_pud(dst.vm_mm, dst_slot, src, src_slot, start)
        return
    if step.op == "pmd" and (ops.pmd_trans_huge(entry) or ops.pmd_devmap(entry)):
        huge_memory.copy_huge_pmd(dst.vm_mm, dst_slot, src, src_slot, start)
        return
    if tables.none_or_clear_bad(level, src_slot):
        return
    below = tables.levels[depth + 1]
    dst_table = dst.vm_mm.tables.table_under(dst_slot, below.name)
    src_table = machine.phys.tables[step.pgtable(src_slot.entry)]
    mask = below.ptrs - 1
    if below.name == "pte":
        first = (start >> below.shift) & mask
        _copy_ptes(src, dst_table, src_table, first, start, (end - start) >> below.shift)
        return
    size = 1 << below.shift
    address = start
    while address < end:
        stop = min((address & -size) + size, end)
        index = (address >> below.shift) & mask
        _copy(dst, src, Slot(dst_table, index), Slot(src_table, index), depth + 1, address, stop)
        address = stop


def _copy_ptes(src: VmArea, dst_table: array[int], src_table: array[int], first: int, start: int, count: int) -> None:
    """copy_present_ptes of a range from the byte address `start` on: old in the copy; clean too where shared, read-only
    in both where copied on write."""
    import numpy as np

    kernel = src.vm_mm.kernel
    ops = kernel.ops
    chosen = slice(first, first + count)
    old = np.frombuffer(src_table, dtype=np.uint64)[chosen]
    filled = ops.pte_none(old) == 0
    copied = ops.pte_mkold(ops.pte_mkclean(old) if src.vm_flags & VM_SHARED else old)
    if huge_memory.is_cow_mapping(src.vm_flags):
        for n in np.flatnonzero(filled).tolist():
            old[n], copied[n] = _copy_private(src, start + n * kernel.geometry.PAGE_SIZE, int(old[n]))
    new = np.frombuffer(dst_table, dtype=np.uint64)[chosen]
    new[filled] = copied[filled]


def _copy_private(src: VmArea, address: int, entry: int) -> tuple[int, int]:
    """Return the parent's and the child's PTE after a fork: both read-only, the page nobody's own any more.

    A page that may be pinned is copied for the child at once, and stays the parent's as it is (copy_present_page).
    """
    machine = src.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    page = _private_page(src, address, entry)
    if page is not None and page.pins and src.vm_mm.has_pinned:
        pfn = machine.phys.alloc_page() >> kernel.geometry.PAGE_SHIFT
        child = ops.pte_mkdirty(ops.pfn_pte(pfn, src.vm_page_prot))
        return entry, ops.pte_mkwrite(child, src.vm_flags) if src.vm_flags & VM_WRITE else child
    if page is not None:
        page.mapcount += 1
        page.exclusive = False
    entry = ops.pte_wrprotect(entry)
    return entry, ops.pte_mkold(entry)
