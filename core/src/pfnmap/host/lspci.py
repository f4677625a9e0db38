"""Reader of what ``lspci -v``, ``-vv`` or ``-vvv`` prints (``-nn``, ``-n``, ``-D`` or not), as posted.

The layout is that of pciutils' lspci.c (show_terse, show_bases) and ls-ecaps.c (cap_rebar), checked against
output of lspci 3.9.0 and against posted output of older and newer ones. Text that went through terminals,
mails and issue trackers is read as well: CRLF, colours, lost or changed indentation, quote marks, other text
between the devices. So structure comes from what a line says and from the order of lines, never from
indentation: a device begins with its address line, and its BARs come before its capabilities, where SR-IOV
lists the regions of virtual functions in the same words.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace

from pfnmap.errors import BadInput
from pfnmap.host.bounded import MIB, read_text, source_name
from pfnmap.host.pci import Bar, PciDevice, normalize_bdf
from pfnmap.sizes import is_power_of_two, parse_size

__all__ = ["parse_lspci", "read_lspci"]

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")
_DEVICE = re.compile(r"((?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7])\s+([^:]+): (.+)")
_REVISION = re.compile(r"(?: \(rev [0-9a-f]{2}\))?(?: \(prog-if [0-9a-f]{2}(?: \[[^\[\]]*\])?\))?$")
_PCI_ID = re.compile(r"(?:(.+) \[)?([0-9a-f]{4}:[0-9a-f]{4})\]?")
_REGION_LINE = re.compile(r"Region |(?:\[virtual\] )?(?:Memory|I/O ports) at ")
_REGION = re.compile(r"(?:Region (\d{1,2}): )?(\[virtual\] )?(?:(Memory)|I/O ports) at (.*)")
_MEMORY = re.compile(r"(\S+) \((64-bit|32-bit|low-1M|type 3), (non-)?prefetchable\)((?: \[[^\]]*\])*)")
_ADDRESS = re.compile(r"[0-9a-f]{1,16}|<(?:unassigned|ignored|broken-64-bit-slot|invalid-64bit-slot)>")
_REBAR = re.compile(r"BAR (\d): current size: \S+, supported:((?: \d+[MGTPE]B)+)")
_BARS = 6
_PORTS = 0x10000
_FILE = 16 * MIB
_LINE = 4096
"""Characters of a line that are looked at; lspci's longest have a few hundred."""


def read_lspci(path: str | os.PathLike[str]) -> tuple[PciDevice, ...]:
    """Return the devices in a file of lspci's output (plain or gzip); "-" is standard input. Raises BadInput."""
    return parse_lspci(read_text(path, _FILE), source_name(path))


def parse_lspci(text: str, source: str = "lspci output") -> tuple[PciDevice, ...]:
    """Return the devices of `text` in its order; `source` names it in errors.

    Raises BadInput with the line's number for a region that cannot be (size 0 or not a power of two, a
    seventh BAR, two BARs in one register) or is cut off, for a device whose BARs are listed twice, and where
    there is no device at all.
    """
    devices: dict[str, _Device] = {}
    device: _Device | None = None
    for number, raw in enumerate(text.split("\n"), 1):
        line = _plain(raw)
        where = f"{source}:{number}"
        if found := _DEVICE.fullmatch(line):
            device = _Device(normalize_bdf(found[1]), found[2], found[3], number)
            earlier = devices.get(device.bdf)
            if earlier is None or not earlier.bars:
                devices[device.bdf] = device
        elif device is None:
            continue
        elif line.startswith("Capabilities:"):
            device.capability = line
        elif line.startswith("Kernel driver in use: "):
            device.driver = line.removeprefix("Kernel driver in use: ").strip()
        elif not device.capability:
            if _REGION_LINE.match(line):
                if device is not (first := devices[device.bdf]):
                    again = f"BARs of {device.bdf} once more, first after line {first.line}"
                    raise BadInput(where, f"{again}; keep one of the two")
                device.add_region(line, where)
        elif "Physical Resizable BAR" in device.capability and (found := _REBAR.match(line)):
            device.rebar[int(found[1])] = tuple(parse_size(size[:-1], where) for size in found[2].split())
    if not devices:
        expected = "expected what lspci -vv prints ('3b:00.0 3D controller: ...')"
        raise BadInput(source, f"no PCI device in it; {expected}")
    return tuple(device.finish() for device in devices.values())


