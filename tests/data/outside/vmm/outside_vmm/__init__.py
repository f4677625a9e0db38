from collections.abc import Sequence

from pfnmap.contract.placement import AddressSpace, Part, Placed, Unmapped, Vmm
from pfnmap.contract.plan import Request
from pfnmap.contract.region import Span


class OutsideVmm(Vmm):
    """Aligned to 2M; the last page of a BAR is left out."""

    name = "outside_vmm"
    versions = ("1.0", "2.0")

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        return [self._placed(space, request) for request in requests]

    def _placed(self, space: AddressSpace, request: Request) -> Placed:
        kept = request.bar_size - space.page
        areas = space.place([Part(request, Span(0, kept))], 2 << 20)
        return Placed(areas, unmapped=(Unmapped(kept, space.page, "the doorbell"),))
