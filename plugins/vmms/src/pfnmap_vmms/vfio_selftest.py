"""The kernel's own VFIO selftests.

Read and not run: tools/testing/selftests/vfio/lib/vfio_pci_device.c (vfio_pci_bar_map) of 7.0, 557dbdf6c4e9.
"""

from __future__ import annotations

from collections.abc import Sequence

from pfnmap.contract.placement import AddressSpace, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap_vmms.areas import GIB, at_once, whole, whole_or_nothing

__all__ = ["VfioSelftest"]


class VfioSelftest(Vmm):
    """Where the selftests' library puts the BARs of a device: whole, at a multiple of their size. A version is that of
    the kernel whose source they are of."""

    name = "vfio_selftest"
    versions = ("7.0 to 7.3",)

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        """Place the BARs, each by itself."""
        placed, top = [], space.base
        for request in requests:
            if sparse := whole_or_nothing(request, "the selftests' library"):
                placed.append(sparse)
                continue
            areas = at_once(space, request, [whole(request)], top, min(request.bar_size, GIB))
            top = areas[0].va
            placed.append(Placed(areas, (), (), madvise_hugepage=True, redone=()))
        return placed