def _plain(raw: str) -> str:
    """Return a line without colours, indentation, quote marks and emphasis."""
    raw = _ANSI.sub("", raw[:_LINE])
    return raw.replace("\xa0", " ").lstrip(" \t>*\ufeff").rstrip(" \t\r*")


@dataclass
class _Device:
    """A device while its lines are read."""

    bdf: str
    class_text: str
    name_text: str
    line: int
    bars: list[Bar] = field(default_factory=list)
    unsized: list[int] = field(default_factory=list)
    rebar: dict[int, tuple[int, ...]] = field(default_factory=dict)
    driver: str | None = None
    capability: str = ""
    """The capability that lines belong to; empty before the first."""
    next_register: int = 0

    def add_region(self, line: str, where: str) -> None:
        """Take in a ``Region N: ...`` line, or its short form without index that ``lspci -v`` prints."""
        region = _REGION.fullmatch(line)
        if region is None:
            raise BadInput(where, f"cannot read the region {line[:80]!r}")
        printed_index, virtual_first, is_memory, rest = region.groups()
        index = int(printed_index) if printed_index else self.next_register
        if index >= _BARS:
            raise BadInput(where, f"region {index} of {self.bdf}: a PCI function has {_BARS} BARs")
        if index < self.next_register:
            raise BadInput(where, f"region {index} of {self.bdf} is in a register of the region before it")
        self.next_register = index + 1
        if not is_memory:
            return
        memory = _MEMORY.fullmatch(rest)
        if memory is None or not _ADDRESS.fullmatch(memory[1]):
            raise BadInput(where, f"cannot read the memory region {line[:80]!r}")
        address, width, non_prefetchable, tags = memory.groups()
        bits = 64 if width == "64-bit" else 32
        self.next_register = index + bits // 32
        flags = re.findall(r"\[([^\]]*)\]", tags)
        virtual = bool(virtual_first) or "virtual" in flags
        phys = None if address.startswith("<") else int(address, 16)
        if virtual and phys is not None and phys < _PORTS:
            return  # legacy IDE ports, which an older lspci takes for memory
        sizes = [flag.removeprefix("size=") for flag in flags if flag.startswith("size=")]
        if not sizes:
            self.unsized.append(index)
            return
        size = parse_size(sizes[0], where)
        if size == 0 or not (is_power_of_two(size) or "enhanced" in flags):
            raise BadInput(where, f"size {sizes[0]} of region {index} of {self.bdf} is not a power of two")
        self.bars.append(
            Bar(
                index=index,
                size=size,
                phys=phys,
                bits=bits,
                prefetchable=not non_prefetchable,
                disabled="disabled" in flags,
                virtual=virtual,
                index_inferred=printed_index is None,
            )
        )

    def finish(self) -> PciDevice:
        """Return what was read."""
        name, pci_id = _REVISION.sub("", self.name_text), None
        if found := _PCI_ID.fullmatch(name):
            name, pci_id = found[1] or found[2], found[2]
        return PciDevice(
            bdf=self.bdf,
            class_name=re.sub(r" \[[0-9a-f]{4}\]$", "", self.class_text),
            name=name,
            pci_id=pci_id,
            bars=tuple(replace(bar, rebar_sizes=self.rebar.get(bar.index, ())) for bar in self.bars),
            driver=self.driver,
            unsized=tuple(self.unsized),
        )
