"""iommufd: why a pfnmap cannot be mapped by its address, and how a BAR is mapped instead (drivers/iommu/iommufd).

Read from pages.c, io_pagetable.c and ioas.c of 6.12.117, the dma-buf (`iommufd-dmabuf-bar`) from its patches; not run.
One IOAS to which one IOMMU domain of base pages is attached: what is mapped is pinned at once. Its own tables, its
reserved ranges and the locked-memory limit are not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from errno import EEXIST, EINVAL, ENODEV, ENOENT, ENOTTY, EOVERFLOW

from pfnmap import Machine, MmStruct
from pfnmap.limits import bounded

__all__ = ["IoPagetable"]

_WORD = 1 << 64
_BATCH = 8192
"""Pages that are pinned by one call: what 64 KiB hold of pointers (pages.c, temp_kmalloc)."""


@dataclass
class IoptArea:
    """iopt_area: `length` bytes from `iova` on; `pages` are pinned (PFNs), a dma-buf has none."""

    iova: int
    length: int
    pages: list[int] = field(default_factory=list)


class IoPagetable:
    """io_pagetable, of an IOAS with a domain."""

    def __init__(self, machine: Machine) -> None:
        kernel = machine.kernel
        self._machine = machine
        self._page = kernel.geometry.PAGE_SIZE
        self._areas: list[IoptArea] = []

    def map_user_pages(self, mm: MmStruct, iova: int, va: int, length: int, write: bool) -> int:
        """IOMMU_IOAS_MAP to a fixed `iova`; return 0 or -errno.

        -EFAULT, before any fault: the pin finds a pfnmap (pin_user_pages refuses the vma). What was pinned goes back.
        """
        if not length or length > _WORD - 1 - self._page:
            return -EINVAL
        if va + length >= _WORD:
            return -EOVERFLOW
        error = self._check_iova(iova, length) or (-EINVAL if va % self._page else 0)
        if error:
            return error
        kernel_mm = self._machine.mm
        flags = kernel_mm.FOLL_LONGTERM | (kernel_mm.FOLL_WRITE if write else 0)
        area = IoptArea(iova, length)
        count = bounded("iommufd_map", length // self._page)
        while len(area.pages) < count:
            done = len(area.pages)
            got = kernel_mm.pin_user_pages_fast(
                mm, va + done * self._page, min(count - done, _BATCH), flags, area.pages
            )
            if got < 0:
                kernel_mm.unpin_user_pages(self._machine, area.pages)
                return got
        self._areas.append(area)
        return 0

    def map_bar(self, iova: int, offset: int, length: int, bar_size: int, memory_enabled: bool) -> int:
        """IOMMU_IOAS_MAP_FILE of a dma-buf of `length` bytes from `offset` of a BAR; return 0 or -errno.

        -ENOTTY: vfio has no dma-bufs (before `iommufd-dmabuf-bar`). -EINVAL: not page-aligned, empty, beyond the BAR.
        -ENODEV: it is revoked, as memory decode is off. No page table is walked: the dma-buf knows where the BAR is.
        """
        if not self._machine.kernel.has("iommufd-dmabuf-bar"):
            return -ENOTTY
        if not length or (offset | length) % self._page or offset + length > bar_size:
            return -EINVAL
        if not memory_enabled:
            return -ENODEV
        error = self._check_iova(iova, length)
        if not error:
            self._areas.append(IoptArea(iova, length))
        return error

    def unmap(self, iova: int, length: int) -> tuple[int, int]:
        """IOMMU_IOAS_UNMAP; return (0 or -errno, bytes unmapped).

        -ENOENT: nothing is there, or an area is cut in two; those before that area are gone then.
        """
        if not length:
            return -EINVAL, 0
        if iova + length > _WORD:
            return -EOVERFLOW, 0
        found = sorted(self._overlapping(iova, length), key=lambda area: area.iova)
        unmapped = 0
        for area in found:
            if area.iova < iova or area.iova + area.length > iova + length:
                return -ENOENT, 0
            self._areas.remove(area)
            self._machine.mm.unpin_user_pages(self._machine, area.pages)
            unmapped += area.length
        return (0, unmapped) if found else (-ENOENT, 0)

    def _check_iova(self, iova: int, length: int) -> int:
        """iopt_alloc_area_pages and iopt_check_iova."""
        if length % self._page or iova % self._page:
            return -EINVAL
        if iova + length > _WORD:
            return -EOVERFLOW
        return -EEXIST if self._overlapping(iova, length) else 0

    def _overlapping(self, iova: int, length: int) -> list[IoptArea]:
        return [area for area in self._areas if area.iova < iova + length and iova < area.iova + area.length]
