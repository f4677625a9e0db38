"""What a run, or a record of a replay, may take in all. An op has bounds of its own (`pfnmap.limits`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from pfnmap.errors import BadInput, Refused, Unknown
from pfnmap.limits import TABLE_BYTES
from pfnmap.sizes import parse_size

if TYPE_CHECKING:
    from pfnmap.contract.machine import Machine

__all__ = ["Budget"]

_LOOK: Final = 1 << 12
"""Events between two looks at the clock."""


@dataclass
class Budget:
    """`ops`: events that the machines trace, one that is repeated counting once; `bytes` of page tables that a machine
    has at a time; `seconds` since the budget was made, or began anew."""

    ops: int = 1 << 22
    bytes: int = TABLE_BYTES
    seconds: int = 300

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin anew: nothing is spent."""
        self._spent = 0
        self._end = time.monotonic() + self.seconds

    @classmethod
    def of(cls, limits: Sequence[str]) -> Budget:
        """Return the default budget, but for what texts ``KEY=VAL`` say. Raises BadInput."""
        keys = [one.name for one in fields(cls)]
        said: dict[str, int] = {}
        for text in limits:
            key, equals, value = text.partition("=")
            if not equals:
                raise BadInput("--limit", f"{text!r} is not KEY=VAL, such as ops=16M, bytes=512M or seconds=60")
            if key not in keys:
                raise Unknown("limit", key, keys)
            said[key] = parse_size(value, f"--limit {key}")
        return cls(**said)

    def watch(self, machine: Machine) -> None:
        """Count what a machine does from now on. Where it would be too much, the machine raises Refused."""
        machine.phys.table_limit = self.bytes
        machine.trace.listen(self._count)

    def _count(self, event: object) -> None:
        self._spent += 1
        if self._spent > self.ops:
            raise Refused("budget", f"more than {self.ops:,} events; --limit ops=N allows more")
        if not self._spent % _LOOK:
            self.look()

    def look(self) -> None:
        """Raise Refused where the time is over."""
        if time.monotonic() > self._end:
            raise Refused("budget", f"more than {self.seconds:,} seconds; --limit seconds=N allows more")
