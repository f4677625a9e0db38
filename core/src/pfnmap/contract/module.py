"""What modules and drivers are: the abstract classes that they implement.

A module is a part of the kernel that is neither its mm nor its architecture: one that looks up what a process maps, or
a driver. A driver binds devices: it gives a device's file its operations (`FileOperations`) and its vmas theirs
(`VmOperations`), as in the kernel. Their world is the machine that they are part of and its kernel:
`machine.mm.<function>` by kernel names, `machine.trace`, `kernel.ops`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pfnmap.contract.device import Device
from pfnmap.contract.dma import DmaBackend
from pfnmap.contract.entry import Has
from pfnmap.contract.guest import Hypervisor
from pfnmap.contract.kernel import LinkedKernel
from pfnmap.contract.machine import Machine
from pfnmap.contract.mapping import HeldFile, LoggedFault, MappedPart
from pfnmap.contract.option import PlanOption
from pfnmap.contract.plan import Image, RegionRules, Request
from pfnmap.contract.step import Action
from pfnmap.contract.vma import File, FileOperations, VmArea
from pfnmap.errors import Refused

__all__ = ["Driver", "Module"]


class Module:
    """A part of the kernel with a plugin of its own. A subclass is what an entry point of group ``pfnmap.driver``
    names. The instance that a kernel is linked with answers what is asked of the image; each machine boots its own."""

    name: ClassVar[str]
    """The plugin's name."""

    provides: ClassVar[tuple[str, ...]] = ()
    """The kernel functions that it models, by name."""

    consumes: ClassVar[tuple[str, ...]] = ()
    """The functions of `machine.mm` that it calls, of all releases."""

    log_functions: ClassVar[tuple[str, ...]] = ()
    """The functions whose own lines in the kernel's log a recording holds, besides warnings and oopses."""

    # What the planner is told

    dma_backends: ClassVar[tuple[DmaBackend, ...]] = ()
    """Who maps memory for DMA, where this module brings that."""

    hypervisor: ClassVar[Hypervisor | None] = None
    """What it makes of a process's mappings for its guests, where it is a hypervisor."""

    plan_options: ClassVar[tuple[PlanOption, ...]] = ()
    """The options of ``pfnmap plan`` that are about it; applied in this order."""

    # What the conformance kit (`pfnmap.testing`) is told

    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Machines that the kit links besides its own choice, as `pfnmap.Arch.machines`, with `arch` where it
    matters."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of the kit that it fails, with the reason, as `pfnmap.Arch.expected_failures`."""

    machine: Machine
    """The machine that it is part of; set by `boot`."""

    kernel: LinkedKernel
    """What the machine runs; set by `boot`."""

    def boot(self, machine: Machine) -> None:
        """Begin with no devices and nothing mapped. Each machine has an instance of its own, booted once."""
        self.machine, self.kernel = machine, machine.kernel

    def actions(self) -> Mapping[str, Action]:
        """Return the scenario actions of this module, by name without the module's own."""
        return {}


class Driver(Module, ABC):
    """A module that binds devices and maps them."""

    sample: ClassVar[Device | None] = None
    """For the conformance kit, a device that `probe` binds; None: a PCI device with memory BARs of several sizes."""

    kernel_names: ClassVar[tuple[str, ...]] = ()
    """What the kernel calls the driver, as in lspci's "Kernel driver in use"."""

    config_symbol: ClassVar[str] = ""
    """The Kconfig symbol that builds it; "" where none does."""

    inputs: ClassVar[Mapping[str, Any]] = {}
    """Kinds of input (`pfnmap.host.reading.InputKind`) that it can read besides the core's, by name."""

    @classmethod
    def mapped(cls, path: str, offset: int | None, has: Has) -> MappedPart | None:
        """Tell which part of a BAR a line of /proc/PID/maps maps, None for a line that is no mapping of this driver.

        `path` and `offset` (bytes; None where it is not known) are those of the line, `has` the release's changes.
        """
        return None

    @classmethod
    def held(cls, link: str, fdinfo: str) -> HeldFile | None:
        """Tell what an open file of a process is, None for one that is not this driver's.

        `link` is what /proc/PID/fd/N links to, `fdinfo` the text of /proc/PID/fdinfo/N ("" where it is not known).
        """
        return None

    @classmethod
    def logged(cls, line: str) -> LoggedFault | None:
        """Tell which fault a line of the kernel's log is about, None for a line that is not its handler's."""
        return None

    @classmethod
    def region(cls, kernel: Image, request: Request, others: Sequence[Request]) -> RegionRules:
        """Tell the planner how a region of a device is mapped; `others`: all that is planned of its device.

        It shares no code with `mmap` and the fault handlers, and hangs on no more of an address than
        `pfnmap.contract.plan` says. Raises Refused where the driver does not say it, and for
        a region whose mapping it does not model.
        """
        raise Refused(f"plan of {request.where}", f"driver {cls.name} does not say how it maps a region")

    @abstractmethod
    def probe(self, device: Device) -> File:
        """Bind a device and return the open file through which user space maps it."""

    def remove(self, device: Device) -> None:
        """Close the file that `probe` returned, and unbind the device."""

    @abstractmethod
    def mmap(self, file: File, vma: VmArea) -> int:
        """Map a file that `probe` returned into a new vma (file_operations.mmap); return 0 or a negative errno."""

    @abstractmethod
    def mmap_offset(self, bar: int, offset: int) -> int:
        """Return the file offset (bytes) of byte `offset` of BAR `bar`, as user space passes it to mmap."""

    def path(self, file: File) -> str:
        """Return the path of an open file as /proc shows it."""
        raise Refused("path", f"driver {self.name} does not say what its files are called")

    def file_operations(self) -> FileOperations:
        """Return the operations of this driver's files: its own `mmap` and `path`, and no others."""
        return FileOperations(self.mmap, self.path)

    def open(self, private_data: Any) -> File:
        """Return a new open file with this driver's operations; `private_data` is what `mmap` finds in it."""
        return File(self.file_operations(), self.machine, private_data)
