"""Page tables as a list: every entry that is not empty, consecutive equal leaves folded into one row."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pfnmap.contract.slot import Table
from pfnmap.contract.vma import MmStruct

__all__ = ["EntryRow", "page_table_rows"]


@dataclass(frozen=True, slots=True)
class EntryRow:
    """`count` leaves in a row from `va` on, the first of which is `value`, or one entry that points to a `table`.

    `size` is what one entry maps, in bytes; `depth` counts the tables above.
    """

    level: str
    va: int
    value: int
    size: int
    depth: int
    table: bool
    count: int = 1

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "level": self.level,
            "va": hex(self.va),
            "value": hex(self.value),
            "size": self.size,
            "count": self.count,
            "table": self.table,
        }


def page_table_rows(mm: MmStruct) -> Iterator[EntryRow]:
    """Yield the entries of an address space in the order of a walk, a table's entry before what is in the table."""
    held: EntryRow | None = None
    for row in _entries(mm, mm.tables.pgd, 0, 0):
        if held and _continues(held, row):
            held = replace(held, count=held.count + 1)
            continue
        if held:
            yield held
        held = row
    if held:
        yield held


def _entries(mm: MmStruct, table: Table, depth: int, base: int) -> Iterator[EntryRow]:
    walked = mm.tables.levels[depth]
    empty, size = mm.tables.empty[walked.name], 1 << walked.shift
    if walked.name == "pte" and _is_one_run(table, size):
        yield EntryRow("pte", base, table[0], size, depth, False, len(table))
        return
    for index, value in enumerate(table):
        if value == empty:
            continue
        va = base + index * size
        below = mm.tables.next_table(walked.name, value) if walked.name != "pte" else None
        yield EntryRow(walked.name, va, value, size, depth, below is not None)
        if below is not None:
            yield from _entries(mm, below, depth + 1, va)


def _is_one_run(table: Table, size: int) -> bool:
    """Tell whether a table is full of leaves that continue each other, as most are: many at once are quickly told."""
    step = table[1] - table[0]
    if abs(step) != size or table[-1] != table[0] + (len(table) - 1) * step:
        return False
    return table.tobytes() == array("Q", range(table[0], table[-1] + step, step)).tobytes()


def _continues(held: EntryRow, row: EntryRow) -> bool:
    """Whether a leaf is the next of a run: the same bits, the next address (inverted where PROT_NONE inverts it)."""
    step = row.value - held.value
    return (
        not (held.table or row.table)
        and held.level == row.level
        and row.va == held.va + held.count * held.size
        and step in (held.count * held.size, -held.count * held.size)
    )
