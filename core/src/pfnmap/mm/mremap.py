"""mremap (mm/mremap.c). Addresses and lengths in bytes; errors are negative errnos."""

from __future__ import annotations

from dataclasses import replace
from errno import EFAULT, EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING

from pfnmap.contract.slot import Slot
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.mm import huge_memory
from pfnmap.mm.mmap import do_munmap, get_unmapped_area, merge_vmas, page_align
from pfnmap.mm.mmu_notifier import mmu_notifier_invalidate_range
from pfnmap.mm.vma import vma_link
from pfnmap.vm_flags import VM_DONTEXPAND, VM_LOCKED, VM_MAYSHARE, VM_PFNMAP, VM_SEALED, VM_SHARED

if TYPE_CHECKING:
    from array import array


__all__ = ["do_mremap"]


def do_mremap(
    mm: MmStruct,
    address: int,
    old_len: int,
    new_len: int,
    flags: frozenset[str],
    new_address: int = 0,
    chosen: int | None = None,
) -> int:
    """Move or resize [address, address + old_len) and return its address, or -errno.

    `flags`: of MAYMOVE, FIXED, DONTUNMAP. `chosen`: as in `pfnmap.mm.mmap.do_mmap`.
    """
    page = mm.kernel.geometry.PAGE_SIZE
    fixed, dontunmap = "FIXED" in flags, "DONTUNMAP" in flags
    if (fixed or dontunmap) and "MAYMOVE" not in flags:
        return -EINVAL
    old_len, new_len = page_align(mm, old_len), page_align(mm, new_len)
    if (dontunmap and old_len != new_len) or address % page or not new_len:
        return -EINVAL
    if fixed and old_len == new_len and mm.kernel.has("mremap-multi-vma"):
        return _mremap_several(mm, address, old_len, new_address, dontunmap)
    vma = mm.vma_lookup(address)
    if vma is None:
        return -EFAULT
    if vma.vm_flags & VM_SEALED:
        return -EPERM
    if fixed or dontunmap:
        return _mremap_to(mm, address, old_len, new_len, new_address, fixed, dontunmap, chosen)
    if old_len >= new_len:
        if old_len > new_len:
            error = do_munmap(mm, address + new_len, old_len - new_len)
            if error:
                return error
        return address
    error = _may_resize(vma, address, old_len, new_len, dontunmap)
    if error:
        return error
    end = address + new_len
    if vma.vm_end == address + old_len and not mm.intersecting(vma.vm_end, end):
        mm.tables.reach(end)
        mm.resize(vma, vma.vm_start, end)
        merge_vmas(mm, vma)
        return address
    if "MAYMOVE" not in flags:
        return -ENOMEM
    offset = _file_offset(vma, address)
    target = chosen if chosen is not None else get_unmapped_area(mm, offset, new_len, file=vma.vm_file)
    return target if target < 0 else _move_vma(mm, vma, address, old_len, new_len, target, dontunmap)


def _file_offset(vma: VmArea, address: int) -> int:
    if vma.vm_file is None:
        return 0
    return (vma.vm_pgoff << vma.vm_mm.kernel.geometry.PAGE_SHIFT) + address - vma.vm_start


def _may_resize(vma: VmArea, address: int, old_len: int, new_len: int, dontunmap: bool) -> int:
    """vma_to_resize: a pfnmap neither grows nor stays behind, a private mapping is not duplicated."""
    if not old_len and not vma.vm_flags & (VM_SHARED | VM_MAYSHARE):
        return -EINVAL
    if dontunmap and vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -EINVAL
    if old_len > vma.vm_end - address:
        return -EFAULT
    if new_len != old_len and vma.vm_flags & (VM_DONTEXPAND | VM_PFNMAP):
        return -EFAULT
    return 0


