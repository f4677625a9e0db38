"""vfio_pci_core_device, and how a region's offset says which BAR it is of."""

from __future__ import annotations

from dataclasses import field

from pfnmap import Device, File, VmArea
from pfnmap.records import dataclass

from .barmap import BarMap

__all__ = ["PCI_COMMAND_MEMORY", "VFIO_PCI_OFFSET_SHIFT", "VFIO_PCI_ROM_REGION_INDEX", "VfioPciCoreDevice"]

VFIO_PCI_OFFSET_SHIFT = 40
VFIO_PCI_ROM_REGION_INDEX = 6
PCI_COMMAND_MEMORY = 0x2


@dataclass(eq=False)
class VfioPciCoreDevice:
    """vfio_pci_core_device: the device, its command register, which BARs can be mapped, and, before
    `vfio-unmap-mapping-range`, the vmas that were populated by a fault."""

    pdev: Device
    command: int
    bar_mmap_supported: frozenset[int]
    barmap: BarMap
    file: File = field(init=False)
    vma_list: list[VmArea] = field(default_factory=list)

    @property
    def memory_enabled(self) -> bool:
        """__vfio_pci_memory_enabled: whether the memory bit of the command register is set."""
        return bool(self.command & PCI_COMMAND_MEMORY)
