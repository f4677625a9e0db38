"""The files resourceN and resourceN_wc of a PCI device in sysfs, through which DPDK and others map BARs.

Sources: drivers/pci/mmap.c (pci_mmap_fits, pci_mmap_resource_range), drivers/pci/pci-sysfs.c (pci_mmap_resource,
pci_create_resource_files) and fs/kernfs/file.c (kernfs_vm_ops) of 6.12.117. Pinned by the res.* records of 6.12.117;
s390 by what 6.12.107 and 7.2.12 have in sysfs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from errno import EINVAL, ENOENT, errorcode
from typing import Any, ClassVar

from pfnmap import (
    Action,
    BadInput,
    Device,
    DeviceBar,
    Driver,
    File,
    FileOperations,
    Has,
    Machine,
    Refused,
    ScenarioRun,
    Unknown,
    VmArea,
    VmFault,
    VmOperations,
)
from pfnmap.contract.mapping import MappedPart
from pfnmap.contract.plan import Image, RegionRules, Request
from pfnmap.contract.vma import PROT_TO_VM, prot_flags
from pfnmap.records import dataclass

from .mem import open_devmem
from .plan import region_rules
from .proc import open_procbus

FILE_OFFSET_SHIFT = 40

_CAN_PCI_MMAP_WC = {
    "arm64": True,
    "loongarch64": False,
    "powerpc64": True,
    "riscv64": False,
    "sparc64": False,
    "x86_64": True,
}
"""arch_can_pci_mmap_wc() by architecture, in its asm/pci.h or include/linux/pci.h; x86's asks whether PAT is on, which
here it is."""


@dataclass(frozen=True)
class Resources:
    """What an open file stands for: the BARs of a device, in the files resourceN or (`write_combine`) resourceN_wc."""

    pdev: Device
    write_combine: bool = False


_RESOURCE = r"/sys/.*/([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])/resource([0-5])(?:_wc)?"


class PciSysfs(Driver):
    """The ways past drivers to BARs in one booted machine: sysfs' resource files of every device, /dev/mem and
    /proc/bus/pci. As a device's driver it stands for none: nobody has requested its BARs."""

    name = "pci_sysfs"
    provides: ClassVar[tuple[str, ...]] = ("pci_mmap_resource", "pci_mmap_resource_range")
    consumes: ClassVar[tuple[str, ...]] = (
        "do_mmap",
        "generic_access_phys",
        "iomem_is_exclusive",
        "remap_pfn_range",
        "request_mem_region",
    )

    @classmethod
    def mapped(cls, path: str, offset: int | None, has: Has) -> MappedPart | None:
        """Return the BAR of ``/sys/devices/.../0000:3b:00.0/resource2``; the offset column is the physical address."""
        found = re.fullmatch(_RESOURCE, path)
        return MappedPart(device=found[1], bar=int(found[2]), phys=offset) if found else None

    @classmethod
    def region(cls, kernel: Image, request: Request, others: Sequence[Request]) -> RegionRules:
        """Tell the planner how a BAR is mapped."""
        return region_rules(kernel, request)

    def boot(self, machine: Machine) -> None:
        """Begin without devices."""
        super().boot(machine)
        access = machine.mm.generic_access_phys if machine.kernel.config.enabled("HAVE_IOREMAP_PROT") else None
        # kernfs_vm_ops: pci_phys_vm_ops, which it wraps, has no fault, and page_mkwrite only notes the time.
        self._vm_ops = VmOperations(fault=self._fault, page_mkwrite=lambda vmf: 0, access=access)

    def probe(self, device: Device) -> File:
        """Return the resource files of a device, all of them as one file."""
        return self._open_resource(device, write_combine=False)

    def _open_resource(self, device: Device, *, write_combine: bool) -> File:
        """sysfs_kf_bin_open: what the file maps is found through the address space of all I/O memory."""
        file = self.open(Resources(device, write_combine))
        file.f_mapping = self.machine.iomem.mapping
        return file

    def mmap_offset(self, bar: int, offset: int) -> int:
        """The BAR in the bits from 40 up: in sysfs each is a file of its own, whose offsets begin at 0. What is left of
        the offset after mmap, vm_pgoff, is the PFN."""
        return (bar << FILE_OFFSET_SHIFT) + offset

    def mmap(self, file: File, vma: VmArea) -> int:
        """pci_mmap_resource: fill the vma with base pages, device memory or write-combining; private ones too.

        -EINVAL beyond the BAR, which counts in whole pages, for a BAR that a driver has requested (with
        IO_STRICT_DEVMEM), and where PAT has two memory types in the range; and where there is no such file, what open
        gives: -ENOENT.
        """
        kernel = self.kernel
        resources: Resources = file.private_data
        shift = kernel.geometry.PAGE_SHIFT
        index, pgoff = divmod(vma.vm_pgoff, 1 << (FILE_OFFSET_SHIFT - shift))
        bar = resources.pdev.bars.get(index)
        if bar is None or not self._exists(bar, resources.write_combine):
            return -ENOENT
        if self.machine.mm.iomem_is_exclusive(self.machine, bar.phys):
            return -EINVAL
        if pgoff + (vma.size >> shift) > ((bar.size - 1) >> shift) + 1:
            return -EINVAL
        ops = kernel.ops
        caching = ops.pgprot_writecombine if resources.write_combine else ops.pgprot_device
        prot = vma.vm_page_prot = caching(vma.vm_page_prot)
        vma.vm_pgoff = pfn = (bar.phys >> shift) + pgoff
        vma.vm_ops = self._vm_ops
        return int(self.machine.mm.remap_pfn_range(vma, vma.vm_start, pfn, vma.size, ops.pgprot_decrypted(prot)))

    def _exists(self, bar: DeviceBar, write_combine: bool) -> bool:
        """pci_create_resource_files. On s390 there are none before 6.16 (a 6.12.107 has none, a 7.2.12 has)."""
        arch = self.kernel.arch.name
        if arch == "s390" and not self.kernel.has("kconfig-6.16"):
            return False
        if not write_combine:
            return True
        if arch not in _CAN_PCI_MMAP_WC:
            raise Refused("resourceN_wc", f"whether {arch} has such files (arch_can_pci_mmap_wc) is not known")
        return _CAN_PCI_MMAP_WC[arch] and bar.prefetchable is not False

    def _fault(self, vmf: VmFault) -> int:
        """kernfs_vma_fault."""
        return self.machine.mm.VM_FAULT_SIGBUS

    def file_operations(self) -> FileOperations:
        """sysfs is noexec."""
        return FileOperations(self.mmap, self.path, noexec=True)

    def path(self, file: File) -> str:
        """Not known: a sysfs path leads through the bridges above the device."""
        raise Refused("path", "the path of a BAR in sysfs goes through bridges that are not modelled")

    # actions

    def actions(self) -> Mapping[str, Action]:
        """What scenarios may do with sysfs' BARs besides mmap of a device whose driver is pci_sysfs."""
        where = {"device": "str", "bar": "bar", "length": "size", "prot": "str", "shared": "bool"}
        optional = {"offset": "size", "addr": "address", "fixed": "bool"}
        own: dict[str, tuple[Callable[..., Any], dict[str, str]]] = {
            "res_mmap": (self._res_mmap, {"populate": "bool", "wc": "bool"}),
            "devmem_mmap": (self._devmem_mmap, {"sync": "bool"}),
            "procbus_mmap": (self._procbus_mmap, {"wc": "bool"}),
        }
        request = Action(self._request_region, {"device": "str", "bar": "bar", "name": "str"})
        return {"request_region": request} | {
            name: Action(run, {**where, **optional, **more}, frozenset({*optional, *more}))
            for name, (run, more) in own.items()
        }

    def _res_mmap(
        self,
        run: ScenarioRun,
        device: str,
        bar: int,
        length: int,
        prot: str,
        shared: bool,
        offset: int = 0,
        addr: int = 0,
        fixed: bool = False,
        populate: bool = False,
        wc: bool = False,
    ) -> dict[str, Any]:
        """mmap of resourceN, with `wc` of resourceN_wc. `populate` finds all there. `step`: "open" where there is no
        such file."""
        if device not in run.devices:
            raise Unknown("device", device, run.devices)
        opened = run.devices[device]
        found = opened.bars.get(bar)
        if found is None or not self._exists(found, wc):
            return {"result": "ENOENT", "step": "open"}
        file = self._open_resource(opened, write_combine=wc)
        where = (run.current, file, addr, length, _protection(prot), self.mmap_offset(bar, offset))
        return _mapped(self.machine.mm.do_mmap(*where, fixed=fixed, shared=shared))

    def _request_region(self, run: ScenarioRun, device: str, bar: int, name: str) -> dict[str, Any]:
        """pci_request_region of a BAR by some other driver, of that name, which is not modelled otherwise."""
        found = run.bar(device, bar)
        error = self.machine.mm.request_mem_region(self.machine, found.phys, found.size, name)
        return {"result": errorcode[-error] if error else "ok"}

    def _devmem_mmap(
        self,
        run: ScenarioRun,
        device: str,
        bar: int,
        length: int,
        prot: str,
        shared: bool,
        offset: int = 0,
        addr: int = 0,
        fixed: bool = False,
        sync: bool = False,
    ) -> dict[str, Any]:
        """mmap of /dev/mem, with `sync` opened with O_SYNC, at the physical address of a part of a BAR."""
        at = run.bar(device, bar).phys + offset
        where = (run.current, open_devmem(self.machine, sync=sync), addr, length, _protection(prot), at)
        return _mapped(self.machine.mm.do_mmap(*where, fixed=fixed, shared=shared))

    def _procbus_mmap(
        self,
        run: ScenarioRun,
        device: str,
        bar: int,
        length: int,
        prot: str,
        shared: bool,
        offset: int = 0,
        addr: int = 0,
        fixed: bool = False,
        wc: bool = False,
    ) -> dict[str, Any]:
        """mmap of a device's file in /proc/bus/pci as it was opened, without PCIIOC_MMAP_IS_MEM (with `wc`:
        PCIIOC_WRITE_COMBINE)."""
        at = run.bar(device, bar).phys + offset
        where = (run.current, open_procbus(self.machine), addr, length, _protection(prot), at)
        return _mapped(self.machine.mm.do_mmap(*where, fixed=fixed, shared=shared))


def _mapped(got: int) -> dict[str, Any]:
    return {"result": errorcode[-got]} if got < 0 else {"addr": hex(got)}


def _protection(prot: str) -> int:
    for letter in prot if prot != "none" else "":
        if letter not in PROT_TO_VM:
            raise BadInput("mmap", f"prot {letter!r} is none of r, w, x")
    return prot_flags("".join(dict.fromkeys(prot)) if prot != "none" else prot)
