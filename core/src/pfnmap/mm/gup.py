"""get_user_pages, without locks first and then with; and fixup_user_fault (mm/gup.c of 6.12.117).

A pfnmap can never be pinned: gup-fast stops at special entries of every level, and the slow way refuses the vma with
-EFAULT before it looks (the gup.*, ptrace.* and fuzz.* records). "Pages" are PFNs of pages of RAM; each pin holds a
reference.
"""

from __future__ import annotations

from collections.abc import Iterable
from errno import EEXIST, EFAULT, EINVAL, EMLINK, ENOMEM
from typing import Final

from pfnmap.contract.entry import Level
from pfnmap.contract.fault import (
    FAULT_FLAG_REMOTE,
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_WRITE,
    SEGV_PKUERR,
    VM_FAULT_ERROR,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
)
from pfnmap.contract.kernel import MachineState
from pfnmap.contract.machine import FOLL_FORCE, FOLL_LONGTERM, FOLL_WRITE
from pfnmap.contract.slot import Table
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.errors import Refused
from pfnmap.mm.huge_memory import is_cow_mapping
from pfnmap.mm.locking import mmap_lock
from pfnmap.mm.memory import handle_mm_fault
from pfnmap.mm.vm_normal_page import is_zero_pfn, vm_normal_page
from pfnmap.trace import Call
from pfnmap.vm_flags import (
    VM_ACCESS_FLAGS,
    VM_IO,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_SOFTDIRTY,
    VM_WRITE,
)

__all__ = [
    "access_permitted",
    "fixup_user_fault",
    "get_user_page_remote",
    "get_user_pages_fast",
    "get_user_pages_fast_only",
    "get_user_pages_unlocked",
    "gup_fast",
    "pin_user_pages_fast",
    "pin_user_pages_remote",
    "populate_page",
    "populate_vma_page_range",
    "put_pages",
    "unpin_user_pages",
]

FOLL_REMOTE: Final = 0x40000
FOLL_PIN: Final = 0x80000

FAULT_FLAG_TRIED: Final = 0x20


def fixup_user_fault(mm: MmStruct, address: int, fault_flags: int) -> tuple[int, bool]:
    """Fault an address (bytes) in as user space would, under mmap_lock and in one pass (FINDINGS F9).

    Returns (0 or -errno, whether mmap_lock was let go on the way, so that the caller has to look its vma up again).
    -EFAULT without a fault where there is no vma or it does not permit the access; -EFAULT or -ENOMEM after one that
    failed.
    """
    mm.machine.trace.emit(Call("fixup_user_fault", address))
    unlocked = False
    while True:
        vma = mm.vma_lookup(address)
        if vma is None or not _vma_permits_fault(vma, fault_flags):
            return -EFAULT, unlocked
        ret = handle_mm_fault(vma, address, fault_flags)
        if ret & VM_FAULT_ERROR:
            return _vm_fault_to_errno(ret), unlocked
        if not ret & VM_FAULT_RETRY:
            return 0, unlocked
        unlocked = True
        fault_flags |= FAULT_FLAG_TRIED


def _vma_permits_fault(vma: VmArea, fault_flags: int) -> bool:
    write = bool(fault_flags & FAULT_FLAG_WRITE)
    return bool(vma.vm_flags & (VM_WRITE if write else VM_READ)) and access_permitted(
        vma, write, foreign=bool(fault_flags & FAULT_FLAG_REMOTE)
    )


def access_permitted(vma: VmArea, write: bool, *, foreign: bool) -> bool:
    """arch_vma_access_permitted: whether no protection key denies the access. Another process's keys are not asked."""
    return foreign or vma.vm_mm.kernel.access_error(vma.vm_flags, write) != SEGV_PKUERR


def _vm_fault_to_errno(ret: int) -> int:
    return -ENOMEM if ret & VM_FAULT_OOM else -EFAULT


# gup-fast: no vma, no locks, only entries


def get_user_pages_fast(mm: MmStruct, start: int, nr_pages: int, gup_flags: int, pages: list[int]) -> int:
    """Get pages of the running process from the page of `start` on, appended to `pages`.

    Returns how many (at least one), or -errno if none.
    """
    page = mm.kernel.geometry.PAGE_SIZE
    start &= -page
    if start + nr_pages * page > mm.kernel.geometry.task_size:
        return -EFAULT
    pinned = gup_fast(mm, start, start + nr_pages * page, gup_flags, pages)
    if pinned == nr_pages:
        return pinned
    with mmap_lock(mm):
        got = _get_user_pages(mm, start + pinned * page, nr_pages - pinned, gup_flags, pages)
    return pinned + max(got, 0) if pinned else got


