"""Requesting physical ranges, and what that takes from user space (kernel/resource.c).

Source: 6.12.117; the cachemode.* and res.of_vfio_device records of 6.12.117 pin it, with and without iomem=relaxed,
which is as if CONFIG_IO_STRICT_DEVMEM were off.
"""

from __future__ import annotations

from errno import EBUSY

from pfnmap.contract.iomem import Region
from pfnmap.contract.machine import Machine
from pfnmap.mm.zap import unmap_mapping_range

__all__ = ["iomem_is_exclusive", "release_mem_region", "request_mem_region"]


def request_mem_region(machine: Machine, start: int, size: int, name: str) -> int:
    """Take `size` bytes at a physical address for a driver; return 0, or -EBUSY where another has some of them.

    With IO_STRICT_DEVMEM whatever user space has mapped of them by /dev/mem or sysfs is unmapped, copies of private
    mappings too, and stays so: those files have no fault handler (revoke_iomem).
    """
    iomem = machine.iomem
    if iomem.overlapping(start, start + size):
        return -EBUSY
    iomem.regions.append(Region(start, start + size, name))
    if machine.kernel.config.enabled("IO_STRICT_DEVMEM"):
        unmap_mapping_range(iomem.mapping, start, size)
    return 0


def release_mem_region(machine: Machine, start: int, size: int) -> None:
    """Give a range back that was requested."""
    regions = machine.iomem.regions
    regions[:] = [region for region in regions if (region.start, region.end) != (start, start + size)]


def iomem_is_exclusive(machine: Machine, address: int) -> bool:
    """Tell whether user space must not map the page at a physical address: a driver has requested some of it, and
    IO_STRICT_DEVMEM asks for that. Drivers that ask to be alone without it are not modelled."""
    if not machine.kernel.config.enabled("IO_STRICT_DEVMEM"):
        return False
    page = machine.kernel.geometry.PAGE_SIZE
    start = address & -page
    return bool(machine.iomem.overlapping(start, start + page))
