"""What modules and drivers are: the abstract classes that they implement, and the scenario actions that they bring.

A module is a part of the kernel that is neither its mm nor its architecture: one that looks up what a process maps
(KVM), or a driver. A driver binds devices: it gives a device's file an `mmap` method and its vmas a table of operations
(`VmOperations`), as in the kernel. Their world is the kernel they were linked into: `kernel.mm.<function>` by kernel
names, `kernel.ops`, `kernel.trace`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Protocol

from pfnmap.contract.plan import DEFAULT_DRIVER
from pfnmap.errors import Refused

if TYPE_CHECKING:
    from pfnmap.arch import Has
    from pfnmap.contract.dma import DmaBackend
    from pfnmap.contract.guest import Hypervisor
    from pfnmap.contract.mapping import MappedPart
    from pfnmap.contract.option import PlanOption
    from pfnmap.contract.plan import Image, RegionRules, Request
    from pfnmap.host.reading import InputKind
    from pfnmap.kernel import Kernel
    from pfnmap.mm.vma import File, MmStruct, VmArea, VmFault

__all__ = ["Action", "Device", "DeviceBar", "Driver", "Module", "ScenarioRun", "VmOperations"]


@dataclass(frozen=True)
class DeviceBar:
    """A BAR of a simulated device: `index`, `size` and physical address `phys` in bytes. `mmapable`: whether the
    driver offers it to mmap (vfio's region flag 4); None leaves that to the driver's own rule. `memory`: how many of
    its bytes have memory behind them, where a driver shows memory of another size as a BAR; None: all.
    `prefetchable`: the BAR's own bit; None: not said."""

    index: int
    size: int
    phys: int
    mmapable: bool | None = None
    memory: int | None = None
    prefetchable: bool | None = None


@dataclass
class Device:
    """A simulated PCI device: `name` for scenarios, `bdf`, its memory BARs by index, its PCI command register as it is
    before a driver binds it, whether it has a way to be reset, and the name of the driver that binds it."""

    name: str
    bdf: str
    bars: Mapping[int, DeviceBar] = field(default_factory=dict)
    command: int = 0x3
    reset_works: bool = False
    driver: str = DEFAULT_DRIVER


@dataclass(frozen=True)
class VmOperations:
    """vm_operations_struct: what a vma's driver answers. An op that is None is absent, as a NULL pointer is."""

    fault: Callable[[VmFault], int] | None
    """``fault(vmf)``: map the page at `vmf.address` and return a VM_FAULT code. Without it a page that is not there is
    SIGBUS."""

    huge_fault: Callable[[VmFault, int], int] | None = None
    """``huge_fault(vmf, order)``: map the block of 2**order base pages around `vmf.address` with one leaf and return
    VM_FAULT_NOPAGE, or map nothing and return VM_FAULT_FALLBACK: then the next smaller order is asked for."""

    page_mkwrite: Callable[[VmFault], int] | None = None
    """``page_mkwrite(vmf)``: a page becomes writable. A pfnmap has no pages to say this of; that the op is there makes
    the first write after an mprotect fault (vma_wants_writenotify)."""

    access: Callable[[VmArea, int, int, bool], int] | None = None
    """``access(vma, address, length, write)``: serve access_process_vm (ptrace); return bytes moved or a negative
    errno."""

    open: Callable[[VmArea], None] | None = None
    """``open(vma)``: a vma that a split or a fork made."""

    close: Callable[[VmArea], None] | None = None
    """``close(vma)``: a vma is gone."""


class ScenarioRun(Protocol):
    """What an action is given first: the run of the scenario that it is a step of, as far as it is meant for plugins
    (`pfnmap.run.Run` is it)."""

    @property
    def current(self) -> MmStruct:
        """The address space of the process that performs the step: the parent, or with ``by = "child"`` the child."""

    @property
    def kernel(self) -> Kernel:
        """The linked kernel."""

    @property
    def devices(self) -> Mapping[str, Device]:
        """The devices of the scenario, by name."""

    @property
    def files(self) -> Mapping[str, File]:
        """Their open files, as `Driver.probe` returned them, by the device's name."""

    def bar(self, device: str, index: int) -> DeviceBar:
        """Return a BAR of a device. Raises Unknown for a device, BadInput for a BAR that it does not have."""


@dataclass(frozen=True)
class Action:
    """A scenario action of a plugin: `run(scenario_run, **arguments)` returns the step's results.

    They go over the common ones: `{}` leaves `result` "ok", ``{"result": "EINVAL"}`` is a system call that failed. For
    arguments that cannot be it raises BadInput or Unknown; what it raises is told with file and step. `arguments`:
    name -> "address" (int), "size" and "int" (int, not negative), "signed" (int), "bool", "str", "list" (of str) or
    "bar" (0 to 5); those in `optional` may be left out, and then are not passed.
    """

    run: Callable[Concatenate[ScenarioRun, ...], Mapping[str, Any]]
    arguments: Mapping[str, str]
    optional: frozenset[str] = frozenset()


class Module:
    """A part of the kernel with a plugin of its own. A subclass is what an entry point of group ``pfnmap.driver``
    names; one instance belongs to one kernel."""

    name: ClassVar[str]
    """The plugin's name."""

    provides: ClassVar[tuple[str, ...]] = ()
    """The kernel functions that it models, by name."""

    consumes: ClassVar[tuple[str, ...]] = ()
    """The functions of `kernel.mm` that it calls, of all releases."""

    # What the planner is told

    dma_backends: ClassVar[tuple[DmaBackend, ...]] = ()
    """Who maps memory for DMA, where this module brings that."""

    hypervisor: ClassVar[Hypervisor | None] = None
    """What it makes of a process's mappings for its guests, where it is a hypervisor."""

    plan_options: ClassVar[tuple[PlanOption, ...]] = ()
    """The options of ``pfnmap plan`` that are about it; applied in this order."""

    # What the conformance kit (`pfnmap.testing`) is told

    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Machines that the kit links besides its own choice, as `pfnmap.arch.Arch.machines`, with `arch` where it
    matters."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of the kit that it fails, with the reason, as `pfnmap.arch.Arch.expected_failures`."""

    kernel: Kernel
    """The kernel that it is linked into; set by `boot`."""

    def boot(self, kernel: Kernel) -> None:
        """Start over with no devices and nothing mapped; called when the kernel is linked and at each `Kernel.boot`."""
        self.kernel = kernel

    def actions(self) -> Mapping[str, Action]:
        """Return the scenario actions of this module, by name without the module's own."""
        return {}


class Driver(Module, ABC):
    """A module that binds devices and maps them."""

    sample: ClassVar[Device | None] = None
    """For the conformance kit, a device that `probe` binds; None: a PCI device with memory BARs of several sizes."""

    kernel_names: ClassVar[tuple[str, ...]] = ()
    """What the kernel calls the driver, as in lspci's "Kernel driver in use"."""

    inputs: ClassVar[Mapping[str, InputKind]] = {}
    """Kinds of input that it can read besides those of `pfnmap.host.input`, by name."""

    config_symbol: ClassVar[str] = ""
    """The Kconfig symbol that builds it; "" where none does."""

    @classmethod
    def mapped(cls, path: str, offset: int | None, has: Has) -> MappedPart | None:
        """Tell which part of a BAR a line of /proc/PID/maps maps, None for a line that is no mapping of this driver.

        `path` and `offset` (bytes; None where it is not known) are those of the line, `has` the release's changes.
        """
        return None

    @classmethod
    def region(cls, kernel: Image, request: Request, others: Sequence[Request]) -> RegionRules:
        """Tell the planner how a region of a device is mapped; `others`: all that is planned together with it.

        It shares no code with `mmap` and the fault handlers. Raises Refused where the driver does not say it, and for
        a region whose mapping it does not model.
        """
        raise Refused(f"plan of {request.where}", f"driver {cls.name} does not say how it maps a region")

    @abstractmethod
    def probe(self, device: Device) -> File:
        """Bind a device and return the open file through which user space maps it."""

    @abstractmethod
    def mmap(self, file: File, vma: VmArea) -> int:
        """Map a file that `probe` returned into a new vma (file_operations.mmap); return 0 or a negative errno."""

    @abstractmethod
    def mmap_offset(self, bar: int, offset: int) -> int:
        """Return the file offset (bytes) of byte `offset` of BAR `bar`, as user space passes it to mmap."""

    def path(self, file: File) -> str:
        """Return the path of an open file as /proc shows it."""
        raise Refused("path", f"driver {self.name} does not say what its files are called")