def get_user_pages_fast_only(mm: MmStruct, start: int, nr_pages: int, gup_flags: int, pages: list[int]) -> int:
    """Get pages as `get_user_pages_fast` does, by their entries alone; return how many, 0 where that does not do."""
    page = mm.kernel.geometry.PAGE_SIZE
    start &= -page
    if start + nr_pages * page > mm.kernel.geometry.task_size:
        return 0
    return gup_fast(mm, start, start + nr_pages * page, gup_flags, pages)


def get_user_pages_unlocked(mm: MmStruct, start: int, nr_pages: int, gup_flags: int, pages: list[int]) -> int:
    """Get pages as `get_user_pages_fast` does, the slow way at once."""
    with mmap_lock(mm):
        return _get_user_pages(mm, start, nr_pages, gup_flags, pages)


def gup_fast(mm: MmStruct, start: int, end: int, gup_flags: int, pages: list[int]) -> int:
    """Get pages of [start, end) (bytes) by their entries alone, up to the first that needs the slow way; return how
    many."""
    before = len(pages)
    _gup_fast_range(mm, mm.tables.pgd, 0, start, end, gup_flags, pages)
    return len(pages) - before


def _gup_fast_range(
    mm: MmStruct, table: Table, depth: int, start: int, end: int, gup_flags: int, pages: list[int]
) -> bool:
    """gup_fast_X_range of one table; False where it stopped."""
    kernel = mm.kernel
    ops = kernel.ops
    walked = mm.tables.levels[depth]
    size = 1 << walked.shift
    op: Level = "pte" if walked.name == "pte" else mm.tables.steps[walked.name].op
    if op == "pte" and not kernel.config.enabled("ARCH_HAS_PTE_SPECIAL"):
        return False
    address = start
    while address < end:
        stop = min((address & -size) + size, end)
        entry = table[(address >> walked.shift) & (walked.ptrs - 1)]
        if not getattr(ops, f"{op}_present")(entry):
            return False
        if op == "pte" or getattr(ops, f"{op}_leaf")(entry):
            if not _gup_fast_leaf(mm.machine, op, entry, address, stop, gup_flags, pages):
                return False
        else:
            below = mm.tables.next_table(walked.name, entry)
            if below is None or not _gup_fast_range(mm, below, depth + 1, address, stop, gup_flags, pages):
                return False
        address = stop
    return True


def _gup_fast_leaf(
    machine: MachineState, level: Level, entry: int, start: int, end: int, gup_flags: int, pages: list[int]
) -> bool:
    """gup_fast_pte_range's body, gup_fast_pmd_leaf, gup_fast_pud_leaf. No memory of the model has a dev_pagemap."""
    permitted, special, devmap, to_pfn, writable = (
        getattr(machine.kernel.ops, f"{level}_{op}") for op in ("access_permitted", "special", "devmap", "pfn", "write")
    )
    if not permitted(entry, gup_flags & FOLL_WRITE) or special(entry) or devmap(entry):
        return False
    shift = machine.kernel.geometry.PAGE_SHIFT
    first = to_pfn(entry) + ((start & (machine.kernel.geometry.size(level) - 1)) >> shift)
    found = range(first, first + ((end - start) >> shift))
    if any(pfn << shift not in machine.phys.ram for pfn in found):
        raise Refused("gup_fast", f"{level} entry {entry:#x} is not special and maps no RAM")
    if not writable(entry) and any(_must_unshare(machine, None, pfn, gup_flags) for pfn in found):
        return False
    _grab(machine, found, pages, gup_flags)
    return True


# The slow way


def pin_user_pages_fast(mm: MmStruct, start: int, nr_pages: int, gup_flags: int, pages: list[int]) -> int:
    """Pin pages of the running process as `get_user_pages_fast` gets them."""
    return get_user_pages_fast(mm, start, nr_pages, gup_flags | FOLL_PIN, pages)


def pin_user_pages_remote(mm: MmStruct, start: int, nr_pages: int, gup_flags: int, pages: list[int]) -> int:
    """Pin pages of any process from the page of `start` on, appended to `pages`; mmap_lock is held.

    Returns how many (at least one), or -errno if none.
    """
    return _get_user_pages(mm, start, nr_pages, gup_flags | FOLL_PIN | FOLL_REMOTE, pages)


