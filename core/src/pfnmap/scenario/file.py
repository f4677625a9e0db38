"""Scenario files (TOML): what kernel to link, which devices there are, and the steps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.errors import BadInput
from pfnmap.host.bounded import MIB, parse_toml, read_text, source_name
from pfnmap.kernel import Kernel
from pfnmap.run import Run
from pfnmap.scenario.devices import BARS, DEVICES, bars_of, machine_of, parts_of
from pfnmap.scenario.fields import check_items, list_of, table_of
from pfnmap.scenario.steps import step_of
from pfnmap.sizes import parse_address, parse_size
from pfnmap.spec import KernelSpec

__all__ = ["Scenario", "parse_scenario", "read_scenario"]

_SCENARIO = 4 * MIB


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


def read_scenario(path: str | os.PathLike[str]) -> Scenario:
    """Read a scenario file. Raises BadInput that names the file and the key."""
    return parse_scenario(read_text(path, _SCENARIO), source_name(path))


def parse_scenario(text: str, source: str) -> Scenario:
    """Read the text of a scenario, as `read_scenario` does."""
    if len(text) > _SCENARIO:
        raise BadInput(source, f"more than {_SCENARIO // MIB} MiB, which no scenario has")
    document = parse_toml(text, source, checked="step")
    table_of(document, source, {"kernel": dict, "device": list, "step": list})
    rows = enumerate(list_of(document.get("device", []), source, DEVICES))
    devices = machine_of([_device(d, f"{source}: device {n}") for n, d in rows], source)
    steps = [step_of(s, f"{source}: step {n}") for n, s in enumerate(list_of(document.get("step", []), source))]
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
    table = dict(table_of(value, where, kinds))
    for key in ("with", "without"):
        if not all(isinstance(item, str) for item in table.get(key, [])):
            raise BadInput(where, f"{key} is a list of change ids")
    for key in ("set", "resolved"):
        if not all(isinstance(item, str) for item in table.get(key, {}).values()):
            raise BadInput(where, f'{key} holds symbols with their values as text, such as PREEMPT_RT = "y"')
    check_items(table.get("cpu", {}).values(), (str, int, bool), where, "cpu")
    if "config" in table:  # a path in a scenario is relative to the scenario
        table["config"] = os.path.normpath(os.path.join(os.path.dirname(source), table["config"]))
    with_, without = tuple(table.pop("with", ())), tuple(table.pop("without", ()))
    return KernelSpec(with_=with_, without=without, **table)


def _device(value: Any, where: str) -> Device:
    table = table_of(value, where, {"name": str, "bdf": str, "driver": str, "bar": list, "reset": bool}, ("name",))
    rows = []
    for n, item in enumerate(list_of(table.get("bar", []), where, BARS)):
        here = f"{where} bar {n}"
        kinds: dict[str, type | tuple[type, ...]] = dict.fromkeys(("size", "phys", "memory"), (int, str))
        kinds["index"], kinds["prefetchable"], kinds["parts"] = int, bool, list
        bar = table_of(item, here, kinds, ("index", "size", "phys"))
        size = parse_size(bar["size"], here) if isinstance(bar["size"], str) else bar["size"]
        phys = parse_address(bar["phys"], here) if isinstance(bar["phys"], str) else bar["phys"]
        memory = parse_size(bar["memory"], here) if isinstance(bar.get("memory"), str) else bar.get("memory")
        if memory is not None and not 0 < memory <= size:
            raise BadInput(here, f"memory {bar['memory']} is not within the BAR's size")
        prefetchable, parts = bar.get("prefetchable"), parts_of(bar.get("parts"), here)
        made = DeviceBar(bar["index"], size, phys, memory=memory, prefetchable=prefetchable, parts=parts)
        rows.append((here, made))
    bdf = table.get("bdf", "0000:00:01.0")
    reset, driver = table.get("reset", False), table.get("driver", Device.driver)
    return Device(table["name"], bdf, bars_of(rows), reset_works=reset, driver=driver)