def _mremap_to(
    mm: MmStruct,
    address: int,
    old_len: int,
    new_len: int,
    new_address: int,
    fixed: bool,
    dontunmap: bool,
    chosen: int | None,
) -> int:
    """mremap_to: the destination is unmapped before the source is looked at (RULES 26)."""
    error = _bad_destination(mm, address, old_len, new_address, new_len)
    if error:
        return error
    if fixed:
        error = do_munmap(mm, new_address, new_len)
        if error:
            return error
    if old_len > new_len:
        error = do_munmap(mm, address + new_len, old_len - new_len)
        if error:
            return error
        old_len = new_len
    vma = mm.vma_lookup(address)
    if vma is None:
        return -EFAULT
    error = _may_resize(vma, address, old_len, new_len, dontunmap)
    if error:
        return error
    if not fixed:
        offset = _file_offset(vma, address)
        new_address = chosen if chosen is not None else get_unmapped_area(mm, offset, new_len, file=vma.vm_file)
        if new_address < 0:
            return new_address
    return _move_vma(mm, vma, address, old_len, new_len, new_address, dontunmap)


def _bad_destination(mm: MmStruct, address: int, old_len: int, new_address: int, new_len: int) -> int:
    geometry = mm.kernel.geometry
    if new_address % geometry.PAGE_SIZE or new_address + new_len > geometry.task_size:
        return -EINVAL
    overlap = address + old_len > new_address and new_address + new_len > address
    return -EINVAL if overlap else 0


def _mremap_several(mm: MmStruct, address: int, length: int, new_address: int, dontunmap: bool) -> int:
    """A move to a fixed address without resizing, of several vmas with their gaps (`mremap-multi-vma`): each piece of
    the destination is unmapped just before its move; a hole at the start is -EFAULT."""
    end = address + length
    first = mm.vma_lookup(address)
    if first is None:
        return -EFAULT
    error = _bad_destination(mm, address, length, new_address, length)
    if error:
        return error
    for vma in mm.intersecting(address, end):
        start, stop = max(vma.vm_start, address), min(vma.vm_end, end)
        if vma.vm_flags & VM_SEALED:
            return -EPERM
        target = new_address + start - address
        error = do_munmap(mm, target, stop - start) or _may_resize(vma, start, stop - start, stop - start, dontunmap)
        if error:
            return error
        moved = _move_vma(mm, vma, start, stop - start, stop - start, target, dontunmap)
        if moved < 0:
            return moved
    return new_address


def _move_vma(
    mm: MmStruct, vma: VmArea, address: int, old_len: int, new_len: int, new_address: int, dontunmap: bool
) -> int:
    """move_vma: a copy of the vma, the entries moved to it, the old range unmapped."""
    kernel = mm.kernel
    shift = kernel.geometry.PAGE_SHIFT
    pgoff = vma.vm_pgoff + ((address - vma.vm_start) >> shift)
    if vma.is_anonymous and vma.anon_vma is None:
        pgoff = new_address >> shift
    new = replace(vma, vm_start=new_address, vm_end=new_address + new_len, vm_pgoff=pgoff)
    if new.vm_ops is not None and new.vm_ops.open is not None:
        new.vm_ops.open(new)
    mm.tables.reach(new.vm_end)
    vma_link(new)
    _move_page_tables(vma, address, new, new_address, old_len)
    if vma.vm_flags & VM_PFNMAP:
        kernel.ops.untrack_pfn_clear(vma)
    if not dontunmap:
        do_munmap(mm, address, old_len)
    else:
        vma.vm_flags &= ~VM_LOCKED
        if (vma.vm_start, vma.vm_end) == (address, address + old_len):  # no page of it is left
            vma.anon_vma = None
            vma.vm_pgoff = vma.vm_start >> shift if vma.is_anonymous else vma.vm_pgoff
    merge_vmas(mm, new)
    return new_address


