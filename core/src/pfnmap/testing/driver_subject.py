"""A driver linked as one machine."""

from __future__ import annotations

from pfnmap.driver import Driver
from pfnmap.kernel import Kernel

__all__ = ["DriverSubject"]


class DriverSubject:
    """One driver, linked into one kernel."""

    def __init__(self, kernel: Kernel, machine: str, plugin: type[Driver]) -> None:
        self.kernel = kernel
        self.machine = machine
        self.driver = kernel.drivers[plugin.name]
        self.capabilities: frozenset[str] = frozenset()
