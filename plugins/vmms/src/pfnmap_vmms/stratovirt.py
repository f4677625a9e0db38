"""StratoVirt.

Read and not run: vfio/src/vfio_pci.rs of 2026-04-24.
"""

from __future__ import annotations

from collections.abc import Sequence

from pfnmap.contract.placement import AddressSpace, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap.contract.region import without
from pfnmap_vmms.areas import each_alone, msix_pages, offered, rest

__all__ = ["StratoVirt"]


class StratoVirt(Vmm):
    """Where StratoVirt puts the BARs of a VFIO device: when the guest first gives a BAR an address."""

    name = "stratovirt"
    executables = ("stratovirt",)
    packages = ("stratovirt",)
    state = "its source of 2026-04-24"

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        """Place the BARs, each area by itself. The pages of the MSI-X table are always cut out; the listener that maps
        memory for DMA takes no device's."""
        placed, top = [], space.base
        for request in requests:
            holes = msix_pages(request, space.page, pba=False)
            spans = without(offered(request), holes)
            areas = each_alone(space, request, spans, top)
            top = min((area.va for area in areas), default=top)
            placed.append(Placed(areas, None, (), rest(request, spans, holes)))
        return placed
