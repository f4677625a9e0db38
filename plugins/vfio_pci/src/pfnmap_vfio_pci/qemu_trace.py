"""QEMU's trace of vfio: the lines of ``-trace 'vfio_*'``.

Formats are those of hw/vfio/trace-events. ``vfio_region_setup`` tells a region's size and its offset in the device
file, ``vfio_msix_early_setup`` where the MSI-X table is. No line tells a BAR's physical address, and only
``vfio_listener_region_add_ram`` an address of the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pfnmap.host.paste import Line
from pfnmap.host.pci import BARS, Bar, Msix, PciDevice, Skipped, normalize_bdf, why_not_a_bar
from pfnmap.host.reading import Reading

__all__ = ["parse_qemu_trace"]

_BDF = r"((?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7])"
_SETUP = re.compile(
    rf".*vfio_region_setup\b.*? Device {_BDF}, region (\d) \".*\", flags: 0x([0-9a-f]{{1,16}}), "
    r"offset: 0x[0-9a-f]{1,16}, size: 0x([0-9a-f]{1,16})"
)
_MSIX = re.compile(
    rf".*vfio_msix_early_setup\b.*? {_BDF} PCI MSI-X CAP @0x[0-9a-f]+, BAR (\d),? offset 0x([0-9a-f]{{1,8}}), "
    r"(?:entries (\d{1,4})|(\d{1,4}) entries)"
)

VFIO_REGION_INFO_FLAG_MMAP = 0x4


def parse_qemu_trace(lines: Iterable[Line]) -> Reading:
    """Return the devices whose regions the trace tells, their BARs without an address. A trace that begins later is
    skipped."""
    bars: dict[str, dict[int, Bar]] = {}
    msix: dict[str, Msix] = {}
    skipped = []
    begins = False
    for number, line in lines:
        if found := _SETUP.match(line):
            begins = True
            bdf, index, size = normalize_bdf(found[1]), int(found[2]), int(found[4], 16)
            if index >= BARS or size == 0:
                continue
            if not int(found[3], 16) & VFIO_REGION_INFO_FLAG_MMAP:
                skipped.append(Skipped(bdf, f"line {number}: region {index} cannot be mapped"))
            elif why := why_not_a_bar(size, None):
                skipped.append(Skipped(bdf, f"line {number}: region {index}: {why}"))
            else:
                bits = 64 if size >= 1 << 32 else 32
                bar = Bar(index, size, None, bits, prefetchable=bits == 64, address_told=False)
                bars.setdefault(bdf, {})[index] = bar
        elif found := _MSIX.match(line):
            vectors = int(found[4] or found[5])
            msix[normalize_bdf(found[1])] = Msix(int(found[2]), int(found[3], 16), vectors)
    if not begins:
        skipped.append(Skipped(None, "no vfio_region_setup line; trace from the start, with -trace 'vfio_*'"))
    devices = (
        PciDevice(
            bdf,
            "PCI device",
            "",
            bars=tuple(bar for _, bar in sorted(found.items())),
            driver="vfio-pci",
            msix=msix.get(bdf),
        )
        for bdf, found in bars.items()
    )
    return Reading.of(*devices, *skipped)
