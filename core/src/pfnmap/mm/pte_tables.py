"""PTE tables in a row under one PMD table, worked on at once where they are whole.

What a change makes of an entry hangs on its flags, never on its PFN: of entries that map pages in a row with the same
flags the first one is changed by the architecture's ops, and the bits that changed are turned in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from pfnmap.contract.entry import Level
from pfnmap.contract.page_tables import PageTables
from pfnmap.contract.pgtable_ops import Ops
from pfnmap.contract.slot import Table
from pfnmap.contract.vma import MmStruct

if TYPE_CHECKING:  # for the type checker alone: numpy is imported where it is used
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FEW", "following", "pte_rows", "pte_rows_of_two", "pte_tables", "turned"]

FEW = 8
"""As many tables are as fast one by one."""


def pte_tables(tables: PageTables, table: Table, index: int, count: int) -> list[int]:
    """Return the physical addresses of the PTE tables under `count` slots of a PMD table from `index` on, up to the
    first slot that points to none; none at all where they are few."""
    below = tables.below["pmd"]
    if count <= FEW or below[table[index]] is None or below[table[index + FEW]] is None:
        return []
    import numpy as np

    step = next(step for step in tables.steps.values() if step.op == "pmd")
    entries = np.frombuffer(table, np.uint64)[index : index + count]
    good = (step.none(entries) | step.leaf(entries) | step.bad(entries)) == 0  # type: ignore[arg-type]
    found: list[int] = step.pgtable(entries)[: count if good.all() else good.argmin()].tolist()  # type: ignore
    return found if len(found) > FEW else []


def pte_rows(mm: MmStruct, addresses: list[int]) -> Iterator[NDArray[np.uint64]]:
    """Yield the words of PTE tables, a row for each table; as many tables at once as lie in a row."""
    ptrs = mm.kernel.geometry.PTRS_PER_PTE
    return (rows for _, rows in mm.machine.phys.rows(addresses, ptrs))


def pte_rows_of_two(
    mm: MmStruct, one: list[int], other: list[int]
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Yield the words of as many PTE tables of each of two lists, as `pte_rows` does."""
    ptrs = mm.kernel.geometry.PTRS_PER_PTE
    found = [dict(mm.machine.phys.rows(addresses, ptrs)) for addresses in (one, other)]
    for start, end in pairwise(sorted({*found[0], *found[1], len(one)})):
        first = [max(n for n in rows if n <= start) for rows in found]
        yield tuple(rows[n][start - n : end - n] for rows, n in zip(found, first, strict=True))  # type: ignore[misc]


def following(ops: Ops, level: Level, pfn: int, entry: int, count: int, pages: int) -> NDArray[np.uint64]:
    """Return `count` leaves that have the flags of `entry`, which maps `pfn`, and map that and each `pages` PFNs
    further on."""
    import numpy as np

    make = getattr(ops, f"pfn_{level}")
    step = _step(make, pfn, count, pages)
    if step is not None and getattr(ops, f"{level}_pfn")(entry + step * (count - 1)) == pfn + (count - 1) * pages:
        return np.arange(entry, entry + count * step, step, dtype=np.uint64)
    found: NDArray[np.uint64] = make(np.arange(pfn, pfn + count * pages, pages, dtype=np.uint64), 0)
    found ^= np.uint64(make(pfn, 0) ^ entry)
    return found


def turned(ops: Ops, words: NDArray[np.uint64], change: Callable[[int], int]) -> int | None:
    """Return the bits that a change turns in each of some PTEs, or None where they do not map pages in a row with the
    same flags, or do not lie in a row themselves."""
    if not words.flags.c_contiguous:
        return None
    flat = words.reshape(-1)
    first, last = int(flat[0]), int(flat[-1])
    if ops.pte_none(first) or not ops.pte_present(first):
        return None
    step = _step(ops.pfn_pte, ops.pte_pfn(first), flat.size, 1)
    if step is None or last - first != (flat.size - 1) * step or (flat[1:] - flat[:-1] != step).any():
        return None
    bits = change(first) ^ first
    return bits if change(last) ^ last == bits else None


def _step(make: Callable[[int, int], int], pfn: int, count: int, pages: int) -> int | None:
    """Return by how much the entry of each of `count` blocks of `pages` is above that of the one before, or None where
    that is not one number: the PFN is in one piece in an entry then, and what is added stays in it."""
    first, last = make(pfn, 0), make(pfn + (count - 1) * pages, 0)
    step = make(pfn + pages, 0) - first
    return step if step > 0 and last - first == (count - 1) * step else None
