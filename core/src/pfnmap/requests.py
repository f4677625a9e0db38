"""What to plan: mappings of BARs that are given as text, or that a scenario maps (inputs: `pfnmap.inputs`).

Every function returns `pfnmap.plan.Request`s; `placed` then says where they go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pfnmap.contract.step import Step
from pfnmap.errors import BadInput, Unknown
from pfnmap.ops.arguments import address_value
from pfnmap.plan import POLICIES, Request
from pfnmap.scenario import Scenario
from pfnmap.sizes import parse_bar, parse_bar_size, parse_size

__all__ = ["at_guest_address", "of_bars", "of_scenario", "placed"]

_WINDOW = 0x80_0000_0000
"""BARs of which nobody says an address lie one after another from here on."""


def of_bars(bars: Sequence[str], offset: int = 0, length: int | None = None) -> list[Request]:
    """Return requests for BARs written ``SIZE@PHYS``; a part in bytes (`offset`, `length`) is one of a single BAR.

    A BAR that is written ``SIZE`` lies at some multiple of its size. Raises BadInput.
    """
    if len(bars) > 1 and (offset or length is not None):
        raise BadInput("--offset, --length", "they give the part of one BAR, and there are several")
    found: list[Request] = []
    free = _WINDOW
    for n, text in enumerate(bars):
        if "@" in text:
            size, phys = parse_bar(text, "--bar")
        else:
            size = parse_bar_size(text.strip(), "--bar")
            phys = -(-free // size) * size
            free = phys + size
        found.append(Request(n, phys, size, offset=offset, length=length, phys_assumed="@" not in text))
    return found


def of_scenario(scenario: Scenario) -> list[Request]:
    """Return requests for every mapping of a BAR in a scenario's steps, or for every BAR where no step maps one.

    Raises BadInput for a mapping that names no BAR, and where there is no BAR at all.
    """
    found = [_of_step(step, scenario) for step in scenario.steps if step.op == "mmap" and step.arguments.get("device")]
    found = found or [
        Request(
            bar.index,
            bar.phys,
            bar.size,
            device=device.bdf,
            mmapable=bar.mmapable,
            driver=device.driver,
            memory=bar.memory,
        )
        for device in scenario.devices
        for bar in device.bars.values()
    ]
    if not found:
        raise BadInput(scenario.source, "no device with a BAR in it")
    return found


def _of_step(step: Step, scenario: Scenario) -> Request:
    given = step.arguments
    devices = {device.name: device for device in scenario.devices}
    name = given["device"]
    if name not in devices:
        raise Unknown(f"device at {step.where}", str(name), devices)
    index = given.get("bar", 0)
    if index not in devices[name].bars:
        raise BadInput(step.where, f"device {name} has no BAR {index}")
    bar = devices[name].bars[index]
    va = address_value(given.get("addr", 0), {}, step.where)
    return Request(
        bar.index,
        bar.phys,
        bar.size,
        device=devices[name].bdf,
        offset=_size(given.get("offset", 0), step.where),
        length=_size(given["length"], step.where) if "length" in given else None,
        va=va if va or given.get("fixed") else None,
        mmapable=bar.mmapable,
        driver=devices[name].driver,
        memory=bar.memory,
    )


def _size(value: object, where: str) -> int:
    if isinstance(value, str):
        return parse_size(value, where)
    if not isinstance(value, int):
        raise BadInput(where, f"{value!r} is not a size")
    return value


def placed(requests: Sequence[Request], va: int | None = None, policies: Sequence[str] = ()) -> list[Request]:
    """Return the requests with a place each: at `va`, by each of the policies, or else by each core policy in turn.

    What a scenario maps at an address of its own keeps it where neither is given. Raises BadInput for one `va` and
    several requests, and for a policy that is named twice.
    """
    if len(set(policies)) < len(policies):
        twice = next(name for name in policies if policies.count(name) > 1)
        raise BadInput("--vmm", f"{twice} is asked for twice")
    if va is not None:
        if len(requests) > 1:
            raise BadInput("--va", f"one address for {len(requests)} mappings; give one BAR, or --vmm")
        return [replace(requests[0], va=va)]
    if policies:
        return [replace(request, va=None, policy=name) for request in requests for name in policies]
    return [
        one
        for request in requests
        for one in ([request] if request.va is not None else [replace(request, policy=name) for name in POLICIES])
    ]


def at_guest_address(requests: Sequence[Request], gpa: int) -> list[Request]:
    """Return the requests for a guest that has the mapping at `gpa`. Raises BadInput where they are of several
    mappings."""
    if len({(request.device, request.bar, request.offset) for request in requests}) > 1:
        raise BadInput("--gpa", "one guest address for several mappings; give one BAR")
    return [replace(request, gpa=gpa) for request in requests]
