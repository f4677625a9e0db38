"""Checks of any word, also of those that no op makes: of which sort the predicates say it is.

A slot is empty, or it is not: whatever else a word is told to be, it is not none (include/linux/pgtable.h,
pmd_none_or_clear_bad; Documentation/mm/arch_pgtable_helpers.rst); pmd_trans_huge and pmd_devmap of a kernel without
transparent huge pages are that file's, and 0, and so are those of a PUD without HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD.
Golden vectors of seven architectures, which ask the helpers about random words too, keep all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pfnmap.contract.entry import Level
from pfnmap.testing.arch_subject import ArchSubject
from pfnmap.testing.check import Check, Violation
from pfnmap.testing.table_checks import expect

__all__ = ["CHECKS"]

_HUGE: Final[tuple[Level, ...]] = ("pmd", "pud")
_BELOW_PGD: Final[tuple[Level, ...]] = ("pte", "pmd", "pud", "p4d")  # to s390 an invalid PGD entry is none, and present
_NONE: Final[Mapping[str, int]] = dict.fromkeys(("present", "leaf", "trans_huge", "special", "devmap"), 0)
"""What a word is not told to be that is none."""


def _near(subject: ArchSubject, level: Level) -> Iterator[int]:
    """Yield any words, and those that differ in one bit from an empty slot, a table or a leaf."""
    yield from subject.words(level)
    known = [subject.arch.empty(level)]
    if level != "pte":
        known += [getattr(subject.ops, f"{level}_populate")(table) for table in subject.tables()[-2:]]
    if f"leaf:{level}" in subject.capabilities:
        leaves = subject.leaves(level)
        known += [leaf.entry for leaf in leaves[:: len(leaves) // 8]]
    for word in known:
        yield from (word ^ 1 << n for n in range(64))


def none_is_nothing_else(subject: ArchSubject, level: Level) -> None:
    none = subject.op(level, "none")
    for word in _near(subject, level):
        if none(word):
            expect(subject, level, word, _NONE, f"{word:#x}, which is none")


def huge_is_a_leaf(subject: ArchSubject, level: Level) -> None:
    trans_huge = subject.op(level, "trans_huge")
    for word in _near(subject, level):
        if trans_huge(word):
            # pud_present of x86 asks for the CPU's bit alone, where PROT_NONE takes it away.
            expected = {"leaf": 1, "present": 1} if level == "pmd" else {"leaf": 1}
            expect(subject, level, word, expected, f"{word:#x}, which is {level}_trans_huge")


def nothing_is_huge(subject: ArchSubject) -> None:
    for name in ("has_transparent_hugepage", "arch_needs_pgtable_deposit"):
        if getattr(subject.ops, name)():
            raise Violation(f"{name} is true without TRANSPARENT_HUGEPAGE")
    for level in _HUGE:
        for word in _near(subject, level):
            expect(subject, level, word, {"trans_huge": 0, "devmap": 0}, f"{word:#x}, without TRANSPARENT_HUGEPAGE")


def no_pud_is_huge(subject: ArchSubject) -> None:
    for word in _near(subject, "pud"):
        what = f"{word:#x}, without HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"
        expect(subject, "pud", word, {"trans_huge": 0, "devmap": 0}, what)


CHECKS = (
    Check(
        "none-is-nothing-else",
        "an empty slot is not present, no leaf, and grants nothing, whatever word is in it",
        none_is_nothing_else,
        ("slots:X",),
        _BELOW_PGD,
    ),
    Check(
        "huge-is-a-leaf",
        "a transparent huge page is a present leaf, whatever word stands for it",
        huge_is_a_leaf,
        ("slots:X", "leaf:X", "huge-pfnmap"),
        _HUGE,
    ),
    Check(
        "no-huge-pages",
        "without transparent huge pages the headers answer for them: no word is huge, or devmap, above the PTE",
        nothing_is_huge,
        ("no-huge-pages",),
    ),
    Check(
        "no-huge-puds",
        "where huge pages end at the PMD the headers answer for the PUD: no word there is huge, or devmap",
        no_pud_is_huge,
        ("no-huge-puds",),
    ),
)
