"""A process with a BAR of 4 GiB mapped through the kit's own driver, and short forms of its steps."""

from __future__ import annotations

from typing import Any

from pfnmap import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run
from pfnmap.testing.bar_driver import BarDriver
from pfnmap_kvm import Kvm

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PAGE = 4 * KIB
BASE = 0x40_0000_0000
GPA = 0x80_0000_0000
PHYS = 0x8_0000_0000
SIZE = 4 * GIB


class Machine:
    """A run of a kernel with KVM; `map` maps the BAR, `memslot` and `guest` are the actions."""

    def __init__(self, arch: str = "x86_64", release: str = "6.12.117", **link: Any) -> None:
        config = {"TRANSPARENT_HUGEPAGE": "y", "MEM_SOFT_DIRTY": "y"}
        self.kernel = Kernel.link(arch, [BarDriver, Kvm], release=release, given=config, **link)
        self.run = Run(self.kernel, [Device("dev", "0000:00:01.0", {0: DeviceBar(0, SIZE, PHYS)}, driver="kit_bar")])

    def __call__(self, op: str, *, by: str = "parent", **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, by=by, where=f"step {op}")).as_json()

    def map(self, va: int = BASE, length: int = SIZE, offset: int = 0, prot: str = "rw") -> None:
        where = {"addr": va, "length": length, "fixed": True, "offset": offset}
        assert self("mmap", device="dev", bar=0, prot=prot, shared=True, **where)["result"] == "ok"

    def memslot(self, slot: int = 0, gpa: int = GPA, va: int = BASE, length: int = SIZE, **more: Any) -> str:
        result: str = self("kvm.memslot", slot=slot, gpa=gpa, va=va, length=length, **more)["result"]
        return result

    def guest(self, gpa: int = GPA, length: int = SIZE, access: str = "read") -> dict[str, Any]:
        return self("kvm.map", gpa=gpa, length=length, access=access)
