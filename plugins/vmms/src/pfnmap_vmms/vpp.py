"""VPP.

Read and not run: src/vlib/linux/pci.c (vlib_pci_map_region) and src/vppinfra/linux/mem.c (clib_mem_vm_map_shared) of
26.10-rc0.
"""

from __future__ import annotations

from collections.abc import Sequence

from pfnmap.contract.placement import AddressSpace, Part, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap_vmms.areas import whole, whole_or_nothing

__all__ = ["Vpp"]


class Vpp(Vmm):
    """Where VPP puts the BARs of a device: whole, a page behind the start of a reservation that begins with a header
    page and is aligned to a page."""

    name = "vpp"
    executables = ("vpp",)
    packages = ("vpp",)
    versions = ("26.10",)

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        """Place the BARs, each by itself."""
        placed, top = [], space.base
        for request in requests:
            if sparse := whole_or_nothing(request, "VPP"):
                placed.append(sparse)
                continue
            areas = space.place([Part(request, whole(request), space.page)], space.page, top)
            top = areas[0].va - space.page
            note = "VPP puts a header page in front of every mapping"
            placed.append(Placed(areas, (), (), notes=(note,), redone=()))
        return placed
