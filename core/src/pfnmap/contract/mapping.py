"""What a driver makes of what a process has of it: lines of /proc/PID/maps, open files, and its lines in the log."""

from __future__ import annotations

from pfnmap.records import dataclass

__all__ = ["HeldFile", "LoggedFault", "MappedPart"]


@dataclass(frozen=True, slots=True)
class MappedPart:
    """The part of a BAR that a process maps. None where the line does not say: `device` (PCI address), `bar` (index),
    `offset` (bytes into the BAR), `phys` (physical address of the part). `contradicts`: the change of which
    the line says otherwise than the release: that the kernel has it, or has it not."""

    device: str | None = None
    bar: int | None = None
    offset: int | None = None
    phys: int | None = None
    contradicts: str | None = None


@dataclass(frozen=True, slots=True)
class HeldFile:
    """An open file of a process through which it has devices. None where it does not say: `device` (PCI address),
    `group` (the number of an IOMMU group, whose devices it opens), `node` (the name of a device node, as sysfs has it
    below the device). `maps`: it is the file of a device itself, which mappings are of."""

    device: str | None = None
    group: int | None = None
    node: str | None = None
    maps: bool = False


@dataclass(frozen=True, slots=True)
class LoggedFault:
    """A line of a driver's fault handler in the kernel's log: `order` is log2 of the pages that were asked for,
    `page_offset` where the block of that order begins, in pages from the start of the vma (negative where it begins
    below), `ret` the VM_FAULT bits that it returned."""

    device: str
    bar: int
    order: int
    page_offset: int
    ret: int
