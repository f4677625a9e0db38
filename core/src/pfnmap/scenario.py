"""Scenario files (TOML) and recordings of real kernels (JSON), read into steps.

A scenario says what kernel to link, which devices there are, and the steps; a recording says the same of a real
kernel and what that kernel did at each step. Both readers bound what they read, and every error names file, record
and step.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from reprlib import repr
from types import NoneType
from typing import Any, TypeAlias

from pfnmap.contract.defaults import DEFAULT_DRIVER
from pfnmap.contract.device import BarPart, Device, DeviceBar
from pfnmap.contract.kernel import THP_SETTINGS
from pfnmap.contract.recording import RecordingGroup
from pfnmap.contract.step import Step
from pfnmap.errors import BadInput, LinkError, NotInstalled, PfnmapError, Refused, Unknown, nearest
from pfnmap.host.bounded import MIB, parse_toml, read_json, read_text, source_name
from pfnmap.kernel import Kernel
from pfnmap.offers import how_to_install
from pfnmap.plugins import Registry, calling
from pfnmap.run import Run
from pfnmap.sizes import format_size, is_power_of_two, parse_address, parse_size
from pfnmap.spec import KernelSpec

__all__ = ["Record", "Recording", "Scenario", "parse_recording", "parse_scenario", "read_recording", "read_scenario"]

_RECORDING = 16 * MIB
"""Bytes of a recording, decompressed; the largest there are have one and a half."""
_SCENARIO = 4 * MIB
_STEPS = 100_000
_DEVICES = 1024
_DEPTH = 16
_BARS = 6
_PARTS = 64
_MIN_BAR = 16


@dataclass(frozen=True)
class Scenario:
    """A scenario file: `source` is its path."""

    source: str
    kernel: KernelSpec
    devices: tuple[Device, ...]
    steps: tuple[Step, ...]

    def boot(self, kernel: Kernel) -> Run:
        """Boot a machine with its devices, for its steps, which are checked. Raises BadInput, Unknown."""
        try:
            run = Run(kernel, list(self.devices))
        except BadInput as error:
            raise error.placed(self.source) from None
        run.check(self.steps)
        return run


@dataclass(frozen=True)
class Record:
    """One record of a recording; it starts from an empty window."""

    id: str
    thp_enabled: str
    own_boot: bool
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Recording:
    """A recording of one real kernel on one machine: what to link, which calls were counted, and the records; `group`
    says what is its own in reading it. `installed`: the machine's RAM in bytes, None where the file does not tell."""

    source: str
    arch: str
    release: str
    config: Mapping[str, str]
    cpu: Mapping[str, Any]
    traced: frozenset[str]
    devices: tuple[Device, ...]
    records: tuple[Record, ...]
    group: RecordingGroup = field(default_factory=RecordingGroup)
    installed: int | None = None

    def link(self, registry: Registry | None = None) -> Kernel:
        """Link the kernel that was recorded, from the recording alone."""
        try:
            kernel = Kernel.link(
                self.arch,
                sorted({Device.driver, *(device.driver for device in self.devices), *self.group.drivers}),
                config=self.config,
                release=self.release,
                cpu=self.cpu,
                config_source=f"machine of {self.source}",
                registry=registry,
            )
        except (BadInput, LinkError, Unknown) as error:
            error.placed(f"{self.source}: machine")
            raise
        kernel.try_ops()
        return kernel


_Kinds: TypeAlias = "Mapping[str, type | tuple[type, ...]]"


def _table(
    value: Any, where: str, kinds: _Kinds, required: Iterable[str] = (), *, others: bool = False
) -> dict[str, Any]:
    """Check that a value is a table with these keys and kinds of values, and return it; `others`: other keys may be."""
    if not isinstance(value, dict):
        raise BadInput(where, "a table was expected")
    for key, item in value.items():
        if key in kinds:
            _kind(item, kinds[key], where, key)
        elif not others:
            raise BadInput(where, f"unknown key {key!r}{nearest(key, kinds)}")
    for key in required:
        if key not in value:
            raise BadInput(where, f"{key} is missing")
    return value


def _kind(value: Any, kinds: type | tuple[type, ...], where: str, key: str) -> None:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise BadInput(where, f"{key} = {repr(value)} is of the wrong kind")


