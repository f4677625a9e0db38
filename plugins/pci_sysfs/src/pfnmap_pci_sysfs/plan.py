"""What the planner is told of sysfs' resource files: mmap itself fills the mapping, with base pages.

Pinned by the res.* records of 6.12.117; it shares no code with the driver's mmap.
"""

from __future__ import annotations

from pfnmap.contract.plan import HUGE_LEVELS, Image, Reason, RegionRules, Request

__all__ = ["region_rules"]

_FILLS = "mmap of a BAR in sysfs fills it at once (remap_pfn_range), there is no huge_fault"


def _refused(request: Request) -> str:
    return "mmap gives EPERM: sysfs is noexec" if "x" in request.prot else ""


def region_rules(kernel: Image, request: Request) -> RegionRules:
    """Return how resourceN of a BAR is mapped. Nobody maps it for DMA by itself."""
    page = kernel.geometry.PAGE_SIZE
    since = "kconfig-6.16"  # s390 has had such files since then
    there = kernel.arch.name != "s390" or kernel.has(since)
    return RegionRules(
        end=-(-request.bar_size // page) * page,
        refused=_refused(request) if there else f"there are no resource files in sysfs: {kernel.lacks(since)}",
        filling="mmap",
        before="mmap",
        pgoff_is_pfn=True,
        reasons=dict.fromkeys(HUGE_LEVELS, (Reason("no_huge_fault", _FILLS),)),
        changes=(since,),
    )