def get_user_page_remote(mm: MmStruct, address: int, gup_flags: int) -> int:
    """Return the PFN of the page at an address of any process, with a reference, or -errno; mmap_lock is held."""
    pages: list[int] = []
    got = _get_user_pages(mm, address, 1, gup_flags | FOLL_REMOTE, pages)
    return pages[0] if got > 0 else got


def unpin_user_pages(machine: MachineState, pages: Iterable[int]) -> None:
    """Give the pins of pages (PFNs) back."""
    for pfn in pages:
        machine.phys.put_page(pfn << machine.kernel.geometry.PAGE_SHIFT, pin=True)


def put_pages(machine: MachineState, pages: Iterable[int]) -> None:
    """Give the references of pages (PFNs) back that were got without a pin: a page that somebody else has pinned stays
    pinned (`min.fork.pinned_after_futex`)."""
    for pfn in pages:
        machine.phys.put_page(pfn << machine.kernel.geometry.PAGE_SHIFT, pin=False)


def populate_vma_page_range(vma: VmArea, start: int, end: int) -> int:
    """Fault in what is not there of [start, end) (bytes) of a vma, private writable memory for writing: a zero page, or
    a page that is shared since a fork, is replaced (`min.mlock.zero_page`, `.cow_page`). Returns 0 or -errno."""
    gup_flags = FOLL_WRITE if vma.vm_flags & (VM_WRITE | VM_SHARED) == VM_WRITE else 0
    if vma.vm_flags & VM_ACCESS_FLAGS:
        gup_flags |= FOLL_FORCE
    for address in range(start, end, vma.vm_mm.kernel.geometry.PAGE_SIZE):
        page = _check_vma_flags(vma, gup_flags) or _get_page(vma, address, gup_flags)
        if page < 0:
            return page
    return 0


def populate_page(vma: VmArea, address: int, gup_flags: int) -> int:
    """Fault one page in (FOLL_MADV_POPULATE); 0, -EINVAL where the vma does not allow the access, or -errno."""
    if _check_vma_flags(vma, gup_flags):
        return -EINVAL
    return min(_get_page(vma, address, gup_flags), 0)


def _get_user_pages(mm: MmStruct, start: int, nr_pages: int, gup_flags: int, pages: list[int]) -> int:
    """__get_user_pages: look up, fault in what is missing, look again."""
    page_size = mm.kernel.geometry.PAGE_SIZE
    address = start & -page_size
    for got in range(nr_pages):
        vma = mm.vma_lookup(address)
        error = -EFAULT if vma is None else _check_vma_flags(vma, gup_flags)
        if error or vma is None:
            return got or error
        page = _get_page(vma, address, gup_flags)
        if page < 0:
            return got or page
        mm.has_pinned = mm.has_pinned or bool(gup_flags & FOLL_PIN)
        _grab(mm.machine, (page,), pages, gup_flags)
        address += page_size
    return nr_pages


def _get_page(vma: VmArea, address: int, gup_flags: int) -> int:
    """Look a page up, fault it in where that is needed, look again; return its PFN or -errno."""
    page = _follow_page(vma, address, gup_flags)
    while page in (None, -EMLINK):
        error = _faultin_page(vma, address, gup_flags, unshare=page is not None)
        if error:
            return error
        page = _follow_page(vma, address, gup_flags)
    assert page is not None
    return page


def _check_vma_flags(vma: VmArea, gup_flags: int) -> int:
    if vma.vm_flags & (VM_IO | VM_PFNMAP):
        return -EFAULT
    write = bool(gup_flags & FOLL_WRITE)
    force = gup_flags & FOLL_FORCE
    if write:
        if not vma.vm_flags & VM_WRITE and not (force and is_cow_mapping(vma.vm_flags)):
            return -EFAULT
    elif not vma.vm_flags & VM_READ and not (force and vma.vm_flags & VM_MAYREAD):
        return -EFAULT
    return 0 if access_permitted(vma, write, foreign=bool(gup_flags & FOLL_REMOTE)) else -EFAULT


