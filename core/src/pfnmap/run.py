"""A run: the steps of a scenario or of a recording, executed on one linked kernel.

The core's ops are in `pfnmap.ops`; ops of the architecture and of drivers are their `actions`. `Run.step` performs one
step and returns its results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from traceback import walk_tb
from types import NoneType
from typing import TYPE_CHECKING, Any

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.module import Driver
from pfnmap.contract.step import Action, FoundEntry, Step, StepEvents, StepResult
from pfnmap.contract.vma import AnonVma, File, MmStruct, VmArea, prot_flags
from pfnmap.errors import BadInput, PfnmapError, PluginError, Refused, Unknown, nearest
from pfnmap.mm.boot import boot
from pfnmap.ops import ACTIONS_OF, OPS
from pfnmap.plugins import why_not_linked
from pfnmap.trace import Call, Event, Fault, KernelDied, Message, Oops, Split
from pfnmap.vm_flags import VM_DONTEXPAND, VM_READ

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel

__all__ = ["Run", "Step", "address_value"]

_IMAGE_TEXT = 0x400000
"""Where a static program's first segment lies; what matters is only that it is low (FINDINGS, "Also true of the
files")."""

_FOLLOWS = ("follow_pfnmap_start", "follow_pte")

_TABLE_MASK = (1 << 48) - 1


