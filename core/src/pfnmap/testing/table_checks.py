"""Checks of what is no leaf: entries that point to tables, and empty slots."""

from __future__ import annotations

from collections.abc import Mapping

from pfnmap.contract.entry import LEVELS, Level
from pfnmap.testing.arch_subject import ArchSubject
from pfnmap.testing.check import Check, Violation, bits

__all__ = ["CHECKS", "expect"]

_TABLES: tuple[Level, ...] = ("pmd", "pud", "p4d", "pgd")
_PFN_OF_TABLES: tuple[Level, ...] = ("p4d", "pgd")  # below, X_pfn is a leaf's, and masks as such


def table_is_a_table(subject: ArchSubject, level: Level) -> None:
    expected = {"present": 1, "none": 0, "leaf": 0, "bad": 0, "trans_huge": 0, "devmap": 0}
    for table in subject.tables():
        entry = getattr(subject.ops, f"{level}_populate")(table)
        expect(subject, level, entry, expected, f"{level}_populate({table:#x}) = {entry:#x}")
        found = getattr(subject.ops, f"{level}_pgtable")(entry)
        if found != table:
            raise Violation(
                f"{level}_pgtable({entry:#x}) is {found:#x}, {level}_populate was given {table:#x}: "
                f"{bits(found, table)}"
            )
        if level in _PFN_OF_TABLES and subject.has(f"{level}_pfn"):
            pfn = subject.op(level, "pfn")(entry)
            if pfn << subject.geometry.PAGE_SHIFT != table:
                raise Violation(f"{level}_pfn({entry:#x}) is {pfn:#x}, {level}_populate was given {table:#x}")


def linear_map(subject: ArchSubject, level: Level) -> None:
    reach = subject.arch.linear_map
    if reach <= 0 or reach % subject.geometry.PAGE_SIZE:
        raise Violation(f"linear_map {reach:#x} is no multiple of the page size")
    for table in subject.beyond_linear_map():
        entry = getattr(subject.ops, f"{level}_populate")(table)
        if getattr(subject.ops, f"{level}_pgtable")(entry) == table:
            raise Violation(
                f"{level}_populate({table:#x}) = {entry:#x} points to a table that no kernel address stands for: "
                f"linear_map ends at {reach:#x}"
            )


def empty_is_none(subject: ArchSubject, level: Level) -> None:
    empty = subject.arch.empty(level)
    expected = {"none": 1, "present": 0, "leaf": 0, "trans_huge": 0, "devmap": 0}
    expect(subject, level, empty, expected, f"the empty slot {empty:#x}")


def expect(subject: ArchSubject, level: Level, entry: int, expected: Mapping[str, int], what: str) -> None:
    """Raise Violation where a predicate that the architecture has does not answer as expected of an entry."""
    for name, answer in expected.items():
        if subject.has(f"{level}_{name}"):
            got = subject.op(level, name)(entry)
            if got != answer:
                raise Violation(f"{level}_{name} is {got} of {what}; it must be {answer}")


CHECKS = (
    Check(
        "table-is-a-table",
        "what populate writes is a present table and gives the table's address back",
        table_is_a_table,
        ("slots:X",),
        _TABLES,
    ),
    Check(
        "linear-map",
        "populate is given a kernel address: it cannot point to what the linear map does not reach",
        linear_map,
        ("slots:X",),
        _TABLES,
    ),
    Check("empty-is-none", "new tables are filled with what none answers 1 for", empty_is_none, ("slots:X",), LEVELS),
)
