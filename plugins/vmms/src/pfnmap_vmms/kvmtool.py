"""kvmtool.

Read and not run: vfio/core.c (vfio_map_region) and vfio/pci.c of 2024-07-10.
"""

from __future__ import annotations

from collections.abc import Sequence

from pfnmap.contract.placement import AddressSpace, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap_vmms.areas import each_alone, msix_pages, nothing, whole, whole_or_nothing

__all__ = ["Kvmtool"]


class Kvmtool(Vmm):
    """Where kvmtool puts the BARs of a VFIO device."""

    name = "kvmtool"
    executables = ("lkvm", "lkvm-static", "kvmtool")
    packages = ("kvmtool",)
    state = "its source of 2024-07-10"

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        """Place the BARs, each by itself; mapped and unmapped with memory decode."""
        placed, top = [], space.base
        for request in requests:
            if msix_pages(request, space.page, pba=True):
                placed.append(nothing(request, "it holds the MSI-X table or PBA, and is trapped"))
            elif sparse := whole_or_nothing(request, "kvmtool"):
                placed.append(sparse)
            else:
                areas = each_alone(space, request, [whole(request)], top)
                top = areas[0].va
                placed.append(Placed(areas, None, (), redone=("mmap", "slots")))
        return placed
