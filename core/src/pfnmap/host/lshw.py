"""What ``lshw`` prints as text: a block of ``key: value`` lines for each node of the machine.

Checked against output of lshw B.02.19. A PCI function's ranges stand in its line ``resources:``, in the order of its
registers, and the expansion ROM's after them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pfnmap.host.paste import Line
from pfnmap.host.pci import Bar, PciDevice, Skipped, normalize_bdf
from pfnmap.host.ranges import Range, bars_in_order
from pfnmap.host.reading import Reading

__all__ = ["LSHW", "parse_lshw"]

_NODE = re.compile(r"-[a-z][\w:+.-]*(?: (?:DISABLED|UNCLAIMED))*")
_BUS = re.compile(r"pci@((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7])")
LSHW = re.compile(rf"bus info: {_BUS.pattern}|resources: .*\bmemory:[0-9a-f]+.*")
_RESOURCE = re.compile(r"\b(memory|ioport):([0-9a-f]{1,16})(?:-([0-9a-f]{1,16}))?(?:\(size=\d+\))?(\(prefetchable\))?")


def parse_lshw(lines: Iterable[Line]) -> Reading:
    """Return the PCI functions that lshw lists. Bridges, whose ranges are their windows, are left out."""
    nodes = [_Node()]
    for _, line in lines:
        if _NODE.fullmatch(line):
            nodes.append(_Node())
            continue
        key, colon, value = line.partition(": ")
        if colon:
            nodes[-1].said.setdefault(key, value)
    return Reading.of(*(one for node in nodes for one in node.function()))


@dataclass
class _Node:
    said: dict[str, str] = field(default_factory=dict)

    def function(self) -> Iterator[PciDevice | Skipped]:
        """Yield the PCI function that the node is, if it is one, and what of it is skipped."""
        bus = _BUS.fullmatch(self.said.get("bus info", ""))
        if bus is None or "bridge" in self.said.get("description", "").lower():
            return
        bdf = normalize_bdf(bus[1])
        found = list(bars_in_order(bdf, self._ranges()))
        driver = re.search(r"\bdriver=(\S+)", self.said.get("configuration", ""))
        yield PciDevice(
            bdf,
            self.said.get("description", "PCI device"),
            " ".join(filter(None, (self.said.get("vendor"), self.said.get("product")))),
            bars=tuple(one for one in found if isinstance(one, Bar)),
            driver=driver[1] if driver else None,
        )
        yield from (one for one in found if isinstance(one, Skipped))

    def _ranges(self) -> Iterator[Range]:
        for found in _RESOURCE.finditer(self.said.get("resources", "")):
            kind, first, last, prefetchable = found.groups()
            yield Range(int(first, 16), int(last or first, 16), kind == "memory", bool(prefetchable))
