"""Dragonball, Kata Containers' own VMM.

Read and not run: src/dragonball/dbs_pci/src/vfio.rs of 2026-08-22.
"""

from __future__ import annotations

from collections.abc import Sequence

from pfnmap.contract.placement import AddressSpace, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap.contract.region import Span, without
from pfnmap_vmms.areas import each_alone, offered, rest

__all__ = ["Dragonball"]


class Dragonball(Vmm):
    """Where Dragonball puts the BARs of a VFIO device."""

    name = "dragonball"
    state = "its source of 2026-08-22"

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        """Place the BARs, each area by itself; of sparse ones only the first is used."""
        placed, top = [], space.base
        for request in requests:
            first = offered(request)[:1]
            holes = _table(request, space.page)
            spans = without(first, holes)
            areas = each_alone(space, request, spans, top)
            top = min((area.va for area in areas), default=top)
            why = holes | dict.fromkeys(offered(request)[1:], "Dragonball uses the first sparse-mmap area only")
            placed.append(Placed(areas, unmapped=rest(request, spans, why), redone=()))
        return placed


def _table(request: Request, page: int) -> dict[Span, str]:
    """The pages of the MSI-X table, which are always cut out: so many as its size needs from the start of its first
    page, which can miss the last one (kata-containers pull request 12929)."""
    part = request.msix.table_in(request.bar) if request.msix else None
    if part is None:
        return {}
    return {Span(part.offset // page * page, -(-part.length // page) * page): "the MSI-X table"}
