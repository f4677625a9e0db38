"""Devices with their BARs, as scenario files and recordings both describe them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

from pfnmap.contract.device import BarPart, Device, DeviceBar
from pfnmap.errors import BadInput
from pfnmap.scenario.fields import check_items, list_of, table_of
from pfnmap.sizes import format_size, is_power_of_two, parse_size

__all__ = ["BARS", "DEVICES", "bars_of", "machine_of", "parts_of"]

DEVICES: Final = 1024
BARS: Final = 6
_PARTS = 64
_MIN_BAR = 16


def parts_of(value: Any, where: str) -> tuple[BarPart, ...] | None:
    """Return which parts of a BAR answer which accesses."""
    if value is None:
        return None
    kinds: dict[str, type | tuple[type, ...]] = {**dict.fromkeys(("offset", "length"), (int, str)), "sizes": list}
    parts = []
    for n, item in enumerate(list_of(value, where, _PARTS)):
        here = f"{where} part {n}"
        part = table_of(item, here, kinds, kinds)
        check_items(part["sizes"], int, here, "sizes")
        offset, length = (parse_size(v, here) if isinstance(v, str) else v for v in (part["offset"], part["length"]))
        parts.append(BarPart(offset, length, tuple(part["sizes"])))
    return tuple(parts)


def bars_of(rows: Iterable[tuple[str, DeviceBar]]) -> dict[int, DeviceBar]:
    """Return the BARs of a device by index, each checked at its place ("device 0 bar 1"): what `sizes.parse_bar` asks.

    A BAR that shows memory of another size is no BAR of the bus, and not aligned to its size.
    """
    bars: dict[int, DeviceBar] = {}
    for where, bar in rows:
        if not 0 <= bar.index < BARS:
            raise BadInput(where, f"index {bar.index} is no BAR (0 to {BARS - 1})")
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


def machine_of(devices: Iterable[Device], source: str) -> tuple[Device, ...]:
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
