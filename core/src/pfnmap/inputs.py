"""From inputs to what is planned: which devices and mappings are meant, who drives them, and what is left out.

Drivers say what the kernel calls them (`pfnmap.Driver.kernel_names`) and which lines of /proc/PID/maps are theirs
(`pfnmap.Driver.mapped`); the core knows neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Any

from pfnmap.contract.defaults import DEFAULT_DRIVER
from pfnmap.contract.entry import Has
from pfnmap.contract.mapping import MappedPart
from pfnmap.contract.module import Driver
from pfnmap.contract.plan import InputName, Request
from pfnmap.contract.region import Msix
from pfnmap.errors import BadInput, PfnmapError
from pfnmap.host.input import Input
from pfnmap.host.paste import Line
from pfnmap.host.pci import Bar, PciDevice, Skipped
from pfnmap.host.reading import InputKind, Reading
from pfnmap.limits import MAPPINGS
from pfnmap.plugins import calling
from pfnmap.recognition import Recognition

__all__ = ["Selection", "Wanted", "kinds_of", "of_inputs"]

_SLOT = re.compile(r"(?:(?:([0-9a-f]{1,8}):)?([0-9a-f]{0,2}):)?([0-9a-f]{0,2})(?:\.([0-7]?))?", re.IGNORECASE)
_ID = re.compile(r"([0-9a-f]{4}|)(?::([0-9a-f]{4}|))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which devices are meant, as lspci takes it: `slots` (``[[domain:]bus:]device.function``, each part may be left
    out) and `ids` (``vendor:device``); a device has to match one of each that is given."""

    slots: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()

    def of(self, devices: Sequence[PciDevice]) -> list[PciDevice]:
        """Return the devices that are meant. Raises BadInput for a malformed word, and where none is meant."""
        found = [
            device
            for device in devices
            if (not self.slots or any(_in_slot(device, slot) for slot in self.slots))
            and (not self.ids or any(_has_id(device, text) for text in self.ids))
        ]
        if not found:
            said = [*(f"-s {slot}" for slot in self.slots), *(f"-d {text}" for text in self.ids)]
            here = [(d.bdf if self.slots else d.pci_id) or "one that is not named" for d in devices]
            raise BadInput(
                " ".join(said), f"no such device; there are {', '.join(here[:8])}{', ...' * (len(here) > 8)}"
            )
        return found


def _in_slot(device: PciDevice, slot: str) -> bool:
    wanted = _SLOT.fullmatch(slot)
    if wanted is None or not slot:
        raise BadInput(f"-s {slot}", "[[domain:]bus:]device.function was expected, such as 3b:00.0")
    parts = re.split(r"[:.]", device.bdf or "")
    return len(parts) == 4 and all(
        not w or int(w, 16) == int(p, 16) for w, p in zip(wanted.groups(), parts, strict=True)
    )


def _has_id(device: PciDevice, text: str) -> bool:
    wanted = _ID.fullmatch(text)
    if wanted is None or not text:
        raise BadInput(f"-d {text}", "vendor:device was expected, such as 10de:2330")
    parts = (device.pci_id or ":").split(":")
    return all(not w or w.lower() == p for w, p in zip(wanted.groups(), parts, strict=True))


