"""What ``lspci -v``, ``-vv`` or ``-vvv`` prints (``-nn``, ``-n``, ``-D``, ``-P``, ``-k``, ``-x`` or not), as posted.

The layout is that of pciutils' lspci.c (show_terse, show_bases), ls-caps.c (cap_msix) and ls-ecaps.c (cap_rebar),
checked against output of lspci 3.9.0 and against posted output of older and newer ones. Structure comes from what a
line says and from the order of lines: a device begins with its address line, and its BARs come before its capabilities,
where SR-IOV lists the regions of virtual functions in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from pfnmap.errors import BadInput
from pfnmap.host.paste import Line
from pfnmap.host.pci import BARS, Bar, Msix, PciDevice, Skipped, normalize_bdf
from pfnmap.host.reading import Reading
from pfnmap.sizes import is_power_of_two, parse_size

__all__ = ["LSPCI", "parse_lspci"]

_DEVICE = re.compile(
    r"((?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7])((?:/[0-9a-fA-F]{2}\.[0-7])*)\s+([^:\"]+): (.+)"
)
_REVISION = re.compile(r"(?: \(rev [0-9a-f]{2}\))?(?: \(prog-if [0-9a-f]{2}(?: \[[^\[\]]*\])?\))?$")
_PCI_ID = re.compile(r"(?:(.+) (?:\[|(?<=Device )))?([0-9a-f]{4}:[0-9a-f]{4})\]?")
_REGION_LINE = re.compile(r"Region |(?:\[virtual\] )?(?:Memory|I/O ports) at ")
_REGION = re.compile(r"(?:Region (\d{1,2}): )?(\[virtual\] )?(?:(Memory)|I/O ports) at (.*)")
_REST = re.compile(
    r"(?:[0-9a-f]{8,16} ?)?"
    r"(?:(?:\((?:64-bit|32-bit|low-1M|type 3), )?(?:non-)?prefetchable\))?(?: ?\[[a-z]+(?:=[0-9]+[KMGTPE]?)?\])*"
)
"""What of a region a mail program wrapped into the next line."""
_MEMORY = re.compile(r"(\S+) \((64-bit|32-bit|low-1M|type 3), (non-)?prefetchable\)((?: \[[^\]]*\])*)")
_ADDRESS = re.compile(r"[0-9a-f]{1,16}|<(?:unassigned|ignored|broken-64-bit-slot|invalid-64bit-slot)>")
_REBAR = re.compile(r"BAR (\d): current size: \S+, supported:((?: \d+[MGTPE]B)+)")
_MSIX = re.compile(r"Capabilities: \[\w+\] MSI-X: .*?\b(?:Count|TabSize)=(\d{1,4})\b")
_TABLE = re.compile(r"(Vector table|PBA): BAR=(\d) offset=([0-9a-f]{1,8})")
_PORTS = 0x10000

_JOINED = re.compile(
    r"(?<!\d:)(?<!virtual\]) (?=Region \d: |(?:\[virtual\] )?(?:Memory|I/O ports) at |Expansion ROM at |Subsystem: "
    r"|Control: I/O|Flags: |Bus: primary=|Kernel (?:driver in use|modules): |Capabilities: \["
    r"|Vector table: BAR=|PBA: BAR=|BAR \d: current size: "
    r"|(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7] [A-Z0-9][\w/ -]{2,60}: )"
)
"""Where a line begins of several that a web page put in one."""

LSPCI = re.compile(rf"{_DEVICE.pattern}|(?:Region \d: )?(?:\[virtual\] )?Memory at .*")


def parse_lspci(lines: Iterable[Line]) -> Reading:
    """Return the devices of lspci's output in its order.

    Skipped, with its line: a region that cannot be (size 0 or not a power of two, a seventh BAR, two BARs in one
    register) or is cut off or has no size, legacy IDE ports that lspci takes for memory, and the BARs of a device that
    is listed once more with others. Bridges (whose buses are printed) have no BARs here: none is passed through.
    Regions before the first device line are those of a device without a name, unless others have theirs.
    """
    devices: list[_Device] = []
    device = orphan = _Device(None, "", "", 0)
    for number, line in _unwrapped(lines):
        if found := _DEVICE.fullmatch(line):
            device = _Device(_last_bdf(found[1], found[2]), found[3], found[4], number)
            devices.append(device)
        else:
            device.add(line, number)
    if not orphan.regions:
        return Reading.of(*_each_once(devices))
    if any(device.regions for device in devices):
        cut = Skipped(None, "regions before the first device line, with no device")
        return Reading.of(cut, *_each_once(devices))
    return Reading.of(*_each_once([orphan, *devices]))


def _unwrapped(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield the lines: a region that was wrapped in one, and each of those that a web page put in one."""
    held: Line | None = None
    for line in (Line(number, part) for number, text in lines for part in _JOINED.split(text)):
        if held is not None:
            if _REST.fullmatch(line.text):
                held = Line(held.number, f"{held.text} {line.text}")
                continue
            yield held
            held = None
        if _REGION_LINE.match(line.text):
            held = line
        else:
            yield line
    if held is not None:
        yield held


