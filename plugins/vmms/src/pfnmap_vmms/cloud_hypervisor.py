"""Cloud Hypervisor.

Read and not run: pci/src/vfio.rs, pci/src/mmap.rs and vmm/src/device_manager.rs of 2026-08-21 (53.0 and later), and
the commits that are named.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from pfnmap.contract.placement import AddressSpace, Area, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap.contract.region import Span, without
from pfnmap.errors import BadInput
from pfnmap_vmms.areas import each_aligned, each_alone, is_sparse, nothing, offered, power_of_two, rest

__all__ = ["CloudHypervisor"]

ALIGNED: Final = (53,)
"""First with de4ff39f4dd5: an area at a multiple of the power of two at or above its length."""
RELOCATED: Final = (52,)
"""First with 915675882: nothing is cut out of a BAR whose table the guest has elsewhere; and with 23a980cd5: what is
less than a page is mapped as one; 87992c77c: vfio_p2p_dma; 41e12e9d6: x_exclude_mmap_bars."""
PAGE_ALIGNED_GPA: Final = ((33,), (38,))
"""From a71871683 to c9f94be7a, a guest's 64-bit BARs were only page-aligned."""

_GUEST_BASE: Final = 0x80_0000_0000


class CloudHypervisor(Vmm):
    """Where Cloud Hypervisor puts the BARs of a VFIO device."""

    name = "cloud_hypervisor"
    executables = ("cloud-hypervisor", "cloud-hypervisor-static")
    packages = ("cloud-hypervisor",)
    versions = ("15 to 52", "53 to 54")
    takes = ("iommu", "iommufd", "vfio_p2p_dma", "x_exclude_mmap_bars")

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        """Place the BARs, each area by itself."""
        for option in ("vfio_p2p_dma", "x_exclude_mmap_bars"):
            if option in self.options and self.number < RELOCATED:
                raise BadInput("--vmm-opt", f"{option} came with 52, and this is {self.name} {self.version}")
        excluded = self._excluded()
        dma, notes = self._dma()
        placed, top = [], space.base
        for request in requests:
            if request.bar in excluded:
                placed.append(nothing(request, "x_exclude_mmap_bars"))
                continue
            if why := self._why_not(request, space.page):
                placed.append(nothing(request, why))
                continue
            spans, holes = self._spans(request, space.page)
            areas = self._areas(space, request, spans, top)
            top = min((area.va for area in areas), default=top)
            unmapped = rest(request, spans, holes)
            gpa = self._gpa(request, space.page)
            placed.append(Placed(areas, None, None if dma else (), unmapped, notes, gpa, redone=()))
        return placed

    def _excluded(self) -> set[int]:
        text = self.options.get("x_exclude_mmap_bars", "[]")
        found = re.fullmatch(r"\[?((?:[0-5](?:,[0-5])*)?)\]?", text)
        if found is None:
            raise BadInput("--vmm-opt", f"x_exclude_mmap_bars={text} is not a list of BARs, such as [0,2]")
        return {int(bar) for bar in found[1].split(",") if bar}

    def _dma(self) -> tuple[bool, tuple[str, ...]]:
        """Whether areas are mapped for DMA, and what is to be said."""
        if self.switched_on("iommu") or not self.switched_on("vfio_p2p_dma", default="on"):
            return False, ()
        if self.switched_on("iommufd"):
            return False, (
                "the DMA map of a BAR fails with EFAULT under iommufd, and the VM does not start (issue 8895);"
                " vfio_p2p_dma=off leaves it out",
            )
        return True, ()

    def _why_not(self, request: Request, page: int) -> str:
        """Why nothing of a BAR is mapped; empty if something is."""
        if _msix_holes(request, page) and not request.msix_mappable:
            return "it holds the MSI-X table or PBA, and the region does not say that they may be mapped"
        if request.bar_size < page and self.number < RELOCATED:
            return "it is less than a page, which Cloud Hypervisor maps from 52 on"
        return ""

    def _spans(self, request: Request, page: int) -> tuple[tuple[Span, ...], dict[Span, str]]:
        """The areas, and what is cut out of the BAR (generate_sparse_areas)."""
        holes = _msix_holes(request, page)
        if is_sparse(request) or (self.number >= RELOCATED and _relocates(request, page)):
            holes = {}
        return without(offered(request), holes), holes

    def _areas(self, space: AddressSpace, request: Request, spans: Sequence[Span], top: int) -> tuple[Area, ...]:
        if self.number < ALIGNED:
            return each_alone(space, request, spans, top)
        return each_aligned(space, request, spans, top, power_of_two)

    def _gpa(self, request: Request, page: int) -> int | None:
        """Where a guest has a BAR that it does not place at a multiple of its size."""
        first, fixed = PAGE_ALIGNED_GPA
        if not first <= self.number < fixed or request.bits != 64:
            return None
        size = max(request.bar_size, page)
        return -(-_GUEST_BASE // size) * size + page


def _msix_holes(request: Request, page: int) -> dict[Span, str]:
    """The pages of table and PBA that are cut out: so many as their sizes fill, from the page they begin in; what
    crosses a page's end is not all of it."""
    if request.msix is None:
        return {}
    parts = {"the MSI-X table": request.msix.table_in(request.bar), "the MSI-X PBA": request.msix.pba_in(request.bar)}
    return {
        Span(part.offset // page * page, -(-part.length // page) * page): what
        for what, part in parts.items()
        if part is not None
    }


def _relocates(request: Request, page: int) -> bool:
    """Whether the guest gets a BAR of twice the size with table and PBA in its upper half (fixup_msix_region)."""
    table = request.msix.table_in(request.bar) if request.msix else None
    return table is not None and request.bits == 64 and table.offset % page != 0
