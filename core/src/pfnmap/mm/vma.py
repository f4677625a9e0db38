"""Copying vmas, linking them into their address space and out of it (mm/vma.c, kernel/fork.c), and finding them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.mm.pfnmap_track import vma_pfnmap_track_ctx_get, vma_pfnmap_track_ctx_put
from pfnmap.vm_flags import VM_PFNMAP

__all__ = ["vm_area_dup", "vma_link", "vma_unlink", "vmas_without_hole"]


def vm_area_dup(vma: VmArea, **changed: Any) -> VmArea:
    """Return a copy of a vma for fork, a split or mremap, with some fields changed.

    Between `pat-fork-failure` and `pat-clear-only-in-fork` each loses its PAT reservation (read, not run).
    """
    new = replace(vma, **changed)
    kernel = vma.vm_mm.kernel
    if vma.vm_flags & VM_PFNMAP and kernel.has("pat-fork-failure") and not kernel.has("pat-clear-only-in-fork"):
        kernel.ops.untrack_pfn_clear(new)
    return new


def vma_link(vma: VmArea) -> None:
    """Link a vma into its address space and its file's mapping; one more holds what the architecture tracks."""
    vma_pfnmap_track_ctx_get(vma)
    vma.vm_mm.insert(vma)


def vma_unlink(vma: VmArea) -> None:
    """Take a vma out again."""
    vma.vm_mm.remove(vma)
    vma_pfnmap_track_ctx_put(vma)


def vmas_without_hole(mm: MmStruct, start: int, end: int) -> list[VmArea] | None:
    """Return the vmas of [start, end), ascending; None where a part of it has none."""
    vmas = mm.intersecting(start, end)
    reached = start
    for vma in vmas:
        if vma.vm_start > reached:
            return None
        reached = vma.vm_end
    return vmas if reached >= end else None