def _items(values: Iterable[Any], kinds: type | tuple[type, ...], where: str, key: str) -> None:
    """Check that the items of a list, or the values of a table, are of a kind."""
    for value in values:
        _kind(value, kinds, where, f"item of {key}")


def _plain(value: Any, where: str, depth: int = 0) -> None:
    """Check that a value is made of text, whole numbers of 64 bits, booleans, lists and tables."""
    if depth > _DEPTH:
        raise BadInput(where, "nested too deeply")
    if isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            _plain(item, where, depth + 1)
    elif isinstance(value, int):
        if abs(value) >= 1 << 64:
            raise BadInput(where, "a number that does not fit in 64 bits")
    elif not isinstance(value, (str, NoneType)):
        raise BadInput(where, f"{value} is of the wrong kind")


def _list(value: Any, where: str, limit: int = _STEPS) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(where, "a list was expected")
    if len(value) > limit:
        raise BadInput(where, f"more than {limit} items")
    return value


def read_scenario(path: str | os.PathLike[str]) -> Scenario:
    """Read a scenario file. Raises BadInput that names the file and the key."""
    return parse_scenario(read_text(path, _SCENARIO), source_name(path))


def parse_scenario(text: str, source: str) -> Scenario:
    """Read the text of a scenario, as `read_scenario` does."""
    if len(text) > _SCENARIO:
        raise BadInput(source, f"more than {_SCENARIO // MIB} MiB, which no scenario has")
    document = parse_toml(text, source, checked="step")
    _table(document, source, {"kernel": dict, "device": list, "step": list})
    rows = enumerate(_list(document.get("device", []), source, _DEVICES))
    devices = _machine([_device(d, f"{source}: device {n}") for n, d in rows], source)
    steps = [_step(s, f"{source}: step {n}") for n, s in enumerate(_list(document.get("step", []), source))]
    return Scenario(source, _kernel_spec(document.get("kernel", {}), source), devices, tuple(steps))


def _kernel_spec(value: Any, source: str) -> KernelSpec:
    where = f"{source}: [kernel]"
    kinds: dict[str, type | tuple[type, ...]] = {
        "arch": str,
        "release": str,
        "with": list,
        "without": list,
        "config": str,
        "set": dict,
        "resolved": dict,
        "page_size": str,
        "thp": str,
        "cpu": dict,
    }
    table = dict(_table(value, where, kinds))
    for key in ("with", "without"):
        if not all(isinstance(item, str) for item in table.get(key, [])):
            raise BadInput(where, f"{key} is a list of change ids")
    for key in ("set", "resolved"):
        if not all(isinstance(item, str) for item in table.get(key, {}).values()):
            raise BadInput(where, f'{key} holds symbols with their values as text, such as PREEMPT_RT = "y"')
    _items(table.get("cpu", {}).values(), (str, int, bool), where, "cpu")
    if "config" in table:  # a path in a scenario is relative to the scenario
        table["config"] = os.path.normpath(os.path.join(os.path.dirname(source), table["config"]))
    with_, without = tuple(table.pop("with", ())), tuple(table.pop("without", ()))
    return KernelSpec(with_=with_, without=without, **table)


def _device(value: Any, where: str) -> Device:
    table = _table(value, where, {"name": str, "bdf": str, "driver": str, "bar": list, "reset": bool}, ("name",))
    rows = []
    for n, item in enumerate(_list(table.get("bar", []), where, _BARS)):
        here = f"{where} bar {n}"
        kinds: dict[str, type | tuple[type, ...]] = dict.fromkeys(("size", "phys", "memory"), (int, str))
        kinds["index"], kinds["prefetchable"], kinds["parts"] = int, bool, list
        bar = _table(item, here, kinds, ("index", "size", "phys"))
        size = parse_size(bar["size"], here) if isinstance(bar["size"], str) else bar["size"]
        phys = parse_address(bar["phys"], here) if isinstance(bar["phys"], str) else bar["phys"]
        memory = parse_size(bar["memory"], here) if isinstance(bar.get("memory"), str) else bar.get("memory")
        if memory is not None and not 0 < memory <= size:
            raise BadInput(here, f"memory {bar['memory']} is not within the BAR's size")
        prefetchable, parts = bar.get("prefetchable"), _parts(bar.get("parts"), here)
        made = DeviceBar(bar["index"], size, phys, memory=memory, prefetchable=prefetchable, parts=parts)
        rows.append((here, made))
    bdf = table.get("bdf", "0000:00:01.0")
    reset, driver = table.get("reset", False), table.get("driver", Device.driver)
    return Device(table["name"], bdf, _bars(rows), reset_works=reset, driver=driver)


