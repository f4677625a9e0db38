"""PCI functions from ``/sys/bus/pci/devices``: BARs, class, driver, IOMMU group, MSI-X capability.

What the attributes hold is that of drivers/pci/pci-sysfs.c; `config` is the function's registers as
include/uapi/linux/pci_regs.h has them, of which a user without privileges gets the first 64 bytes: no capability.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from pfnmap.errors import BadInput
from pfnmap.host.paste import lines_of
from pfnmap.host.pci import BARS, Msix, PciDevice, Skipped, normalize_bdf
from pfnmap.host.resource import parse_resource
from pfnmap.host.tree import Tree
from pfnmap.records import dataclass

__all__ = ["PCI_DEVICES", "PciFunction", "parse_msix", "read_functions"]

PCI_DEVICES = "/sys/bus/pci/devices"
_LIMIT = 1 << 14
_STATUS, _STATUS_CAP_LIST, _CAPABILITY_LIST = 0x06, 0x10, 0x34
_STANDARD_HEADER, _CAPABILITIES = 0x40, 48
_CAP_ID_MSIX = 0x11
_BIR = 7


@dataclass(frozen=True, slots=True)
class PciFunction:
    """A function with memory BARs. `group`: the number of its IOMMU group, None: it is in none. `config_bytes`: how
    many bytes of its configuration space could be read; below 65 its capabilities are not known."""

    device: PciDevice
    group: int | None
    config_bytes: int


def read_functions(tree: Tree) -> tuple[list[PciFunction], list[Skipped]]:
    """Return the functions that have memory BARs, in the order of their addresses, and what was left out.

    Raises OSError where there is no such directory.
    """
    found, skipped = [], []
    for name in tree.names(PCI_DEVICES):
        try:
            bdf = normalize_bdf(name)
            text = tree.text(f"{PCI_DEVICES}/{name}/resource", _LIMIT)
        except BadInput:
            continue
        except OSError as error:
            skipped.append(Skipped(name, f"its resource: {error.strerror}"))
            continue
        reading = parse_resource(lines_of(text))
        skipped += [replace(one, device=bdf) for one in reading.skipped]
        for device in reading.devices:
            if device.bars:
                found.append(_function(tree, f"{PCI_DEVICES}/{name}", replace(device, bdf=bdf)))
    return found, skipped


def _function(tree: Tree, path: str, device: PciDevice) -> PciFunction:
    config = _config(tree, path)
    vendor, product = _number(tree, f"{path}/vendor"), _number(tree, f"{path}/device")
    kind = _number(tree, f"{path}/class")
    group = _last(tree, f"{path}/iommu_group")
    device = replace(
        device,
        class_name="" if kind is None else f"{kind >> 8:04x}",
        pci_id=None if vendor is None or product is None else f"{vendor:04x}:{product:04x}",
        driver=_last(tree, f"{path}/driver"),
        msix=parse_msix(config),
    )
    return PciFunction(device, int(group) if group and group.isdecimal() else None, len(config))


def _config(tree: Tree, path: str) -> bytes:
    try:
        return tree.read(f"{path}/config", _LIMIT)
    except OSError:
        return b""


def _number(tree: Tree, path: str) -> int | None:
    try:
        return int(tree.text(path, 64), 16)
    except (OSError, ValueError):
        return None


def _last(tree: Tree, path: str) -> str | None:
    """Return the last name of what a link leads to."""
    try:
        return PurePosixPath(tree.link(path)).name or None
    except OSError:
        return None


def parse_msix(config: bytes) -> Msix | None:
    """Return the MSI-X capability in a function's configuration space, None where there is none in what was read."""
    if len(config) <= _STANDARD_HEADER or not config[_STATUS] & _STATUS_CAP_LIST:
        return None
    at = config[_CAPABILITY_LIST] & ~3
    for _ in range(_CAPABILITIES):  # a list that bites its tail ends, too
        if at < _STANDARD_HEADER or at + 12 > len(config):
            return None
        if config[at] == _CAP_ID_MSIX:
            control, table, pba = (
                int.from_bytes(config[at + start : at + end], "little") for start, end in ((2, 4), (4, 8), (8, 12))
            )
            if max(table & _BIR, pba & _BIR) >= BARS:
                return None
            return Msix(table & _BIR, table & ~_BIR, (control & 0x7FF) + 1, pba & _BIR, pba & ~_BIR)
        at = config[at + 1] & ~3
    return None
