"""Dma-bufs of a device's BARs (drivers/vfio/pci/vfio_pci_dmabuf.c), from `iommufd-dmabuf-bar` on where PCI_P2PDMA is
built in.

Pinned by the dma_buf and map_file records of 6.12.117 (there is none: ENOTTY) and 7.3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EINVAL, ENODEV, ENOTTY

from pfnmap import Device
from pfnmap.contract.kernel import LinkedKernel
from pfnmap.records import dataclass

__all__ = ["DmaBuf", "Range", "feature_dma_buf", "has_dma_bufs"]

_ROM_REGION_INDEX = 6

Range = tuple[int, int]
"""Offset in the BAR and length, in bytes."""


@dataclass(frozen=True)
class DmaBuf:
    """A dma-buf of parts of one BAR of a device."""

    device: str
    ranges: tuple[Range, ...]

    @property
    def size(self) -> int:
        """The bytes of all its ranges."""
        return sum(length for _, length in self.ranges)


def has_dma_bufs(kernel: LinkedKernel) -> bool:
    """Tell whether vfio has dma-bufs (CONFIG_VFIO_PCI_DMABUF): not where vfio-pci is built without PCI_P2PDMA."""
    config = kernel.config
    left_out = config.enabled("VFIO_PCI_CORE") and not config.enabled("PCI_P2PDMA")
    return kernel.has("iommufd-dmabuf-bar") and not left_out


def feature_dma_buf(
    kernel: LinkedKernel, device: Device, region: int, ranges: Sequence[Range], flags: int
) -> int | DmaBuf:
    """VFIO_DEVICE_FEATURE_DMA_BUF; return the dma-buf or -errno. Whether memory decode is on is not asked.

    -EINVAL: flags, no ranges. -ENODEV: a region that is no BAR. -EINVAL: a BAR that is no memory; a range that is
    empty, not page-aligned or not within the BAR.
    """
    if not has_dma_bufs(kernel):
        return -ENOTTY
    if flags or not ranges:
        return -EINVAL
    if region >= _ROM_REGION_INDEX:
        return -ENODEV
    bar = device.bars.get(region)
    page = kernel.geometry.PAGE_SIZE
    for offset, length in ranges:
        if bar is None or not length or (offset | length) % page or offset + length > bar.size:
            return -EINVAL
    return DmaBuf(device.name, tuple(ranges))
