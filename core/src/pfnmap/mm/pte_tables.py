"""PTE tables in a row under one PMD table, worked on at once where they are whole. They are told of in runs
(`pfnmap.contract.tables`).

What a change makes of an entry hangs on its flags, never on its PFN: of entries with the same flags the first one is
changed by the architecture's ops, and the bits that changed are turned in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from pfnmap.contract.entry import Level
from pfnmap.contract.page_tables import PageTables
from pfnmap.contract.pgtable_ops import Ops
from pfnmap.contract.slot import Table
from pfnmap.contract.vma import MmStruct

if TYPE_CHECKING:  # for the type checker alone: numpy is imported where it is used
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FEW", "count_of", "fill", "following", "in_a_row", "pte_rows", "pte_rows_of", "pte_tables", "turn"]

FEW = 8
"""As many tables are as fast one by one."""


def pte_tables(tables: PageTables, table: Table, index: int, count: int) -> list[range]:
    """Return the PTE tables under `count` slots of a PMD table from `index` on, up to the first slot that points to
    none; none at all where they are few."""
    step = next(step for step in tables.steps.values() if step.op == "pmd")
    if count <= FEW or any(
        step.none(one) or step.leaf(one) or step.bad(one) for one in (table[index], table[index + FEW])
    ):
        return []
    import numpy as np

    entries = np.frombuffer(table, np.uint64)[index : index + count]
    first, last = step.pgtable(int(entries[0])), step.pgtable(int(entries[-1]))
    if last - first == (count - 1) * tables.stride:
        above = np.arange(0, count * tables.rise, tables.rise, dtype=np.uint64)
        if (entries - entries[0] == above).all():  # nothing but the address differs, and it does not overflow
            return [range(first, last + tables.stride, tables.stride)]
    good = (step.none(entries) | step.leaf(entries) | step.bad(entries)) == 0  # type: ignore[arg-type]
    found: NDArray[np.uint64] = step.pgtable(entries if good.all() else entries[: good.argmin()])  # type: ignore
    return _runs(found, tables.stride) if len(found) > FEW else []


def _runs(addresses: NDArray[np.uint64], stride: int) -> list[range]:
    """Return addresses as runs of those that each are `stride` bytes after the one before."""
    import numpy as np

    ends = [*(np.flatnonzero(np.diff(addresses) != stride) + 1).tolist(), len(addresses)]
    starts = addresses[[0, *ends[:-1]]].tolist()
    return [
        range(start, start + (end - begin) * stride, stride)
        for start, begin, end in zip(starts, [0, *ends[:-1]], ends, strict=True)
    ]


def count_of(runs: list[range]) -> int:
    """Return how many tables these are."""
    return sum(map(len, runs))


def pte_rows(mm: MmStruct, runs: list[range]) -> Iterator[NDArray[np.uint64]]:
    """Yield the words of PTE tables, a row for each table; many tables at once where they lie in a row."""
    return mm.machine.phys.tables.rows(runs, mm.kernel.geometry.PTRS_PER_PTE)


def pte_rows_of(mm: MmStruct, *runs: list[range]) -> Iterator[tuple[NDArray[np.uint64], ...]]:
    """Yield the words of as many PTE tables of each of several, as `pte_rows` does."""
    return mm.machine.phys.tables.rows_of(runs, mm.kernel.geometry.PTRS_PER_PTE)


def following(ops: Ops, level: Level, pfn: int, entry: int, count: int, pages: int) -> NDArray[np.uint64]:
    """Return `count` leaves that have the flags of `entry`, which maps `pfn`, and map that and each `pages` PFNs
    further on."""
    import numpy as np

    step = _step(ops, level, pfn, entry, count, pages)
    if step is not None:
        return np.arange(entry, entry + count * step, step, dtype=np.uint64)
    make = getattr(ops, f"pfn_{level}")
    found: NDArray[np.uint64] = make(np.arange(pfn, pfn + count * pages, pages, dtype=np.uint64), 0)
    found ^= np.uint64(make(pfn, 0) ^ entry)
    return found


def fill(ops: Ops, found: Iterable[NDArray[np.uint64]], pfn: int, entry: int, count: int) -> None:
    """Fill rows of PTEs, `count` in all, with those that have the flags of `entry`, which maps `pfn`: the first of them
    is that, the others map the PFNs that follow."""
    import numpy as np

    step = _step(ops, "pte", pfn, entry, count, 1)
    if step is None:
        entries = following(ops, "pte", pfn, entry, count, 1)
        for rows in found:
            rows[...] = entries[: rows.size].reshape(rows.shape)
            entries = entries[rows.size :]
        return
    done = first = 0  # entries before these rows, and before those that are added to
    known: NDArray[np.uint64] | None = None
    for rows in found:
        at, width = 0, rows.shape[1]
        if known is None:
            rows[0] = np.arange(entry, entry + width * step, step, dtype=np.uint64)
            known, at = rows[:1], 1
        while at < len(rows):
            more = rows[at : at + len(known)]
            np.add(known[: len(more)], np.uint64((done + at * width - first) * step), out=more)
            at += len(more)
            if at > len(known):
                known, first = rows[:at], done
        done += rows.size


def in_a_row(mm: MmStruct, start: int, end: int) -> int:
    """Return how many pages of [start, end) are mapped by PTEs that are present, have the flags of the first and map
    the PFNs that follow; 0 for a few."""
    import numpy as np

    ops = mm.kernel.ops
    shift = mm.kernel.geometry.PAGE_SHIFT
    slot = mm.tables.slot("pte", start)
    if (end - start) >> shift <= FEW or slot is None or ops.pte_none(slot.entry) or not ops.pte_present(slot.entry):
        return 0
    entry, pfn = slot.entry, ops.pte_pfn(slot.entry)
    step = _step(ops, "pte", pfn, entry, (end - start) >> shift, 1)
    near = slot.table[slot.index : slot.index + FEW]
    if step is None or near.tolist() != list(range(entry, entry + len(near) * step, step)):
        return 0
    found = 0
    above: NDArray[np.uint64] = np.empty(0, np.uint64)
    room = above
    for rows in _ptes(mm, start, end):
        if above.shape != rows.shape:
            above = np.arange(0, rows.size * step, step, dtype=np.uint64).reshape(rows.shape)
            room = np.empty_like(above)
        same = np.subtract(rows, np.uint64(entry + found * step), out=room) == above
        if not same.all():
            return found + int(same.argmin())
        found += rows.size
    return found


def _ptes(mm: MmStruct, start: int, end: int) -> Iterator[NDArray[np.uint64]]:
    """Yield the PTEs of [start, end) in rows, up to the first missing table."""
    import numpy as np

    geometry = mm.kernel.geometry
    shift, span = geometry.PAGE_SHIFT, geometry.size("pmd")
    while start < end:
        pmd = mm.tables.slot("pmd", start)
        whole = []
        if pmd is not None and not start % span:
            whole = pte_tables(mm.tables, *pmd, min((end - start) // span, len(pmd.table) - pmd.index))
            yield from pte_rows(mm, whole)
        if not whole:
            slot = mm.tables.slot("pte", start)
            if slot is None:
                return
            count = (min((start & -span) + span, end) - start) >> shift
            yield np.frombuffer(slot.table, np.uint64)[None, slot.index : slot.index + count]
            start += count << shift
        start += count_of(whole) * span


def turn(
    ops: Ops, change: Callable[[int], int], words: NDArray[np.uint64], *parts: tuple[NDArray[np.uint64], ...]
) -> bool:
    """Write what a change makes of some PTEs, `words`, in `parts` of them: each (those before, where to). Tell whether
    that was right: all are present, with the same flags. If not, what was written elsewhere means nothing, and `words`
    are as they were.

    It is written first and checked afterwards, when `words` are in a CPU's cache.
    """
    import numpy as np

    first = int(words[0, 0])
    if ops.pte_none(first) or not ops.pte_present(first):
        return False
    bits = change(first) ^ first
    turning = np.uint64(bits)
    for old, new in parts:
        if bits:
            np.bitwise_xor(old, turning, out=new)
        elif new is not old:
            np.copyto(new, old)
    varying = int(np.bitwise_or.reduce(words, axis=None) ^ np.bitwise_and.reduce(words, axis=None))
    other = first ^ varying
    same = first ^ ops.pfn_pte(ops.pte_pfn(first), 0) == other ^ ops.pfn_pte(ops.pte_pfn(other), 0)
    if same and change(other) ^ other == bits:
        return True
    for old, new in parts:
        if new is old:
            np.bitwise_xor(new, turning, out=new)
    return False


def _step(ops: Ops, level: Level, pfn: int, entry: int, count: int, pages: int) -> int | None:
    """Return by how much each of the leaves of `following` is above the one before, or None where that is not one
    number: the PFN is in one piece in an entry then, and what is added stays in it."""
    make = getattr(ops, f"pfn_{level}")
    last = pfn + (count - 1) * pages
    step: int = make(pfn + pages, 0) - make(pfn, 0)
    if step <= 0 or make(last, 0) - make(pfn, 0) != (count - 1) * step:
        return None
    return step if getattr(ops, f"{level}_pfn")(entry + (count - 1) * step) == last else None
