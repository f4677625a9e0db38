"""From a host to what is planned: which BAR each mapping of its processes is of.

Drivers say which lines of maps and which open files are theirs; the core knows neither. Where a mapping may be of
several devices all of them are `candidates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from pfnmap.contract.entry import Has
from pfnmap.contract.mapping import HeldFile, MappedPart
from pfnmap.contract.plan import Request
from pfnmap.errors import BadInput
from pfnmap.host.machine import Host
from pfnmap.host.pci import Bar
from pfnmap.host.processes import Process, Vma
from pfnmap.host.sysfs import PCI_DEVICES, PciFunction
from pfnmap.host.tree import Tree
from pfnmap.limits import MAPPINGS
from pfnmap.recognition import Recognition
from pfnmap.records import dataclass

__all__ = ["Attached", "attached"]

_CANDIDATES: Final = 16 * MAPPINGS
_TRIED: Final = 1 << 20
"""Pairs of a mapping and a BAR, of one process."""
_Row: TypeAlias = tuple[Vma, str, MappedPart]
_Fit: TypeAlias = tuple[PciFunction, Bar]


@dataclass(frozen=True, slots=True)
class Attached:
    """A mapping of a BAR: `pid` has it, at `vma`; one request for each BAR that it may be of, the first of which stands
    for all. Where the host has no such BAR there is one without a device."""

    pid: int
    vma: Vma
    requests: tuple[Request, ...]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The devices that it may be of."""
        return tuple(request.device for request in self.requests if request.device)


def attached(host: Host, asked: Recognition, has: Has, tree: Tree) -> list[Attached]:
    """Return the mappings of BARs of a host's processes, in the order of pids and addresses.

    `has`: the changes of the release. Raises BadInput for more than are planned at once.
    """
    found: list[Attached] = []
    candidates = 0
    for process in host.processes:
        for one in _of_process(process, host, asked, has, tree):
            found.append(one)
            candidates += len(one.requests)
            if len(found) > MAPPINGS or candidates > _CANDIDATES:
                many = f"more than {MAPPINGS} mappings of BARs, or {_CANDIDATES} devices that they may be of"
                raise BadInput(tree.name, f"{many}, which are the most that is planned at once; --pid chooses one")
    return found


def _of_process(process: Process, host: Host, asked: Recognition, has: Has, tree: Tree) -> Iterator[Attached]:
    rows = [
        (vma, name, part)
        for vma in process.maps or ()
        if vma.path
        for name, part in asked.mapped(vma.path, vma.offset, has)
    ]
    if not rows:
        return
    held = _held(process, asked)
    opened = [function for function in host.functions if _opens(held.values(), function, tree)]
    told = _devices_by_inode(process, held)
    others = opened or _bound(host, asked.drivers)
    if len(rows) * sum(len(one.device.bars) for one in others) > _TRIED:
        many = f"{len(rows)} mappings of process {process.pid} may be of BARs of {len(others)} devices"
        raise BadInput(tree.name, f"{many}, which is more than is tried")
    page = host.page_size or 1 << 12
    fitting = []
    for vma, _, part in rows:
        of_file = [one for one in host.functions if one.device.bdf == told.get(vma.inode)]
        fitting.append(_fitting(part, vma, of_file or others, page))
    if _tells_devices_apart(process, held):
        fitting = _of_one_device(rows, fitting)
    for (vma, name, part), fits in zip(rows, fitting, strict=True):
        yield Attached(process.pid, vma, tuple(_requests(vma, name, part, fits, asked.drivers)))


def _held(process: Process, asked: Recognition) -> dict[int, HeldFile]:
    """Return what a process's open files say, by their position."""
    found = {}
    for n, file in enumerate(process.files or ()):
        if (said := asked.held(file.link, file.fdinfo)) is not None:
            found[n] = said
    return found


def _opens(held: Iterable[HeldFile], function: PciFunction, tree: Tree) -> bool:
    """Tell whether open files are of a device, or of its group."""
    return any(
        file.device == function.device.bdf
        or (file.group is not None and file.group == function.group)
        or (file.node is not None and _has_node(tree, function.device.bdf or "", file.node))
        for file in held
    )