def _parts(value: Any, where: str) -> tuple[BarPart, ...] | None:
    """Return which parts of a BAR answer which accesses."""
    if value is None:
        return None
    kinds: dict[str, type | tuple[type, ...]] = {**dict.fromkeys(("offset", "length"), (int, str)), "sizes": list}
    parts = []
    for n, item in enumerate(_list(value, where, _PARTS)):
        here = f"{where} part {n}"
        part = _table(item, here, kinds, kinds)
        _items(part["sizes"], int, here, "sizes")
        offset, length = (parse_size(v, here) if isinstance(v, str) else v for v in (part["offset"], part["length"]))
        parts.append(BarPart(offset, length, tuple(part["sizes"])))
    return tuple(parts)


def _bars(rows: Iterable[tuple[str, DeviceBar]]) -> dict[int, DeviceBar]:
    """Return the BARs of a device by index, each checked at its place ("device 0 bar 1"): what `sizes.parse_bar` asks.

    A BAR that shows memory of another size is no BAR of the bus, and not aligned to its size.
    """
    bars: dict[int, DeviceBar] = {}
    for where, bar in rows:
        if not 0 <= bar.index < _BARS:
            raise BadInput(where, f"index {bar.index} is no BAR (0 to {_BARS - 1})")
        if bar.index in bars:
            raise BadInput(where, f"index {bar.index} was there before")
        if bar.size < _MIN_BAR or not is_power_of_two(bar.size):
            raise BadInput(where, f"size {bar.size} is no power of two of at least {_MIN_BAR} bytes")
        if bar.phys < 0 or bar.phys + bar.size > 1 << 64:
            raise BadInput(where, f"phys {bar.phys:#x} with its size does not fit in 64 bits")
        if bar.memory is None and bar.phys % bar.size:
            raise BadInput(where, f"phys {bar.phys:#x} is not a multiple of the size {format_size(bar.size)}")
        bars[bar.index] = bar
    return bars


def _machine(devices: Iterable[Device], source: str) -> tuple[Device, ...]:
    """Return the devices, whose names are checked to differ and whose BARs not to overlap."""
    found = {}
    for device in devices:
        if device.name in found:
            raise BadInput(source, f"two devices are called {device.name!r}")
        found[device.name] = device
    bars = sorted(
        ((bar.phys, bar.phys + (bar.memory or bar.size), f"BAR {bar.index} of {device.name}"))
        for device in found.values()
        for bar in device.bars.values()
    )
    for (_, end, one), (start, _, other) in pairwise(bars):
        if start < end:
            raise BadInput(source, f"{one} and {other} overlap at {start:#x}")
    return tuple(found.values())


_STEP_KEYS = ("op", "expect", "by", "at")


def _step(value: Any, where: str) -> Step:
    if not isinstance(value, dict) or not isinstance(value.get("op"), str):
        raise BadInput(where, "a step is a table with an op")
    for key, item in value.items():
        _plain(item, f"{where} {value['op']} {key}")
    expect = value.get("expect", {})
    if not isinstance(expect, dict):
        raise BadInput(where, "expect is a table")
    by = value.get("by", "parent")
    if by not in ("parent", "child"):
        raise BadInput(where, f"by = {by!r} is neither parent nor child")
    arguments = {key: item for key, item in value.items() if key not in _STEP_KEYS}
    return Step(value["op"], arguments, expect, by, value.get("at"), f"{where} {value['op']}")


# Recordings

