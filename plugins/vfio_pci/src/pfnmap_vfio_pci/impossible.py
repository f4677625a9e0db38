"""Which changes no vfio-pci can have without which others."""

from __future__ import annotations

from pfnmap import Has

__all__ = ["why_never"]


def why_never(has: Has) -> str:
    """Return why there is no vfio-pci with the changes of a release; empty: there is.

    From the source: vfio_pci_mmap_huge_fault reads region and offset out of vm_pgoff, which is the PFN without
    `vfio-unmap-mapping-range`.
    """
    if has("huge-pfnmap") and not has("vfio-unmap-mapping-range"):
        return "there is no huge-pfnmap without vfio-unmap-mapping-range: the handler finds the region in vm_pgoff"
    return ""
