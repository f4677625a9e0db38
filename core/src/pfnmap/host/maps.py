"""A process's mappings: ``/proc/PID/maps``, ``smaps``, and ``pmap`` with any option.

The layouts are those of show_map_vma() in fs/proc/task_mmu.c and of procps' pmap.c, checked against output of pmap
4.0.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pfnmap.host.paste import Line
from pfnmap.host.reading import Mapping, Reading

__all__ = ["MAPS", "PMAP", "PMAP_X", "parse_maps", "parse_pmap"]

MAPS = re.compile(
    r"([0-9a-f]{8,16})-([0-9a-f]{8,16}) [r-][w-][x-][ps] ([0-9a-f]{8,16}) [0-9a-f]{2,}:[0-9a-f]{2,} \d+(?:\s+(\S.*))?"
)
PMAP = re.compile(
    r"([0-9a-f]{8,16})\s+([0-9]{1,14})(K?)\s+(?:(?:\d+|-)\s+(?:\d+|-)\s+)?[r-][w-][x-][s-][R-]?-?"
    r"(?:\s+([0-9a-f]{16})\s+[0-9a-f]{3}:[0-9a-f]{5})?\s+(\S.*)"
)
"""``pmap``, ``-x`` and ``-d``: address, KiB (with K where it is the only size), mode, with -d offset and device,
name."""
PMAP_X = re.compile(
    r"([0-9a-f]{8,16}) [r-][w-][x-][ps]\s+([0-9a-f]{8,16})\s+[0-9a-f]{2,}:[0-9a-f]{2,}\s+\d+\s+([0-9]{1,14})\s+(\S.*)"
)
"""``pmap -X`` and ``-XX``: address, permissions, offset, device, inode, KiB, then columns by kernel, then the name."""
_KIB = 1024


def parse_maps(lines: Iterable[Line]) -> Reading:
    """Return the mappings of files in ``maps`` or ``smaps``; anonymous memory is left out."""
    found = []
    for _, line in lines:
        if (row := MAPS.fullmatch(line)) and row[4] and not row[4].startswith("["):
            first, end = int(row[1], 16), int(row[2], 16)
            if first < end:
                found.append(Mapping(first, end - first, int(row[3], 16), row[4]))
    return Reading.of(*found)


def parse_pmap(lines: Iterable[Line]) -> Reading:
    """Return the mappings that pmap lists; the last column is the file's name, without folders unless ``-p`` was
    given."""
    found = []
    for _, line in lines:
        if row := PMAP_X.fullmatch(line):
            found.append(Mapping(int(row[1], 16), int(row[3]) * _KIB, int(row[2], 16), row[4].split()[-1]))
        elif row := PMAP.fullmatch(line):
            offset = int(row[4], 16) if row[4] else None
            found.append(Mapping(int(row[1], 16), int(row[2]) * _KIB, offset, row[5]))
    return Reading.of(*(mapping for mapping in found if mapping.length and not mapping.path.startswith("[")))
