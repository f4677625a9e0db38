"""pfnmap plugin: the vfio-pci driver (drivers/vfio/pci/vfio_pci_core.c)."""

from pfnmap_vfio_pci.core import VfioPci

__all__ = ["VfioPci"]
