"""Which lines of /proc/PID/maps are mappings of vfio-pci's regions (vfio_pci_core_mmap,
drivers/vfio/pci/vfio_pci_core.c).

The offset column is the region's index in the bits from 40 on and the offset in the region below them since
`vfio-unmap-mapping-range`; before, it is the physical address, as it is whatever the release where no BAR has such an
index. The name of a device that was opened by itself (/dev/vfio/devices) is read from drivers/vfio and not run.
"""

from __future__ import annotations

import re

from pfnmap import Has
from pfnmap.contract.mapping import MappedPart

__all__ = ["mapped"]

_PATH = r"(?:anon_inode:)?\[vfio-device\]|(?:/dev/vfio/devices/)?vfio\d+"
"""As maps prints it, and without folders, as pmap does."""
_BY_REGION = "vfio-unmap-mapping-range"
_VFIO_PCI_OFFSET_SHIFT = 40
_BARS = 6


def mapped(path: str, offset: int | None, has: Has) -> MappedPart | None:
    """See `pfnmap.Driver.mapped`."""
    if not re.fullmatch(_PATH, path):
        return None
    if offset is None:
        return MappedPart()
    region, inside = divmod(offset, 1 << _VFIO_PCI_OFFSET_SHIFT)
    if not has(_BY_REGION):
        return MappedPart(phys=offset)
    return MappedPart(bar=region, offset=inside) if region < _BARS else MappedPart(phys=offset, contradicts=_BY_REGION)
