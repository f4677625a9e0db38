"""What a run consists of, apart from its steps: the processes, the open devices, the names that steps gave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.kernel import LinkedKernel
from pfnmap.contract.module import Driver
from pfnmap.contract.step import FoundEntry
from pfnmap.contract.vma import AnonVma, File, MmStruct, VmArea
from pfnmap.errors import BadInput, Unknown, nearest
from pfnmap.kernel import Kernel
from pfnmap.mm.boot import boot
from pfnmap.offers import how_to_install
from pfnmap.plugins import blamed, calling, environment, may_pass, why_unusable
from pfnmap.trace import Oops
from pfnmap.vm_flags import VM_DONTEXPAND, VM_READ

__all__ = ["RunState", "frame_bits"]

_IMAGE_TEXT = 0x400000
"""Where a static program's first segment lies; what matters is only that it is low (FINDINGS, "Also true of the
files")."""

_TABLE_MASK = (1 << 48) - 1


def frame_bits(kernel: LinkedKernel) -> int:
    """Return the bits of a leaf that hold the frame's number, plain or, in a PROT_NONE entry of x86, inverted
    (`min.anon_none.entry`)."""
    ops = kernel.ops
    first = ops.pfn_pte(0, ops.vm_get_page_prot(VM_READ))
    return sum(1 << bit for bit in range(64) if ops.pte_pfn(first | 1 << bit) != ops.pte_pfn(first))


def _top(part: object) -> str:
    return type(part).__module__.partition(".")[0]


class RunState:
    """One process, its child if it forks, and the open devices, on a machine that it boots.

    `image`: give each process the vmas of a small program (text low, stack high), whose upper tables exist from the
    start as in a real process; without, the address space is empty (what `plan` plans for). `installed`: RAM in bytes
    (None: more than anybody asks for).
    """

    def __init__(
        self,
        kernel: Kernel,
        devices: list[Device],
        driver: str = "",
        *,
        image: bool = False,
        installed: int | None = None,
    ) -> None:
        bars = [(device.name, bar) for device in devices for bar in device.bars.values()]
        for name, bar in bars:
            if bar.phys + bar.size > kernel.phys_limit:
                raise BadInput(
                    f"device {name}",
                    f"BAR {bar.index} ends at {bar.phys + bar.size:#x}, "
                    f"beyond the {kernel.phys_limit:#x} that an entry of {kernel.arch.name} can hold",
                )
        self.machine = boot(kernel, ((bar.phys, bar.size) for _, bar in bars))
        self.machine.installed = installed
        self.left_out = {**kernel.left_out, **{name: str(error) for name, error in self.machine.left_out.items()}}
        """The plugins that could not be linked or booted, or do not tell their actions, and what they did."""
        self.kernel = kernel
        self.parent = MmStruct(self.machine)
        if image:
            self._load_image(self.parent)
        self.child: MmStruct | None = None
        self.ptraced = False
        """Whether the parent traces the child, which stopped itself at once."""
        self.current = self.parent
        """Who performs the current step."""
        self.oops: Oops | None = None
        self.hanging: dict[MmStruct, int] = {}
        """The processes that a system call holds, which not even SIGKILL ends, with the address that it faults at."""
        self.names: dict[str, int] = {}
        self.files: dict[str, File] = {}
        self.devices = {device.name: device for device in devices}
        self.chosen: int | None = None
        self.chosen_ranges: list[tuple[int, int]] = []
        self.drivers: dict[str, Driver] = {}
        for device in devices:
            self._probe(device, driver or device.driver)

    def _probe(self, device: Device, driver: str) -> None:
        self.drivers[device.name] = bound = self._driver(device, driver)
        with calling(driver, "probe()") as gave:
            self.files[device.name] = gave(bound.probe(device), File)

    def bind(self, device: str, driver: str) -> None:
        """See `ScenarioRun.bind`."""
        if device not in self.devices:
            raise Unknown("device", device, self.devices)
        bound = self.drivers[device]
        with calling(bound.name, "remove()"):
            bound.remove(self.devices[device])
        self._probe(self.devices[device], driver)

    def _driver(self, device: Device, name: str) -> Driver:
        modules = self.machine.modules
        module = modules.get(name)
        if module is None:
            if name in self.machine.left_out:
                raise self.machine.left_out[name]
            registry = environment()
            why = self.left_out.get(name, "")
            if how_to_install(name, "driver") or any(plugin.name == name for plugin in registry.plugins("driver")):
                why = why or why_unusable(registry, "driver", name)
            known = nearest(name, (n for n, m in modules.items() if isinstance(m, Driver)))
            raise BadInput(f"device {device.name}", why or f"its driver {name} is not linked{known}")
        if not isinstance(module, Driver):
            raise BadInput(f"device {device.name}", f"{name} is no driver: it binds no device")
        return module

    def _load_image(self, mm: MmStruct) -> None:
        """Give a process the vmas of a small static program, with their tables."""
        geometry = self.kernel.geometry
        tables = mm.tables
        for start in (_IMAGE_TEXT, geometry.stack_top - 16 * geometry.PAGE_SIZE):
            vma = VmArea(mm, start, start + geometry.PAGE_SIZE, VM_READ | VM_DONTEXPAND, anon_vma=AnonVma())
            mm.insert(vma)  # it has private pages: a child gets tables for it too
            tables.alloc("pte", start)

    def bar(self, device: str, index: int) -> DeviceBar:
        """Return a BAR of a device by its index. Raises Unknown for a device, BadInput for a BAR it does not have."""
        if device not in self.devices:
            raise Unknown("device", device, self.devices)
        bars = self.devices[device].bars
        if index not in bars:
            raise BadInput(f"device {device}", f"has no BAR {index} (it has {', '.join(map(str, bars)) or 'none'})")
        return bars[index]

    def process(self, by: str, where: str = "") -> MmStruct:
        """Return the address space of "parent" or "child"."""
        if by == "parent":
            return self.parent
        if self.child is None:
            raise BadInput(where, "there is no child process")
        return self.child

    @contextmanager
    def blaming_plugins(self, what: str) -> Iterator[None]:
        """Turn an exception that comes out of a plugin's code into a PluginError with the plugin's name."""
        try:
            yield
        except BaseException as error:
            if may_pass(error) or (culprit := blamed(error, self._packages, what)) is None:
                raise
            raise culprit from error

    @cached_property
    def _packages(self) -> dict[str, str]:
        """The plugins by their top-level packages."""
        parts = {self.kernel.arch.name: self.kernel.arch, **self.machine.modules}
        return {top: name for name, part in parts.items() if (top := _top(part)) != "pfnmap"}

    def entry(self, mm: MmStruct, va: int) -> FoundEntry:
        """Return the leaf or the first empty entry of an address, and the tables above it."""
        *above, (level, slot) = mm.tables.walk(va)
        page_bits = _TABLE_MASK & -self.kernel.geometry.PAGE_SIZE
        ops = self.kernel.ops
        value = slot.entry
        pfn = None
        if level == "pte" and ops.pte_present(value):
            pfn = ops.pte_pfn(value)
        elif level == "pmd" and ops.pmd_present(value) and ops.pmd_leaf(value):
            pfn = ops.pmd_pfn(value)
        ram = pfn is not None and pfn << self.kernel.geometry.PAGE_SHIFT in self.machine.phys.ram
        upper = tuple((name, s.entry & ~page_bits) for name, s in above)
        return FoundEntry(level, value & ~self._frame_bits if ram else value, ram, upper)

    @cached_property
    def _frame_bits(self) -> int:
        return frame_bits(self.kernel)
