"""Programs out of files: scenarios, and recordings that are to be made again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pfnmap.contract.step import Step
from pfnmap.errors import BadInput, Refused
from pfnmap.ops.arguments import address_value
from pfnmap.scenario import Recording, Scenario, read_recording, read_scenario
from pfnmap.sizes import is_power_of_two, parse_size
from pfnmap_verify.machine import DEVICES, PciTestdev
from pfnmap_verify.recorder import ADDRESSES, Program

__all__ = ["of_recording", "of_scenario", "read_programs"]

_SIZES = ("length", "offset", "old_len", "new_len", "step")
_BAR = 2
_PAGE = 4096
_MAX_DEVICES = 16
_GUEST_RAM = "guest RAM"
"""What `pfnmap replay` calls the memory of a recorded virtual machine."""


def read_programs(path: str) -> tuple[list[Program], Sequence[PciTestdev]]:
    """Return the programs of a scenario (.toml) or a recording (.json, .json.gz), and the devices that they need."""
    if path.endswith(".toml"):
        scenario = read_scenario(path)
        return [of_scenario(scenario)], _devices(scenario)
    recording = read_recording(path)
    return of_recording(recording), DEVICES


def of_scenario(scenario: Scenario) -> Program:
    """Return a scenario's steps. What it expects is not asked: the model is."""
    if not scenario.steps:
        raise BadInput(scenario.source, "no [[step]] in it, so there is nothing to run")
    steps = [_plain(step) for step in scenario.steps]
    first = next((step["id"] for step in steps if step["op"] == "mmap" and "id" in step), None)
    if first is not None and not any(step["op"] in ("touch", "walk", "scan") for step in steps):
        steps.append({"op": "walk", "va": first})
    thp = scenario.kernel.thp or "always"
    return Program(Path(scenario.source).stem, steps, f"scenario {Path(scenario.source).name}", thp)


def _plain(step: Step) -> dict[str, Any]:
    """Return a step as the guest takes it: sizes in bytes, the BAR that a pci-testdev has."""
    plain: dict[str, Any] = {"op": step.op, **step.arguments}
    for key in _SIZES:
        if isinstance(plain.get(key), str):
            plain[key] = parse_size(plain[key], step.where)
    if step.op == "mmap" and plain.get("device") is not None:
        plain.update(bar=_BAR if plain.get("bar", 0) else 0)
        plain.setdefault("offset", 0)
    if step.op == "kvm.map":
        plain.setdefault("step", _PAGE)
    if step.op == "mmap":
        plain.setdefault("device", None)
        plain.setdefault("addr", "0x0")
        plain.setdefault("fixed", False)
    if step.by != "parent":
        plain["by"] = step.by
    if step.at is not None:
        plain["at"] = step.at
    return plain


def _devices(scenario: Scenario) -> list[PciTestdev]:
    """Return test devices with the scenario's names and BARs. Raises Refused for what a pci-testdev cannot be."""
    found = []
    for device in scenario.devices:
        large = [bar for index, bar in device.bars.items() if index]
        if device.driver != "vfio_pci":
            raise Refused("verify", f"{scenario.source}: device {device.name} has another driver than vfio_pci")
        if len(large) != 1 or large[0].memory is not None or not is_power_of_two(large[0].size):
            raise Refused("verify", f"{scenario.source}: device {device.name}: a pci-testdev has one memory BAR")
        found.append(PciTestdev(device.name, large[0].size))
    if len(found) > _MAX_DEVICES:
        raise Refused("verify", f"{scenario.source}: more than {_MAX_DEVICES} devices")
    return found


def of_recording(recording: Recording) -> list[Program]:
    """Return the programs of a recording of the standard devices; what lies in a mapping whose place the kernel chose
    is told relative to it."""
    programs = []
    for record in recording.records:
        chosen: list[tuple[int, int, str]] = []
        steps = []
        for n, step in enumerate(record.steps):
            plain = {key: _relative(key, value, chosen) for key, value in _plain(step).items()}
            if plain.get("id") == _GUEST_RAM or (step.op == "kvm.memslot" and plain["slot"] == 0):
                continue  # the guest's init gives it memory by itself
            if step.op == "mmap" and not step.arguments.get("fixed") and "addr" in step.expect:
                plain["id"] = f"c{n}"
                addr = address_value(step.expect["addr"], {}, step.where)
                chosen.insert(0, (addr, addr + plain["length"], plain["id"]))
            steps.append(plain)
        programs.append(Program(record.id, steps, "", record.thp_enabled, record.own_boot))
    return [replace(program, own_boot=program.own_boot or _lasting(program)) for program in programs]


def _lasting(program: Program) -> bool:
    """Whether a program changes what is not put back."""
    return any(step["op"] == "set_thp_sizes" for step in program.steps)


def _relative(key: str, value: Any, chosen: Sequence[tuple[int, int, str]]) -> Any:
    if key not in ADDRESSES or not isinstance(value, str):
        return value
    at = int(value, 0)
    for start, end, name in chosen:
        if start <= at < end or (key == "end" and at == end):
            return f"{name}+{at - start:#x}"
    return value
