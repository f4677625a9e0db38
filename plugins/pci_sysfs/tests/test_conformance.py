from pfnmap.testing import DriverConformance


class TestConformance(DriverConformance):
    driver = "pci_sysfs"
