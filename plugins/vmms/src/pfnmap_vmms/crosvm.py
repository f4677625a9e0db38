"""crosvm.

Read and not run: devices/src/pci/vfio_pci.rs (add_bar_mmap, commit_bars_mmap), base's MemoryMappingBuilder, of
2026-08-21. It has no releases: a version is a date.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pfnmap.contract.placement import AddressSpace, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap.contract.region import without
from pfnmap_vmms.areas import each_alone, is_sparse, msix_pages, offered, rest

__all__ = ["Crosvm"]

MSIX_MAPPABLE: Final = (2025, 7, 30)
"""First with eb98b0b02: a region whose MSI-X table may be mapped is mapped whole."""


class Crosvm(Vmm):
    """Where crosvm puts the BARs of a VFIO device."""

    name = "crosvm"
    executables = ("crosvm",)
    versions = ("to 2025-07-29", "2025-07-30 to 2026-08-21")

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        """Place the BARs, each area by itself; mapped when memory decode is first on, and never unmapped when it is
        off."""
        placed, top = [], space.base
        for request in requests:
            holes = msix_pages(request, space.page, pba=True)
            notes: tuple[str, ...] = ()
            if self.number >= MSIX_MAPPABLE and (is_sparse(request) or request.msix_mappable):
                if holes and not is_sparse(request):
                    notes = ("nothing lies over the MSI-X table: a guest's writes seem to reach the real one",)
                holes = {}
            spans = without(offered(request), holes)
            areas = each_alone(space, request, spans, top)
            top = min((area.va for area in areas), default=top)
            placed.append(Placed(areas, None, (), rest(request, spans, holes), notes, redone=()))
        return placed