def _move_page_tables(vma: VmArea, address: int, new_vma: VmArea, new_address: int, length: int) -> None:
    """move_page_tables (RULES 27): whole tables where both sides are aligned, else leaves, else PTE by PTE."""
    mm = vma.vm_mm
    kernel = mm.kernel
    ops = kernel.ops
    tables = mm.tables
    geometry = kernel.geometry
    pud_size, pmd_size = geometry.size("pud"), geometry.size("pmd")
    end = address + length
    if length >= pmd_size - address % pmd_size and kernel.has("mremap-realign-down"):
        address, new_address = _try_realign_addr(address, vma, new_address, new_vma, pmd_size)
    mmu_notifier_invalidate_range(mm, address, end)
    while address < end:
        extent = _extent(pud_size, address, end, new_address)
        old_pud = _get_old_pud(mm, address)
        if old_pud is not None:
            new_pud = tables.pud_alloc(tables.p4d_alloc(tables.pgd_offset(new_address), new_address), new_address)
            moved = (
                extent == pud_size
                and not geometry.folded("pud")
                and kernel.config.enabled("HAVE_MOVE_PUD")
                and _move_normal(old_pud, new_pud, ops.pud_none, tables.empty["pud"])
            )
            if not moved:
                extent = _extent(pmd_size, address, end, new_address)
                _move_below_pud(vma, old_pud, address, new_pud, new_address, extent)
        address += extent
        new_address += extent


def _try_realign_addr(old: int, vma: VmArea, new: int, new_vma: VmArea, size: int) -> tuple[int, int]:
    """Start at the boundary below where both sides allow it: each at its vma's start with nothing mapped before."""
    if not old % size or old % size != new % size:
        return old, new
    for address, area in ((old, vma), (new, new_vma)):
        if area.vm_start != address or area.vm_mm.intersecting(address & -size, address):
            return old, new
    return old & -size, new & -size


def _extent(size: int, old: int, end: int, new: int) -> int:
    """Bytes up to the next boundary of either side, or the end."""
    return min(size - old % size, end - old, size - new % size)


def _get_old_pud(mm: MmStruct, address: int) -> Slot | None:
    """get_old_pud: the slot of a PMD table; a PUD leaf is "bad" and lost (FINDINGS F2)."""
    tables = mm.tables
    slot = tables.pud_slot(address)
    if slot is None:
        return None
    level = next(w.name for w in tables.levels if tables.steps[w.name].op == "pud")
    return None if tables.none_or_clear_bad(level, slot) else slot


def _move_normal(old: Slot, new: Slot, none, empty: int) -> bool:  # type: ignore[no-untyped-def]
    """move_normal_pud, move_normal_pmd: the whole table moves to an empty slot."""
    if not none(new.entry):
        return False
    new.table[new.index] = old.entry
    old.table[old.index] = empty
    return True


def _move_below_pud(vma: VmArea, old_pud: Slot, old: int, new_pud: Slot, new: int, extent: int) -> None:
    """Move what one PMD entry maps of [old, old + extent)."""
    mm = vma.vm_mm
    kernel = mm.kernel
    ops = kernel.ops
    tables = mm.tables
    pmd_size = kernel.geometry.size("pmd")
    old_pmd = tables.pmd_offset(old_pud, old)
    if ops.pmd_none(old_pmd.entry):
        return
    new_pmd = tables.pmd_alloc(new_pud, new)
    entry = old_pmd.entry
    if ops.pmd_trans_huge(entry) or ops.pmd_devmap(entry):
        if extent == pmd_size and huge_memory.move_huge_pmd(vma, old_pmd, new_pmd, old, new):
            return
        huge_memory.split_huge_pmd(vma, old_pmd, old)
    elif (
        extent == pmd_size
        and kernel.config.enabled("HAVE_MOVE_PMD")
        and _move_normal(old_pmd, new_pmd, ops.pmd_none, tables.empty["pmd"])
    ):
        return
    if ops.pmd_none(old_pmd.entry):
        return
    new_pte = tables.pte_alloc(new_pmd, new)
    old_pte = tables.pte_offset(old_pmd, old)
    _move_ptes(vma, old_pte, new_pte, extent >> kernel.geometry.PAGE_SHIFT)


def _move_ptes(vma: VmArea, old: tuple[array[int], int], new: tuple[array[int], int], count: int) -> None:
    """move_ptes: one by one, soft-dirty then where that is tracked (RULES 12)."""
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    soft_dirty = kernel.config.enabled("MEM_SOFT_DIRTY")
    empty = kernel.arch.empty("pte")
    for n in range(count):
        entry = old[0][old[1] + n]
        if ops.pte_none(entry):
            continue
        old[0][old[1] + n] = empty
        if soft_dirty and ops.pte_present(entry):
            entry = ops.pte_mksoft_dirty(entry)
        new[0][new[1] + n] = entry
