"""Scenario files (TOML) and recordings of real kernels (JSON), read into steps.

A scenario says what kernel to link, which devices there are, and the steps; a recording says the same of a real
kernel and what that kernel did at each step. Both readers bound what they read, and every error names file, record
and step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tomli

from pfnmap.driver import Device, DeviceBar
from pfnmap.errors import BadInput, nearest
from pfnmap.host.bounded import MIB, read_json, read_text
from pfnmap.kernel import Kernel
from pfnmap.plugins import Registry
from pfnmap.run import Step
from pfnmap.sizes import is_power_of_two, parse_address, parse_size
from pfnmap.spec import KernelSpec

__all__ = ["Record", "Recording", "Scenario", "parse_recording", "read_recording", "read_scenario"]

_LIMIT = 256 * MIB
_STEPS = 1_000_000


@dataclass(frozen=True)
class Scenario:
    """A scenario file: `source` is its path."""

    source: str
    kernel: KernelSpec
    devices: tuple[Device, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Record:
    """One record of a recording; it starts from an empty window."""

    id: str
    thp_enabled: str
    own_boot: bool
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Recording:
    """A recording of one real kernel on one machine: what to link, which calls were counted, and the records."""

    source: str
    arch: str
    release: str
    config: Mapping[str, str]
    cpu: Mapping[str, Any]
    traced: frozenset[str]
    devices: tuple[Device, ...]
    records: tuple[Record, ...]

    def link(self, registry: Registry | None = None) -> Kernel:
        """Link the kernel that was recorded, from the recording alone."""
        return Kernel.link(
            self.arch,
            ["vfio_pci"],
            config=self.config,
            release=self.release,
            cpu=self.cpu,
            config_source=f"machine of {self.source}",
            registry=registry,
        )


def _table(value: Any, where: str, keys: Mapping[str, type | tuple[type, ...]], required: tuple[str, ...] = ()) -> Any:
    """Check that a value is a table with these keys and kinds of values, and return it."""
    if not isinstance(value, dict):
        raise BadInput(where, "a table was expected")
    for key, item in value.items():
        if key not in keys:
            raise BadInput(where, f"unknown key {key!r}{nearest(key, keys)}")
        if not isinstance(item, keys[key]):
            raise BadInput(where, f"{key} = {item!r} is of the wrong kind")
    for key in required:
        if key not in value:
            raise BadInput(where, f"{key} is missing")
    return value


def _list(value: Any, where: str, limit: int = _STEPS) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(where, "a list was expected")
    if len(value) > limit:
        raise BadInput(where, f"more than {limit} items")
    return value


def read_scenario(path: str | os.PathLike[str]) -> Scenario:
    """Read a scenario file. Raises BadInput that names the file and the key."""
    source = str(path)
    try:
        document = tomli.loads(read_text(path, 16 * MIB))
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise BadInput(source, f"no TOML: {error}") from None
    _table(document, source, {"kernel": dict, "device": list, "step": list})
    devices = [_device(d, f"{source}: device {n}") for n, d in enumerate(_list(document.get("device", []), source))]
    steps = [_step(s, f"{source}: step {n}") for n, s in enumerate(_list(document.get("step", []), source))]
    return Scenario(source, _kernel_spec(document.get("kernel", {}), source), tuple(devices), tuple(steps))


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
    if "config" in table:  # a path in a scenario is relative to the scenario
        table["config"] = os.path.normpath(os.path.join(os.path.dirname(source), table["config"]))
    with_, without = tuple(table.pop("with", ())), tuple(table.pop("without", ()))
    return KernelSpec(with_=with_, without=without, **table)


def _device(value: Any, where: str) -> Device:
    table = _table(value, where, {"name": str, "bdf": str, "driver": str, "bar": list, "reset": bool}, ("name",))
    bars: dict[int, DeviceBar] = {}
    for n, item in enumerate(_list(table.get("bar", []), where, 6)):
        here = f"{where} bar {n}"
        kinds: dict[str, type | tuple[type, ...]] = dict.fromkeys(("size", "phys", "memory"), (int, str))
        kinds["index"] = int
        bar = _table(item, here, kinds, ("index", "size", "phys"))
        size = parse_size(bar["size"], here) if isinstance(bar["size"], str) else bar["size"]
        phys = parse_address(bar["phys"], here) if isinstance(bar["phys"], str) else bar["phys"]
        if not is_power_of_two(size):
            raise BadInput(here, f"size {bar['size']} is no power of two")
        memory = parse_size(bar["memory"], here) if isinstance(bar.get("memory"), str) else bar.get("memory")
        if memory is not None and not 0 < memory <= size:
            raise BadInput(here, f"memory {bar['memory']} is not within the BAR's size")
        bars[bar["index"]] = DeviceBar(bar["index"], size, phys, memory=memory)
    bdf = table.get("bdf", "0000:00:01.0")
    reset, driver = table.get("reset", False), table.get("driver", "vfio_pci")
    return Device(table["name"], bdf, bars, reset_works=reset, driver=driver)


_STEP_KEYS = ("op", "expect", "by", "at")


def _step(value: Any, where: str) -> Step:
    if not isinstance(value, dict) or not isinstance(value.get("op"), str):
        raise BadInput(where, "a step is a table with an op")
    expect = value.get("expect", {})
    if not isinstance(expect, dict):
        raise BadInput(where, "expect is a table")
    by = value.get("by", "parent")
    if by not in ("parent", "child"):
        raise BadInput(where, f"by = {by!r} is neither parent nor child")
    arguments = {key: item for key, item in value.items() if key not in _STEP_KEYS}
    return Step(value["op"], arguments, expect, by, value.get("at"), f"{where} {value['op']}")


# Recordings

_COMMAND = {"x86_64": 0x103, "arm64": 0x3}
"""The PCI command register of the recorded devices once they were open (REAL-KERNEL.md, "Binding"): the x86 machine's
firmware enables SERR#."""


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Read a recording (schema pfnmap-recording/1, plain or .gz). Raises BadInput that names file, record and step."""
    return parse_recording(read_json(path, _LIMIT), str(path))


def parse_recording(document: Any, source: str) -> Recording:
    """Read a recording's JSON document; `source` names it in errors."""
    if not isinstance(document, dict) or document.get("schema") != "pfnmap-recording/1":
        raise BadInput(source, "no recording: schema pfnmap-recording/1 was expected")
    try:
        machine, kernel = document["machine"], document["kernel"]
        arch = kernel["arch"]
        devices = tuple(_recorded_device(d, arch) for d in document["devices"])
        records = tuple(_record(r, source, n) for n, r in enumerate(_list(document["records"], source)))
        return Recording(
            source,
            arch,
            machine["release"],
            dict(machine["config"]),
            dict(machine["cpu"]),
            frozenset(kernel["traced"]),
            devices,
            records,
        )
    except KeyError as error:
        raise BadInput(source, f"key {error} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BadInput(source, f"not as RECORDINGS.md says: {error}") from None


def _recorded_device(value: Mapping[str, Any], arch: str) -> Device:
    bars = {
        b["index"]: DeviceBar(b["index"], b["size"], int(b["phys"], 16), bool(b["vfio_region_flags"] & 4))
        for b in value["bars"]
    }
    return Device(value["name"], value["bdf"], bars, _COMMAND.get(arch, 0x3))


def _record(value: Mapping[str, Any], source: str, n: int) -> Record:
    name = value.get("id", f"#{n}")
    steps = tuple(_step(s, f"{source}: record {name} step {i}") for i, s in enumerate(_list(value["steps"], source)))
    return Record(name, value["thp_enabled"], bool(value.get("own_boot")), steps)
