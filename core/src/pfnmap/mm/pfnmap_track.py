"""What an architecture tracks of pfnmaps and says of their caching, in both forms: by vma until `pat-pfnmap-track`, by
a context that vmas share from then on.

Source: mm/memory.c, mm/huge_memory.c and kernel/fork.c of 6.12.117 and 6.1.192; the context is read from its patches
(mm/memory.c, mm/vma_init.c), not run. Only x86 has such a thing (PAT); elsewhere the hooks answer that all is well.
"""

from __future__ import annotations

from errno import EINVAL

from pfnmap.contract.vma import PfnmapTrackCtx, VmArea

__all__ = [
    "setup_cachemode",
    "track_remap",
    "untrack_remap",
    "vma_pfnmap_track_ctx_get",
    "vma_pfnmap_track_ctx_put",
]


def setup_cachemode(vma: VmArea, pfn: int) -> int:
    """Return the protection for a page that is inserted into a vma: the vma's, with the caching that the architecture
    wants for that PFN (track_pfn_insert, later pfnmap_setup_cachemode_pfn)."""
    kernel = vma.vm_mm.kernel
    prot: int
    if kernel.pfnmap_track_ctx:
        prot = kernel.ops.pfnmap_setup_cachemode(vma.vm_mm.machine, pfn, kernel.geometry.PAGE_SIZE, vma.vm_page_prot)
    else:
        prot = kernel.ops.track_pfn_insert(vma, vma.vm_page_prot, pfn)
    return prot


def track_remap(vma: VmArea, prot: int, pfn: int, address: int, size: int) -> int:
    """remap_pfn_range is about to map `size` bytes at `address`: return the protection to map them with, or -EINVAL."""
    kernel = vma.vm_mm.kernel
    ops = kernel.ops
    if not kernel.pfnmap_track_ctx:
        prot = ops.track_pfn_remap(vma, prot, pfn, address, size)
        return prot if prot >= 0 else -EINVAL
    if (address, address + size) != (vma.vm_start, vma.vm_end):
        prot = ops.pfnmap_setup_cachemode(vma.vm_mm.machine, pfn, size, prot)
        return prot if prot >= 0 else -EINVAL
    if vma.pfnmap_track_ctx is not None:
        return -EINVAL
    prot = ops.pfnmap_track(vma.vm_mm.machine, pfn, size, prot)
    if prot < 0:
        return -EINVAL
    if ops.owners["pfnmap_track"] == "arch":
        vma.pfnmap_track_ctx = PfnmapTrackCtx(pfn, size)
    return prot


def untrack_remap(vma: VmArea, pfn: int, size: int) -> None:
    """remap_pfn_range failed after `track_remap`, or the vma that it filled never came to be."""
    kernel = vma.vm_mm.kernel
    if not kernel.pfnmap_track_ctx:
        kernel.ops.untrack_pfn(vma, pfn, size)
    elif vma.pfnmap_track_ctx is not None:
        kernel.ops.pfnmap_untrack(vma.vm_mm.machine, pfn, size)
        vma.pfnmap_track_ctx = None


def vma_pfnmap_track_ctx_get(vma: VmArea) -> None:
    """A vma has come to be: one more holds its context."""
    if vma.pfnmap_track_ctx is not None:
        vma.pfnmap_track_ctx.vmas.add(id(vma))


def vma_pfnmap_track_ctx_put(vma: VmArea) -> None:
    """A vma is gone: with the last that holds its context the tracking ends."""
    ctx = vma.pfnmap_track_ctx
    if ctx is not None:
        ctx.vmas.discard(id(vma))
        if not ctx.vmas:
            machine = vma.vm_mm.machine
            machine.kernel.ops.pfnmap_untrack(machine, ctx.pfn, ctx.size)
