"""``pfnmap verify``: boot a real kernel in QEMU, drive vfio-pci through scenarios, and compare with the model."""
