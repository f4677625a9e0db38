"""Steps of a scenario or a recording, and the actions that plugins bring for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, Protocol

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.machine import Machine
from pfnmap.contract.vma import File, MmStruct

__all__ = ["Action", "ScenarioRun", "Step"]


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
