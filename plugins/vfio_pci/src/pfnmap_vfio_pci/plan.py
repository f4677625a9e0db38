"""What the planner is told of vfio-pci and of who maps BARs for DMA; it shares no code with the fault handlers.

The levels are pinned by the matrix.* records, the walks of type1 by the dma.* and first_by_dma_map records; iommufd is
read (drivers/iommu/iommufd/pages.c, pfn_reader_user_pin; mm/gup.c, check_vma_flags), its refusal is recorded by the
gup.* records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

from pfnmap.contract.dma import DmaBackend, DmaMap, Published, Reach
from pfnmap.contract.option import Asked, PlanOption
from pfnmap.contract.plan import HUGE_LEVELS, Filling, Image, LeafLevel, Reason, RegionRules, Request
from pfnmap.errors import BadInput, Refused
from pfnmap.sizes import format_size

__all__ = ["DMA", "Iommufd", "Type1", "region_rules"]

REGION_BITS = 40
"""Bits of a file offset within a region (VFIO_PCI_OFFSET_SHIFT); above them is the region's index."""

VFIO_PCI = "vfio-pci"
FAULT_MMAPS = "vfio-fault-mmaps"
UNALIGNED_FALLBACK = "vfio-unaligned-pfn-fallback"
ALIGN_FAULT = "vfio-align-fault-to-order"
MAPPING_ORDER = "get-mapping-order"
NOEXEC = "vfio-mmap-noexec"


