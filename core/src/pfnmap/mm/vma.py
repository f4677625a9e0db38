"""Linking vmas into their address space and out of it (mm/vma.c)."""

from __future__ import annotations

from pfnmap.contract.vma import VmArea
from pfnmap.mm.pfnmap_track import vma_pfnmap_track_ctx_get, vma_pfnmap_track_ctx_put

__all__ = ["vma_link", "vma_unlink"]


def vma_link(vma: VmArea) -> None:
    """Link a vma into its address space and its file's mapping; one more holds what the architecture tracks."""
    vma_pfnmap_track_ctx_get(vma)
    vma.vm_mm.insert(vma)


def vma_unlink(vma: VmArea) -> None:
    """Take a vma out again."""
    vma.vm_mm.remove(vma)
    vma_pfnmap_track_ctx_put(vma)
