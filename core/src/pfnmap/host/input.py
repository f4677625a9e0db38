"""An input of unknown kind: what it is is found by its content, and the reader for that kind reads it.

A kind has a sign, an expression that its own lines match and hardly any other line does. Of several kinds in one paste
the first in the order of KINDS that tells BARs is taken, and the first that tells mappings; the others are skipped by
name. Text that tells neither is named for what it is, with the command that gives the right thing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from typing import Final

from pfnmap.errors import BadInput
from pfnmap.host.bounded import source_name
from pfnmap.host.dmesg import DMESG, parse_dmesg
from pfnmap.host.foreign import VERBOSE, what_else
from pfnmap.host.hwinfo import HWINFO, parse_hwinfo
from pfnmap.host.iomem import IOMEM, parse_iomem
from pfnmap.host.lshw import LSHW, parse_lshw
from pfnmap.host.lspci import LSPCI, parse_lspci
from pfnmap.host.maps import MAPS, PMAP, PMAP_X, parse_maps, parse_pmap
from pfnmap.host.paste import LINE, Line, lines_of, read_paste, without_prefixes
from pfnmap.host.pci import PciDevice, Skipped
from pfnmap.host.reading import InputKind, Mapping, Reading
from pfnmap.host.resource import RESOURCE, parse_resource

__all__ = ["KINDS", "Input", "parse_input", "read_input"]

KINDS: Final[Dict[str, InputKind]] = {
    "lspci": InputKind(LSPCI, parse_lspci),
    "resource": InputKind(RESOURCE, parse_resource),
    "lshw": InputKind(LSHW, parse_lshw),
    "hwinfo": InputKind(HWINFO, parse_hwinfo),
    "dmesg": InputKind(DMESG, parse_dmesg),
    "iomem": InputKind(IOMEM, parse_iomem),
    "maps": InputKind(MAPS, parse_maps),
    "pmap": InputKind(re.compile(f"{PMAP.pattern}|{PMAP_X.pattern}"), parse_pmap),
}

_SCENARIO = re.compile(r"^[ \t]*(?:\[kernel\]|\[\[device\]\]|\[\[step\]\]|\[\[device\.bar\]\])[ \t]*\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Input:
    """What was read of one input: `source` names it in errors, `kind` is a name of KINDS or of a plugin's, two of
    them with "+" between where one tells BARs and one mappings, or "scenario", which `pfnmap.scenario` reads.
    `devices` are those with BARs; `text` is that of a scenario."""

    source: str
    kind: str
    devices: tuple[PciDevice, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    text: str = ""


def read_input(path: str | os.PathLike[str], kinds: Dict[str, InputKind] = KINDS) -> Input:
    """Read a file (plain or compressed; "-" is standard input) of any of the kinds.

    Raises BadInput for a file that cannot be read, and for one without a BAR or a mapping: it says what the file is.
    """
    return parse_input(read_paste(path), source_name(path), kinds)


def parse_input(text: str, source: str = "the input", kinds: Dict[str, InputKind] = KINDS) -> Input:
    """Read the text of an input, as `read_input` does."""
    if _SCENARIO.search(text):
        return Input(source, "scenario", text=text)
    cut: list[int] = []
    lines = lines_of(text, source, cut)
    signed = _signed(lines, kinds)
    if not signed:
        cut_plain: list[int] = []
        plain = without_prefixes(text, source, cut_plain)
        if signed := _signed(plain, kinds):
            lines, cut = plain, cut_plain
    readings = {name: kinds[name].parse(lines) for name in signed}
    with_bars = [name for name in signed if any(device.bars for device in readings[name].devices)]
    with_mappings = [name for name in signed if readings[name].mappings]
    if not with_bars and not with_mappings:
        raise BadInput(source, _why_nothing(lines, readings))
    taken = [*with_bars[:1], *with_mappings[:1]]
    return Input(
        source,
        "+".join(taken),
        tuple(device for name in with_bars[:1] for device in readings[name].devices if device.bars),
        tuple(mapping for name in with_mappings[:1] for mapping in readings[name].mappings),
        (
            *(skipped for name in taken for skipped in readings[name].skipped),
            *(Skipped(None, f"{name} in the same input") for name in (*with_bars[1:], *with_mappings[1:])),
            *(Skipped(None, f"what line {n} has beyond its first {LINE} characters") for n in cut),
        ),
    )


def _signed(lines: list[Line], kinds: Dict[str, InputKind]) -> list[str]:
    return [name for name, kind in kinds.items() if any(kind.sign.fullmatch(line.text) for line in lines)]


def _why_nothing(lines: list[Line], readings: Dict[str, Reading]) -> str:
    """Return what a text without BARs and mappings is."""
    for name, reading in readings.items():
        if reading.skipped:
            more = len(reading.skipped) - 1
            first = reading.skipped[0]
            device = f"{first.device}: " if first.device else ""
            return f"no BAR to plan in this {name}: {device}{first.reason}" + (f", and {more} more" if more else "")
    if said := what_else(lines):
        return said
    for name, reading in readings.items():
        if reading.devices:
            many = len(reading.devices)
            return f"{name} of {many} device{'s' * (many != 1)} without a memory BAR; {VERBOSE}"
    if not lines:
        return f"it is empty; {VERBOSE}"
    if readings:
        right = "give /proc/PID/maps or pmap -X of the process that has the device"
        return f"{', '.join(readings)} without a BAR or a mapping of one; {right}"
    return f"nothing in it is known; expected one of {', '.join(KINDS)} or a scenario: {VERBOSE}"
