"""Booting a linked kernel: a machine of its own each time."""

from __future__ import annotations

from collections.abc import Iterable

from pfnmap.contract.iomem import IoMem
from pfnmap.contract.machine import Machine
from pfnmap.contract.module import Module
from pfnmap.contract.vma import AddressSpace
from pfnmap.kernel import Kernel
from pfnmap.mm.functions import FUNCTIONS

__all__ = ["BootedMachine", "boot"]


class BootedMachine(Machine):
    """A booted machine: empty physical memory, an empty trace, the THP knob as linked, no devices.

    `modules`: its instances of the architecture's module, if there is one, and of the drivers, by name.
    """

    def __init__(self, kernel: Kernel, reserved: Iterable[tuple[int, int]] = ()) -> None:
        super().__init__(kernel, reserved)
        self.mm = FUNCTIONS
        self.pfn_spaces = []
        self.iomem = IoMem(AddressSpace(self))
        self.modules: dict[str, Module] = {}
        if kernel.arch.module is not None:
            self.arch_module = self.modules[kernel.arch.name] = kernel.arch.module()
        self.modules.update((name, type(linked)()) for name, linked in kernel.drivers.items())
        for module in self.modules.values():
            module.boot(self)


def boot(kernel: Kernel, reserved: Iterable[tuple[int, int]] = ()) -> BootedMachine:
    """Boot a linked kernel. `reserved`: where BARs are, (address, size) in bytes each; no RAM is there."""
    return BootedMachine(kernel, reserved)