def address_value(value: Any, names: Mapping[str, int], where: str) -> int:
    """Return an address (bytes): an int, "0x...", or a named mapping with an offset ("m0", "m0+0x200000").

    Raises BadInput for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        address = value
    elif isinstance(value, str):
        name, plus, offset = value.partition("+")
        try:
            address = names[name] + (int(offset, 0) if plus else 0) if name in names else int(value, 0)
        except ValueError:
            raise BadInput(where, f"{value!r} is no address (0x..., or a mapping's id as in m0+0x1000)") from None
    else:
        raise BadInput(where, f"{value!r} is no address")
    if not 0 <= address < 1 << 64:
        raise BadInput(where, f"address {value!r} does not fit in 64 bits")
    return address


class Run:
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
            with self._blaming_plugins(f"device {device.name}"):
                self._probe(device, driver or device.driver)
        self._actions = self._plugin_actions()

    def _probe(self, device: Device, driver: str) -> None:
        self.drivers[device.name] = bound = self._driver(device, driver)
        self.files[device.name] = bound.probe(device)

    def bind(self, device: str, driver: str) -> None:
        """See `ScenarioRun.bind`."""
        if device not in self.devices:
            raise Unknown("device", device, self.devices)
        self.drivers[device].remove(self.devices[device])
        self._probe(self.devices[device], driver)

    def _driver(self, device: Device, name: str) -> Driver:
        modules = self.machine.modules
        module = modules.get(name)
        if module is None:
            known = nearest(name, (n for n, m in modules.items() if isinstance(m, Driver)))
            raise BadInput(f"device {device.name}", f"its driver {name} is not linked{known}")
        if not isinstance(module, Driver):
            raise BadInput(f"device {device.name}", f"{name} is no driver: it binds no device")
        return module

    def _plugin_actions(self) -> dict[str, tuple[str, Action]]:
        """Actions with the plugins that they are of, by "plugin.action", and by the bare name where one alone has
        it."""
        full = {
            f"{p}.{name}": (p, a) for p, module in self.machine.modules.items() for name, a in module.actions().items()
        }
        claims = Counter(name.partition(".")[2] for name in full)
        bare = {name.partition(".")[2]: a for name, a in full.items() if claims[name.partition(".")[2]] == 1}
        return {**bare, **full}

    def _load_image(self, mm: MmStruct) -> None:
        """Give a process the vmas of a small static program, with their tables."""
        geometry = self.kernel.geometry
        tables = mm.tables
        for start in (_IMAGE_TEXT, geometry.stack_top - 16 * geometry.PAGE_SIZE):
            vma = VmArea(mm, start, start + geometry.PAGE_SIZE, VM_READ | VM_DONTEXPAND, anon_vma=AnonVma())
            mm.insert(vma)  # it has private pages: a child gets tables for it too
            pud = tables.pud_alloc(tables.p4d_alloc(tables.pgd_offset(start), start), start)
            tables.pte_alloc(tables.pmd_alloc(pud, start), start)

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

    def step(self, step: Step) -> StepResult:
        """Perform one step and return its results.

        Raises Refused for what the model does not cover, BadInput for arguments that cannot be, PluginError where a
        plugin raises anything else.
        """
        if self.oops is not None:
            raise BadInput(step.where, f"the kernel died before it: {self.oops.finding} in {self.oops.function}")
        mm = self.current = self.process(step.by, step.where)
        if mm in self.hanging:
            self._end_of_hang(mm, step)
        trace = self.machine.trace
        trace.drain()
        measured = self.parent if step.op == "exit" else mm  # the child is gone then
        before = measured.pgtables_bytes
        more: dict[str, Any] = {}
        try:
            with self._blaming_plugins(step.op):
                more.update(self._perform(step, mm))
        except (BadInput, Unknown) as error:
            if step.where not in str(error):
                error.placed(step.where)
            raise
        except KernelDied as death:
            self.oops = death.oops
            trace.emit(death.oops)
            more["result"] = "OOPS"
        result = more.pop("result", "ok")
        events = None if step.op == "scan" else _collated(trace.drain())
        found = None
        if step.at is not None and self.oops is None:
            found = self.entry(mm, address_value(step.at, self.names, step.where))
        return StepResult(result, more, events, measured.pgtables_bytes - before, found)

    def _end_of_hang(self, mm: MmStruct, step: Step) -> None:
        """Let a process go on where its endless fault has ended, as it does when the leaf is gone: then the handler is
        asked anew (`unpinned.clear_refs.pud.child_kernel_write`)."""
        if mm.tables.leaf(self.hanging[mm]) is not None:
            raise Refused(step.op, f"the {step.by} is in a system call that does not end, at {self.hanging[mm]:#x}")
        del self.hanging[mm]

    def _perform(self, step: Step, mm: MmStruct) -> Mapping[str, Any]:
        if step.op in OPS:
            op = OPS[step.op]
            return op.run(self, mm, **self._arguments(step, op.required, op.optional))
        if step.op in self._actions:
            _, action = self._actions[step.op]
            optional = {name: kind for name, kind in action.arguments.items() if name in action.optional}
            required = {name: kind for name, kind in action.arguments.items() if name not in action.optional}
            return action.run(self, **self._arguments(step, required, optional))
        raise self._unknown_op(step)

    @contextmanager
    def _blaming_plugins(self, what: str) -> Iterator[None]:
        """Turn an exception that comes out of a plugin's code into a PluginError with the plugin's name."""
        try:
            yield
        except (PfnmapError, KernelDied):
            raise
        except Exception as error:
            plugin = self._culprit(error)
            if plugin is None:
                raise
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(plugin, f"{what} raised {said}") from error

    def _culprit(self, error: Exception) -> str | None:
        """Return the plugin in whose code an exception was raised: the innermost one on the way there."""
        packages = {type(p).__module__.partition(".")[0]: name for name, p in self.machine.modules.items()}
        packages.pop("pfnmap", None)
        found = None
        for frame, _ in walk_tb(error.__traceback__):
            found = packages.get(str(frame.f_globals.get("__name__")).partition(".")[0], found)
        return found

    def _unknown_op(self, step: Step) -> Exception:
        plugin, dot, action = step.op.partition(".")
        if not dot:
            owners = [name for name, module in self.machine.modules.items() if step.op in module.actions()]
            if owners:
                said = " or ".join(f"{name}.{step.op}" for name in owners)
                return BadInput(step.where, f"op {step.op!r} is an action of several plugins; say {said}")
            if step.op not in ACTIONS_OF:
                return Unknown(f"op at {step.where}", step.op, [*OPS, *self._actions])
            plugin = ACTIONS_OF[step.op]
        elif plugin in self.machine.modules:
            return Unknown(f"action of {plugin} at {step.where}", action, self.machine.modules[plugin].actions())
        why = why_not_linked(plugin, self.kernel.arch.name)
        return BadInput(step.where, f"op {step.op!r} is an action of plugin {plugin!r}, {why}")

    def _arguments(self, step: Step, required: Mapping[str, str], optional: Mapping[str, str]) -> dict[str, Any]:
        known = {**required, **optional}
        for name in step.arguments:
            if name not in known:
                raise Unknown(f"argument of {step.op} at {step.where}", name, known)
        for name in required:
            if name not in step.arguments:
                raise BadInput(step.where, f"{step.op} lacks its argument {name!r}")
        return {
            name: _value(known[name], value, self.names, f"{step.where} {name}")
            for name, value in step.arguments.items()
        }

    def entry(self, mm: MmStruct, va: int) -> FoundEntry:
        """Return the leaf or the first empty entry of an address, and the tables above it."""
        *above, (level, slot) = mm.tables.walk(va)
        page_bits = _TABLE_MASK & -self.kernel.geometry.PAGE_SIZE
        ops = self.kernel.ops
        value = slot.entry
        frame = ops.pte_pfn(value) << self.kernel.geometry.PAGE_SHIFT if level == "pte" else None
        ram = frame in self.machine.phys.ram and bool(ops.pte_present(value))
        upper = tuple((name, s.entry & ~page_bits) for name, s in above)
        return FoundEntry(level, value & ~self._frame_bits if ram else value, ram, upper)

    @cached_property
    def _frame_bits(self) -> int:
        """The bits of a PTE that hold the frame's number, plain or, in a PROT_NONE entry of x86, inverted
        (`min.anon_none.entry`)."""
        ops = self.kernel.ops
        first = ops.pfn_pte(0, ops.vm_get_page_prot(VM_READ))
        return sum(1 << bit for bit in range(64) if ops.pte_pfn(first | 1 << bit) != ops.pte_pfn(first))


_BARS = 6
"""BARs of a PCI device (PCI_STD_NUM_BARS)."""

_KINDS: Mapping[str, Any] = {
    "signed": int,
    "bool": bool,
    "str": str,
    "device": (str, NoneType),
    "node": (int, NoneType),
}


def _value(kind: str, value: Any, names: Mapping[str, int], where: str) -> Any:
    """Convert an argument to what its op takes."""
    from pfnmap.sizes import parse_size

    if kind == "address":
        return address_value(value, names, where)
    if kind in ("size", "int"):
        return parse_size(value, where) if kind == "size" and isinstance(value, str) else _unsigned(value, where)
    if kind == "bar":
        if not 0 <= _checked(value, int, where) < _BARS:
            raise BadInput(where, f"{value} is no BAR (0 to {_BARS - 1})")
        return value
    if kind == "list":
        return [_checked(item, str, where) for item in _checked(value, list, where)]
    if kind == "prot":
        text = _checked(value, str, where)
        if text != "none" and (not text or any(c not in "rwx" for c in text) or len(set(text)) != len(text)):
            raise BadInput(where, f"{text!r} is no protection (none, or letters of rwx)")
        return prot_flags(text)
    return _checked(value, _KINDS[kind], where)


def _unsigned(value: Any, where: str) -> int:
    number: int = _checked(value, int, where)
    if not 0 <= number < 1 << 64:
        raise BadInput(where, f"{number} is negative" if number < 0 else f"{number:#x} does not fit in 64 bits")
    return number


def _checked(value: Any, types: Any, where: str) -> Any:
    if not isinstance(value, types) or (types is not bool and isinstance(value, bool)):
        raise BadInput(where, f"{value!r} is of the wrong kind")
    return value


def _collated(events: list[Event]) -> StepEvents:
    """Fold a step's events."""
    calls = [e for e in events if isinstance(e, Call)]
    counts = Counter(e.function for e in calls)
    return StepEvents(
        tuple(e for e in events if isinstance(e, Fault)),
        counts.pop("handle_mm_fault", 0),
        counts,
        Counter(e.ret for e in calls if e.function in _FOLLOWS),
        Counter(f"thp_split_{e.level}" for e in events if isinstance(e, Split)),
        tuple(e.text for e in events if isinstance(e, Message)),
    )
