"""A driver linked as one machine, and processes that map its sample device."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.entry import Level
from pfnmap.contract.module import Driver, Module
from pfnmap.contract.vma import File, MmStruct, VmArea
from pfnmap.errors import Refused
from pfnmap.kernel import Kernel
from pfnmap.mm.boot import BootedMachine, boot
from pfnmap.mm.fault import user_access
from pfnmap.mm.mmap import do_mmap
from pfnmap.testing.check import Violation
from pfnmap.testing.plain import Plain
from pfnmap.trace import Event
from pfnmap.vm_flags import VM_READ, VM_WRITE

__all__ = ["LEAF_LEVELS", "DriverSubject", "Opened"]

LEAF_LEVELS: Final[tuple[Level, ...]] = ("pte", "pmd", "pud")
_BAR_PHYS = {0: 1 << 42, 2: 1 << 41, 4: 1 << 40}


@dataclass
class Opened:
    """A booted machine with the sample device open in one process: to its actions, a `ScenarioRun`."""

    kernel: Kernel
    name: str
    device: Device
    machine: BootedMachine = field(init=False)
    driver: Driver = field(init=False)
    file: File = field(init=False)
    mm: MmStruct = field(init=False)

    def __post_init__(self) -> None:
        self.machine = boot(self.kernel, ((bar.phys, bar.size) for bar in self.device.bars.values()))
        module = self.machine.modules[self.name]
        assert isinstance(module, Driver)
        self.driver = module
        self.file = module.probe(self.device)
        self.mm = MmStruct(self.machine)

    @property
    def current(self) -> MmStruct:
        """The process."""
        return self.mm

    @property
    def devices(self) -> dict[str, Device]:
        """The sample device by its name."""
        return {self.device.name: self.device}

    def bind(self, device: str, driver: str) -> None:
        """See `ScenarioRun.bind`: there is no other driver here."""
        raise Refused("bind", f"{device} is tested with {self.name} alone")

    @property
    def files(self) -> dict[str, File]:
        """Its open file by its name."""
        return {self.device.name: self.file}

    def bar(self, device: str, index: int) -> DeviceBar:
        """A BAR of it."""
        return self.devices[device].bars[index]

    def mmap(self, bar: int, offset: int, length: int, va: int, prot: int = VM_READ | VM_WRITE) -> int:
        """Map bytes of a BAR at an address; return the address or a negative errno."""
        at = self.driver.mmap_offset(bar, offset)
        return do_mmap(self.mm, self.file, va, length, prot, at, fixed=True, shared=True)

    def mapped(self, bar: int, offset: int, length: int, va: int) -> VmArea:
        """Map bytes of a BAR at an address and return the vma; a refusal is a violation."""
        got = self.mmap(bar, offset, length, va)
        if got != va:
            raise Violation(
                f"mmap of {length:#x} bytes of BAR {bar} from {offset:#x} gave {got}, it is a part of the BAR"
            )
        vma = self.mm.vma_lookup(va)
        assert vma is not None
        return vma

    def touch(self, va: int, write: bool = False, mm: MmStruct | None = None) -> list[Event]:
        """Access an address and return the events; anything but success is a violation."""
        self.machine.trace.drain()
        got = user_access(mm or self.mm, va, write)
        if got.result != "ok":
            raise Violation(f"a {'store to' if write else 'load from'} {va:#x} gave {got.result}")
        return self.machine.trace.drain()


class DriverSubject:
    """One driver or other module, linked into one kernel."""

    def __init__(self, kernel: Kernel, machine: str, plugin: type[Module]) -> None:
        self.kernel = kernel
        self.machine = machine
        self.module: Module = kernel.drivers[plugin.name]

    @cached_property
    def capabilities(self) -> frozenset[str]:
        """What it claims.

        ``binds``: it binds devices; ``maps``: it lets user space map them (found by trying, and
        taken for granted on the kit's own architecture: on s390 vfio-pci does not); ``huge``: it has a huge_fault;
        ``action:NAME``; and ``pfnmap:X`` of the kernel."""
        found = {f"pfnmap:{level}" for level in LEAF_LEVELS if self.kernel.pfnmap(level)}
        if isinstance(self.module, Driver):
            found.add("binds")
            vma = self._try_to_map()
            if vma is not None or isinstance(self.kernel.arch, Plain):
                found.add("maps")
            if vma is not None and vma.vm_ops is not None and vma.vm_ops.huge_fault is not None:
                found.add("huge")
        found |= {f"action:{name}" for name in self.module.actions()}
        return frozenset(found)

    def _try_to_map(self) -> VmArea | None:
        try:
            return self.open().mapped(self.bar, 0, self.kernel.geometry.PAGE_SIZE, self.va)
        except Exception:  # the checks will tell
            return None

    @property
    def driver(self) -> Driver:
        """The driver; for checks that need ``binds``."""
        assert isinstance(self.module, Driver)
        return self.module

    @cached_property
    def device(self) -> Device:
        """The sample device: the driver's, or one with BARs of two of the largest leaves, of 16 MiB and of a page."""
        if self.driver.sample is not None:
            return self.driver.sample
        sizes = {0: 2 * self.span, 2: max(16 << 20, self.kernel.geometry.PAGE_SIZE), 4: self.kernel.geometry.PAGE_SIZE}
        bars = {index: DeviceBar(index, size, _BAR_PHYS[index]) for index, size in sizes.items()}
        return Device("kit", "0000:00:01.0", bars, driver=self.driver.name)

    @property
    def bar(self) -> int:
        """The index of the sample device's largest BAR."""
        return max(self.device.bars, key=lambda index: self.device.bars[index].size)

    @property
    def span(self) -> int:
        """Bytes of the largest leaf that this kernel uses for pfnmaps."""
        return max(self.kernel.geometry.size(level) for level in LEAF_LEVELS if self.kernel.pfnmap(level))

    @property
    def va(self) -> int:
        """An address in the middle of user space, aligned to the largest leaf."""
        return (self.kernel.geometry.task_size // 2) & -self.span

    def open(self) -> Opened:
        """Boot, bind the sample device and start a process."""
        return Opened(self.kernel, self.driver.name, self.device)
