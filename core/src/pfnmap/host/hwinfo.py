"""What ``hwinfo`` prints for PCI functions.

Checked against output of hwinfo 21.82. Ranges stand in the order of registers, and a disabled one is the expansion ROM.
That "ro" stands at prefetchable BARs is inferred from posted output.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pfnmap.host.paste import Line
from pfnmap.host.pci import Bar, PciDevice, Skipped, normalize_bdf
from pfnmap.host.ranges import Range, bars_in_order
from pfnmap.host.reading import Reading

__all__ = ["HWINFO", "parse_hwinfo"]

HWINFO = re.compile(r"\d+: PCI [0-9a-f]+\.[0-9a-f]+: [0-9a-f]{4} (.+)")
_RANGE = re.compile(r"(Memory Range|I/O Ports?): 0x([0-9a-f]{1,16})(?:-0x([0-9a-f]{1,16}))? \(([a-z,-]+)\)")
_ADDRESS = re.compile(r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_ID = re.compile(r"pci 0x([0-9a-f]{4})")


def parse_hwinfo(lines: Iterable[Line]) -> Reading:
    """Return the PCI functions that hwinfo lists. Bridges, whose ranges are their windows, are left out."""
    functions: list[tuple[str, list[str]]] = []
    for _, line in lines:
        if found := HWINFO.fullmatch(line):
            functions.append((found[1], []))
        elif re.match(r"\d+: [A-Z]", line):
            functions.append(("", []))  # of another bus
        elif functions:
            functions[-1][1].append(line)
    return Reading.of(*(one for title, text in functions if title for one in _function(title, text)))


def _function(title: str, text: list[str]) -> Iterator[PciDevice | Skipped]:
    said: dict[str, str] = {}
    for line in text:
        key, colon, value = line.partition(": ")
        if colon:
            said.setdefault(key, value)
    if said.get("Hardware Class") == "bridge":
        return
    address = _ADDRESS.fullmatch(said.get("SysFS BusID", ""))
    bdf = normalize_bdf(address[0]) if address else None
    found = list(bars_in_order(bdf, _ranges(text)))
    vendor, device = (_ID.search(said.get(key, "")) for key in ("Vendor", "Device"))
    yield PciDevice(
        bdf,
        re.sub(r" \([^()]*\)$", "", title),
        said.get("Model", "").strip('"'),
        pci_id=f"{vendor[1]}:{device[1]}" if vendor and device else None,
        bars=tuple(one for one in found if isinstance(one, Bar)),
        driver=said["Driver"].split(",")[0].strip('" ') if "Driver" in said else None,
    )
    yield from (one for one in found if isinstance(one, Skipped))


def _ranges(text: list[str]) -> Iterator[Range]:
    for line in text:
        if found := _RANGE.match(line):
            kind, first, last, flags = found.groups()
            words = flags.split(",")
            if "disabled" not in words:
                yield Range(
                    int(first, 16),
                    int(last or first, 16),
                    kind == "Memory Range",
                    "prefetchable" in words or "ro" in words,
                )
