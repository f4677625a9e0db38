from pfnmap.testing import DriverConformance


class TestConformance(DriverConformance):
    driver = "vfio_pci"
