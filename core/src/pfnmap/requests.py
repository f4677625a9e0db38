"""What to plan: mappings of BARs that are given as text, or that a scenario maps (inputs: `pfnmap.inputs`).

Every function returns `pfnmap.plan.Request`s; `placed` then says where they go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pfnmap.contract.region import Msix, Span
from pfnmap.errors import BadInput, Unknown
from pfnmap.limits import MAPPINGS
from pfnmap.plan import POLICIES, Request
from pfnmap.records import replace
from pfnmap.sizes import parse_bar, parse_bar_size, parse_size

if TYPE_CHECKING:
    from pfnmap.contract.device import Device, DeviceBar
    from pfnmap.contract.step import Step
    from pfnmap.kernel import Kernel
    from pfnmap.scenario import Scenario

__all__ = ["at_guest_address", "described", "driven", "of_bars", "of_scenario", "placed"]

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


def driven(requests: Sequence[Request], driver: str | None) -> list[Request]:
    """Return the requests for devices that a driver binds; None: who binds them by themselves."""
    return list(requests) if driver is None else [replace(request, driver=driver) for request in requests]


def of_scenario(scenario: Scenario, kernel: Kernel) -> list[Request]:
    """Return requests for every mapping of a BAR in a scenario's steps, or for every BAR where no step maps one.

    Raises BadInput for what `run` refuses of it, for a mapping that names no BAR, and where there is no BAR at all.
    """
    scenario.boot(kernel)
    names: dict[str, int] = {}
    steps = (step for step in scenario.steps if step.op == "mmap" and step.arguments.get("device"))
    found = [_of_step(step, scenario, names) for step in steps]
    found = found or [_of_bar(device, bar) for device in scenario.devices for bar in device.bars.values()]
    if not found:
        raise BadInput(scenario.source, "no device with a BAR in it")
    if len(found) > MAPPINGS:
        raise BadInput(scenario.source, f"{len(found)} mappings, where {MAPPINGS} are the most that is planned at once")
    return found


def _of_bar(device: Device, bar: DeviceBar) -> Request:
    return Request(
        bar.index,
        bar.phys,
        bar.size,
        device=device.bdf,
        mmapable=bar.mmapable,
        driver=device.driver,
        memory=bar.memory,
    )


def _of_step(step: Step, scenario: Scenario, names: dict[str, int]) -> Request:
    """Return the request of a step that was checked (`pfnmap.run.Run.check`); `names`: where mappings are, as far as
    steps say it."""
    from pfnmap.ops.arguments import address_value  # BARs that are given as text need no engine

    given = step.arguments
    devices = {device.name: device for device in scenario.devices}
    name, index = given["device"], given.get("bar", 0)
    if name not in devices:
        raise Unknown(f"device at {step.where}", name, devices)
    if index not in devices[name].bars:
        raise BadInput(step.where, f"device {name} has no BAR {index}")
    va = address_value(given.get("addr", 0), names, step.where)
    if va and "id" in given:
        names[given["id"]] = va
    return replace(
        _of_bar(devices[name], devices[name].bars[index]),
        offset=_size(given.get("offset", 0)),
        length=_size(given["length"]),
        va=va if va or given.get("fixed") else None,
        prot=given["prot"],
        shared=given["shared"],
    )


def _size(value: int | str) -> int:
    return parse_size(value) if isinstance(value, str) else value


def described(
    requests: Sequence[Request], msix: Sequence[str] = (), sparse: Sequence[str] = (), msix_mappable: bool = True
) -> list[Request]:
    """Return the requests with what is said of their regions: ``BAR:TABLE:VECTORS[:PBA]`` where MSI-X tables are,
    ``BAR:OFFSET:LENGTH`` what can be mapped; it holds for that BAR of every device.

    Raises BadInput for what cannot be read, a BAR that is not there, or one that has two tables.
    """
    bars = {request.bar for request in requests}
    tables: dict[int, Msix] = {}
    for text in msix:
        bar, table, vectors, *pba = _fields(text, "--msix", "BAR:TABLE:VECTORS[:PBA]", (3, 4), bars)
        if bar in tables:
            raise BadInput("--msix", f"BAR {bar} is given twice")
        tables[bar] = Msix(bar, table, vectors, bar if pba else None, *pba)
    areas: dict[int, tuple[Span, ...]] = {}
    for text in sparse:
        bar, offset, length = _fields(text, "--sparse", "BAR:OFFSET:LENGTH", (3,), bars)
        areas[bar] = (*areas.get(bar, ()), Span(offset, length))
    if not tables and not areas and msix_mappable:
        return list(requests)
    return [
        replace(
            request,
            msix=tables.get(request.bar, None if tables else request.msix),
            sparse=tuple(sorted(areas.get(request.bar, request.sparse))),
            msix_mappable=msix_mappable,
        )
        for request in requests
    ]


def _fields(text: str, option: str, form: str, lengths: tuple[int, ...], bars: set[int]) -> list[int]:
    """Return the numbers of an option's value, of which the first is the index of a BAR that is there."""
    fields = text.split(":")
    if len(fields) not in lengths:
        raise BadInput(option, f"{text!r} is not {form}")
    numbers = [parse_size(field, f"{option} {text}") for field in fields]
    if numbers[0] not in bars:
        raise BadInput(option, f"{text}: there is no BAR {numbers[0]}; there is {', '.join(map(str, sorted(bars)))}")
    return numbers


def placed(requests: Sequence[Request], va: int | None = None, policies: Sequence[str] = ()) -> list[Request]:
    """Return the requests with a place each: at `va`, by each of the policies, or else by each core policy in turn.

    A VMM maps every BAR once, and says itself what of it. What a scenario maps at an address of its own keeps it where
    neither is given. Raises BadInput for one `va` and several requests, and for a policy that is named twice.
    """
    same = [name.replace("-", "_") for name in policies]
    if len(set(same)) < len(same):
        twice = next(name for name, key in zip(policies, same, strict=True) if same.count(key) > 1)
        raise BadInput("--vmm", f"{twice} is asked for twice")
    if va is not None:
        if len(requests) > 1:
            raise BadInput("--va", f"one address for {len(requests)} mappings; give one BAR, or --vmm")
        return [replace(requests[0], va=va)]
    if policies:
        return list(_by_policies(requests, policies))
    return [
        one
        for request in requests
        for one in ([request] if request.va is not None else [replace(request, policy=name) for name in POLICIES])
    ]


def _by_policies(requests: Sequence[Request], policies: Sequence[str]) -> Iterator[Request]:
    whole: set[tuple[str | None, int]] = set()
    for request in requests:
        key = request.device, request.bar
        for name in policies:
            if name in POLICIES:
                yield replace(request, va=None, policy=name)
            elif key not in whole:
                yield replace(request, va=None, policy=name, offset=0, length=None)
        whole.add(key)


def at_guest_address(requests: Sequence[Request], gpa: int) -> list[Request]:
    """Return the requests for a guest that has the mapping at `gpa`. Raises BadInput where they are of several
    mappings."""
    if len({(request.device, request.bar, request.offset) for request in requests}) > 1:
        raise BadInput("--gpa", "one guest address for several mappings; give one BAR")
    return [replace(request, gpa=gpa) for request in requests]
