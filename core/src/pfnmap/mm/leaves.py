"""The leaves of many addresses at once.

`PageTables.leaf` is what each of them would answer, and its ops are asked here, of all entries of a level together.
A table is looked for once, however many addresses it maps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pfnmap.contract.entry import LEVELS
from pfnmap.contract.vma import MmStruct

if TYPE_CHECKING:  # for the type checker alone: numpy is imported where it is used
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NO_LEAF", "Leaves", "leaves"]


NO_LEAF = len(LEVELS)


class Leaves(NamedTuple):
    """Of each address the leaf's `level`, an index in `LEVELS`, and its `entry`; where there is none, `NO_LEAF` and
    0."""

    level: NDArray[np.uint8]
    entry: NDArray[np.uint64]


def leaves(mm: MmStruct, addresses: NDArray[np.uint64]) -> Leaves:
    """Return what `mm.tables.leaf` says of each address (bytes)."""
    import numpy as np

    last = len(mm.tables.levels) - 1
    entry, level = _slots(mm, last, addresses >> np.uint64(mm.tables.levels[last].shift))
    level[(mm.kernel.ops.pte_none(entry) != 0) & (level == 0)] = NO_LEAF
    entry[level == NO_LEAF] = 0
    return Leaves(level, entry)


def _slots(mm: MmStruct, depth: int, numbers: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Return the entry of each of the slots of a walked level that have these numbers (address >> shift), and 0; where
    the walk ends above, the entry there and the level that `Leaves` has."""
    import numpy as np

    tables = mm.tables
    walked = tables.levels[depth]
    index = (numbers & np.uint64(walked.ptrs - 1)).view(np.intp)
    if not depth:
        return np.frombuffer(tables.pgd, np.uint64)[index], np.zeros(len(numbers), np.uint8)
    above = tables.levels[depth - 1]
    distinct, which = _distinct(numbers >> np.uint64(above.shift - walked.shift))
    entry, level = _slots(mm, depth - 1, distinct)
    step = tables.steps[above.name]
    ops = mm.kernel.ops
    none, leaf = step.none(entry) != 0, step.leaf(entry) != 0  # type: ignore[arg-type]
    below: NDArray[np.uint64] = step.pgtable(entry)  # type: ignore[arg-type, assignment]
    ends = none | leaf | (step.present(entry) == 0)  # type: ignore[arg-type]
    if step.op in ("pmd", "pud"):
        for what in ("trans_huge", "devmap"):
            ends |= getattr(ops, f"{step.op}_{what}")(entry) != 0
    here = ends & (level == 0)
    level[here] = np.where(leaf & ~none, LEVELS.index(step.op), NO_LEAF)[here]
    ends = level != 0
    below[ends] = tables.pgd_pa  # any table: what is read there is not looked at
    found = mm.machine.phys.tables.read(below, which, index)
    if ends.any():
        over = np.flatnonzero(ends[which])
        found[over] = entry[which[over]]
    return found, level[which]


def _distinct(numbers: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Return numbers that hold all of these, ascending, and where among them each one is."""
    import numpy as np

    if not len(numbers):
        return numbers, numbers.astype(np.intp)
    first, last = int(numbers.min()), int(numbers.max())
    if last - first < len(numbers):
        return np.arange(first, last + 1, dtype=np.uint64), (numbers - np.uint64(first)).view(np.intp)
    found, which = np.unique(numbers, return_inverse=True)
    return found, which
