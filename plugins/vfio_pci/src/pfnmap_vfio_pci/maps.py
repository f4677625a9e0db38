"""Which lines of /proc/PID/maps are mappings of vfio-pci's regions (vfio_pci_core_mmap,
drivers/vfio/pci/vfio_pci_core.c).

The offset column is the region's index in the bits from 40 on and the offset in the region below them since
`vfio-unmap-mapping-range`; before, it is the physical address. Whatever the release, it is an address where no BAR has
such an index or is mapped so far from its start, and none where no BAR can lie; where these bounds are is inferred from
memory maps of x86_64 and arm64 and from the layouts of devices. The name of a device that was opened by itself
(/dev/vfio/devices) is read from drivers/vfio and not run.
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
_FARTHEST = 1 << 31
"""Bytes from the start of a BAR that a part of it is mapped at: MSI-X tables, which split a mapping, lie below."""
_LOWEST = 1 << 24
"""The address below which no BAR lies that is mapped: there are legacy ranges, up to the hole of the ISA bus at 15M."""


def mapped(path: str, offset: int | None, has: Has) -> MappedPart | None:
    """See `pfnmap.Driver.mapped`."""
    if not re.fullmatch(_PATH, path):
        return None
    if offset is None:
        return MappedPart()
    region, inside = divmod(offset, 1 << _VFIO_PCI_OFFSET_SHIFT)
    by_region = has(_BY_REGION)
    if offset < _LOWEST:
        told = True
    elif region >= _BARS or inside >= _FARTHEST:
        told = False
    else:
        told = by_region
    contradicts = _BY_REGION if told != by_region else None
    if told:
        return MappedPart(bar=region, offset=inside, contradicts=contradicts)
    return MappedPart(phys=offset, contradicts=contradicts)
