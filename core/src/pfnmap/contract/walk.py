"""What a walk of page tables follows from: a kernel's ops, the levels that are walked, and the tables that there are.

A folded level has its parent's slots (DESIGN rule 5), and the ops on them are those of the lowest level that is folded
into the walked one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

from pfnmap.contract.entry import LEVELS, Level
from pfnmap.contract.geometry import WalkLevel
from pfnmap.contract.kernel import LinkedKernel
from pfnmap.contract.slot import Table

__all__ = ["PARENT", "Below", "Shape", "Step", "shapes", "to_pte"]

PARENT: dict[Level, Level] = {"p4d": "pgd", "pud": "p4d", "pmd": "pud", "pte": "pmd"}
"""The level above, in which a level is folded."""


class Step(NamedTuple):
    """The ops on the slots of a walked level above pte: those of `op`, the lowest level folded into it."""

    op: Level
    none: Callable[[int], int]
    present: Callable[[int], int]
    bad: Callable[[int], int]
    leaf: Callable[[int], int]
    pgtable: Callable[[int], int]
    huge: tuple[Callable[[int], int], ...]
    """What else tells a leaf of a level that has huge ones."""


class Below(dict[int, "Table | None"]):
    """Entry of a walked level above pte -> the table that it points to, or None: it is empty, a leaf, or not present.

    The ops are asked once for each entry that is empty or points to a table: their answer never changes, nor where a
    table is.
    """

    def __init__(self, step: Step, tables: Mapping[int, Table]) -> None:
        self._step = step
        self._tables = tables

    def __missing__(self, entry: int) -> Table | None:
        step = self._step
        if step.none(entry):  # there are few such entries, and many of leaves
            self[entry] = None
            return None
        if step.leaf(entry) or not step.present(entry) or any(huge(entry) for huge in step.huge):
            return None
        found = self._tables.get(step.pgtable(entry))
        if found is not None:
            self[entry] = found
        return found


@cache
def to_pte(levels: tuple[WalkLevel, ...]) -> Callable[..., Callable[[int], tuple[Table, int] | None]]:
    """Return what makes `PageTables.pte`, of the top table and of what is below each level above pte. The levels stand
    one after the other in it: a loop over them takes twice as long, and a fault walks five times."""
    *above, last = levels
    below = [f"below_{level.name}" for level in above]
    lines = [f"def make(table_, {', '.join(below)}):", " def pte(address):", "  table = table_"]
    for level, name in zip(above, below, strict=True):
        lines += [f"  table = {name}[table[address >> {level.shift} & {level.ptrs - 1}]]", "  if table is None: return"]
    lines += [f"  return table, address >> {last.shift} & {last.ptrs - 1}", " return pte"]
    made: dict[str, Any] = {}
    exec("\n".join(lines), made)  # numbers and names of levels alone
    make: Callable[..., Callable[[int], tuple[Table, int] | None]] = made["make"]
    return make


_COUNTED = ("pud", "pmd", "pte")
"""What VmPTE counts (mm_inc_nr_puds, _pmds, _ptes); p4d and pgd tables are not."""


class Shape:
    """What follows from a kernel and the levels that are walked: the ops on the slots of each level above pte, what is
    in an empty slot, the slots of a table and the bytes that VmPTE counts for it; and which of the walked levels has
    the slots of a level, which may be folded into it."""

    def __init__(self, kernel: LinkedKernel, levels: tuple[WalkLevel, ...]) -> None:
        names = [w.name for w in levels]
        self.steps = {name: _step(kernel, PARENT[below]) for name, below in pairwise(names)}
        self.empty = {name: kernel.arch.empty(self.steps[name].op if name in self.steps else name) for name in names}
        self.ptrs = {w.name: w.ptrs for w in levels}
        self.bytes = {name: kernel.geometry.ptrs(name) * 8 if name in _COUNTED else 0 for name in names}
        above = {
            level: [n for n, name in enumerate(names) if LEVELS.index(name) >= at] for at, level in enumerate(LEVELS)
        }
        self.holding = {level: max(found) for level, found in above.items()}


def _step(kernel: LinkedKernel, op: Level) -> Step:
    none, present, bad, leaf, pgtable = (
        getattr(kernel.ops, f"{op}_{what}") for what in ("none", "present", "bad", "leaf", "pgtable")
    )
    huge = ("trans_huge", "devmap") if op in ("pmd", "pud") else ()
    return Step(op, none, present, bad, leaf, pgtable, tuple(getattr(kernel.ops, f"{op}_{what}") for what in huge))


def shapes(kernel: LinkedKernel) -> Callable[[tuple[WalkLevel, ...]], Shape]:
    """Return what gives the shape of levels, each made once; for `LinkedKernel.once`."""
    return cache(partial(Shape, kernel))
