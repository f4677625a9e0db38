"""Steps of a scenario or a recording, and the actions that plugins bring for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Concatenate, Final, Protocol

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.entry import Level
from pfnmap.contract.machine import Machine
from pfnmap.contract.vma import File, MmStruct
from pfnmap.records import dataclass
from pfnmap.trace import Fault

__all__ = ["LISTED_FAULTS", "Action", "FoundEntry", "ScenarioRun", "Step", "StepEvents", "StepResult"]


@dataclass(frozen=True)
class Step:
    """One step: `op`, its arguments as they were read, who does it, and what it is expected to give.

    `where` says where it was read ("steps[3]"), for errors.
    """

    op: str
    arguments: Mapping[str, Any]
    expect: Mapping[str, Any] = field(default_factory=dict)
    by: str = "parent"
    at: Any = None
    where: str = ""


LISTED_FAULTS: Final = 1200
"""A step lists at most so many faults; `faults_total` tells when there were more (RECORDINGS.md)."""


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """The leaf of an address or its first empty entry: the `value` at a `level`; `ram`: it maps a page of RAM, whose
    frame says nothing, and `value` has the flags alone. `upper`: the flags of the tables' entries above, by level."""

    level: Level
    value: int
    ram: bool
    upper: tuple[tuple[Level, int], ...]

    def as_json(self) -> dict[str, Any]:
        """Return `entry` and `upper` as a recording has them."""
        entry = {"ram": True, "flags": hex(self.value)} if self.ram else {"value": hex(self.value)}
        upper = [{"level": level, "flags": hex(flags)} for level, flags in self.upper]
        return {"entry": {"level": self.level, **entry}, "upper": upper}


@dataclass(frozen=True, slots=True)
class StepEvents:
    """What was traced in a step: the first of the driver's `faults` and their number, `handle_mm_fault` and `calls` of
    functions, `follow_returns` by what the look-ups returned, `vmstat` counters, and the kernel's `messages`."""

    faults: tuple[Fault, ...]
    faults_total: int
    handle_mm_fault: int
    calls: Mapping[str, int]
    follow_returns: Mapping[str, int]
    vmstat: Mapping[str, int]
    messages: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the keys of a recording's `expect`; those that say nothing are left out."""
        listed = [
            {"order": f.order, "ret": f.ret, "va": hex(f.va), "write": f.write, "vma_lock": f.vma_lock}
            for f in self.faults
        ]
        total = {"faults_total": self.faults_total} if self.faults_total > LISTED_FAULTS else {}
        returns = {"follow_returns": {"ok": 0, **self.follow_returns}} if self.follow_returns else {}
        vmstat = {"vmstat": dict(self.vmstat)} if self.vmstat else {}
        messages = {"messages": list(self.messages)} if self.messages else {}
        always = {"faults": listed, "handle_mm_fault": self.handle_mm_fault, "calls": dict(self.calls)}
        return {**always, **total, **returns, **vmstat, **messages}


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step gave. `result`: "ok", an errno's name, a signal, "OOPS", ...; `more`: what its op tells besides, JSON
    values by the names of a recording's `expect`; `events`: what was traced (None where the op folds that into `more`);
    `table_bytes`: by how much the process's page tables grew; `found`: the entry at the step's `at`."""

    result: str
    more: Mapping[str, Any]
    events: StepEvents | None
    table_bytes: int
    found: FoundEntry | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it under the names of a recording's `expect`: the one place where a result becomes JSON."""
        events = self.events.as_json() if self.events else {}
        found = self.found.as_json() if self.found else {}
        return {"result": self.result, **self.more, **events, "table_bytes": self.table_bytes, **found}


class ScenarioRun(Protocol):
    """What an action is given first: the run of the scenario that it is a step of, as far as it is meant for plugins
    (`pfnmap.run.Run` is it)."""

    @property
    def current(self) -> MmStruct:
        """The address space of the process that performs the step: the parent, or with ``by = "child"`` the child."""

    @property
    def machine(self) -> Machine:
        """The booted machine."""

    @property
    def devices(self) -> Mapping[str, Device]:
        """The devices of the scenario, by name."""

    @property
    def files(self) -> Mapping[str, File]:
        """Their open files, as `Driver.probe` returned them, by the device's name."""

    def bind(self, device: str, driver: str) -> None:
        """Unbind a device from its driver and have another bind it: its file in `files` is then that one's. Raises
        Unknown for a device, BadInput for a driver that is not linked."""

    def bar(self, device: str, index: int) -> DeviceBar:
        """Return a BAR of a device. Raises Unknown for a device, BadInput for a BAR that it does not have."""


@dataclass(frozen=True)
class Action:
    """A scenario action of a plugin: `run(scenario_run, **arguments)` returns the step's results.

    They go over the common ones: `{}` leaves `result` "ok", ``{"result": "EINVAL"}`` is a system call that failed. For
    arguments that cannot be it raises BadInput or Unknown; what it raises is told with file and step. `arguments`:
    name -> "address" (int), "size" and "int" (int, not negative), "signed" (int), "bool", "str", "list" (of str) or
    "bar" (0 to 5); those in `optional` may be left out, and then are not passed.
    """

    run: Callable[Concatenate[ScenarioRun, ...], Mapping[str, Any]]
    arguments: Mapping[str, str]
    optional: frozenset[str] = frozenset()
