"""Checks of the geometry: the levels that are walked, those that are folded, and the edges of user space."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from pfnmap.contract.entry import LEVELS, Level
from pfnmap.testing.arch_subject import ArchSubject
from pfnmap.testing.check import Check, Violation

__all__ = ["CHECKS"]

_FOLDABLE: Final = LEVELS[1:]


def levels_fit(subject: ArchSubject) -> None:
    walk = subject.geometry.walk
    names = [w.name for w in walk]
    if names != sorted(names, key=LEVELS.index, reverse=True) or names[0] != "pgd" or names[-1] != "pte":
        raise Violation(f"the walk goes through {', '.join(names)}; it starts at pgd, ends at pte and goes down")
    if walk[-1].shift != subject.geometry.PAGE_SHIFT:
        raise Violation(f"the walk's pte has shift {walk[-1].shift}, PAGE_SHIFT is {subject.geometry.PAGE_SHIFT}")
    for level in walk:
        if level.ptrs < 2 or level.ptrs & (level.ptrs - 1):
            raise Violation(f"a {level.name} table has {level.ptrs} entries, which is no power of two above one")
    for upper, lower in pairwise(walk):
        spanned = lower.shift + lower.ptrs.bit_length() - 1
        if spanned != upper.shift:
            raise Violation(
                f"one {upper.name} entry maps {upper.shift} bits, but the {lower.name} table below it "
                f"({lower.ptrs} entries of {lower.shift} bits) spans {spanned}"
            )


def constants_fit(subject: ArchSubject) -> None:
    geometry = subject.geometry
    for walked in geometry.walk[1:]:
        shift, ptrs = geometry.shift(walked.name), geometry.ptrs(walked.name)
        if (shift, ptrs) != (walked.shift, walked.ptrs):
            raise Violation(
                f"{walked.name} is walked with shift {walked.shift} and {walked.ptrs} entries, the constants say "
                f"{shift} and {ptrs}: below the top level the two are one"
            )
    shifts = [geometry.shift(level) for level in LEVELS]
    if shifts != sorted(shifts):
        raise Violation(f"the shifts of {', '.join(LEVELS)} are {shifts}: an upper level maps no less than a lower one")
    for folded, above in pairwise(LEVELS[1:]):
        # asm-generic/pgtable-nop4d.h and its kind; what a boot folds has a table's entries in the macros.
        ptrs, shift = geometry.ptrs(folded), geometry.shift(folded)
        if geometry.folded(folded) and not (
            (ptrs == 1 and shift == geometry.shift(above)) or ptrs == geometry.PAGE_SIZE // 8
        ):
            raise Violation(
                f"{folded} is folded and has {ptrs} entries of {shift} bits; it has 1, of the size of one of the level "
                "above, or a table's"
            )
    page_shift = subject.kernel.config.get("PAGE_SHIFT", str(geometry.PAGE_SHIFT))
    if page_shift != str(geometry.PAGE_SHIFT):
        raise Violation(f"PAGE_SHIFT is {geometry.PAGE_SHIFT}, the configuration says {page_shift}")


def addresses_resolve(subject: ArchSubject) -> None:
    geometry = subject.geometry
    if geometry.task_size % geometry.PAGE_SIZE:
        raise Violation(f"task_size {geometry.task_size:#x} is no multiple of the page size")
    edges = {0, geometry.task_size}
    for walked in geometry.walk:
        edges |= {n << walked.shift for n in (1, 2, walked.ptrs - 1)}
    addresses = sorted({e + d for e in edges for d in (-1, 0, 1) if 0 <= e + d < geometry.task_size})
    for address in addresses:
        rebuilt = address & (geometry.PAGE_SIZE - 1)
        for walked in geometry.walk:
            index = (address >> walked.shift) & (walked.ptrs - 1)
            rebuilt |= index << walked.shift
        for walked in geometry.walk[1:]:
            index = (address >> walked.shift) & (walked.ptrs - 1)
            if geometry.index(walked.name, address) != index:
                raise Violation(
                    f"{walked.name}_index({address:#x}) is {geometry.index(walked.name, address)}, "
                    f"the walk takes {index}"
                )
        if rebuilt != address:
            raise Violation(
                f"the walked levels resolve {address:#x} to {rebuilt:#x}: user space ends at {geometry.task_size:#x}, "
                f"beyond what the top table ({geometry.walk[0].ptrs} entries) reaches"
            )


def folded_level_answers_so(subject: ArchSubject, level: Level) -> None:
    expected = {"present": 1, "none": 0, "bad": 0}
    for word in subject.words():
        _folded(subject, level, word, expected)
        if got := getattr(subject.ops, f"{level}_populate")(word):
            raise Violation(
                f"{level}_populate({word:#x}) is {got:#x}; {level} is folded in this boot, where nothing is written: 0"
            )


def folded_level_has_no_leaf(subject: ArchSubject, level: Level) -> None:
    for word in subject.words():
        _folded(subject, level, word, {"leaf": 0})


def shorter_walks_are_folded(subject: ArchSubject) -> None:
    geometry, ops = subject.geometry, subject.ops
    for count in range(geometry.new_process_levels, len(geometry.walk)):
        top = LEVELS[count - 1]
        words = [subject.arch.empty(top), *(getattr(ops, f"{top}_populate")(table) for table in subject.tables())]
        if f"walker-leaf:{top}" in subject.capabilities and (leaf := subject.word_format(top).table):
            words += [word ^ leaf[0] for word in words[1:]]
        for level in LEVELS[count:]:
            for word in words:
                _folded(subject, level, word, {"present": 1, "none": 0, "bad": 0})


def _folded(subject: ArchSubject, level: Level, word: int, expected: Mapping[str, int]) -> None:
    for name, answer in expected.items():
        got = subject.op(level, name)(word)
        if got != answer:
            raise Violation(
                f"{level}_{name}({word:#x}) is {got}; {level} is folded in this boot (the walk has no slots for its "
                f"ops), where it must be {answer}"
            )


CHECKS = (
    Check(
        "levels-fit",
        "the table under an entry spans exactly what the entry maps, from the top down to the page",
        levels_fit,
    ),
    Check("constants-fit", "below the top level, what the kernel's macros say is what is walked", constants_fit),
    Check(
        "addresses-resolve",
        "every address up to the end of user space has its own slots at every walked level",
        addresses_resolve,
    ),
    Check(
        "folded-levels",
        "the ops of a folded level answer as the headers that fold it do: present, and nothing to fill in",
        folded_level_answers_so,
        ("folded:X",),
        _FOLDABLE,
    ),
    Check(
        "shorter-walks",
        "where processes begin with fewer levels, the ops above take a word of their top table for a folded level's",
        shorter_walks_are_folded,
        ("shorter-walks",),
    ),
    Check(
        "folded-leaf",
        "there is no leaf at a folded level: the headers that fold it say so of any word",
        folded_level_has_no_leaf,
        ("folded:X",),
        _FOLDABLE,
    ),
)
