"""The resources of physical address space (kernel/resource.c): which driver has requested which range."""

from __future__ import annotations

from dataclasses import field

from pfnmap.contract.vma import AddressSpace
from pfnmap.records import dataclass

__all__ = ["IoMem", "Region"]


@dataclass(frozen=True)
class Region:
    """A range that a driver has requested: [start, end) in bytes, and the driver's name."""

    start: int
    end: int
    name: str


@dataclass
class IoMem:
    """iomem_resource as far as drivers request it, and the address space of /dev/mem's inode, through which everything
    is mapped that gives physical memory to user space: file offsets in it are physical addresses."""

    mapping: AddressSpace
    regions: list[Region] = field(default_factory=list)

    def overlapping(self, start: int, end: int) -> list[Region]:
        """Return the regions that have a part of [start, end)."""
        return [region for region in self.regions if region.start < end and start < region.end]
