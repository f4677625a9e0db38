"""mprotect (mm/mprotect.c). Addresses and lengths in bytes; errors are negative errnos."""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOMEM, EPERM
from typing import TYPE_CHECKING

from pfnmap.contract.slot import Slot, Table
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.limits import bounded
from pfnmap.mm import huge_memory
from pfnmap.mm.contpte import contpte_unfold
from pfnmap.mm.gup import populate_vma_page_range
from pfnmap.mm.mmap import (
    merge_vmas,
    page_align,
    vma_modify,
    vma_set_page_prot,
    vma_soft_dirty_enabled,
    vma_wants_writenotify,
)
from pfnmap.mm.mmu_notifier import mmu_notifier_invalidate_range
from pfnmap.mm.pte_tables import count_of, pte_rows, pte_tables, turn
from pfnmap.mm.vm_enough_memory import vm_enough_memory
from pfnmap.mm.vm_normal_page import vm_normal_page
from pfnmap.vm_flags import (
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_LOCKED,
    VM_NORESERVE,
    VM_PFNMAP,
    VM_SEALED,
    VM_SHARED,
    VM_WRITE,
)

if TYPE_CHECKING:  # for the type checker alone: numpy is imported where it is used
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["do_mprotect"]

_PKEY_FLAGS = 0xF << 32  # VM_PKEY_BIT0..3 on x86: an mprotect call says all of them anew


def do_mprotect(mm: MmStruct, start: int, length: int, prot: int) -> int:
    """Give [start, start + length) the VM_READ, VM_WRITE, VM_EXEC of `prot`; return 0 or -errno.

    A hole at the start is -ENOMEM at once, a later one only after the parts before it were changed (RULES 22).
    """
    page = mm.kernel.geometry.PAGE_SIZE
    if start % page:
        return -EINVAL
    if not length:
        return 0
    end = start + page_align(mm, length)
    if not start < end < 1 << 64:
        return -ENOMEM
    reached = start
    for vma in mm.intersecting(start, end):
        if vma.vm_start > reached:
            return -ENOMEM
        stop = min(vma.vm_end, end)
        newflags = prot | mm.kernel.ops.arch_calc_vm_prot_bits(prot)
        newflags |= vma.vm_flags & ~(VM_ACCESS_FLAGS | _PKEY_FLAGS)
        if newflags & ~(newflags >> 4) & VM_ACCESS_FLAGS:  # VM_MAYx stands four bits above VM_x
            return -EACCES
        error = _mprotect_fixup(mm, vma, reached, stop, newflags)
        if error:
            return error
        reached = stop
    return -ENOMEM if reached < end else 0


def _mprotect_fixup(mm: MmStruct, vma: VmArea, start: int, end: int, newflags: int) -> int:
    if vma.vm_flags & VM_SEALED:
        return -EPERM
    if newflags == vma.vm_flags:
        return 0
    newflags = _accounted(vma, newflags)
    charged = newflags & ~vma.vm_flags & VM_ACCOUNT
    if charged and not vm_enough_memory(mm.machine, (end - start) >> mm.kernel.geometry.PAGE_SHIFT):
        return -ENOMEM
    oldflags = vma.vm_flags
    vma = vma_modify(mm, vma, start, end)
    vma.vm_flags = newflags
    try_writable = _wants_manual_pte_write_upgrade(vma)
    vma_set_page_prot(vma)
    mmu_notifier_invalidate_range(mm, start, end)
    _change(vma, mm.tables.pgd, 0, start, end, try_writable)
    vma = merge_vmas(mm, vma)
    if oldflags & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and newflags & VM_WRITE:
        # Locked private memory gets its copies at once (`min.mprotect.locked_anon`).
        bounded("mprotect", (end - start) >> mm.kernel.geometry.PAGE_SHIFT)
        populate_vma_page_range(vma, start, end)
    return 0


def _accounted(vma: VmArea, newflags: int) -> int:
    """Return the flags with VM_ACCOUNT as the kernel then has it: private memory is charged when it becomes
    writable."""
    if newflags & VM_WRITE:
        charged = vma.vm_flags & (VM_ACCOUNT | VM_WRITE | VM_SHARED | VM_NORESERVE)
        return newflags if charged else newflags | VM_ACCOUNT
    if vma.is_anonymous and vma.anon_vma is None and vma.vm_mm.kernel.has("mprotect-unaccount"):
        return newflags & ~VM_ACCOUNT
    return newflags


def _wants_manual_pte_write_upgrade(vma: VmArea) -> bool:
    """Whether entries that need no write notification may be made writable at once
    (vma_wants_manual_pte_write_upgrade).

    For private memory the kernel looks at the page; only an anonymous page of this process alone is upgraded.
    """
    if vma.vm_flags & VM_SHARED:
        return vma_wants_writenotify(vma, vma.vm_page_prot)
    return bool(vma.vm_flags & VM_WRITE)


