"""Walking page tables with callbacks (mm/pagewalk.c).

Two ways in, and the difference matters for pfnmaps: `walk_page_range` leaves a VM_PFNMAP vma alone (to the caller it is
one hole), `walk_page_vma` does not (6.1's did too; it could not meet a leaf there). A walk that has no callback for PUD
entries splits every PUD leaf it meets, to get at the PMD entries below: that is how reading smaps drops 1G leaves
(FINDINGS F5, RULES 21).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pfnmap.contract.slot import Slot, Table
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.errors import Refused
from pfnmap.mm.huge_memory import split_huge_pud
from pfnmap.trace import Misbehaviour
from pfnmap.vm_flags import VM_PFNMAP

__all__ = ["MmWalkOps", "pmd_trans_huge_lock", "pte_slots", "walk_page_range", "walk_page_vma"]


def _skip_pfnmap(vma: VmArea) -> bool:
    return not vma.vm_flags & VM_PFNMAP


@dataclass(frozen=True)
class MmWalkOps:
    """mm_walk_ops: what a walk calls. Ranges are [start, end) in bytes.

    `pmd_entry(vma, slot, start, end)`: each PMD entry that is not empty, a leaf or a table.
    `pte_hole(vma, start, end)`: each range without entries; outside every vma, `vma` is None.
    `pud_entry(vma, slot, start, end)`: each PUD entry that is not empty; True to go no further down (ACTION_CONTINUE).
    `test_walk(vma)`: whether `walk_page_range` walks a vma. By default it walks all but pfnmaps, which are holes then;
    with a `test_walk`, a vma that is not walked is not reported either.
    """

    pmd_entry: Callable[[VmArea, Slot, int, int], None]
    pte_hole: Callable[[VmArea | None, int, int], None] = lambda vma, start, end: None
    pud_entry: Callable[[VmArea, Slot, int, int], bool] = lambda vma, slot, start, end: False
    test_walk: Callable[[VmArea], bool] | None = None


def walk_page_vma(vma: VmArea, ops: MmWalkOps) -> None:
    """Walk all of a vma."""
    _walk_range(vma, ops, vma.vm_mm.tables.pgd, 0, vma.vm_start, vma.vm_end)


def walk_page_range(mm: MmStruct, start: int, end: int, ops: MmWalkOps) -> None:
    """Walk what vmas there are in [start, end), and the holes between them."""
    for vma in mm.intersecting(start, end):
        if start < vma.vm_start:
            ops.pte_hole(None, start, vma.vm_start)
            start = vma.vm_start
        stop = min(end, vma.vm_end)
        if (ops.test_walk or _skip_pfnmap)(vma):
            _walk_range(vma, ops, mm.tables.pgd, 0, start, stop)
        elif ops.test_walk is None:
            ops.pte_hole(vma, start, stop)
        start = stop
    if start < end:
        ops.pte_hole(None, start, end)


def _walk_range(vma: VmArea, ops: MmWalkOps, table: Table, depth: int, start: int, end: int) -> None:
    """walk_pgd_range and below: one table, and what hangs under it."""
    mm = vma.vm_mm
    tables = mm.tables
    walked = tables.levels[depth]
    step = tables.steps[walked.name]
    size = 1 << walked.shift
    address = start
    while address < end:
        stop = min((address & -size) + size, end)
        slot = Slot(table, (address >> walked.shift) & (walked.ptrs - 1))
        if step.op == "pmd":
            if not pmd_trans_huge_lock(vma, slot) and tables.none_or_clear_bad(walked.name, slot):
                ops.pte_hole(vma, address, stop)
            else:
                ops.pmd_entry(vma, slot, address, stop)
        elif _is_table(vma, ops, slot, depth, address, stop):
            child = mm.machine.phys.tables[step.pgtable(table[slot[1]])]
            _walk_range(vma, ops, child, depth + 1, address, stop)
        address = stop


def _is_table(vma: VmArea, ops: MmWalkOps, slot: Slot, depth: int, start: int, end: int) -> bool:
    """Deal with an entry above the PMD level; tell whether there is a table under it to go into."""
    mm = vma.vm_mm
    kernel_ops = mm.kernel.ops
    walked = mm.tables.levels[depth]
    step = mm.tables.steps[walked.name]
    if step.op != "pud":
        none = mm.tables.none_or_clear_bad(walked.name, slot)
    else:
        none = bool(step.none(slot.entry))
        if not none:
            if ops.pud_entry(vma, slot, start, end):
                return False
            entry = slot.entry
            if kernel_ops.pud_trans_huge(entry) or kernel_ops.pud_devmap(entry):
                mm.machine.trace.emit(Misbehaviour("F5", "who only reads about the process drops a PUD leaf of its"))
                split_huge_pud(vma, slot, start)
                none = True
            elif not kernel_ops.pud_present(entry) or kernel_ops.pud_leaf(entry):
                raise Refused("walk_page_range", f"PUD entry {entry:#x} at {start:#x}: the kernel walks it for ever")
    if none:
        ops.pte_hole(vma, start, end)
    return not none


def pmd_trans_huge_lock(vma: VmArea, slot: Slot) -> bool:
    """Tell whether a PMD entry is a leaf: huge, or neither empty nor present (include/linux/huge_mm.h)."""
    ops = vma.vm_mm.kernel.ops
    entry = slot.entry
    if ops.pmd_none(entry):
        return False
    return bool(not ops.pmd_present(entry) or ops.pmd_trans_huge(entry) or ops.pmd_devmap(entry))


def pte_slots(vma: VmArea, slot: Slot, start: int, end: int) -> Iterator[tuple[int, Slot]]:
    """Yield (address, slot) of every PTE of [start, end) in the table under a PMD entry."""
    table, index = vma.vm_mm.tables.pte_offset(slot, start)
    for n, address in enumerate(range(start, end, vma.vm_mm.kernel.geometry.PAGE_SIZE)):
        yield address, Slot(table, index + n)
