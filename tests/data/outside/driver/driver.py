"""The driver."""

from collections.abc import Sequence

from pfnmap import Device, DeviceBar
from pfnmap.contract.plan import Image, RegionRules, Request
from pfnmap.testing.bar_driver import BarDriver


class OutsideBarDriver(BarDriver):
    """Maps BAR 0."""

    name = "outside_bar"
    kernel_names = ("outside-bar",)
    sample = Device("card", "0000:00:01.0", {0: DeviceBar(0, 2 << 30, 1 << 40)}, driver="outside_bar")

    @classmethod
    def region(cls, kernel: Image, request: Request, others: Sequence[Request]) -> RegionRules:
        """The handler maps aligned blocks at each level."""
        return RegionRules(end=request.bar_size, huge_fault=True)
