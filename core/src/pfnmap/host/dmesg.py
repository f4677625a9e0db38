"""The PCI core's lines in the kernel's log: what it found in the registers, and what it assigned.

Formats are those of drivers/pci/probe.c and setup-res.c: ``reg 0x10: [mem ...]`` and ``BAR 0: assigned [mem ...]`` up
to 6.8, ``BAR 0 [mem ...]`` and ``BAR 0 [mem ...]: assigned`` since. Time stamps and the prefixes of journals do not
matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pfnmap.host.paste import Line
from pfnmap.host.pci import BARS, Bar, PciDevice, Skipped, normalize_bdf, why_not_a_bar
from pfnmap.host.reading import Reading

__all__ = ["DMESG", "parse_dmesg"]

_BDF = r"([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])"
DMESG = re.compile(rf"(?:^|.*[\] ])[\w-]+ {_BDF}: (?=reg 0x|reg \d\d:|BAR \d|\[[0-9a-f]{{4}}:|can't claim BAR)(.*)")
_FOUND = re.compile(r"\[([0-9a-f]{4}:[0-9a-f]{4})\] type (\w+) class 0x([0-9a-f]{4})")
_BAR = re.compile(
    r"(?:reg (?:0x)?([0-9a-f]{2,3}):|(?:can't claim )?BAR (\d{1,2}):?)((?: [a-z' ]+)?) ?"
    r"\[mem (?:size 0x([0-9a-f]{1,16})|0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16}))((?: 64bit)?)((?: pref)?)[^\]]*\](.*)"
)
_GONE = re.compile(r"releas|can't claim|can't assign|failed to assign|no space|not assigned|not claimed|disabling")
"""What the kernel says of a BAR that then has no address, unless one is assigned later."""
_BASE_ADDRESS_0 = 0x10


@dataclass
class _Function:
    pci_id: str | None = None
    class_name: str = "PCI device"
    bridge: bool = False
    bars: dict[int, Bar] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)


def parse_dmesg(lines: Iterable[Line]) -> Reading:
    """Return the functions that the log names, with each BAR as the log leaves it. Those of bridges (types 01 and 02)
    are left out: none is passed through."""
    functions: dict[str, _Function] = {}
    for number, line in lines:
        if (named := DMESG.fullmatch(line)) is None:
            continue
        function = functions.setdefault(normalize_bdf(named[1]), _Function())
        if found := _FOUND.match(named[2]):
            function.pci_id, header, function.class_name = found.groups()
            function.bridge = header != "00"
        elif bar := _BAR.fullmatch(named[2]):
            _take(function, bar, number)
    return Reading.of(
        *(one for bdf, function in functions.items() if not function.bridge for one in _told(bdf, function))
    )


def _told(bdf: str, function: _Function) -> Iterator[PciDevice | Skipped]:
    bars = tuple(bar for _, bar in sorted(function.bars.items()))
    yield PciDevice(bdf, function.class_name, "", pci_id=function.pci_id, bars=bars)
    yield from (Skipped(bdf, reason) for _, reason in sorted(function.skipped.items()))


def _take(function: _Function, found: re.Match[str], number: int) -> None:
    register, printed, before, size, first, last, wide, prefetchable, after = found.groups()
    index = int(printed) if printed else (int(register, 16) - _BASE_ADDRESS_0) // 4
    if not 0 <= index < BARS:
        return  # the expansion ROM, a window of a bridge, a BAR of virtual functions
    gone = size is not None or _GONE.search(before + after) or "can't claim BAR" in found[0]
    phys = None if gone else int(first, 16)
    length = int(size, 16) if size else int(last, 16) - int(first, 16) + 1
    function.skipped.pop(index, None)
    function.bars.pop(index, None)
    if why := why_not_a_bar(length, phys):
        function.skipped[index] = f"line {number}: BAR {index}: {why}"
    else:
        function.bars[index] = Bar(index, length, phys, 64 if wide else 32, bool(prefetchable))
