"""Recordings of real kernels (JSON): what was linked, which devices there were, the steps, and what that kernel did at
each."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pfnmap.contract.defaults import DEFAULT_DRIVER
from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.kernel import THP_SETTINGS
from pfnmap.contract.recording import RecordingGroup
from pfnmap.contract.step import Step
from pfnmap.errors import BadInput, LinkError, NotInstalled, PfnmapError, Refused, Unknown
from pfnmap.host.bounded import MIB, read_json
from pfnmap.kernel import Kernel
from pfnmap.offers import how_to_install
from pfnmap.plugins import Registry, calling, environment
from pfnmap.scenario.devices import BARS, DEVICES, bars_of, machine_of, parts_of
from pfnmap.scenario.fields import Kinds, check_items, list_of, table_of
from pfnmap.scenario.steps import step_of
from pfnmap.sizes import parse_address

__all__ = ["Record", "Recording", "parse_recording", "read_recording"]

_RECORDING = 16 * MIB
"""Bytes of a recording, decompressed; the largest there are have one and a half."""


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


_EXPECT: Kinds = {
    **dict.fromkeys(("result", "addr", "si_addr", "command", "walk_end", "status", "page"), str),
    **dict.fromkeys(("faults_total", "handle_mm_fault", "table_bytes", "si_code", "bytes", "ret", "pages"), int),
    **dict.fromkeys(("resident", "touches"), int),
    **dict.fromkeys(("entry", "calls", "follow_returns", "vmstat", "fields", "present"), dict),
    **dict.fromkeys(("faults", "upper", "vmas", "entries", "regions", "tokens", "messages", "runs", "signals"), list),
    **dict.fromkeys(("killed", "exited", "panic"), bool),
    "stack": list,
}
_EXPECT_ITEMS: Kinds = {
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
    table = table_of(whole, source, _DOCUMENT, _DOCUMENT, others=True)
    machine = table_of(table["machine"], f"{source}: machine", _MACHINE, _MACHINE, others=True)
    kernel = table_of(table["kernel"], f"{source}: kernel", _KERNEL, _KERNEL, others=True)
    check_items(machine["config"].values(), str, f"{source}: machine", "config")
    check_items(kernel["traced"], str, f"{source}: kernel", "traced")
    fields = {**_EXPECT, **group.fields}
    records = tuple(_record(r, source, n, fields) for n, r in enumerate(list_of(table["records"], source)))
    commands = _commands(records)
    rows = enumerate(list_of(table["devices"], source, DEVICES))
    return Recording(
        source,
        kernel["arch"],
        machine["release"],
        {**_implied(records), **machine["config"]},
        machine["cpu"],
        frozenset(kernel["traced"]),
        machine_of([_recorded_device(d, f"{source}: device {n}", commands) for n, d in rows], source),
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
    registry = registry or environment()
    found = [plugin for plugin in registry.plugins("recording") if plugin.name == name]
    if not found and (hint := how_to_install(name, "recording")):
        raise NotInstalled("group of recordings", name, hint).placed(source)
    if name not in registry.names("recording"):
        raise Refused(f"{source}: recordings of group {name!r}", "no plugin that can be used reads them")
    with calling(name, "__init__()") as gave:
        group: RecordingGroup = gave(registry.load("recording", name)(), RecordingGroup)
    return group


_DOCUMENT: Kinds = {"machine": dict, "kernel": dict, "devices": list, "records": list}
_MACHINE: Kinds = {"release": str, "config": dict, "cpu": dict}
_KERNEL: Kinds = {"arch": str, "traced": list}
_DEVICE: Kinds = {"name": str, "bdf": str, "bars": list, "driver": str}
_REGION_FLAGS = "vfio_region_flags"
_BAR: Kinds = {"index": int, "size": int, "phys": str, _REGION_FLAGS: int, "prefetchable": bool, "parts": list}
_RECORD: Kinds = {"id": str, "thp_enabled": str, "own_boot": bool, "steps": list}
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
    table = table_of(value, where, _DEVICE, _DEVICE.keys() - {"driver"}, others=True)
    rows = []
    for n, item in enumerate(list_of(table["bars"], where, BARS)):
        here = f"{where} bar {n}"
        bar = table_of(item, here, _BAR, _BAR.keys() - {"prefetchable", "parts", _REGION_FLAGS}, others=True)
        mmapable = bool(bar[_REGION_FLAGS] & _REGION_INFO_FLAG_MMAP) if _REGION_FLAGS in bar else None
        phys, prefetchable = parse_address(bar["phys"], here), bar.get("prefetchable")
        parts = parts_of(bar.get("parts"), here)
        rows.append(
            (here, DeviceBar(bar["index"], bar["size"], phys, mmapable, prefetchable=prefetchable, parts=parts))
        )
    name = table["name"]
    bound = table.get("driver", DEFAULT_DRIVER)
    return Device(name, table["bdf"], bars_of(rows), commands.get(name, Device.command), driver=bound)


def _record(value: Any, source: str, n: int, fields: Kinds) -> Record:
    name = value.get("id", f"#{n}") if isinstance(value, dict) else f"#{n}"
    where = f"{source}: record {name}"
    table = table_of(value, where, _RECORD, ("thp_enabled", "steps"), others=True)
    if table["thp_enabled"] not in THP_SETTINGS:
        raise BadInput(where, f"thp_enabled = {table['thp_enabled']!r} is none of {', '.join(THP_SETTINGS)}")
    steps = tuple(_recorded_step(s, f"{where} step {i}", fields) for i, s in enumerate(list_of(table["steps"], where)))
    return Record(name, table["thp_enabled"], table.get("own_boot", False), steps)


_ABOUT_THE_RECORDING = ("may_hang", "note")
"""Keys of a step that say how it was recorded, or what for, and nothing of what was done."""


def _recorded_step(value: Any, where: str, fields: Kinds) -> Step:
    step = step_of(value, where)
    if any(name in step.arguments for name in _ABOUT_THE_RECORDING):
        arguments = {name: item for name, item in step.arguments.items() if name not in _ABOUT_THE_RECORDING}
        step = replace(step, arguments=arguments)
    here = f"{step.where} expect"
    expect = table_of(step.expect, here, fields, others=True)
    for key in _EXPECT_ITEMS.keys() & expect.keys():
        items = expect[key]
        check_items(items.values() if isinstance(items, dict) else items, _EXPECT_ITEMS[key], here, key)
    return step
