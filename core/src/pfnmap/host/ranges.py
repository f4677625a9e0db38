"""Memory BARs of sources that print address ranges and no register numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pfnmap.host.pci import BARS, Bar, Skipped, why_not_a_bar

__all__ = ["Range", "bars_in_order"]

_FOUR_GIB = 1 << 32
_MIB = 1 << 20


class Range(NamedTuple):
    """A range that a source prints for a device: first and last address (both belong to it)."""

    first: int
    last: int
    memory: bool = True
    """False: I/O ports, which take a register and are no memory BAR."""
    prefetchable: bool = False


def bars_in_order(device: str | None, ranges: Iterable[Range]) -> Iterator[Bar | Skipped]:
    """Yield the memory BARs of a device whose ranges stand in the order of their registers.

    Inferred, and marked so: a range above 4G has a 64-bit BAR, which takes two registers, as has a prefetchable one,
    which PCI Express wants of endpoints; others take one, none is empty. What comes after the last register is the
    expansion ROM, as what lies below 1M is its shadow: no BARs. A range that no BAR can have is skipped.
    """
    register = 0
    for one in ranges:
        size = one.last - one.first + 1
        if one.memory and one.last < _MIB:
            continue
        if register >= BARS:
            return
        bits = 64 if one.memory and (one.prefetchable or one.last >= _FOUR_GIB) else 32
        if one.memory:
            if why := why_not_a_bar(size, one.first):
                yield Skipped(device, f"range {one.first:#x}-{one.last:#x}: {why}")
            else:
                yield Bar(register, size, one.first, bits, one.prefetchable, index_inferred=True)
        register += bits // 32
