"""A BAR as a region of its driver: which parts of it can be mapped, and what lies in it that a VMM keeps for itself.

Addresses, offsets and lengths are in bytes; offsets are within the BAR.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pfnmap.errors import BadInput
from pfnmap.records import dataclass

__all__ = ["MSIX_VECTORS", "Msix", "Span", "check_sparse", "covering", "inside", "overlap", "without"]

MSIX_VECTORS: Final = 2048
"""The most vectors of an MSI-X table (11 bits of Table Size: PCI_MSIX_FLAGS_QSIZE, pci_regs.h)."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A part of a BAR."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first offset past it."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Msix:
    """An MSI-X capability: where its table of `vectors` (16 bytes each) and its pending bits are, as BAR indices and
    byte offsets in them."""

    bar: int
    table: int
    vectors: int
    pba_bar: int | None = None
    """None, as `pba`: not said."""
    pba: int | None = None

    def table_in(self, bar: int) -> Span | None:
        """Return where the table is in a BAR; None: in another."""
        return Span(self.table, 16 * self.vectors) if bar == self.bar else None

    def pba_in(self, bar: int) -> Span | None:
        """Return where the pending bits are in a BAR, a bit a vector in words of 64; None: in another, or not said."""
        if self.pba is None or bar != self.pba_bar:
            return None
        return Span(self.pba, -(-self.vectors // 64) * 8)

    def why_not(self, bar: int, size: int) -> str:
        """Return why it cannot be that of a device with such a BAR; empty: it can."""
        if not 0 < self.vectors <= MSIX_VECTORS:
            return f"{self.vectors} MSI-X vectors; there are 1 to {MSIX_VECTORS}"
        table, pba = self.table_in(bar), self.pba_in(bar)
        for what, part in (("table", table), ("PBA", pba)):
            if part is not None and part.offset % 8:
                return f"the MSI-X {what} at {part.offset:#x} is not at a multiple of 8"
            if part is not None and (part.offset < 0 or part.end > size):
                return f"the MSI-X {what} {part.offset:#x}-{part.end:#x} lies outside the BAR, which ends at {size:#x}"
        if table and pba and overlap(table, pba):
            where = f"{table.offset:#x}-{table.end:#x} and {pba.offset:#x}-{pba.end:#x}"
            return f"the MSI-X table and its PBA overlap: {where}"
        return ""


def overlap(one: Span, other: Span) -> bool:
    """Tell whether two parts have a byte in common."""
    return one.offset < other.end and other.offset < one.end


def covering(part: Span, page: int) -> Span:
    """Return the whole pages that a part touches."""
    start = part.offset // page * page
    return Span(start, -(-part.end // page) * page - start)


def inside(part: Span, page: int) -> Span:
    """Return the whole pages that a part covers; of length 0 where there is none."""
    start = -(-part.offset // page) * page
    return Span(start, max(part.end // page * page - start, 0))


def without(parts: Iterable[Span], holes: Iterable[Span]) -> tuple[Span, ...]:
    """Return what is left of some parts without the holes, in ascending order."""
    left = sorted(parts)
    for hole in (hole for hole in holes if hole.length > 0):
        left = [
            Span(start, end - start)
            for part in left
            for start, end in ((part.offset, min(part.end, hole.offset)), (max(part.offset, hole.end), part.end))
            if start < end
        ]
    return tuple(left)


def check_sparse(sparse: Iterable[Span], size: int, page: int, where: str) -> None:
    """Refuse areas that no region has: outside the BAR, not whole pages, or overlapping. Raises BadInput."""
    last: Span | None = None
    for part in sorted(sparse):
        named = f"the area {part.offset:#x}-{part.end:#x}"
        if part.length <= 0 or part.offset < 0 or part.end > -(-size // page) * page:
            raise BadInput(where, f"{named} is not inside the BAR, which ends at {size:#x}")
        if part.offset % page or part.length % page:
            raise BadInput(where, f"{named} is not whole pages of {page:#x} bytes")
        if last is not None and overlap(last, part):
            raise BadInput(where, f"{named} overlaps {last.offset:#x}-{last.end:#x}")
        last = part
