"""A walk of the raw words in memory, as the CPU does it, that asks no op of the plugin.

What it knows is the geometry (how many entries a table has, at which shift) and the format of a word that the plugin
declares from the CPU's manual (`pfnmap.WordFormat`).
"""

from __future__ import annotations

from typing import NamedTuple

from pfnmap.contract.entry import Level
from pfnmap.contract.geometry import Bits, Fields, WordFormat
from pfnmap.contract.vma import MmStruct
from pfnmap.testing.check import Violation

__all__ = ["Translation", "gathered", "holds", "translate"]


class Translation(NamedTuple):
    """What a virtual address means to the CPU: the level of the leaf, its word, the physical address (bytes), and
    whether user space may read there (True where the format does not say)."""

    level: Level
    word: int
    physical: int
    readable: bool


def translate(mm: MmStruct, address: int) -> Translation | None:
    """Walk to a virtual address; None where a word is not valid.

    Raises Violation for a word that points to no table, or that maps an address not aligned to what it maps.
    """
    kernel = mm.kernel
    tables = mm.machine.phys.tables
    table = tables[mm.tables.pgd_pa]
    for walked in kernel.geometry.walk:
        word = table[(address >> walked.shift) & (walked.ptrs - 1)]
        how = kernel.arch.word_format(walked.name)
        assert how is not None, "the capability `words` is asked for"
        if word == how.shared or not holds(how.valid, word):
            return None
        if how.table is None or not holds(how.table, word):
            physical = _physical(how, word, 1 << walked.shift, address, walked.name)
            return Translation(walked.name, word, physical, how.load is None or holds(how.load, word))
        below = gathered(how.next_table if how.next_table is not None else how.address, word)
        if below not in tables:
            raise Violation(
                f"the {walked.name} word {word:#x} for {address:#x} points to {below:#x}, where no table is"
            )
        table = tables[below]
    raise Violation(f"the pte word {word:#x} for {address:#x} points to another table: its format has no last level")


def holds(bits: Bits, word: int) -> bool:
    """Tell whether a word holds what a format says."""
    return word & bits[0] == bits[1]


def gathered(fields: Fields, word: int) -> int:
    """Return the address (bytes) that a word holds in the fields of a format."""
    address = 0
    for mask, shift in fields:
        address |= (word & mask) << shift if shift >= 0 else (word & mask) >> -shift
    return address


def _physical(how: WordFormat, word: int, size: int, address: int, level: Level) -> int:
    start = gathered(how.address, word)
    if start % size:
        raise Violation(
            f"the {level} word {word:#x} for {address:#x} maps {size:#x} bytes at {start:#x}, which is not aligned"
        )
    return start | (address & (size - 1))
