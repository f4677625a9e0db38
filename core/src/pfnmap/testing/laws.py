"""Laws that an architecture's own C code has to keep, tried on the inputs and outputs in a golden vector file.

No plugin is asked: a law is tried wherever the file has both sides of it, say the row of ``pmd_mkspecial`` that gives
an entry and the row of ``pmd_special`` for that entry. So it says of each law on how many rows it could be tried, and
where it could not, why::

    for result in judge(read_vectors("riscv64-4k-7.3.4.json.gz")):
        print(result.law.name, result.level, result.rows, result.broken)

A law is asked of *leaves* at the levels where the configuration has any (transparent huge pages): entries that the
file's own predicates call present and, above the PTE, leaf, and that mkhuge leaves alone. New protections are those of
mappings (`vm_get_page_prot`, in the cache modes that the file has rows for), physical addresses those below
MAX_PHYSMEM_BITS. On other words helpers may answer what they like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pfnmap.contract.entry import Level
from pfnmap.testing.check import bits
from pfnmap.testing.vector_facts import Facts
from pfnmap.testing.vectors import Vectors

__all__ = ["LAWS", "Broken", "Law", "Result", "judge"]

Sorts: TypeAlias = Mapping[str, int]
"""Predicate -> what it answers for entries of one sort."""

_LEAF_LEVELS: Final[tuple[Level, ...]] = ("pte", "pmd", "pud")
_HUGE: Final[tuple[Level, ...]] = ("pmd", "pud")
_TABLES: Final[tuple[Level, ...]] = ("pmd", "pud", "p4d", "pgd")
_SEEN = ("pfn", "present", "none", "leaf", "bad", "trans_huge", "write", "dirty", "young", "devmap")
_WORD = 16  # more than any format moves the address of a table by
SHOWN: Final = 20
"""Broken rows that a result lists."""


@dataclass(frozen=True)
class Trial:
    """One row on which a law could be tried: helper, inputs, and what is wrong ("" if nothing)."""

    helper: str
    inputs: tuple[int, ...]
    wrong: str = ""


@dataclass(frozen=True)
class Law:
    """One law: what it says, at which levels, which helpers it cannot do without, and how it is tried.

    `needs`: forms of helpers (X for the level) that the architecture itself has to define: a fallback of the headers is
    not its own. `of_leaves`: it is asked only at levels that have leaves.
    """

    name: str
    text: str
    levels: tuple[Level, ...]
    needs: tuple[str, ...]
    trials: Callable[[Facts, Level], Iterator[Trial]]
    of_leaves: bool = True


@dataclass(frozen=True)
class Broken:
    """A row that breaks a law."""

    helper: str
    inputs: tuple[int, ...]
    wrong: str

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"helper": self.helper, "inputs": [hex(value) for value in self.inputs], "wrong": self.wrong}


@dataclass
class Result:
    """What came of a law at a level: rows tried, how many broke it, the first of them, and why none was tried."""

    law: Law
    level: Level
    rows: int = 0
    broken: int = 0
    examples: list[Broken] = field(default_factory=list)
    not_tried: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "law": self.law.name,
            "level": self.level,
            "text": self.law.text,
            "rows": self.rows,
            "broken": self.broken,
            "examples": [one.as_dict() for one in self.examples],
            "not_tried": self.not_tried or None,
        }


def judge(vectors: Vectors) -> list[Result]:
    """Try every law at each of its levels on a vector file."""
    facts = Facts(vectors)
    return [_tried(facts, law, level) for law in LAWS for level in law.levels]


def _tried(facts: Facts, law: Law, level: Level) -> Result:
    result = Result(law, level)
    if law.of_leaves and (symbol := facts.lacks_leaves(level)):
        result.not_tried = f"no leaves here: {symbol} is not set"
        return result
    missing = [helper for form in law.needs if not facts.provided(helper := form.replace("X", level))]
    if missing:
        owners = ", ".join(f"{helper} is {facts.vectors.defined.get(helper, 'not in the file')}" for helper in missing)
        result.not_tried = owners
        return result
    seen = set()
    for trial in law.trials(facts, level):
        if (trial.helper, trial.inputs, trial.wrong) in seen:
            continue
        seen.add((trial.helper, trial.inputs, trial.wrong))
        result.rows += 1
        if trial.wrong:
            result.broken += 1
            if len(result.examples) < SHOWN:
                result.examples.append(Broken(trial.helper, trial.inputs, trial.wrong))
    if not result.rows:
        result.not_tried = "no row has both sides of it"
    return result


def _agree(helper: str, inputs: tuple[int, ...], what: str, expected: int, got: int, entry: int) -> Trial:
    wrong = "" if got == expected else f"{what}({entry:#x}) is {got:#x}, it must be {expected:#x}"
    return Trial(helper, inputs, wrong)


def _is(
    facts: Facts, level: Level, helper: str, inputs: tuple[int, ...], entry: int, expected: Sorts
) -> Iterator[Trial]:
    """Yield one trial of an outcome: which sort of entry it is, by all predicates that the file has for it."""
    names = dict.fromkeys(("present", "none", "leaf", "bad", *expected))
    got = {name: answer for name in names if (answer := facts.know(level, name, entry)) is not None}
    if got.keys() & expected.keys():
        wrong = any(got[name] != answer for name, answer in expected.items() if name in got)
        answers = ", ".join(f"{name} {answer}" for name, answer in got.items())
        yield Trial(helper, inputs, f"{level} {entry:#x}: {answers}" if wrong else "")


def special_after_mkspecial(facts: Facts, level: Level) -> Iterator[Trial]:
    for entry in facts.leaves(level):
        outcome = facts.know(level, "mkspecial", entry)
        if outcome is not None and (special := facts.know(level, "special", outcome)) is not None:
            yield _agree(f"{level}_mkspecial", (entry,), f"{level}_special", 1, special, outcome)


def special_kept(facts: Facts, level: Level) -> Iterator[Trial]:
    for helper, inputs, entry, outcome in facts.changed(level):
        before, after = facts.know(level, "special", entry), facts.know(level, "special", outcome)
        if before is not None and after is not None:
            yield _agree(helper, inputs, f"{level}_special", before, after, outcome)


def special_alone(facts: Facts, level: Level) -> Iterator[Trial]:
    for entry in facts.leaves(level):
        outcome = facts.know(level, "mkspecial", entry)
        if outcome is None:
            continue
        for name in _SEEN:
            before, after = facts.know(level, name, entry), facts.know(level, name, outcome)
            if before is not None and after is not None:
                yield _agree(f"{level}_mkspecial", (entry,), f"{level}_{name}", before, after, outcome)


def pfn_kept(facts: Facts, level: Level) -> Iterator[Trial]:
    for helper, inputs, entry, outcome in facts.changed(level, "mkspecial"):
        before, after = facts.know(level, "pfn", entry), facts.know(level, "pfn", outcome)
        if before is not None and after is not None:
            yield _agree(helper, inputs, f"{level}_pfn", before, after, outcome)


def pfn_comes_out(facts: Facts, level: Level) -> Iterator[Trial]:
    for helper, inputs, pfn, entry in facts.inserted(level):
        if (got := facts.know(level, "pfn", entry)) is not None:
            yield _agree(helper, inputs, f"{level}_pfn", pfn, got, entry)


def pgprot_less_pfn(facts: Facts, level: Level) -> Iterator[Trial]:
    images = _address_images(facts, level)
    address = prots = 0
    for image in images:
        address |= image
    for prot in facts.prots:
        prots |= prot
    for entry in facts.leaves(level):
        got = facts.know(level, "pgprot", entry)
        if got is None or entry & address not in images:
            continue
        wrong = ""
        if kept := got & address:
            wrong = f"{level}_pgprot is {got:#x}: it keeps {bits(kept, 0)} of the address"
        elif lost := entry & prots & ~address & ~got:
            wrong = f"{level}_pgprot is {got:#x}: it loses {bits(lost, 0)}"
        elif more := got & ~entry:
            wrong = f"{level}_pgprot is {got:#x}: it has {bits(more, 0)}, which the entry has not"
        yield Trial(f"{level}_pgprot", (entry,), wrong)


def _address_images(facts: Facts, level: Level) -> set[int]:
    """What pfns look like in an entry: how rows of pfn_X with one pgprot differ from its row with pfn 0."""
    rows = [row for row in facts.rows(f"pfn_{level}") if facts.accessible(row[1]) and facts.can_map(level, row[0])]
    base = {prot: entry for pfn, prot, entry in rows if pfn == 0}
    return {entry ^ base[prot] for _, prot, entry in rows if prot in base}


_LEAF: Final[Mapping[str, int]] = {"none": 0, "leaf": 1, "bad": 1}
_TABLE: Final[Mapping[str, int]] = {"present": 1, "none": 0, "leaf": 0, "bad": 0, "trans_huge": 0}
_NONE: Final[Mapping[str, int]] = {"present": 0, "leaf": 0, "trans_huge": 0}


def leaf_stays_leaf(facts: Facts, level: Level) -> Iterator[Trial]:
    for helper, inputs, _, outcome in facts.changed(level, "mkspecial"):
        yield from _is(facts, level, helper, inputs, outcome, _LEAF)


def inserted_is_leaf(facts: Facts, level: Level) -> Iterator[Trial]:
    expected = {"present": 1, **_LEAF} | ({"special": 1} if facts.provided(f"{level}_mkspecial") else {})
    for helper, inputs, _, entry in facts.inserted(level):
        yield from _is(facts, level, helper, inputs, entry, expected)


def table_is_table(facts: Facts, level: Level) -> Iterator[Trial]:
    for address, entry in facts.table(f"{level}_populate").items():
        if entry:  # else it is a folded level, where nothing is written
            yield from _is(facts, level, f"{level}_populate", (address,), entry, _TABLE)


def table_holds_address(facts: Facts, level: Level) -> Iterator[Trial]:
    rows = [(pa, entry) for pa, entry in facts.table(f"{level}_populate").items() if entry]
    if not rows:
        return
    (first, word), *_ = rows
    agree = {
        shift: sum(entry ^ word == _moved(pa ^ first, shift) for pa, entry in rows) for shift in range(-_WORD, _WORD)
    }
    shift = max(agree, key=lambda shift: agree[shift])
    for pa, entry in rows:
        expected = word ^ _moved(pa ^ first, shift)
        wrong = "" if entry == expected else f"{level}_populate is {entry:#x}, other tables' make it {expected:#x}"
        yield Trial(f"{level}_populate", (pa,), wrong)


def _moved(address: int, shift: int) -> int:
    return address >> shift if shift >= 0 else address << -shift


def none_is_nothing_else(facts: Facts, level: Level) -> Iterator[Trial]:
    for entry, none in facts.table(f"{level}_none").items():
        if none:
            yield from _is(facts, level, f"{level}_none", (entry,), entry, _NONE)


_FLAGS: Final = {
    **dict.fromkeys(("mkwrite", "mkwrite_novma"), ("write", 1)),
    "wrprotect": ("write", 0),
    "mkdirty": ("dirty", 1),
    "mkclean": ("dirty", 0),
    "mkyoung": ("young", 1),
    "mkold": ("young", 0),
}


def flags_as_said(facts: Facts, level: Level) -> Iterator[Trial]:
    for helper, inputs, _, outcome in facts.changed(level):
        name, answer = _FLAGS.get(helper.partition("_")[2], ("", 0))
        if name and (got := facts.know(level, name, outcome)) is not None:
            yield _agree(helper, inputs, f"{level}_{name}", answer, got, outcome)


def claimed_level_works(facts: Facts, level: Level) -> Iterator[Trial]:
    symbol = f"ARCH_SUPPORTS_{level.upper()}_PFNMAP"
    if facts.vectors.config.get(symbol) != "y":
        return
    for helper in (f"pfn_{level}", *(f"{level}_{op}" for op in ("mkhuge", "mkspecial", "special", "pgprot", "pfn"))):
        owner = facts.vectors.defined.get(helper, "absent")
        trapped = facts.vectors.trapped.get(helper, 0)
        wrong = ""
        if owner != "arch":
            wrong = f"{symbol}=y, and {helper} is {owner}"
        elif trapped and not facts.rows(helper):
            wrong = f"{symbol}=y, and {helper} trapped on every one of {trapped} inputs"
        yield Trial(helper, (), wrong)


LAWS: Final = (
    Law(
        "special-after-mkspecial",
        "special tells what mkspecial made",
        _LEAF_LEVELS,
        ("X_special", "X_mkspecial"),
        special_after_mkspecial,
    ),
    Law("special-kept", "no other helper drops or invents special", _LEAF_LEVELS, ("X_special",), special_kept),
    Law(
        "special-alone",
        "mkspecial changes nothing that another predicate sees",
        _LEAF_LEVELS,
        ("X_mkspecial",),
        special_alone,
    ),
    Law("pfn-kept", "no helper changes what a leaf maps", _LEAF_LEVELS, ("X_pfn",), pfn_kept),
    Law(
        "pfn-comes-out",
        "the pfn that was inserted is the pfn of the leaf",
        _LEAF_LEVELS,
        ("X_pfn", "pfn_X"),
        pfn_comes_out,
    ),
    Law("pgprot-less-pfn", "pgprot is the entry less its pfn", _LEAF_LEVELS, ("X_pgprot",), pgprot_less_pfn),
    Law(
        "leaf-stays-leaf",
        "a leaf, whatever is done to it, is not taken for empty or for a table",
        _LEAF_LEVELS,
        ("X_none",),
        leaf_stays_leaf,
    ),
    Law(
        "inserted-is-leaf",
        "what the insert functions make is a present, special leaf",
        _LEAF_LEVELS,
        ("X_none", "pfn_X"),
        inserted_is_leaf,
    ),
    Law(
        "flags-as-said",
        "mkwrite, mkdirty and mkyoung set what write, dirty and young tell, their opposites clear it",
        _LEAF_LEVELS,
        (),
        flags_as_said,
    ),
    Law(
        "table-is-table",
        "what populate writes is a present table and no leaf",
        _TABLES,
        ("X_populate",),
        table_is_table,
        of_leaves=False,
    ),
    Law(
        "table-holds-address",
        "what populate writes holds the table's address where it holds every other table's",
        _TABLES,
        ("X_populate",),
        table_holds_address,
        of_leaves=False,
    ),
    Law(
        "none-is-nothing-else",
        "what is none is neither present nor a leaf",
        _LEAF_LEVELS,
        ("X_none",),
        none_is_nothing_else,
        of_leaves=False,
    ),
    Law(
        "claimed-level-works",
        "a level that the configuration offers to pfnmaps has the helpers for it",
        _HUGE,
        (),
        claimed_level_works,
        of_leaves=False,
    ),
)
