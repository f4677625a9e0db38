"""OpenVMM.

Read and not run: vm/devices/pci/vfio_assigned_device and support/sparse_mmap of 2026-08-21. It has no releases here: a
version is a date.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pfnmap.contract.placement import AddressSpace, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap.contract.region import Span, inside, without
from pfnmap_vmms.areas import GIB, at_once, is_sparse, msix_pages, nothing, offered, power_of_two, rest

__all__ = ["OpenVmm"]

DIRECT: Final = (2026, 4, 21)
"""First with bcad144d3; before, every access was trapped."""


class OpenVmm(Vmm):
    """Where OpenVMM puts the BARs of an assigned device: at a 1G-aligned base plus the guest's address, which is a
    multiple of the BAR's size. The mapping is there only while memory decode is on."""

    name = "openvmm"
    executables = ("openvmm",)
    versions = ("to 2026-04-20", "2026-04-21 to 2026-08-21")

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        """Place the BARs."""
        placed, top = [], space.base
        for request in requests:
            if self.number < DIRECT:
                placed.append(nothing(request, "every access is trapped before 2026-04-21"))
                continue
            holes = msix_pages(request, space.page, pba=True)
            parts = offered(request)
            if not is_sparse(request):
                pages = inside(Span(0, request.bar_size), space.page)
                if not pages.length:
                    placed.append(nothing(request, "it is less than a page, and is trapped"))
                    continue
                parts = (pages,)
            spans = without(parts, holes)
            grain = min(power_of_two(request.bar_size), GIB)
            areas = at_once(space, request, spans, top, grain)
            top = min((area.va for area in areas), default=top)
            note = "peers reach BARs by a dma-buf (since 2026-07-16), which walks no page table"
            unmapped = rest(request, spans, holes)
            placed.append(Placed(areas, None, (), unmapped, (note,), redone=("mmap", "slots")))
        return placed