def _has_node(tree: Tree, bdf: str, node: str) -> bool:
    path = f"{PCI_DEVICES}/{bdf}"
    try:
        return any(tree.kind(f"{path}/{name}/{node}") == "directory" for name in tree.names(path))
    except OSError:
        return False


def _devices_by_inode(process: Process, held: Mapping[int, HeldFile]) -> dict[int, str]:
    """Return which device the mappings of an inode are of, where an open file with that inode says it."""
    said: dict[int, set[str]] = {}
    for n, file in held.items():
        inode = (process.files or ())[n].inode
        if file.maps and file.device and inode is not None:
            said.setdefault(inode, set()).add(file.device)
    return {inode: next(iter(devices)) for inode, devices in said.items() if len(devices) == 1}


def _tells_devices_apart(process: Process, held: Mapping[int, HeldFile]) -> bool:
    """Tell whether each open device has an inode of its own, as since 6.11; before all have the same one."""
    inodes = [(process.files or ())[n].inode for n, file in held.items() if file.maps]
    return bool(inodes) and None not in inodes and len(set(inodes)) == len(inodes)


def _of_one_device(rows: Sequence[_Row], fitting: Sequence[list[_Fit]]) -> list[list[_Fit]]:
    """Leave of what fits the devices that fit all mappings of the same inode."""
    common: dict[int, set[str | None]] = {}
    for (vma, _, _), fits in zip(rows, fitting, strict=True):
        devices = {function.device.bdf for function, _ in fits}
        common[vma.inode] = common.get(vma.inode, devices) & devices
    return [
        [fit for fit in fits if fit[0].device.bdf in common[vma.inode]] or fits
        for (vma, _, _), fits in zip(rows, fitting, strict=True)
    ]


def _bound(host: Host, drivers: Mapping[str, Any]) -> list[PciFunction]:
    """Return the devices that a driver which maps them to user space is bound to; all where none says so."""
    names = {name for driver in drivers.values() for name in driver.kernel_names}
    return [one for one in host.functions if one.device.driver in names] or list(host.functions)


def _fitting(part: MappedPart, vma: Vma, functions: Iterable[PciFunction], page: int) -> list[_Fit]:
    """Return the BARs that a mapped part may be of: those that hold it, or those of them that it fills where there are
    some."""
    found = [
        (function, bar)
        for function in functions
        for bar in function.device.bars
        if bar.phys is not None
        and part.device in (None, function.device.bdf)
        and _holds(bar, bar.phys, part, vma.end - vma.start, page)
    ]
    exact = 1 << ((part.offset or 0) + vma.end - vma.start - 1).bit_length()
    return [(function, bar) for function, bar in found if bar.size == exact] or found


def _holds(bar: Bar, phys: int, part: MappedPart, length: int, page: int) -> bool:
    """Tell whether a part of `length` bytes lies in a BAR, of which whole pages are mapped."""
    end = -(-bar.size // page) * page
    if part.phys is not None:
        return phys <= part.phys and part.phys + length <= phys + end
    return part.bar == bar.index and (part.offset or 0) + length <= end


def _requests(
    vma: Vma, driver: str, part: MappedPart, fits: Sequence[tuple[PciFunction, Bar]], drivers: Mapping[str, Any]
) -> Iterator[Request]:
    length = vma.end - vma.start
    for function, bar in fits:
        device, phys = function.device, bar.phys or 0
        bound = next((name for name, one in drivers.items() if device.driver in one.kernel_names), driver)
        yield Request(
            bar.index,
            phys,
            bar.size,
            device=device.bdf,
            offset=(part.offset or 0) if part.phys is None else part.phys - phys,
            length=length,
            va=vma.start,
            driver=bound,
            bits=bar.bits,
            msix=device.msix if device.msix and not device.msix.why_not(bar.index, bar.size) else None,
            pci_id=device.pci_id,
            class_name=device.class_name,
        )
    if not fits:  # a device that the host's sysfs does not show
        offset = part.offset or 0
        size = 1 << (offset + length - 1).bit_length()
        phys = part.phys if part.phys is not None else -(-0x80_0000_0000 // size) * size
        yield Request(
            part.bar if part.bar is not None else 0,
            phys,
            size,
            device=part.device,
            offset=offset,
            length=length,
            va=vma.start,
            driver=driver,
            phys_assumed=part.phys is None,
        )
