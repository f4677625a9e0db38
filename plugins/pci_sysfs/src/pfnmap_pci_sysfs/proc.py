"""/proc/bus/pci/BUS/DEV.FN (drivers/pci/proc.c).

An open file maps I/O ports until PCIIOC_MMAP_IS_MEM says otherwise, which most architectures cannot: -EINVAL, as in
pat.proc_bus and res.of_vfio_device of 6.12.117. That this is the reason there is inference.
"""

from __future__ import annotations

from errno import EINVAL

from pfnmap import File, FileOperations, Machine, Refused, VmArea

__all__ = ["open_procbus"]

_CAN_PCI_MMAP_IO = ("powerpc64", "sparc64")
"""arch_can_pci_mmap_io()."""


def open_procbus(machine: Machine) -> File:
    """Open a device's file."""
    return File(FileOperations(_proc_bus_pci_mmap, lambda file: "/proc/bus/pci"), machine, None)


def _proc_bus_pci_mmap(file: File, vma: VmArea) -> int:
    if file.machine.kernel.arch.name in _CAN_PCI_MMAP_IO:
        raise Refused("procbus_mmap", "I/O ports in memory are not modelled")
    return -EINVAL
