"""pfnmap plugin: a PCI device's BARs as files in sysfs (drivers/pci/pci-sysfs.c)."""

from pfnmap_pci_sysfs.resource import PciSysfs

__all__ = ["PciSysfs"]
