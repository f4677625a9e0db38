"""DPDK, and what uses its PCI bus (SPDK).

Read and not run: drivers/bus/pci/linux/pci_vfio.c and pci.c (pci_find_max_end_va) of 26.07-rc4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pfnmap.contract.placement import AddressSpace, Part, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap.contract.region import Span, covering, without
from pfnmap.errors import BadInput
from pfnmap.sizes import is_power_of_two, parse_size
from pfnmap_vmms.areas import is_sparse, msix_pages, offered, rest, whole_or_nothing

__all__ = ["Dpdk"]

SPARSE: Final = (23, 7)
"""First with f60abf9757: the areas of a sparse region; before, mmap of the whole failed."""


class Dpdk(Vmm):
    """Where DPDK puts the BARs of all devices of a process: one after another, each at the next page, from the end of
    the highest list of memory segments on, which is a multiple of the huge page's size."""

    name = "dpdk"
    executables = ("dpdk-*",)
    packages = ("dpdk",)
    versions = ("18.11 to 23.03", "23.07 to 26.07")
    takes = ("hugepage-sz",)

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        """Place the BARs, in the order in which the process has them."""
        answers: list[Placed] = []
        parts: list[Part] = []
        counts: list[int] = []
        free = 0
        for request in requests:
            refused = whole_or_nothing(request, "DPDK before 23.07") if self.number < SPARSE else None
            holes = {} if request.msix_mappable or is_sparse(request) else msix_pages(request, space.page, pba=False)
            spans = () if refused else without(offered(request), holes)
            answers.append(refused or Placed((), (), (), rest(request, spans, holes), redone=()))
            counts.append(len(spans))
            parts += [Part(request, span, free + span.offset) for span in spans]
            free += 0 if refused else covering(Span(0, request.bar_size), space.page).length
        areas = iter(space.place(parts, self._grain(space)) if parts else ())
        return [
            Placed(tuple(next(areas) for _ in range(count)), (), (), answer.unmapped, redone=())
            for answer, count in zip(answers, counts, strict=True)
        ]

    def _grain(self, space: AddressSpace) -> int:
        """The size of the huge pages that the process has its memory in: one of the PMD's if nobody says it."""
        if "hugepage-sz" not in self.options:
            return space.kernel.geometry.size("pmd")
        size = parse_size(self.options["hugepage-sz"], "--vmm-opt hugepage-sz")
        if not is_power_of_two(size) or size < space.page:
            raise BadInput("--vmm-opt hugepage-sz", f"{size:#x} is no size of huge pages")
        return size
