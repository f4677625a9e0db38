"""Booting a linked kernel: a machine of its own each time."""

from __future__ import annotations

from collections.abc import Iterable

from pfnmap.contract.iomem import IoMem
from pfnmap.contract.machine import Machine
from pfnmap.contract.module import Module
from pfnmap.contract.vma import AddressSpace
from pfnmap.errors import PfnmapError
from pfnmap.kernel import Kernel
from pfnmap.mm.functions import FUNCTIONS
from pfnmap.plugins import calling

__all__ = ["BootedMachine", "boot"]


class BootedMachine(Machine):
    """A booted machine: empty physical memory, an empty trace, the THP knob as linked, no devices.

    `modules`: its instances of the architecture's module, if there is one, and of the drivers, by name. `left_out`:
    the drivers that could not be booted, with what they did; whoever asks for one raises that.
    """

    def __init__(self, kernel: Kernel, reserved: Iterable[tuple[int, int]] = ()) -> None:
        super().__init__(kernel, reserved)
        self.mm = FUNCTIONS
        self.pfn_spaces = []
        self.iomem = IoMem(AddressSpace(self))
        self.modules: dict[str, Module] = {}
        self.left_out: dict[str, PfnmapError] = {}
        if kernel.arch.module is not None:
            self.arch_module = self.modules[kernel.arch.name] = self._booted(kernel.arch.name, kernel.arch.module)
        for name, linked in kernel.drivers.items():
            try:
                self.modules[name] = self._booted(name, type(linked))
            except PfnmapError as error:
                self.left_out[name] = error

    def _booted(self, name: str, module: type[Module]) -> Module:
        with calling(name, "__init__()") as gave:
            booted = gave(module(), module)
        with calling(name, "boot()"):
            booted.boot(self)
        return booted


def boot(kernel: Kernel, reserved: Iterable[tuple[int, int]] = ()) -> BootedMachine:
    """Boot a linked kernel. `reserved`: where BARs are, (address, size) in bytes each; no RAM is there."""
    return BootedMachine(kernel, reserved)
