"""PCI devices and their memory BARs, as plain data."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pfnmap.contract.region import Msix
from pfnmap.errors import BadInput
from pfnmap.sizes import format_size, is_power_of_two

__all__ = ["Bar", "Msix", "PciDevice", "Skipped", "normalize_bdf", "why_not_a_bar"]

BARS = 6
"""Base address registers of a function; a 64-bit BAR takes two."""

_BDF = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([01][0-9a-fA-F])\.([0-7])")


@dataclass(frozen=True, slots=True)
class Bar:
    """A memory BAR of a PCI function. `size` and `phys` are in bytes."""

    index: int
    """Number of its (first) base address register, 0 to 5."""
    size: int
    """A power of two, except for a region of Enhanced Allocation."""
    phys: int | None
    """CPU physical address, or None where the BAR has none (unassigned) or the source prints none (`address_told`)."""
    bits: int
    """Width of the BAR: 64, or 32 (a 32-bit BAR may lie above 4G where the host bridge translates)."""
    prefetchable: bool
    disabled: bool = False
    """The function's memory decode is off: an access raises SIGBUS until it is on."""
    virtual: bool = False
    """Known to the OS but not in the function's registers, as every BAR of an SR-IOV virtual function."""
    index_inferred: bool = False
    """`index` is the lowest that fits; the source does not print it."""
    address_told: bool = True
    """False: the source tells no addresses."""
    rebar_sizes: tuple[int, ...] = ()
    """Sizes in bytes that the BAR can be resized to, ascending; empty where not shown."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part of an input that is left out, and why. `device`: its PCI address, None where there is none."""

    device: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class PciDevice:
    """A PCI function."""

    bdf: str | None
    """Address with its domain, in lower case: ``0000:3b:00.0``; None where the source does not say."""
    class_name: str
    """What the source calls its class: ``3D controller``, or ``0302``."""
    name: str
    """Vendor and device as the source names them."""
    pci_id: str | None = None
    """``10de:2330`` where the source prints it."""
    bars: tuple[Bar, ...] = ()
    """Memory BARs in ascending order; I/O ports and the expansion ROM are not among them."""
    driver: str | None = None
    """The kernel driver bound to it."""
    msix: Msix | None = None


def normalize_bdf(text: str, where: str = "") -> str:
    """Return a PCI address in full: ``3b:00.0`` is ``0000:3b:00.0``. Raises BadInput for anything else."""
    found = _BDF.fullmatch(text.strip())
    if found is None:
        raise BadInput(where, f"{text!r} is not a PCI address such as 0000:3b:00.0")
    domain, bus, device, function = found.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{device}.{function}".lower()


def why_not_a_bar(size: int, phys: int | None) -> str:
    """Return why no memory BAR has this size and address in bytes, "" where one can have them."""
    if size < 16 or not is_power_of_two(size):
        return f"size {format_size(size)} is not a power of two of at least 16 bytes"
    if phys is not None and phys % size:
        return f"address {phys:#x} is not a multiple of its size {format_size(size)}"
    return ""
