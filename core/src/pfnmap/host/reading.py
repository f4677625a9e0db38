"""What a reader makes of an input: devices, mappings, and what it leaves out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pfnmap.records import dataclass

if TYPE_CHECKING:  # a driver that brings a kind of input is not to bring the readers along
    from pfnmap.host.paste import Line
    from pfnmap.host.pci import PciDevice, Skipped

__all__ = ["InputKind", "Mapping", "Reading"]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping of a process, as /proc/PID/maps has it. `va`, `length` and `offset` are in bytes."""

    va: int
    length: int
    offset: int | None
    """Offset in the file; None where the source does not print it."""
    path: str
    """What is mapped: ``/dev/vfio/25``, ``anon_inode:[vfio-device]``, a path in /sys; as much as the source prints."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, in the order of the input."""

    devices: tuple[PciDevice, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @classmethod
    def of(cls, *found: PciDevice | Mapping | Skipped) -> Reading:
        """Return a reading of what was found, each kind in its order."""
        from pfnmap.host.pci import PciDevice, Skipped

        return cls(
            tuple(one for one in found if isinstance(one, PciDevice)),
            tuple(one for one in found if isinstance(one, Mapping)),
            tuple(one for one in found if isinstance(one, Skipped)),
        )


@dataclass(frozen=True, slots=True)
class InputKind:
    """A kind of input. `sign`: an expression that whole lines of this kind match, and hardly any other line does.
    `parse`: its reader, which takes every line of the input and never fails: what it cannot read it skips."""

    sign: re.Pattern[str]
    parse: Callable[[Iterable[Line]], Reading]
