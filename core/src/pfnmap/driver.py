"""What a driver is: the abstract class that it implements, what it maps, and the scenario actions that it brings.

A driver gives a device's file an `mmap` method and its vmas a table of operations (`VmOperations`), as in the kernel.
Its world is the kernel it was linked into: `kernel.mm.<function>` by kernel names, `kernel.ops`, `kernel.trace`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pfnmap.errors import Refused

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel
    from pfnmap.mm.vma import File, VmArea, VmFault

__all__ = ["Action", "Device", "DeviceBar", "Driver", "VmOperations"]


@dataclass(frozen=True)
class DeviceBar:
    """A BAR of a simulated device: `index`, `size` and physical address `phys` in bytes. `mmapable`: whether the
    driver offers it to mmap (vfio's region flag 4); None leaves that to the driver's own rule."""

    index: int
    size: int
    phys: int
    mmapable: bool | None = None


@dataclass
class Device:
    """A simulated PCI device: `name` for scenarios, `bdf`, its memory BARs by index, its PCI command register as it is
    before a driver binds it, and whether it has a way to be reset."""

    name: str
    bdf: str
    bars: Mapping[int, DeviceBar] = field(default_factory=dict)
    command: int = 0x3
    reset_works: bool = False


@dataclass(frozen=True)
class VmOperations:
    """vm_operations_struct: what a vma's driver answers. An op that is None is absent, as a NULL pointer is.

    `fault(vmf)` and `huge_fault(vmf, order)` return a VM_FAULT code; `access(vma, address, length, write)` serves
    access_process_vm and returns bytes moved or a negative errno.
    """

    fault: Callable[[VmFault], int]
    huge_fault: Callable[[VmFault, int], int] | None = None
    access: Callable[[VmArea, int, int, bool], int] | None = None
    open: Callable[[VmArea], None] | None = None
    close: Callable[[VmArea], None] | None = None


@dataclass(frozen=True)
class Action:
    """A scenario action of a driver: `run(state, **arguments)` returns the step's results.

    `arguments`: name -> "address", "size", "int", "bool", "str" or "list"; those in `optional` may be left out.
    """

    run: Callable[..., Mapping[str, Any]]
    arguments: Mapping[str, str]
    optional: frozenset[str] = frozenset()


class Driver(ABC):
    """A driver. A subclass is what an entry point of group ``pfnmap.driver`` names; one instance belongs to one kernel."""

    name: ClassVar[str]
    """The plugin's name."""

    kernel: Kernel

    def boot(self, kernel: Kernel) -> None:
        """Start over with no devices; called when the kernel is linked and at each `Kernel.boot`."""
        self.kernel = kernel

    @abstractmethod
    def probe(self, device: Device) -> File:
        """Bind a device and return the open file through which user space maps it."""

    @abstractmethod
    def mmap(self, file: File, vma: VmArea) -> int:
        """Map a file that `probe` returned into a new vma (file_operations.mmap); return 0 or a negative errno."""

    @abstractmethod
    def mmap_offset(self, bar: int, offset: int) -> int:
        """Return the file offset (bytes) of byte `offset` of BAR `bar`, as user space passes it to mmap."""

    def actions(self) -> Mapping[str, Action]:
        """Return the scenario actions of this module, by name without the module's own."""
        return {}


class Driver(Module):
    """A module that binds devices and maps them."""

    # What the conformance kit (`pfnmap.testing`) is told

    sample: ClassVar[Device | None] = None
    """A device that `probe` binds; None: the kit makes a PCI device with memory BARs of several sizes."""

    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Machines that the kit links besides its own choice, as `pfnmap.arch.Arch.machines`, with `arch` where it
    matters."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of the kit that this driver fails, with the reason, as `pfnmap.arch.Arch.expected_failures`."""

    def path(self, file: File) -> str:
        """Return the path of an open file as /proc shows it."""
        raise Refused("path", f"driver {self.name} does not say what its files are called")

    def actions(self) -> Mapping[str, Action]:
        """Return the scenario actions of this driver, by name without the driver's own."""
        return {}
