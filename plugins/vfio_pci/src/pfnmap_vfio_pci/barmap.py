"""The BARs that vfio-pci requests and maps for itself, which is what reserves a memory type for the whole of each
(vdev->barmap in drivers/vfio/pci/vfio_pci_core.c).

Pinned by the pat.vfio_*, cachemode.* and res.of_vfio_device records of 6.12.117 (at a BAR's first mmap) and 7.3.4 (at
open). Which errno a BAR gives whose mapping failed at open is inference.
"""

from __future__ import annotations

from errno import EBUSY, ENOMEM
from typing import Final

from pfnmap import Device, DeviceBar, Machine

__all__ = ["NAME", "BarMap"]

NAME: Final = "vfio-pci"


class BarMap:
    """The mapped BARs of one open device; with `vfio-barmap-at-open` all of them from the start."""

    def __init__(self, machine: Machine, device: Device) -> None:
        self._machine = machine
        self._mapped: dict[int, DeviceBar] = {}
        self._failed: dict[int, int] = {}
        self._at_open = machine.kernel.has("vfio-barmap-at-open")
        if self._at_open:
            self._failed = {index: error for index, bar in device.bars.items() if (error := self._map(index, bar))}

    def setup(self, index: int, bar: DeviceBar) -> int:
        """vfio_pci_core_setup_barmap, at mmap of a BAR; return 0 or -errno.

        -EBUSY: another driver has requested some of it. -ENOMEM: pci_iomap gives no address, as where two memory types
        are reserved in it.
        """
        if self._at_open:
            return self._failed.get(index, 0)
        return 0 if index in self._mapped else self._map(index, bar)

    def _map(self, index: int, bar: DeviceBar) -> int:
        mm = self._machine.mm
        if mm.request_mem_region(self._machine, bar.phys, bar.size, NAME):
            return -EBUSY
        if mm.ioremap(self._machine, bar.phys, bar.size):
            mm.release_mem_region(self._machine, bar.phys, bar.size)
            return -ENOMEM
        self._mapped[index] = bar
        return 0

    def release(self) -> None:
        """Unmap and give back all, as closing the device does (vfio_pci_core_disable)."""
        for bar in self._mapped.values():
            self._machine.mm.iounmap(self._machine, bar.phys, bar.size)
            self._machine.mm.release_mem_region(self._machine, bar.phys, bar.size)
        self._mapped.clear()
