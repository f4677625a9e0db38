"""What the planner asks of a hypervisor, and the answer: at which level a guest has a mapping in its second stage.

What a hypervisor does depends on the architecture. The plugin of an architecture can say it itself
(`Arch.second_stage`), and a hypervisor's plugin asks there first. Addresses and lengths are in bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeAlias

from pfnmap.contract.dma import Reach
from pfnmap.contract.plan import LEAF_LEVELS, Image, LeafLevel, Run
from pfnmap.records import dataclass

__all__ = ["Choice", "GuestPlan", "GuestRun", "Host", "HostArch", "Hosted", "Hypervisor", "SecondStage"]

Choice: TypeAlias = "tuple[LeafLevel, str]"
"""A guest's level, and why it is less than the process's: "off" (guest and process addresses are not congruent),
"limit" (the architecture's own), "" where it is not less."""


@dataclass(frozen=True)
class SecondStage:
    """What a hypervisor on one architecture makes of a leaf of the process.

    `choose(level, off)`: the guest's level under a leaf of `level`, where guest and process addresses are `off` bytes
    apart modulo each level's size. `limit`: the sentence for an architecture's own limit. `eager`: pfnmaps are mapped
    when the guest gets the memory, not by faults, and then at what vm_pgoff says. `changes`: the upstream changes that
    this hangs on.
    """

    choose: Callable[[LeafLevel, Mapping[LeafLevel, int]], Choice]
    limit: str = ""
    eager: bool = False
    changes: tuple[str, ...] = ()


class HostArch(Protocol):
    """An architecture, as far as a hypervisor asks it."""

    @property
    def name(self) -> str:
        """The plugin's name."""

    def second_stage(self, kernel: Host, hypervisor: str) -> SecondStage | None:
        """Return what a hypervisor does on it; None: that is left to the hypervisor's plugin."""


class Host(Image, Protocol):
    """The linked kernel of a host."""

    @property
    def arch(self) -> HostArch:
        """The architecture."""


@dataclass(frozen=True, slots=True)
class Hosted:
    """A mapping of the process that is given to a guest as one memory slot: its `runs` from `va` on; `sizes`: bytes of
    a leaf by level; `bar_size` and `offset`: of which BAR it is which part; `phys`: where that part lies; `gpa`: where
    the guest has it, None: where a guest's firmware places the BAR. `pgoff_is_pfn`: the mapping's vm_pgoff is its first
    PFN. `reach(start, end)`: what a walk over a part of it meets."""

    runs: tuple[Run, ...]
    va: int
    sizes: Mapping[LeafLevel, int]
    bar_size: int
    offset: int
    phys: int
    gpa: int | None
    pgoff_is_pfn: bool
    reach: Callable[[int, int], Reach]


@dataclass(frozen=True, slots=True)
class GuestRun:
    """A stretch of the guest's mapping at one level: `count` leaves from guest physical address `gpa` on (bytes)."""

    gpa: int
    length: int
    level: LeafLevel
    count: int


@dataclass(frozen=True, slots=True)
class GuestPlan:
    """How a guest has the mapping. `faults`: exits to the hypervisor when the guest touches every page once in
    ascending order; `fixups` and `driver_calls`: what those cost where the process has nothing mapped yet. `notes`: why
    not larger."""

    hypervisor: str
    gpa: int
    runs: tuple[GuestRun, ...]
    faults: int
    fixups: int
    driver_calls: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def counts(self) -> dict[LeafLevel, int]:
        """Leaves per level, the largest first."""
        return {level: sum(run.count for run in self.runs if run.level == level) for level in reversed(LEAF_LEVELS)}

    def __add__(self, other: GuestPlan) -> GuestPlan:
        """Return it with that of the memory slot behind it."""
        return replace(
            self,
            runs=self.runs + other.runs,
            faults=self.faults + other.faults,
            fixups=self.fixups + other.fixups,
            driver_calls=self.driver_calls + other.driver_calls,
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
            warnings=tuple(dict.fromkeys(self.warnings + other.warnings)),
        )

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --json` prints."""
        return {
            "hypervisor": self.hypervisor,
            "gpa": hex(self.gpa),
            "runs": [
                {"gpa": hex(run.gpa), "length": run.length, "level": run.level, "count": run.count} for run in self.runs
            ],
            "counts": self.counts,
            "faults": self.faults,
            "cold": {"walks": self.faults + self.fixups, "fixups": self.fixups, "driver_calls": self.driver_calls},
            "warm": {"walks": self.faults},
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


class Hypervisor(ABC):
    """A hypervisor that gives mappings of a process to a guest (`Module.hypervisor`)."""

    name: ClassVar[str]
    """What answers call it."""

    legend: ClassVar[str]
    """What a guest's leaves and faults are, in a sentence."""

    @abstractmethod
    def changes(self, kernel: Host) -> tuple[str, ...]:
        """Return the upstream changes that a guest's level hangs on.

        Raises Refused for an architecture, or an MMU of it, that is not modelled.
        """

    @abstractmethod
    def guest(self, kernel: Host, hosted: Hosted) -> GuestPlan:
        """Plan a guest. Raises Refused as `changes` does, BadInput for a guest address that cannot be."""