def _last_bdf(first: str, path: str) -> str:
    """Return the address of a device that ``lspci -P`` prints as a path of bridges (``00:01.0/00.0``): the bus is not
    said there, so the path stays."""
    return normalize_bdf(first) + path.lower()


def _each_once(devices: list[_Device]) -> Iterator[PciDevice | Skipped]:
    """Yield each device once: where some listings of it have BARs, the first of those."""
    first: dict[str | None, _Device] = {}
    for device in devices:
        earlier = first.get(device.bdf)
        if earlier is None or not earlier.regions:
            first[device.bdf] = device
        elif device.regions and device.bars != earlier.bars:
            earlier.skipped.append(f"line {device.line}: listed once more with other BARs; the first are taken")
    for device in first.values():
        yield device.finish()
        if device.bridge:
            continue
        yield from (Skipped(device.bdf, reason) for reason in device.skipped)


@dataclass
class _Device:
    """A device while its lines are read."""

    bdf: str | None
    class_text: str
    name_text: str
    line: int
    bars: list[Bar] = field(default_factory=list)
    regions: int = 0
    """How many region lines it had."""
    bridge: bool = False
    skipped: list[str] = field(default_factory=list)
    rebar: dict[int, tuple[int, ...]] = field(default_factory=dict)
    driver: str | None = None
    capability: str = ""
    """The capability that lines belong to; empty before the first."""
    vectors: int = 0
    tables: dict[str, tuple[int, int]] = field(default_factory=dict)
    next_register: int = 0

    def add(self, line: str, number: int) -> None:
        """Take in a line that follows the device's first."""
        if line.startswith("Capabilities:"):
            self.capability = line
            if found := _MSIX.match(line):
                self.vectors = int(found[1])
        elif line.startswith("Kernel driver in use: "):
            self.driver = line.removeprefix("Kernel driver in use: ").strip()
        elif line.startswith("Bus: primary="):
            self.bridge = True
        elif not self.capability:
            if _REGION_LINE.match(line):
                self.regions += 1
                try:
                    self._add_region(line)
                except BadInput as error:
                    self.skipped.append(f"line {number}: {error}")
        elif found := _TABLE.match(line):
            self.tables[found[1]] = (int(found[2]), int(found[3], 16))
        elif "Physical Resizable BAR" in self.capability and (found := _REBAR.match(line)):
            self.rebar[int(found[1])] = tuple(parse_size(size[:-1]) for size in found[2].split())

    def _add_region(self, line: str) -> None:
        """Take in a ``Region N: ...`` line, or its short form without index that ``lspci -v`` prints."""
        region = _REGION.fullmatch(line)
        if region is None:
            raise BadInput("", f"cannot read the region {line[:80]!r}")
        printed_index, virtual_first, is_memory, rest = region.groups()
        index = int(printed_index) if printed_index else self.next_register
        if index >= BARS:
            raise BadInput("", f"region {index}: a PCI function has {BARS} BARs")
        if index < self.next_register:
            raise BadInput("", f"region {index} is in a register of the region before it")
        self.next_register = index + 1
        if not is_memory:
            return
        memory = _MEMORY.fullmatch(rest)
        if memory is None or not _ADDRESS.fullmatch(memory[1]):
            raise BadInput("", f"cannot read the memory region {line[:80]!r}")
        address, width, non_prefetchable, tags = memory.groups()
        bits = 64 if width == "64-bit" else 32
        flags = re.findall(r"\[([^\]]*)\]", tags)
        virtual = bool(virtual_first) or "virtual" in flags
        phys = None if address.startswith("<") else int(address, 16)
        if virtual and phys is not None and phys < _PORTS:
            raise BadInput("", f"region {index} at {phys:#x} is legacy I/O ports, which lspci takes for memory")
        self.next_register = index + bits // 32
        sizes = [flag.removeprefix("size=") for flag in flags if flag.startswith("size=")]
        if not sizes:
            raise BadInput("", f"region {index} has no size, so nothing is planned for it")
        size = parse_size(sizes[0])
        if size == 0 or not (is_power_of_two(size) or "enhanced" in flags):
            raise BadInput("", f"size {sizes[0]} of region {index} is not a power of two")
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
            bars=tuple(replace(bar, rebar_sizes=self.rebar.get(bar.index, ())) for bar in self.bars if not self.bridge),
            driver=self.driver,
            msix=self._msix(),
        )

    def _msix(self) -> Msix | None:
        if not self.vectors or "Vector table" not in self.tables:
            return None
        pba_bar, pba = self.tables.get("PBA", (None, None))
        return Msix(*self.tables["Vector table"], self.vectors, pba_bar, pba)
