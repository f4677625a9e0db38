"""Page-table entries of a guest's process, read from guest memory and walked with the architecture's own ops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

from pfnmap.kernel import Kernel
from pfnmap.ops.state import frame_bits

__all__ = ["entry_at"]

_PARENT = {"p4d": "pgd", "pud": "p4d", "pmd": "pud", "pte": "pmd"}
_TABLE_MASK = (1 << 48) - 1


async def entry_at(
    kernel: Kernel, read: Callable[[int], Awaitable[int]], pgd: int, va: int, ram: range
) -> dict[str, Any]:
    """Return `entry` and `upper` of an address as a recording has them, and `present` as note_tables has it.

    `read` gives the 64-bit word at a physical address, `pgd` is the physical address (bytes) of the top table, `ram`
    where the guest has RAM: a leaf there is given without its frame number.
    """
    page_bits = _TABLE_MASK & -kernel.geometry.PAGE_SIZE
    levels = kernel.geometry.levels(0)
    ops: Any = kernel.ops
    below = {one.name: _PARENT[other.name] for one, other in pairwise(levels)}
    table: int | None = pgd
    met = []
    for walked in levels:
        if table is None:
            break
        index = (va >> walked.shift) & (walked.ptrs - 1)
        word = await read(table + index * 8)
        met.append((walked.name, word))
        table = None
        if op := below.get(walked.name):
            empty, leaf = getattr(ops, f"{op}_none")(word), getattr(ops, f"{op}_leaf")(word)
            table = None if empty or leaf else getattr(ops, f"{op}_pgtable")(word)
    *above, (level, value) = met
    entry: dict[str, Any] = {"level": level, "value": hex(value)}
    pfn = None
    if level == "pte" and ops.pte_present(value):
        pfn = ops.pte_pfn(value)
    elif level == "pmd" and ops.pmd_present(value) and ops.pmd_leaf(value):
        pfn = ops.pmd_pfn(value)
    if pfn is not None and pfn << kernel.geometry.PAGE_SHIFT in ram:
        entry = {"level": level, "ram": True, "flags": hex(value & ~frame_bits(kernel))}
    names = {name for name, _ in met}
    return {
        "entry": entry,
        "upper": [{"level": name, "flags": hex(word & ~page_bits)} for name, word in above],
        "present": {f"{one.name}_table": one.name in names for one in levels[1:]},
    }
