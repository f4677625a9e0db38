"""Which open files of a process are vfio's (drivers/vfio/group.c, device_cdev.c, vfio_main.c), and the fault handler's
lines in the kernel's log.

Links, fdinfo and lines are as recorded on 6.12.94 to 7.3.4 (REAL-KERNEL.md); ``vfio-device-syspath`` is there from
6.18.15 on. That a device opened by its own node (/dev/vfio/devices/vfio3) is linked to that path is read and not run.
"""

from __future__ import annotations

import re
from typing import Final

from pfnmap.contract.mapping import HeldFile, LoggedFault

__all__ = ["held", "logged"]

_GROUP: Final = r"/dev/vfio/(?:noiommu-)?(\d+)"
_NODE: Final = r"/dev/vfio/devices/(vfio\d+)"
_DEVICE: Final = r"(?:anon_inode:)?\[vfio-device\]"
_SYSPATH: Final = r"(?m)^vfio-device-syspath:\s*/sys/devices/\S*/([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])$"
_FAULT: Final = (
    r"\bvfio-pci ([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]): vfio_pci_mmap_huge_fault\(,order = (\d{1,2})\)"
    r" BAR (\d) page offset 0x([0-9a-f]{1,16}): 0x([0-9a-f]{1,8})(?![0-9a-f])"
)
_OFFSET_BITS: Final = (52, 50, 48)
"""The offset is an unsigned long shifted by the page: of 4K, 16K and 64K."""


def held(link: str, fdinfo: str) -> HeldFile | None:
    """See `pfnmap.Driver.held`."""
    if found := re.fullmatch(_GROUP, link):
        return HeldFile(group=int(found[1]))
    node = re.fullmatch(_NODE, link)
    if node is None and not re.fullmatch(_DEVICE, link):
        return None
    said = re.search(_SYSPATH, fdinfo)
    return HeldFile(said[1] if said else None, None, node[1] if node else None, maps=True)


def logged(line: str) -> LoggedFault | None:
    """See `pfnmap.Driver.logged`."""
    found = re.search(_FAULT, line)
    if found is None:
        return None
    device, order, bar, offset, ret = found.groups()
    return LoggedFault(device, int(bar), int(order), _signed(int(offset, 16), int(order)), int(ret, 16))


def _signed(pages: int, order: int) -> int:
    """Return a page offset that was printed as unsigned. The block holds a page of the vma, so that it begins less
    than its own length below (FINDINGS F11)."""
    return next((pages - (1 << bits) for bits in _OFFSET_BITS if 0 < (1 << bits) - pages < 1 << order), pages)
