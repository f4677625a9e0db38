"""Firecracker, as in a branch that is not released.

Read and not run: src/vmm/src/vfio.rs of pull requests 6055 (2026-07-24) and 6114 (feature/vfio).
"""

from __future__ import annotations

from collections.abc import Sequence

from pfnmap.contract.placement import AddressSpace, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap.contract.region import without
from pfnmap_vmms.areas import each_alone, is_sparse, msix_pages, nothing, offered, rest

__all__ = ["Firecracker"]


class Firecracker(Vmm):
    """Where Firecracker's branch feature/vfio puts the BARs of a device."""

    name = "firecracker"
    executables = ("firecracker", "firecracker-v*")
    state = "its branch feature/vfio of August 2026, which no release has"

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        """Place the BARs, each area by itself (vfio_calculate_bar_areas, vfio_map_bar_mapping)."""
        placed, top = [], space.base
        for request in requests:
            holes = {} if is_sparse(request) else msix_pages(request, space.page, pba=True)
            if holes and not request.msix_mappable:
                why = "it holds the MSI-X table or PBA, and the region does not say that they may be mapped"
                placed.append(nothing(request, why))
                continue
            spans = without(offered(request), holes)
            areas = each_alone(space, request, spans, top)
            top = min((area.va for area in areas), default=top)
            note = "no BAR is mapped for DMA yet (pull request 6055 does it, for every area)"
            placed.append(Placed(areas, None, (), rest(request, spans, holes), (note,)))
        return placed
