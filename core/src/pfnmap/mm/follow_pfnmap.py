"""Looking up what a pfnmap maps: follow_pfnmap_start, follow_pfnmap_end and, before huge pfnmaps, follow_pte.

Source: mm/memory.c of 6.12.117 and 6.1.192 (the `dma.*` and `first_by_dma_map` records count the calls); the form
without `follow-recheck-under-lock` is the posted series', read and not run. A file of its own: memory.c is long in
the kernel too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL
from typing import TypeAlias

from pfnmap.contract.entry import Level
from pfnmap.contract.follow import FollowPfnmapArgs, caller
from pfnmap.contract.kernel import LinkedKernel
from pfnmap.contract.slot import Slot
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.errors import Misuse, Refused
from pfnmap.mm.locking import i_mmap_rwsem, mmap_lock, page_table_lock
from pfnmap.mm.pte_tables import FEW, following, in_a_row
from pfnmap.trace import Call, Repeat
from pfnmap.vm_flags import VM_IO, VM_PFNMAP

__all__ = [
    "FollowPfnmapArgs",
    "follow_again",
    "follow_pfnmap",
    "follow_pfnmap_end",
    "follow_pfnmap_start",
    "follow_pte",
]

_Found: TypeAlias = "tuple[Level, int, int]"
"""`FollowPfnmapArgs.found`."""


def follow_pfnmap_start(args: FollowPfnmapArgs) -> int:
    """Look up `args.address` and fill in the outputs; return 0, or -EINVAL.

    -EINVAL: the vma is neither VM_IO nor VM_PFNMAP, does not hold the address, or no present entry maps it. On
    success the page-table lock is held until `follow_pfnmap_end`; an entry that changed before the lock was there is
    looked at again, but without `follow-recheck-under-lock` the stale copy is taken. Raises Misuse where neither
    mmap_lock nor, for a file's mapping, i_mmap_rwsem is held, Refused for releases before `huge-pfnmap`.
    """
    machine = args.vma.vm_mm.machine
    kernel = machine.kernel
    if not kernel.has("huge-pfnmap"):
        raise Refused("follow_pfnmap_start", "not in this release (huge-pfnmap); it has follow_pte")
    _assert_locked(args.vma)
    if args.found is not None:
        raise Misuse(caller(2), "follow_pfnmap_start() again before follow_pfnmap_end()")
    args.found = found = _start(kernel, args.vma, args.address)
    machine.trace.emit(Call("follow_pfnmap_start", args.address, "EINVAL" if found is None else "ok"))
    return -EINVAL if found is None else 0


def follow_pfnmap_end(args: FollowPfnmapArgs) -> None:
    """End what follow_pfnmap_start began: the outputs are gone, the page-table lock is free."""
    if args.found is None:
        raise Misuse(caller(2), "follow_pfnmap_end() without a successful follow_pfnmap_start()")
    args.found = None
    page_table_lock(args.vma.vm_mm).release()


def follow_again(vma: VmArea, address: int, pages: int) -> int:
    """Look up those of `pages` pages from `address` on that answer as the page before them did, which was looked up
    just now: leaves of one level with the same flags that map the PFNs that follow. Return how many; 0 for a few, to be
    looked up one by one."""
    mm = vma.vm_mm
    page = mm.kernel.geometry.PAGE_SIZE
    if mmap_lock(mm).contended or page_table_lock(mm).contended:
        return 0
    before = address - page
    end = min(address + pages * page, vma.vm_end)
    count = (in_a_row(mm, before, end) or _in_leaves(mm, before, end)) - 1
    if count <= FEW:
        return 0
    function = "follow_pfnmap_start" if mm.kernel.has("huge-pfnmap") else "follow_pte"
    mm.machine.trace.emit(Repeat((Call(function, address, "ok"),), count, page, 1))
    return count


def _in_leaves(mm: MmStruct, start: int, end: int) -> int:
    """Return how many pages of [start, end) are mapped by huge leaves of one table that are present, have the flags of
    the first and map the PFNs that follow."""
    import numpy as np

    leaf = mm.tables.leaf(start)
    if leaf is None or leaf[0] == "pte":
        return 0
    level, (table, index) = leaf
    ops = mm.kernel.ops
    entry = table[index]
    if not getattr(ops, f"{level}_present")(entry):
        return 0
    size, shift = mm.kernel.geometry.size(level), mm.kernel.geometry.PAGE_SHIFT
    first = start & -size
    words = np.frombuffer(table, np.uint64)[index : index + -(-(end - first) // size)]
    same = words == following(ops, level, getattr(ops, f"{level}_pfn")(entry), entry, len(words), size >> shift)
    count = len(words) if same.all() else int(same.argmin())
    return (min(first + count * size, end) - start) >> shift


@contextmanager
def follow_pfnmap(vma: VmArea, address: int) -> Iterator[FollowPfnmapArgs | None]:
    """follow_pfnmap_start and _end around a block; None in it where nothing was found."""
    args = FollowPfnmapArgs(vma, address)
    if follow_pfnmap_start(args):
        yield None
        return
    try:
        yield args
    finally:
        follow_pfnmap_end(args)


def _assert_locked(vma: VmArea) -> None:
    """pfnmap_lockdep_assert."""
    if not mmap_lock(vma.vm_mm).held and (vma.vm_file is None or not i_mmap_rwsem(vma.vm_file.f_mapping).held):
        raise Misuse(caller(3), "follow_pfnmap_start() needs mmap_lock, or i_mmap_rwsem of the file's mapping")


def _start(kernel: LinkedKernel, vma: VmArea, address: int) -> _Found | None:
    if not vma.vm_start <= address < vma.vm_end or not vma.vm_flags & (VM_IO | VM_PFNMAP):
        return None
    tables = vma.vm_mm.tables
    ops = kernel.ops
    lock = page_table_lock(vma.vm_mm)
    pte = None if lock.contended else tables.pte(address)
    if pte is not None:  # nothing changes on the way to a PTE
        table, index = pte
        entry = table[index]
        if not ops.pte_present(entry):
            return None
        lock.acquire()
        return "pte", entry, address
    recheck = kernel.has("follow-recheck-under-lock")
    while True:
        slot = tables.pud_slot(address)
        if slot is None:
            return None
        pud = slot.entry
        if not ops.pud_present(pud) if recheck else ops.pud_none(pud):
            return None
        if ops.pud_leaf(pud):
            lock.acquire()
            if not recheck or slot.entry == pud:
                return "pud", pud, address
            lock.release()
            continue
        slot = tables.pmd_offset(slot, address)
        pmd = slot.entry
        if recheck and not ops.pmd_present(pmd):
            return None
        if ops.pmd_leaf(pmd):
            lock.acquire()
            if not recheck or slot.entry == pmd:
                return "pmd", pmd, address
            lock.release()
            continue
        return _start_pte(kernel, vma, slot, address)


def _start_pte(kernel: LinkedKernel, vma: VmArea, pmd: Slot, address: int) -> _Found | None:
    tables = vma.vm_mm.tables
    lock = page_table_lock(vma.vm_mm)
    lock.acquire()
    # pte_offset_map_lock finds no table where the PMD entry changed before the lock was there.
    if not kernel.ops.pmd_none(pmd.entry) and not kernel.ops.pmd_bad(pmd.entry):
        table, index = tables.pte_offset(pmd, address)
        if kernel.ops.pte_present(table[index]):
            return "pte", table[index], address
    lock.release()
    return None


def follow_pte(vma: VmArea, address: int) -> int | None:
    """Return the present PTE that maps `address`, or None (the kernel's -EINVAL): empty, or a table missing or bad.

    It knows PTEs only: a huge leaf is a bad table to it. Neither the vma's kind nor its range are asked (6.1). Raises
    Refused from `huge-pfnmap` on, which took it away.
    """
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    if kernel.has("huge-pfnmap"):
        raise Refused("follow_pte", "not in this release (huge-pfnmap); it has follow_pfnmap_start")
    tables = vma.vm_mm.tables
    slot = tables.pud_slot(address)
    found = None
    if slot is not None and not ops.pud_none(slot.entry) and not ops.pud_bad(slot.entry):
        slot = tables.pmd_offset(slot, address)
        if not ops.pmd_none(slot.entry) and not ops.pmd_bad(slot.entry):
            table, index = tables.pte_offset(slot, address)
            found = table[index] if ops.pte_present(table[index]) else None
    machine.trace.emit(Call("follow_pte", address, "EINVAL" if found is None else "ok"))
    return found
