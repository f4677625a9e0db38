"""pfnmap plugin for s390: 1M segments, entries that are never zero, and the pci_mmio system calls."""

from pfnmap_s390.arch import S390

__all__ = ["S390"]