def _change(vma: VmArea, table: Table, depth: int, start: int, end: int, try_writable: bool) -> None:
    """change_protection over the entries of one table: a leaf wholly inside changes, one partly inside is split."""
    mm = vma.vm_mm
    ops = mm.kernel.ops
    tables = mm.tables
    walked = tables.levels[depth]
    if walked.name == "pte":
        first = (start >> walked.shift) & (walked.ptrs - 1)
        _change_ptes(vma, table, first, start, (end - start) >> walked.shift, try_writable)
        return
    step = tables.steps[walked.name]
    size = 1 << walked.shift
    address = start
    while address < end:
        stop = min((address & -size) + size, end)
        slot = Slot(table, (address >> walked.shift) & (walked.ptrs - 1))
        entry = table[slot[1]]
        if entry == tables.empty[walked.name]:
            address = stop
            continue
        if step.op == "pmd" and not address % size:
            found = pte_tables(tables, table, slot[1], (end - address) // size)
            if found:
                _change_tables(vma, found, address, try_writable)
                address += count_of(found) * size
                continue
        whole = stop - address == size
        if step.none(entry):
            pass
        elif step.op == "pud" and ops.pud_leaf(entry):
            if whole:
                huge_memory.change_huge_pud(vma, slot, address, vma.vm_page_prot)
            else:
                huge_memory.split_huge_pud(vma, slot, address)
        elif step.op == "pmd" and (ops.pmd_trans_huge(entry) or ops.pmd_devmap(entry)):
            if whole:
                huge_memory.change_huge_pmd(vma, slot, address, vma.vm_page_prot, try_writable)
            else:
                huge_memory.split_huge_pmd(vma, slot, address)
                if (below := tables.below["pmd"][table[slot.index]]) is not None:
                    _change(vma, below, depth + 1, address, stop, try_writable)
        elif not tables.none_or_clear_bad(walked.name, slot):
            child = mm.machine.phys.tables[step.pgtable(entry)]
            _change(vma, child, depth + 1, address, stop, try_writable)
        address = stop


def _change_tables(vma: VmArea, runs: list[range], start: int, try_writable: bool) -> None:
    """change_pte_range of whole tables from the byte address `start` on."""
    ops = vma.vm_mm.kernel.ops
    page = vma.vm_mm.kernel.geometry.PAGE_SIZE
    special = vma.vm_flags & (VM_PFNMAP | VM_SHARED) == VM_PFNMAP | VM_SHARED

    def change(pte: int) -> int:
        changed: int = ops.pte_modify(pte, vma.vm_page_prot)
        upgraded = try_writable and not ops.pte_write(changed) and _can_change_pte_writable(vma, start, changed)
        return ops.pte_mkwrite(changed, vma.vm_flags) if upgraded else changed

    for rows in pte_rows(vma.vm_mm, runs):
        if special and turn(ops, change, rows, (rows, rows)):
            start += rows.size * page
            continue
        for entries in (rows.reshape(-1),) if rows.flags.c_contiguous else rows:
            _change_entries(vma, entries, start, try_writable)
            start += entries.size * page


def _change_ptes(vma: VmArea, table: Table, first: int, start: int, count: int, try_writable: bool) -> None:
    """change_pte_range from the byte address `start` on."""
    import numpy as np

    contpte_unfold(vma.vm_mm, table, first, count)
    _change_entries(vma, np.frombuffer(table, dtype=np.uint64)[first : first + count], start, try_writable)


def _change_entries(vma: VmArea, entries: NDArray[np.uint64], start: int, try_writable: bool) -> None:
    """Give the entries that are present the vma's protection."""
    import numpy as np

    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    present = (ops.pte_none(entries) == 0) & (ops.pte_present(entries) != 0)
    changed = ops.pte_modify(entries, vma.vm_page_prot)
    if try_writable:
        page = kernel.geometry.PAGE_SIZE
        for n in np.flatnonzero(present & (ops.pte_write(changed) == 0)).tolist():
            pte = int(changed[n])
            if _can_change_pte_writable(vma, start + n * page, pte):
                changed[n] = ops.pte_mkwrite(pte, vma.vm_flags)
    entries[present] = changed[present]


def _can_change_pte_writable(vma: VmArea, address: int, pte: int) -> bool:
    """can_change_pte_writable: whether the next write needs no fault, neither for soft-dirty nor to copy a page.

    Of a shared vma what is dirty already; of a private one the process's own pages (until
    `mprotect-clean-exclusive` only those that are dirty).
    """
    machine = vma.vm_mm.machine
    kernel = machine.kernel
    ops = kernel.ops
    if not vma.vm_flags & VM_WRITE or (vma_soft_dirty_enabled(vma) and not ops.pte_soft_dirty(pte)):
        return False
    dirty = bool(ops.pte_dirty(pte))
    if vma.vm_flags & VM_SHARED or (not dirty and not kernel.has("mprotect-clean-exclusive")):
        return dirty
    pfn = vm_normal_page(vma, address, pte)
    page = None if pfn is None else machine.phys.ram.get(pfn << kernel.geometry.PAGE_SHIFT)
    return page is not None and page.exclusive
