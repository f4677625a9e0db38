"""iommufd: why a pfnmap cannot be mapped by its address, and how a BAR is mapped instead (drivers/iommu/iommufd).

Source: pages.c, io_pagetable.c and ioas.c of 6.12.117, the dma-buf from its patches. Pinned by the no_domain,
domain.untouched and map_file records of 6.12.117 and 7.3.4. With a device attached an IOAS has one IOMMU domain of base
pages, and what is mapped is pinned at once; without, nothing is, and any address will do. The domain's own tables, its
reserved ranges and the locked-memory limit are not modelled.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import field
from errno import EADDRINUSE, EEXIST, EINVAL, ENODEV, ENOENT, EOPNOTSUPP, EOVERFLOW

from pfnmap import Call, Machine, MmStruct
from pfnmap.limits import bounded
from pfnmap.records import dataclass

from .dma_buf import DmaBuf

__all__ = ["IoPagetable"]

_WORD = 1 << 64
_BATCH = 8192
"""Pages that are pinned by one call: what 64 KiB hold of pointers (pages.c, temp_kmalloc)."""


@dataclass
class IoptArea:
    """iopt_area: `length` bytes from `iova` on, of memory of `mm` or of `dma_buf` from `start` on;
    `pages` are pinned (PFNs)."""

    iova: int
    length: int
    start: int
    mm: MmStruct | None = None
    write: bool = False
    dma_buf: DmaBuf | None = None
    revoked: bool = False
    pages: list[int] = field(default_factory=list)


class IoPagetable:
    """io_pagetable of an IOAS; `attached`: a device is attached to it; `calls`: how often it pinned and mapped."""

    def __init__(self, machine: Machine, *, attached: bool) -> None:
        self._machine = machine
        self._page = machine.kernel.geometry.PAGE_SIZE
        self._areas: list[IoptArea] = []
        self.attached = attached
        self.calls: Counter[str] = Counter()

    @property
    def _alignment(self) -> int:
        """iopt_calculate_iova_alignment."""
        return self._page if self.attached else 1

    def map_user_pages(self, mm: MmStruct, iova: int, va: int, length: int, write: bool) -> int:
        """IOMMU_IOAS_MAP to a fixed `iova`; return 0 or -errno.

        -EFAULT, before any fault: the pin finds a pfnmap (pin_user_pages refuses the vma). What was pinned goes back.
        """
        if not length or length > _WORD - 1 - self._page:
            return -EINVAL
        if va + length >= _WORD:
            return -EOVERFLOW
        return self._add(IoptArea(iova, length, va, mm=mm, write=write))

    def map_dma_buf(self, dma_buf: DmaBuf, iova: int, start: int, length: int, *, memory_enabled: bool) -> int:
        """IOMMU_IOAS_MAP_FILE of a part of a dma-buf; return 0 or -errno.

        -EOPNOTSUPP: it has several ranges. -EINVAL: not page-aligned, empty, beyond it. -ENODEV: it is revoked, as
        memory decode is off. No page table is walked: the dma-buf knows where the BAR is.
        """
        if not length or (start | length) % self._page or start + length > dma_buf.size:
            return -EINVAL
        if len(dma_buf.ranges) > 1:
            return -EOPNOTSUPP
        if not memory_enabled:
            return -ENODEV
        return self._add(IoptArea(iova, length, start, dma_buf=dma_buf))

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
            self._unfill(area)
            unmapped += area.length
        return (0, unmapped) if found else (-ENOENT, 0)

    def attach(self) -> int:
        """A device is attached (iopt_table_add_domain); return 0 or -errno, with nothing pinned.

        -EADDRINUSE: an area is not page-aligned. Then what its pages give: -EFAULT for a pfnmap.
        """
        if any((area.iova | area.length | area.start) % self._page for area in self._areas):
            return -EADDRINUSE
        areas = sorted(self._areas, key=lambda area: area.iova)
        for n, area in enumerate(areas):
            error = self._fill(area)
            if error:
                for filled in areas[:n]:
                    self._unfill(filled)
                return error
        self.attached = True
        return 0

    def detach(self) -> None:
        """The device goes, and all pins with it; the areas stay (iopt_table_remove_domain)."""
        self.attached = False
        for area in self._areas:
            self._unfill(area)

    def revoke(self, device: str) -> None:
        """Memory decode of a device went off: each mapping of its dma-bufs is told, and maps nothing."""
        for area in self._of(device):
            if not area.revoked:
                self._machine.trace.emit(Call("iopt_revoke_notify", area.iova))
            area.revoked = True

    def restore(self, device: str) -> None:
        """It is on again."""
        for area in self._of(device):
            area.revoked = False

    def _of(self, device: str) -> list[IoptArea]:
        return [area for area in self._areas if area.dma_buf is not None and area.dma_buf.device == device]

    def _add(self, area: IoptArea) -> int:
        """iopt_alloc_area_pages, iopt_check_iova and iopt_fill_domains_pages."""
        if (area.length | area.iova | area.start) % self._alignment:
            return -EINVAL
        if area.iova + area.length > _WORD:
            return -EOVERFLOW
        if self._overlapping(area.iova, area.length):
            return -EEXIST
        error = self._fill(area) if self.attached else 0
        if not error:
            self._areas.append(area)
        return error

    def _fill(self, area: IoptArea) -> int:
        """iopt_area_fill_domain: pin the area's pages and map them; a dma-buf's are there."""
        error = 0 if area.mm is None else self._pin(area, area.mm)
        if not error:
            self.calls["iommu_map"] += 1
        return error

    def _pin(self, area: IoptArea, process: MmStruct) -> int:
        mm = self._machine.mm
        flags = mm.FOLL_LONGTERM | (mm.FOLL_WRITE if area.write else 0)
        count = bounded("iommufd_map", area.length // self._page)
        while len(area.pages) < count:
            done = len(area.pages)
            self.calls["pin_user_pages_fast"] += 1
            got = mm.pin_user_pages_fast(
                process, area.start + done * self._page, min(count - done, _BATCH), flags, area.pages
            )
            if got < 0:
                self._unfill(area)
                return got
        return 0

    def _unfill(self, area: IoptArea) -> None:
        self._machine.mm.unpin_user_pages(self._machine, area.pages)
        area.pages = []

    def _overlapping(self, iova: int, length: int) -> list[IoptArea]:
        return [area for area in self._areas if area.iova < iova + length and iova < area.iova + area.length]
