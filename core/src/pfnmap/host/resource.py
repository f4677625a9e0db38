"""``/sys/bus/pci/devices/*/resource``: a line of start, end and flags for each resource of a function.

The layout is that of resource_show() in drivers/pci/pci-sysfs.c: rows 0 to 5 are the BARs, row 6 is the expansion ROM,
then come those of virtual functions, and of a bridge, whose file alone has them, four windows. Flags are
include/linux/ioport.h's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pfnmap.host.paste import Line
from pfnmap.host.pci import BARS, Bar, PciDevice, Skipped, normalize_bdf, why_not_a_bar
from pfnmap.host.reading import Reading

__all__ = ["RESOURCE", "parse_resource"]

RESOURCE = re.compile(r"(?:(\S+):)?\s*0x([0-9a-f]{16}) 0x([0-9a-f]{16}) 0x([0-9a-f]{16})")
_FUNCTION = re.compile(r"(?<![\w:.])([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])(?![\w.])")
_BRIDGE = (11, 17)
"""Rows of a bridge's file, without CONFIG_PCI_IOV and with it; others have four less."""

_IORESOURCE_MEM = 0x200
_IORESOURCE_PREFETCH = 0x2000
_IORESOURCE_MEM_64 = 0x100000
_IORESOURCE_DISABLED = 0x10000000
_IORESOURCE_UNSET = 0x20000000


def parse_resource(lines: Iterable[Line]) -> Reading:
    """Return the functions whose resources the lines list.

    Which function it is stands in no row: it is taken from a path in front of the row (``grep . .../resource``) or in a
    line before (a command, ``==> .../resource <==`` of head), where the last address is meant, and else is unknown. A
    row where no BAR can be is skipped, and so is a function that has more rows than a file has: they are of several.
    Bridges are left out: none is passed through.
    """
    functions: list[tuple[str | None, list[tuple[int, int, int]]]] = []
    named: str | None = None
    for _, line in lines:
        row = RESOURCE.fullmatch(line)
        there = _FUNCTION.findall(line)
        if there and (row is None or named != there[-1] or not functions):
            named = there[-1]
            functions.append((normalize_bdf(named), []))
        if row:
            if not functions:
                functions.append((None, []))
            functions[-1][1].append((int(row[2], 16), int(row[3], 16), int(row[4], 16)))
    return Reading.of(*(one for bdf, rows in functions if rows for one in _function(bdf, rows)))


def _function(bdf: str | None, rows: list[tuple[int, int, int]]) -> Iterator[PciDevice | Skipped]:
    if len(rows) > max(_BRIDGE):
        several = f"{len(rows)} rows, more than the {max(_BRIDGE)} of one function"
        yield Skipped(bdf, f"{several}; grep . /sys/bus/pci/devices/*/resource says whose each is")
        return
    if len(rows) in _BRIDGE:
        return
    bars = []
    for index, (start, end, flags) in enumerate(rows[:BARS]):
        if not flags & _IORESOURCE_MEM:
            continue
        phys = None if flags & _IORESOURCE_UNSET else start
        size = end - start + 1
        if why := why_not_a_bar(size, phys):
            yield Skipped(bdf, f"resource {index}: {why}")
            continue
        bars.append(
            Bar(
                index,
                size,
                phys,
                64 if flags & _IORESOURCE_MEM_64 else 32,
                bool(flags & _IORESOURCE_PREFETCH),
                disabled=bool(flags & _IORESOURCE_DISABLED),
            )
        )
    yield PciDevice(bdf, "PCI device", "", bars=tuple(bars))
