"""What the planner is told of nvgrace-gpu: its memory is filled by faults from `nvgrace-huge-fault` on, by mmap before.

Read, not run (as the driver itself); it shares no code with the fault handler.
"""

from __future__ import annotations

from pfnmap.contract.plan import HUGE_LEVELS, Image, LeafLevel, Reason, RegionRules, Request
from pfnmap.errors import Refused

__all__ = ["region_rules"]

MEMORY_REGIONS = {2: "usable but reserved memory", 4: "usable memory"}
"""The regions that are memory of the GPU; the others are BARs of the device, which vfio-pci maps."""

_NOEXEC = "vfio-mmap-noexec"
_REFUSED = "mmap gives EPERM: no PROT_EXEC in the file system of anonymous inodes"


def region_rules(kernel: Image, request: Request) -> RegionRules:
    """Return how a region of the GPU's memory is mapped. Raises Refused for the others."""
    if request.bar not in MEMORY_REGIONS:
        raise Refused(f"plan of {request.where}", "it is left to vfio-pci; 2 and 4 are the GPU's memory")
    page = kernel.geometry.PAGE_SIZE
    memory = request.bar_size if request.memory is None else request.memory
    faults, executes = kernel.has("nvgrace-huge-fault"), "x" in request.prot
    return RegionRules(
        end=memory // page * page,
        beyond="the GPU's memory, whose end is",
        refused=_REFUSED if executes and kernel.has(_NOEXEC) else "",
        filling="fault" if faults else "mmap",
        before="mmap",
        huge_fault=kernel.config.enabled("ARCH_SUPPORTS_HUGE_PFNMAP"),
        pgoff_is_pfn=not faults,
        reasons={level: tuple(_reasons(kernel, level, faults)) for level in HUGE_LEVELS},
        dma="type1",
        changes=("nvgrace-huge-fault", *((_NOEXEC,) if executes else ())),
    )


def _reasons(kernel: Image, level: LeafLevel, faults: bool) -> list[Reason]:
    if not faults:
        how = "nvgrace-gpu's mmap fills the mapping at once (remap_pfn_range)"
        return [Reason("release", f"{how}: {kernel.lacks('nvgrace-huge-fault')}")]
    supported = kernel.config.enabled(f"ARCH_SUPPORTS_{level.upper()}_PFNMAP")
    if supported and not kernel.config.enabled("ARCH_SUPPORTS_HUGE_PFNMAP"):
        return [Reason("no_huge_fault", "nvgrace-gpu is built without huge_fault: ARCH_SUPPORTS_HUGE_PFNMAP=n")]
    return []
