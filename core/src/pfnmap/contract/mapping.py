"""What a driver makes of a line of /proc/PID/maps: the part of a BAR that is mapped there."""

from __future__ import annotations

from pfnmap.records import dataclass

__all__ = ["MappedPart"]


@dataclass(frozen=True, slots=True)
class MappedPart:
    """The part of a BAR that a process maps. None where the line does not say: `device` (PCI address), `bar` (index),
    `offset` (bytes into the BAR), `phys` (physical address of the part)."""

    device: str | None = None
    bar: int | None = None
    offset: int | None = None
    phys: int | None = None
