"""Simulated PCI devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from pfnmap.contract.defaults import DEFAULT_DRIVER
from pfnmap.records import dataclass

__all__ = ["BarPart", "Device", "DeviceBar"]


@dataclass(frozen=True)
class BarPart:
    """A part of a BAR that answers: `length` bytes from `offset` on, to accesses of `sizes` (bytes) that are aligned to
    their size."""

    offset: int
    length: int
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class DeviceBar:
    """A BAR of a simulated device: `index`, `size` and physical address `phys` in bytes. `mmapable`: whether the
    driver offers it to mmap (vfio's region flag 4); None leaves that to the driver's own rule. `memory`: how many of
    its bytes have memory behind them, where a driver shows memory of another size as a BAR; None: all.
    `prefetchable`: the BAR's own bit; None: not said. `parts`: what of it answers which accesses, where the device
    refuses others; None: all of it any (only s390, whose PCI instructions tell, asks)."""

    index: int
    size: int
    phys: int
    mmapable: bool | None = None
    memory: int | None = None
    prefetchable: bool | None = None
    parts: tuple[BarPart, ...] | None = None


@dataclass
class Device:
    """A simulated PCI device: `name` for scenarios, `bdf`, its memory BARs by index, its PCI command register as it is
    before a driver binds it, whether it has a way to be reset, and the name of the driver that binds it."""

    name: str
    bdf: str
    bars: Mapping[int, DeviceBar] = field(default_factory=dict)
    command: int = 0x3
    reset_works: bool = False
    driver: str = DEFAULT_DRIVER