_EXPECT: _Kinds = {
    **dict.fromkeys(("result", "addr", "si_addr", "command", "walk_end", "status", "page"), str),
    **dict.fromkeys(("faults_total", "handle_mm_fault", "table_bytes", "si_code", "bytes", "ret", "pages"), int),
    **dict.fromkeys(("resident", "touches"), int),
    **dict.fromkeys(("entry", "calls", "follow_returns", "vmstat", "fields", "present"), dict),
    **dict.fromkeys(("faults", "upper", "vmas", "entries", "regions", "tokens", "messages", "runs", "signals"), list),
    **dict.fromkeys(("killed", "exited", "panic"), bool),
    "stack": list,
}
_EXPECT_ITEMS: _Kinds = {
    **dict.fromkeys(("faults", "upper", "vmas", "regions", "runs", "signals"), dict),
    **dict.fromkeys(("entries", "tokens", "messages", "stack"), str),
    **dict.fromkeys(("calls", "follow_returns", "vmstat"), int),
}
"""Kinds of what an `expect` holds (RECORDINGS.md), and of its items."""


def read_recording(path: str | os.PathLike[str], registry: Registry | None = None) -> Recording:
    """Read a recording (schema pfnmap-recording/1 or /2, plain or .gz). Raises BadInput that names file, record and
    step, Refused where it is of a group that no plugin reads."""
    return parse_recording(read_json(path, _RECORDING), str(path), registry)


def parse_recording(document: Any, source: str, registry: Registry | None = None) -> Recording:
    """Read a recording's JSON document; `source` names it in errors."""
    group = _group(document, source, registry)
    try:
        with calling(type(group).__module__.partition(".")[0], "document()") as gave:
            whole = gave(group.document(document), Mapping[str, Any])
    except PfnmapError as error:
        raise error.placed(source) from None
    table = _table(whole, source, _DOCUMENT, _DOCUMENT, others=True)
    machine = _table(table["machine"], f"{source}: machine", _MACHINE, _MACHINE, others=True)
    kernel = _table(table["kernel"], f"{source}: kernel", _KERNEL, _KERNEL, others=True)
    _items(machine["config"].values(), str, f"{source}: machine", "config")
    _items(kernel["traced"], str, f"{source}: kernel", "traced")
    fields = {**_EXPECT, **group.fields}
    records = tuple(_record(r, source, n, fields) for n, r in enumerate(_list(table["records"], source)))
    commands = _commands(records)
    rows = enumerate(_list(table["devices"], source, _DEVICES))
    return Recording(
        source,
        kernel["arch"],
        machine["release"],
        {**_implied(records), **machine["config"]},
        machine["cpu"],
        frozenset(kernel["traced"]),
        _machine([_recorded_device(d, f"{source}: device {n}", commands) for n, d in rows], source),
        records,
        group,
        _installed(kernel),
    )


def _implied(records: Iterable[Record]) -> dict[str, str]:
    """Return the symbols without which a record could not have been made, whose Kconfig default is n: a recording's
    `machine` does not list them."""
    ops = {step.op for record in records for step in record.steps}
    return {"USERFAULTFD": "y"} if "userfaultfd_register" in ops else {}


def _installed(kernel: Mapping[str, Any]) -> int | None:
    """Return the RAM of a recorded machine (bytes), which its description in words tells ("1 CPU, 1 GiB")."""
    told = " ".join(value for value in kernel.values() if isinstance(value, str))
    found = re.search(r"\b(\d{1,6}) GiB\b", told)
    return int(found[1]) << 30 if found else None


_SCHEMAS = ("pfnmap-recording/1", "pfnmap-recording/2")


def _group(document: Any, source: str, registry: Registry | None) -> RecordingGroup:
    """Return what reads a recording: the plugin of its group, or for schema 1 what all have in common."""
    if not isinstance(document, dict) or document.get("schema") not in _SCHEMAS:
        raise BadInput(source, f"no recording: schema {' or '.join(_SCHEMAS)} was expected")
    if document["schema"] == _SCHEMAS[0]:
        return RecordingGroup()
    name = document.get("group")
    if not isinstance(name, str):
        raise BadInput(source, "a recording of pfnmap-recording/2 says its group")
    registry = registry or Registry()
    found = [plugin for plugin in registry.plugins("recording") if plugin.name == name]
    if not found and (hint := how_to_install(name, "recording")):
        raise NotInstalled("group of recordings", name, hint).placed(source)
    if name not in registry.names("recording"):
        raise Refused(f"{source}: recordings of group {name!r}", "no plugin that can be used reads them")
    with calling(name, "__init__()") as gave:
        group: RecordingGroup = gave(registry.load("recording", name)(), RecordingGroup)
    return group


