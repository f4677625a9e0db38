"""``/proc/iomem``: the tree of address ranges. A BAR's range has its function's address for a name.

Readers without CAP_SYS_ADMIN see zeros (r_show() in kernel/resource.c). No register number is printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pfnmap.host.paste import Line
from pfnmap.host.pci import Bar, PciDevice, Skipped, normalize_bdf
from pfnmap.host.ranges import Range, bars_in_order
from pfnmap.host.reading import Reading

__all__ = ["IOMEM", "parse_iomem"]

IOMEM = re.compile(r"([0-9a-f]{8,16})-([0-9a-f]{8,16}) : (.+)")
_BDF = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")


def parse_iomem(lines: Iterable[Line]) -> Reading:
    """Return the functions that have ranges in the file, those in order of address.

    A range that begins within another function's is left out: it is a BAR of a virtual function, or of a bridge. What
    lies in a BAR's range is named after the driver that asked for it: the function's driver, where that is one word.
    """
    ranges: dict[str, list[Range]] = {}
    drivers: dict[str, str] = {}
    zeros = False
    bdf, bar = "", Range(0, -1)
    for _, line in lines:
        if (found := IOMEM.fullmatch(line)) is None:
            continue
        first, last, name = int(found[1], 16), int(found[2], 16), found[3]
        inside = bar.first <= first <= bar.last
        if inside and not _BDF.fullmatch(name) and " " not in name:
            drivers.setdefault(bdf, name)
        elif _BDF.fullmatch(name) and last == 0:
            zeros = True
        elif _BDF.fullmatch(name) and not inside:
            bdf, bar = normalize_bdf(name), Range(first, last)
            ranges.setdefault(bdf, []).append(bar)
    if zeros and not ranges:
        return Reading(skipped=(Skipped(None, "the addresses are zeros: read /proc/iomem as root"),))
    return Reading.of(*(one for bdf in ranges for one in _function(bdf, ranges[bdf], drivers.get(bdf))))


def _function(bdf: str, ranges: list[Range], driver: str | None) -> Iterable[PciDevice | Skipped]:
    found = list(bars_in_order(bdf, ranges))
    yield PciDevice(bdf, "PCI device", "", bars=tuple(one for one in found if isinstance(one, Bar)), driver=driver)
    yield from (one for one in found if isinstance(one, Skipped))