@dataclass(slots=True)
class Wanted:
    """What is planned: `requests`; `names` of devices by PCI address; what is `skipped`; `notes` on what was taken."""

    requests: list[Request] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _free: int = 0x80_0000_0000
    """BARs of which nobody says an address lie one after another from here on."""

    def doubt(self, note: str) -> None:
        """Note once what contradicts what is taken of the kernel."""
        if note not in self.notes:
            self.notes.append(note)

    def free_address(self, size: int) -> int:
        """Return an address for a BAR of which nobody says one: some multiple of its size."""
        phys = -(-self._free // size) * size
        self._free = phys + size
        return phys


def of_inputs(inputs: Sequence[Input], drivers: Dict[str, Any], has: Has, only: Selection | None = None) -> Wanted:
    """Return what inputs ask for: their mappings where they have some of BARs, else every BAR of their devices.

    `drivers`: the classes of the drivers by plugin name; `has`: the changes of the release. Raises BadInput where
    nothing is left.
    """
    wanted = Wanted()
    known: dict[str | None, PciDevice] = {}
    places: list[tuple[Input, PciDevice]] = []
    for read in inputs:
        wanted.skipped += read.skipped
        for device in read.devices:
            if device.bdf is not None and device.bdf in known:
                if known[device.bdf].bars != device.bars:
                    wanted.skipped.append(Skipped(device.bdf, f"{read.source}: has it once more with other BARs"))
                continue
            known[device.bdf] = device
            places.append((read, device))
    if only is not None and (only.slots or only.ids):
        meant = [id(device) for device in only.of([device for _, device in places])]
        places = [(read, device) for read, device in places if id(device) in meant]
        wanted.skipped = [s for s in wanted.skipped if s.device is None or s.device in {d.bdf for _, d in places}]
    wanted.names = {device.bdf: device.name for _, device in places if device.bdf and device.name}
    wanted.requests = list(_of_mappings(inputs, drivers, has, [device for _, device in places], wanted))
    if not wanted.requests:
        wanted.requests = [request for read, device in places for request in _of_device(read, device, drivers, wanted)]
    if not wanted.requests:
        sources = ", ".join(read.source for read in inputs)
        why = next((f"{s.device or ''} {s.reason}".strip() for s in wanted.skipped), "no mapping of a BAR in it")
        raise BadInput(sources, f"nothing to plan: {why}")
    if len(wanted.requests) > MAPPINGS:
        many = f"{len(wanted.requests)} mappings, where {MAPPINGS} are the most that is planned at once"
        raise BadInput(", ".join(read.source for read in inputs), f"{many}; -s and -d choose among devices")
    return wanted


def _of_device(read: Input, device: PciDevice, drivers: Dict[str, Any], wanted: Wanted) -> Iterator[Request]:
    """Yield a request for each BAR of a device that has an address."""
    driver = _driver(device, drivers, wanted)
    msix = _msix(device, wanted)
    for bar in device.bars:
        if bar.phys is None and bar.address_told:
            wanted.skipped.append(Skipped(device.bdf, f"BAR {bar.index} has no address, so nothing is planned for it"))
            continue
        yield Request(
            bar.index,
            wanted.free_address(bar.size) if bar.phys is None else bar.phys,
            bar.size,
            device=device.bdf,
            driver=driver,
            phys_assumed=bar.phys is None,
            input=InputName(read.source, read.kind),
            bits=bar.bits,
            msix=msix,
            pci_id=device.pci_id,
            class_name=device.class_name,
        )


def _msix(device: PciDevice, wanted: Wanted) -> Msix | None:
    """Return a device's MSI-X capability; one that cannot be its own is left out, which is said."""
    for bar in device.bars:
        if device.msix is not None and (why := device.msix.why_not(bar.index, bar.size)):
            wanted.skipped.append(Skipped(device.bdf, f"its MSI-X capability: {why}"))
            return None
    return device.msix


def _driver(device: PciDevice, drivers: Dict[str, Any], wanted: Wanted) -> str:
    """Return the plugin of the driver that is bound to a device, else the default, which is said."""
    for name, driver in drivers.items():
        if device.driver in driver.kernel_names:
            return name
    if device.driver is not None:
        wanted.notes.append(
            f"{device.bdf or 'the device'} is bound to {device.driver}; planned as bound to {DEFAULT_DRIVER}"
        )
    return DEFAULT_DRIVER


def _of_mappings(
    inputs: Sequence[Input], drivers: Dict[str, Any], has: Has, devices: Sequence[PciDevice], wanted: Wanted
) -> Iterator[Request]:
    """Yield a request for each mapping of a BAR, at the address where the process has it."""
    known = _Bars(devices)
    recognition = Recognition(drivers, wanted.notes.append)
    by_name = {device.bdf: device for device in devices}
    for read in inputs:
        told = _has_by_offsets(read, recognition, has, wanted)
        parts = (
            (mapping, *found)
            for mapping in read.mappings
            for found in islice(recognition.mapped(mapping.path, mapping.offset, told), 1)
        )
        for n, (mapping, name, part) in enumerate(parts):
            end = (part.offset or 0) + mapping.length
            fits = list(islice(known.fitting(part, end), 2))
            size = fits[0][1].size if fits else 1 << (end - 1).bit_length()
            phys, offset = _place(part, fits)
            if phys is None:
                phys = wanted.free_address(size)
            device = part.device or (fits[0][0].bdf if len(fits) == 1 else None)
            bound = by_name.get(device)
            yield Request(
                part.bar if part.bar is not None else (fits[0][1].index if fits else n),
                phys,
                size,
                device=device,
                offset=offset,
                length=mapping.length,
                va=mapping.va,
                policy=None,
                driver=_driver(bound, drivers, wanted) if bound and bound.driver else name,
                phys_assumed=part.phys is None and not fits,
                candidates=tuple(d.bdf for d, _ in fits if d.bdf) if device is None else (),
                input=InputName(read.source, read.kind),
            )


def _has_by_offsets(read: Input, recognition: Recognition, has: Has, wanted: Wanted) -> Has:
    """Return the changes of the kernel that an input's mappings are of: those of the release, where no offset says
    otherwise, which is noted; then it holds for all of them."""
    contradicted = {
        part.contradicts
        for mapping in read.mappings
        for _, part in recognition.mapped(mapping.path, mapping.offset, has)
        if part.contradicts
    }
    for change in sorted(contradicted):
        of_kernel = f"has {change}" if not has(change) else f"lacks {change}; give its --release"
        wanted.doubt(f"{read.source}: by its offsets this kernel {of_kernel}")
    return lambda change: has(change) != (change in contradicted)


def kinds_of(drivers: Iterable[type[Driver]]) -> dict[str, InputKind]:
    """Return the kinds of input that drivers read. One whose reader fails on an input has read nothing of it."""
    return {
        kind: InputKind(its.sign, partial(_parsed, driver.name, kind, its))
        for driver in drivers
        for kind, its in driver.inputs.items()
        if isinstance(its, InputKind)
    }


def _parsed(name: str, kind: str, its: InputKind, lines: Iterable[Line]) -> Reading:
    try:
        with calling(name, f"the reader of {kind}") as gave:
            return gave(its.parse(lines), Reading)
    except PfnmapError as error:
        return Reading(skipped=(Skipped(None, str(error)),))


class _Bars:
    """The BARs with an address of the devices that are known, found by what a mapping tells of one."""

    def __init__(self, devices: Iterable[PciDevice]) -> None:
        self._by_device: dict[str | None, list[tuple[PciDevice, Bar]]] = {}
        self._by_shape: dict[tuple[int, int], list[tuple[PciDevice, Bar]]] = {}
        self._by_place: dict[tuple[int, int], list[tuple[PciDevice, Bar]]] = {}
        """By size, and by which block of that size an address is in; one that is not aligned to its size is in two."""
        for device in devices:
            for bar in device.bars:
                if bar.phys is not None:
                    self._by_device.setdefault(device.bdf, []).append((device, bar))
                    self._by_shape.setdefault((bar.index, bar.size), []).append((device, bar))
                    for block in {bar.phys // bar.size, (bar.phys + bar.size - 1) // bar.size}:
                        self._by_place.setdefault((bar.size, block), []).append((device, bar))
        self._sizes = sorted({size for size, _ in self._by_place})

    def fitting(self, part: MappedPart, end: int) -> Iterator[tuple[PciDevice, Bar]]:
        """Yield the BARs that a mapped part, which ends at this offset, may be of; those at its address, the smallest
        first."""
        if part.device is not None:
            found: Iterable[tuple[PciDevice, Bar]] = self._by_device.get(part.device, ())
        elif part.phys is not None:
            blocks = ((size, part.phys // size) for size in self._sizes)
            found = chain.from_iterable(self._by_place.get(block, ()) for block in blocks)
        elif part.bar is not None:
            found = self._by_shape.get((part.bar, 1 << (end - 1).bit_length()), ())
        else:
            return
        for device, bar in found:
            if part.phys is not None:
                if bar.phys is not None and bar.phys <= part.phys < bar.phys + bar.size:
                    yield device, bar
            elif part.bar == bar.index and bar.size == 1 << (end - 1).bit_length():
                yield device, bar


def _place(part: MappedPart, fits: Sequence[tuple[PciDevice, Bar]]) -> tuple[int | None, int]:
    """Return the physical address of the BAR that a part is of, and the part's offset in it: BARs that fit are all
    multiples of their one size."""
    base = fits[0][1].phys if fits else None
    if part.phys is None:
        return base, part.offset or 0
    return (part.phys, 0) if base is None else (base, part.phys - base)