_DOCUMENT: _Kinds = {"machine": dict, "kernel": dict, "devices": list, "records": list}
_MACHINE: _Kinds = {"release": str, "config": dict, "cpu": dict}
_KERNEL: _Kinds = {"arch": str, "traced": list}
_DEVICE: _Kinds = {"name": str, "bdf": str, "bars": list, "driver": str}
_REGION_FLAGS = "vfio_region_flags"
_BAR: _Kinds = {"index": int, "size": int, "phys": str, _REGION_FLAGS: int, "prefetchable": bool, "parts": list}
_RECORD: _Kinds = {"id": str, "thp_enabled": str, "own_boot": bool, "steps": list}
_REGION_INFO_FLAG_MMAP = 4


def _commands(records: Iterable[Record]) -> dict[str, int]:
    """Return each device's PCI command register as its first step in the file that reads it shows it.

    Which bits are set besides the memory bit (the driver's own; a replay compares it at each step) is the firmware's
    doing and stands nowhere else in a recording. After the first, they are compared like the rest.
    """
    commands: dict[str, int] = {}
    for record in records:
        for step in record.steps:
            device = step.arguments.get("device")
            if "command" in step.expect and isinstance(device, str) and device not in commands:
                commands[device] = parse_address(step.expect["command"], f"{step.where} expect command")
    return commands


def _recorded_device(value: Any, where: str, commands: Mapping[str, int]) -> Device:
    table = _table(value, where, _DEVICE, _DEVICE.keys() - {"driver"}, others=True)
    rows = []
    for n, item in enumerate(_list(table["bars"], where, _BARS)):
        here = f"{where} bar {n}"
        bar = _table(item, here, _BAR, _BAR.keys() - {"prefetchable", "parts", _REGION_FLAGS}, others=True)
        mmapable = bool(bar[_REGION_FLAGS] & _REGION_INFO_FLAG_MMAP) if _REGION_FLAGS in bar else None
        phys, prefetchable = parse_address(bar["phys"], here), bar.get("prefetchable")
        parts = _parts(bar.get("parts"), here)
        rows.append(
            (here, DeviceBar(bar["index"], bar["size"], phys, mmapable, prefetchable=prefetchable, parts=parts))
        )
    name = table["name"]
    bound = table.get("driver", DEFAULT_DRIVER)
    return Device(name, table["bdf"], _bars(rows), commands.get(name, Device.command), driver=bound)


def _record(value: Any, source: str, n: int, fields: _Kinds) -> Record:
    name = value.get("id", f"#{n}") if isinstance(value, dict) else f"#{n}"
    where = f"{source}: record {name}"
    table = _table(value, where, _RECORD, ("thp_enabled", "steps"), others=True)
    if table["thp_enabled"] not in THP_SETTINGS:
        raise BadInput(where, f"thp_enabled = {table['thp_enabled']!r} is none of {', '.join(THP_SETTINGS)}")
    steps = tuple(_recorded_step(s, f"{where} step {i}", fields) for i, s in enumerate(_list(table["steps"], where)))
    return Record(name, table["thp_enabled"], table.get("own_boot", False), steps)


_ABOUT_THE_RECORDING = ("may_hang", "note")
"""Keys of a step that say how it was recorded, or what for, and nothing of what was done."""


def _recorded_step(value: Any, where: str, fields: _Kinds) -> Step:
    step = _step(value, where)
    arguments = {name: item for name, item in step.arguments.items() if name not in _ABOUT_THE_RECORDING}
    step = replace(step, arguments=arguments)
    here = f"{step.where} expect"
    expect = _table(step.expect, here, fields, others=True)
    for key in _EXPECT_ITEMS.keys() & expect.keys():
        items = expect[key]
        _items(items.values() if isinstance(items, dict) else items, _EXPECT_ITEMS[key], here, key)
    return step
