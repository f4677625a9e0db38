"""Freeing page tables that nobody needs any more (mm/memory.c, free_pgtables and free_pgd_range)."""

from __future__ import annotations

from array import array

from pfnmap.contract.slot import Slot, Table
from pfnmap.contract.vma import MmStruct
from pfnmap.mm.pte_tables import count_of, pte_tables

__all__ = ["free_pgtables"]


def free_pgtables(mm: MmStruct, ranges: list[tuple[int, int]], floor: int, ceiling: int) -> None:
    """Free the tables that only served the unmapped ranges (mm/memory.c, free_pgtables and free_pgd_range).

    `ranges`: the unmapped vmas' [start, end), ascending. `floor`: end of the vma before (0: none), `ceiling`: start
    of the vma after (0: none). A table goes only if its whole span is free of other vmas (RULES 18).
    """
    pmd_size = mm.kernel.geometry.size("pmd")
    index = 0
    while index < len(ranges):
        start, end = ranges[index]
        index += 1
        while index < len(ranges) and ranges[index][0] <= end + pmd_size:
            end = ranges[index][1]
            index += 1
        above = ranges[index][0] if index < len(ranges) else ceiling
        _free_pgd_range(mm, start, end, floor, above)


def _free_pgd_range(mm: MmStruct, start: int, end: int, floor: int, ceiling: int) -> None:
    pmd_size = mm.kernel.geometry.size("pmd")
    start &= -pmd_size
    if start < floor:
        start += pmd_size
    if ceiling:
        ceiling &= -pmd_size
        if not ceiling:
            return
        if end > ceiling:
            end -= pmd_size
    if start >= end:
        return
    _free_range(mm, mm.tables.pgd, 0, start, end, floor, ceiling)


def _free_range(mm: MmStruct, table: Table, depth: int, start: int, end: int, floor: int, ceiling: int) -> None:
    """Free what hangs under the entries of one table for [start, end), then each child table nobody else needs."""
    tables = mm.tables
    phys = mm.machine.phys
    walked = tables.levels[depth]
    size = 1 << walked.shift
    child = tables.levels[depth + 1].name
    empty, mask = tables.empty[walked.name], walked.ptrs - 1
    address = start
    while address < end:
        index = (address >> walked.shift) & mask
        if table[index] == empty:
            address = (address & -size) + size
            continue
        stop = min((address & -size) + size, end)
        if child == "pte" and (whole := pte_tables(tables, table, index, -(-(end - address) // size))):
            count = count_of(whole)
            table[index : index + count] = array("Q", (tables.empty[walked.name],)) * count
            phys.free_tables(whole)
            tables.pgtables_bytes -= count * tables.bytes[child]
            address = (address & -size) + count * size
            continue
        slot = Slot(table, index)
        if not tables.none_or_clear_bad(walked.name, slot):
            pa = tables.steps[walked.name].pgtable(table[index])
            if child != "pte":
                _free_range(mm, phys.tables[pa], depth + 1, address, stop, floor, ceiling)
            if _span_is_free(address, stop, size, floor, ceiling, child):
                table[index] = tables.empty[walked.name]
                phys.free_table(pa)
                tables.pgtables_bytes -= tables.bytes[child]
        address = stop


def _span_is_free(start: int, end: int, size: int, floor: int, ceiling: int, child: str) -> bool:
    if child == "pte":  # free_pte_range asks nothing: the PMD alignment of _free_pgd_range settled it
        return True
    if start & -size < floor:
        return False
    if ceiling:
        ceiling &= -size
        return bool(ceiling) and end <= ceiling
    return True