def _follow_page(vma: VmArea, address: int, gup_flags: int) -> int | None:
    """follow_page_mask: the PFN of the page, -errno, or None where a fault is needed."""
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    leaf = vma.vm_mm.tables.leaf(address)
    if leaf is None:
        return None
    level, (table, index) = leaf
    if level == "pmd" and ops.pmd_pfn(table[index]) << kernel.geometry.PAGE_SHIFT in vma.vm_mm.machine.phys.ram:
        return _follow_trans_huge_pmd(vma, address, table[index], gup_flags)
    if level != "pte":
        # A leaf that outlived its vma (FINDINGS F3): the kernel goes on with a struct page that does not exist.
        raise Refused("follow_page_mask", f"a {level} leaf under memory that is no pfnmap")
    pte = table[index]
    if not ops.pte_present(pte):
        return None
    page = vm_normal_page(vma, address, pte)
    if gup_flags & FOLL_WRITE and not ops.pte_write(pte) and not _can_follow_write_pte(vma, pte, page, gup_flags):
        return None
    if page is None:
        page = ops.pte_pfn(pte)
        if not is_zero_pfn(vma.vm_mm.machine, page):
            return -EEXIST
    if not ops.pte_write(pte) and _must_unshare(vma.vm_mm.machine, vma, page, gup_flags):
        return -EMLINK
    struct_page = vma.vm_mm.machine.phys.ram.get(page << kernel.geometry.PAGE_SHIFT)
    if gup_flags & FOLL_WRITE and struct_page is not None and not struct_page.anon:
        struct_page.dirty = True  # FOLL_TOUCH
    return page


def _follow_trans_huge_pmd(vma: VmArea, address: int, pmd: int, gup_flags: int) -> int | None:
    """follow_trans_huge_pmd: a page of a huge one that is the process's own."""
    geometry, ops = vma.vm_mm.kernel.geometry, vma.vm_mm.kernel.ops
    if gup_flags & FOLL_WRITE and not ops.pmd_write(pmd):
        raise Refused("follow_trans_huge_pmd", "a write to a huge page that is mapped read-only")
    return int(ops.pmd_pfn(pmd)) + (address % geometry.size("pmd") >> geometry.PAGE_SHIFT)


def _can_follow_write_pte(vma: VmArea, pte: int, page: int | None, gup_flags: int) -> bool:
    """can_follow_write_pte: whether FOLL_FORCE may write to a page that is mapped read-only. It is the process's own,
    in a private vma that itself may not be written, and its first write is not waited for
    (`min.proc_mem.anon_r_write`)."""
    if not gup_flags & FOLL_FORCE or vma.vm_flags & (VM_MAYSHARE | VM_SHARED | VM_WRITE):
        return False
    if not vma.vm_flags & VM_MAYWRITE or page is None:
        return False
    kernel = vma.vm_mm.kernel
    found = vma.vm_mm.machine.phys.ram.get(page << kernel.geometry.PAGE_SHIFT)
    if found is None or not found.exclusive:
        return False
    tracked = kernel.config.enabled("MEM_SOFT_DIRTY") and not vma.vm_flags & VM_SOFTDIRTY
    return not tracked or bool(kernel.ops.pte_soft_dirty(pte))


def _must_unshare(machine: MachineState, vma: VmArea | None, pfn: int, gup_flags: int) -> bool:
    """gup_must_unshare, of a page that is mapped read-only; gup-fast knows no vma.

    Pinned for reading it must be the process's own: not shared with another since a fork, nor, for a long-term pin in
    a private writable mapping, the zero page (`unshare-any-cow`).
    """
    if gup_flags & (FOLL_WRITE | FOLL_PIN) != FOLL_PIN:
        return False
    if is_zero_pfn(machine, pfn):
        if not gup_flags & FOLL_LONGTERM or not machine.kernel.has("unshare-any-cow"):
            return False
        return vma is None or is_cow_mapping(vma.vm_flags)
    page = machine.phys.ram[pfn << machine.kernel.geometry.PAGE_SHIFT]
    if not page.anon:
        return bool(gup_flags & FOLL_LONGTERM) and (vma is None or is_cow_mapping(vma.vm_flags))
    return not page.exclusive


def _faultin_page(vma: VmArea, address: int, gup_flags: int, *, unshare: bool = False) -> int:
    flags = FAULT_FLAG_WRITE if gup_flags & FOLL_WRITE else FAULT_FLAG_UNSHARE if unshare else 0
    ret = handle_mm_fault(vma, address, flags)
    return _vm_fault_to_errno(ret) if ret & VM_FAULT_ERROR else 0


def _grab(machine: MachineState, found: Iterable[int], pages: list[int], gup_flags: int) -> None:
    for pfn in found:
        machine.phys.get_page(pfn << machine.kernel.geometry.PAGE_SHIFT, pin=bool(gup_flags & FOLL_PIN))
        pages.append(pfn)
