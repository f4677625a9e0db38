"""Moving page-table entries for mremap (move_page_tables of mm/mremap.c). Addresses and lengths in bytes."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from pfnmap.contract.slot import Slot
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.mm import huge_memory
from pfnmap.mm.contpte import contpte_unfold
from pfnmap.mm.mmu_notifier import mmu_notifier_invalidate_range
from pfnmap.mm.pte_tables import FEW, count_of, pte_rows_of, pte_tables, turn
from pfnmap.vm_flags import VM_PFNMAP

if TYPE_CHECKING:  # for the type checker alone: numpy is imported where it is used
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["move_page_tables"]


def move_page_tables(vma: VmArea, address: int, new_vma: VmArea, new_address: int, length: int) -> None:
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
            new_pud = tables.alloc("pud", new_address)
            moved = (
                extent == pud_size
                and not geometry.folded("pud")
                and kernel.config.enabled("HAVE_MOVE_PUD")
                and _move_normal(old_pud, new_pud, ops.pud_none, tables.empty["pud"])
            )
            if not moved:
                extent = _move_tables(vma, old_pud, address, new_pud, new_address, end)
            if not moved and not extent:
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
    finding = "F2" if mm.kernel.ops.pud_trans_huge(slot.entry) else ""
    return None if tables.none_or_clear_bad(level, slot, finding) else slot


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


def _move_tables(vma: VmArea, old_pud: Slot, old: int, new_pud: Slot, new: int, end: int) -> int:
    """Do what `_move_below_pud` does to the PTE tables that a pfnmap has from `old` on, as many as lie in one PMD table
    and are moved under one; return the bytes that they map, 0 where they are few."""
    mm = vma.vm_mm
    kernel = mm.kernel
    tables = mm.tables
    geometry = kernel.geometry
    size = geometry.size("pmd")
    if not vma.vm_flags & VM_PFNMAP or old % size:
        return 0
    table, index = tables.pmd_offset(old_pud, old)
    count = count_of(pte_tables(tables, table, index, min((end - old) // size, len(table) - index)))
    if not count:
        return 0
    new_table, new_index = tables.pmd_alloc(new_pud, new)
    shift = new % size >> geometry.PAGE_SHIFT  # entries further on in their table
    free = array("Q", (tables.empty["pmd"],)) * (len(new_table) - new_index)
    count = min(count, len(free) - bool(shift))
    last = count + bool(shift)
    whole = not shift and kernel.config.enabled("HAVE_MOVE_PMD")
    first = 0 if whole else 1  # which slots have to be empty: the first may have its table
    if count <= FEW or new_table[new_index + first : new_index + last] != free[first:last]:
        return 0
    olds = pte_tables(tables, table, index, count)
    if whole:
        new_table[new_index : new_index + count] = table[index : index + count]
        table[index : index + count] = free[:count]
        return count * size
    tables.pte_alloc(Slot(new_table, new_index), new)
    made = tables.populate_all(new_table, new_index + 1, last - 1)
    if shift:
        mm.machine.phys.tables[made[-1][-1]][:] = array("Q", (tables.empty["pte"],)) * geometry.PTRS_PER_PTE
    _move_whole_tables(vma, olds, pte_tables(tables, new_table, new_index, last), shift)
    return count * size


def _move_whole_tables(vma: VmArea, old: list[range], new: list[range], shift: int) -> None:
    """Move the entries of PTE tables to empty ones, by `shift` entries further on: the last ones of each table come
    to the start of the one after."""
    mm = vma.vm_mm
    ops = mm.kernel.ops
    change = ops.pte_mksoft_dirty if _tracked(vma) else lambda pte: pte
    following = _but_the_first(new) if shift else new
    for olds, news, nexts in pte_rows_of(mm, old, new, following):
        here = olds.shape[1] - shift
        parts = [(olds[:, :here], news[:, shift:]), (olds[:, here:], nexts[:, :shift])]
        if not turn(ops, change, olds, *parts):
            for part, to in parts:
                to[...] = _moved(vma, part)
        olds[...] = mm.tables.empty["pte"]


def _but_the_first(runs: list[range]) -> list[range]:
    return [run for run in (runs[0][1:], *runs[1:]) if run]


def _tracked(vma: VmArea) -> bool:
    """Whether what moves is marked soft-dirty (RULES 12)."""
    return vma.vm_mm.kernel.config.enabled("MEM_SOFT_DIRTY")


def _moved(vma: VmArea, olds: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return what entries become."""
    import numpy as np

    ops = vma.vm_mm.kernel.ops
    moved = olds.copy()
    if _tracked(vma):
        np.copyto(moved, ops.pte_mksoft_dirty(olds), where=ops.pte_present(olds) != 0)
    return moved


def _move_ptes(vma: VmArea, old: Slot, new: Slot, count: int) -> None:
    """move_ptes: all that are not empty."""
    import numpy as np

    kernel = vma.vm_mm.kernel
    contpte_unfold(vma.vm_mm, old.table, old.index, count)
    olds = np.frombuffer(old.table, np.uint64)[old.index : old.index + count]
    news = np.frombuffer(new.table, np.uint64)[new.index : new.index + count]
    filled = kernel.ops.pte_none(olds) == 0
    moved = _moved(vma, olds)
    olds[filled] = kernel.arch.empty("pte")
    news[filled] = moved[filled]