def region_rules(kernel: Image, request: Request, others: Sequence[Request]) -> RegionRules:
    """Return how vfio-pci maps a BAR. Raises BadInput for an offset in the next region's, Refused where there is no
    vfio-pci."""
    if not kernel.has(VFIO_PCI):
        raise Refused(f"plan of {request.where}", kernel.lacks(VFIO_PCI))
    if request.offset >> REGION_BITS:
        limit = f"{format_size(1 << REGION_BITS)}, where vfio-pci's next region begins"
        raise BadInput(request.where, f"offset {request.offset:#x} is not below {limit}")
    page, rules = kernel.geometry.PAGE_SIZE, kernel.once(_any_region)
    return replace(
        rules,
        end=-(-request.bar_size // page) * page,
        refused=_not_mmapable(kernel, request, others),
        changes=(*rules.changes, NOEXEC) if "x" in request.prot else rules.changes,
    )


def _any_region(kernel: Image) -> RegionRules:
    """How vfio-pci maps a BAR of a page."""
    before: Filling = "first fault" if kernel.has(FAULT_MMAPS) else "mmap"
    return RegionRules(
        end=kernel.geometry.PAGE_SIZE,
        filling="fault" if kernel.has("huge-pfnmap") else before,
        before=before,
        huge_fault=kernel.config.enabled("ARCH_SUPPORTS_HUGE_PFNMAP"),
        unchecked="" if kernel.has(UNALIGNED_FALLBACK) else kernel.lacks(UNALIGNED_FALLBACK),
        unaligned="" if kernel.has(ALIGN_FAULT) else kernel.lacks(ALIGN_FAULT),
        mapping_order=frozenset(level for level in HUGE_LEVELS if _gives_order(kernel, level)),
        pgoff_is_pfn=not kernel.has("vfio-unmap-mapping-range"),
        reasons={level: tuple(_no_huge_fault(kernel, level)) for level in HUGE_LEVELS},
        dma=Type1.name,
        changes=(
            VFIO_PCI,
            FAULT_MMAPS,
            "huge-pfnmap",
            UNALIGNED_FALLBACK,
            MAPPING_ORDER,
            "vfio-unmap-mapping-range",
        ),
    )


def _gives_order(kernel: Image, level: LeafLevel) -> bool:
    """Whether vfio-pci's get_mapping_order can give the order of a level (posted, not merged)."""
    return kernel.has(MAPPING_ORDER) and _supported(kernel, level)


def _not_mmapable(kernel: Image, request: Request, others: Iterable[Request]) -> str:
    """Why vfio-pci does not offer the BAR to mmap (vfio_pci_probe_mmaps), or refuses such a mapping of it; empty if it
    does."""
    if not request.shared:
        return "mmap gives EINVAL: vfio-pci maps nothing private"
    if "x" in request.prot and kernel.has(NOEXEC):
        return "mmap gives EPERM: no PROT_EXEC in the file system of anonymous inodes"
    if request.mmapable is not None:
        return "" if request.mmapable else "vfio-pci's region has no mmap flag"
    if kernel.config.enabled("VFIO_PCI_CORE") and kernel.config.value("VFIO_PCI_MMAP") == "n":
        return "VFIO_PCI_MMAP=n"
    size = kernel.geometry.PAGE_SIZE
    if request.bar_size >= size:
        return ""
    page = format_size(size)
    if into := request.phys % size:
        return f"the BAR has {request.bar_size} bytes and starts {into:#x} into its {page} page"
    for other in request.beside(others):
        if request.phys <= other.phys < request.phys + size:
            neighbour = f"BAR {other.bar} at {other.phys:#x}"
            return f"the BAR has {request.bar_size} bytes and shares its {page} page with {neighbour}"
    return ""


def _supported(kernel: Image, level: LeafLevel) -> bool:
    return kernel.config.enabled(f"ARCH_SUPPORTS_{level.upper()}_PFNMAP")


def _no_huge_fault(kernel: Image, level: LeafLevel) -> Iterable[Reason]:
    if _supported(kernel, level) and not kernel.config.enabled("ARCH_SUPPORTS_HUGE_PFNMAP"):
        yield Reason("no_huge_fault", "vfio-pci is built without huge_fault: ARCH_SUPPORTS_HUGE_PFNMAP=n")


class Type1(DmaBackend):
    """vfio's own container: walks once per base page, once per leaf from `type1-pfnmap-batch` on.

    Where nothing is mapped yet the walk fails, one fixup_user_fault follows, and the walk is repeated
    (vfio_iommu_type1.c, follow_fault_pfn); vfio_pin_pages_remote goes on until it has all pages.
    """

    name: ClassVar[str] = "type1"
    legend: ClassVar[str] = (
        "DMA: walks of a type1 map of all of it, while nothing is mapped (cold) and when all is (warm)."
    )
    changes: ClassVar[tuple[str, ...]] = ("type1-pfnmap-batch",)
    published: ClassVar[tuple[Published, ...]] = (
        Published((95, 95), "16G in about 0.4 s, Xeon E5 2.6 GHz (commit 356e88ebe447, 2018)"),
        Published((60, 60), "128G in about 2 s, DGX H100, host 6.12 (linux-pci mail of 2024-11-25)"),
        Published((119, 119), "32G in about 1 s, 8M look-ups (commit 0fd06844de5d, cover letter of 2025-02-18)"),
        Published((94, 103), "128G in 3.168 to 3.471 s, H100 SXM5 (topofmind.dev, 2025-11-19)"),
    )

    def map(self, kernel: Image, reach: Reach) -> DmaMap:
        """Return what VFIO_IOMMU_MAP_DMA costs."""
        warm = (reach.leaves if kernel.has("type1-pfnmap-batch") else reach.pages) + reach.breaks
        return DmaMap(self.name, warm + reach.fixups, reach.fixups, reach.driver_calls, warm)


class Iommufd(DmaBackend):
    """iommufd: pins pages and walks nothing; of a pfnmap it gets none."""

    name: ClassVar[str] = "iommufd"
    legend: ClassVar[str] = (
        "DMA: what IOMMU_IOAS_MAP of it gives, while nothing is mapped (cold) and when all is (warm)."
    )
    changes: ClassVar[tuple[str, ...]] = ("iommufd-dmabuf-bar",)

    def map(self, kernel: Image, reach: Reach) -> DmaMap:
        """Return what IOMMU_IOAS_MAP gives: EFAULT, before any walk."""
        there = kernel.has("iommufd-dmabuf-bar") and not _without_p2pdma(kernel)
        by = "IOMMU_IOAS_MAP_FILE" if there else None
        return DmaMap(self.name, error="EFAULT", by=by)

    def note(self, kernel: Image) -> str:
        """Return what to do instead."""
        other = "a BAR is mapped by IOMMU_IOAS_MAP_FILE of its dma-buf instead, without any walk"
        if not kernel.has("iommufd-dmabuf-bar"):
            other = f"there is no other way for a BAR: {kernel.lacks('iommufd-dmabuf-bar')}"
        elif _without_p2pdma(kernel):
            other = "there is no other way for a BAR: the kernel is built without PCI_P2PDMA"
        return f"iommufd pins pages, and a pfnmap has none: IOMMU_IOAS_MAP of its address is EFAULT; {other}"


def _without_p2pdma(kernel: Image) -> bool:
    """Whether vfio is built without dma-bufs."""
    return kernel.config.enabled("VFIO_PCI_CORE") and not kernel.config.enabled("PCI_P2PDMA")


def _dma(asked: Asked, value: str) -> Asked:
    return replace(asked, dma=value)


DMA = PlanOption("dma", "Who maps for DMA: type1 (vfio's container, as a rule) or iommufd.", "DMA", _dma, "BACKEND")
