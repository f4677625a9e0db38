"""The system calls s390_pci_mmio_read and s390_pci_mmio_write on a mapped BAR.

Read from arch/s390/pci/pci_mmio.c, pci_insn.c and pci.c and asm/pci_io.h of 6.12.117 and 6.1.192; pinned without MIO
by a recording of 7.2.12 (res1.*, vfio.*, nopfnmap), but for ENOSYS, ENODEV and the errors of cookies. What the PCI
instructions refuse is read from QEMU's hw/s390x/s390-pci-inst.c; what a device does is its own (`DeviceBar.parts`).

Without the MIO facility the physical address of a BAR is a cookie: an index from bit 48 up, from ZPCI_IOMAP_ADDR_BASE
on, that names a function and its BAR. User space cannot touch such a mapping itself; the calls look the PFN of its
mapping up and use the PCI instructions with what the cookie names. With the facility the instructions take the user's
address, and the calls look nothing up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from errno import EACCES, EFAULT, EINVAL, EIO, ENODEV, ENOSYS, ENXIO, errorcode
from typing import Any, ClassVar, Final

from pfnmap import Action, BadInput, Call, Device, DeviceBar, Machine, MmStruct, Module, Refused, ScenarioRun, VmArea
from pfnmap.contract.device import BarPart
from pfnmap.vm_flags import VM_IO, VM_PFNMAP, VM_READ, VM_WRITE

__all__ = ["ZPCI_ADDR", "PciMmio", "zpci_get_max_io_size"]

ZPCI_MAX_READ_SIZE: Final = 8
ZPCI_MAX_WRITE_SIZE: Final = 128
ZPCI_BOUNDARY_SIZE: Final = 1 << 12
ZPCI_IOMAP_SHIFT: Final = 48
ZPCI_IOMAP_ADDR_BASE: Final = 1 << 62
_DOUBLEWORD: Final = 8


def ZPCI_ADDR(idx: int) -> int:
    """Return the address (bytes) of the BAR of index `idx`, as the kernel numbers all BARs of all functions."""
    return ZPCI_IOMAP_ADDR_BASE | idx << ZPCI_IOMAP_SHIFT


def zpci_get_max_io_size(src: int, dst: int, length: int, most: int) -> int:
    """Return how many bytes one instruction moves at most: a power of two up to 8, or more if all is aligned to 8."""
    size = min(length, ZPCI_BOUNDARY_SIZE - dst % ZPCI_BOUNDARY_SIZE, most)
    if not (src | dst | size) % _DOUBLEWORD:
        return size
    return _DOUBLEWORD if size >= _DOUBLEWORD else 1 << size.bit_length() - 1


class PciMmio(Module):
    """The two calls, and the contents of the BARs: zeroes until something is written."""

    name: ClassVar[str] = "s390"
    provides: ClassVar[tuple[str, ...]] = ("s390_pci_mmio_read", "s390_pci_mmio_write")
    consumes: ClassVar[tuple[str, ...]] = (
        "copy_from_user",
        "copy_to_user",
        "fixup_user_fault",
        "follow_pfnmap",
        "follow_pte",
        "mmap_lock",
    )

    def boot(self, machine: Machine) -> None:
        """Begin with BARs that nobody has written to."""
        super().boot(machine)
        kernel = machine.kernel
        self._bars: tuple[DeviceBar, ...] = ()
        self._contents: dict[int, int] = {}
        self._page = kernel.geometry.PAGE_SIZE
        self._mio = bool(kernel.cpu["mio"])
        self._faults_in = kernel.has("s390-pci-mmio-fault")

    def zpci_scan_devices(self, devices: Iterable[Device]) -> None:
        """Learn which functions there are; their BARs lie where the devices say (zpci_setup_bus_resources)."""
        self._bars = tuple(bar for device in devices for bar in device.bars.values())

    # The system calls

    def write(self, mm: MmStruct, mmio_addr: int, buffer: int | None, data: bytes) -> int:
        """s390_pci_mmio_write: move `data` from user memory at `buffer` (None: resident memory) to a BAR that is mapped
        at `mmio_addr`; return 0 or -errno.

        In this order. -ENOSYS: built without PCI. -ENODEV: no PCI facilities. -EINVAL: nothing to move, or not within
        one page. -EFAULT: the buffer. -EINVAL: no mapping, or none of I/O memory. -EACCES: not a writable one; whether
        the entry is writable is not asked. -EINVAL: no entry. -EFAULT: an address below the window of BARs. Then what
        the instruction answers: -EIO for a cookie that no BAR has, -ENXIO for a place that the BAR does not have.
        """
        if error := self._refused(mmio_addr, len(data)):
            return error
        if self._mio:
            return self._memcpy_toio_inuser(mm, mmio_addr, buffer, data)
        if buffer is not None and self.machine.mm.copy_from_user(mm, buffer, len(data)):
            return -EFAULT
        io_addr = self._look_up(mm, mmio_addr, VM_WRITE, self.machine.mm.FAULT_FLAG_WRITE)
        return io_addr if io_addr < 0 else self._memcpy_toio(io_addr, data)

    def read(self, mm: MmStruct, mmio_addr: int, buffer: int | None, length: int) -> tuple[int, bytes]:
        """s390_pci_mmio_read: move `length` bytes to user memory; return (0 or -errno, the bytes).

        As `write`, but that the buffer is touched last, and what permission the mapping has to give: VM_READ from
        `s390-pci-mmio-fault` on, before it VM_WRITE as for a write.
        """
        if error := self._refused(mmio_addr, length):
            return error, b""
        if self._mio:
            return self._memcpy_fromio_inuser(mm, mmio_addr, buffer, length)
        io_addr = self._look_up(mm, mmio_addr, VM_READ if self._faults_in else VM_WRITE, 0)
        if io_addr < 0:
            return io_addr, b""
        error, data = self._memcpy_fromio(io_addr, length)
        if not error and buffer is not None and self.machine.mm.copy_to_user(mm, buffer, length):
            error = -EFAULT
        return error, b"" if error else data

    def _refused(self, mmio_addr: int, length: int) -> int:
        if not self.kernel.config.enabled("PCI"):
            return -ENOSYS
        if not self.kernel.cpu["zpci"]:
            return -ENODEV
        if not length or self._page - mmio_addr % self._page < length:
            return -EINVAL
        return 0

    def _look_up(self, mm: MmStruct, mmio_addr: int, access: int, fault_flags: int) -> int:
        """Return the address that a mapping stands for, as the PFN of its entry tells, or -errno."""
        with self.machine.mm.mmap_lock(mm):
            vma = mm.vma_lookup(mmio_addr)
            if vma is None or not vma.vm_flags & (VM_IO | VM_PFNMAP):
                return -EINVAL
            if not vma.vm_flags & access:
                return -EACCES
            pfn = self._follow(vma, mmio_addr)
            if pfn is None and self._faults_in:
                self.machine.mm.fixup_user_fault(mm, mmio_addr, fault_flags)
                pfn = self._follow(vma, mmio_addr)
        if pfn is None:
            return -EINVAL
        io_addr = pfn * self._page + mmio_addr % self._page
        return -EFAULT if io_addr < ZPCI_IOMAP_ADDR_BASE else io_addr

    def _follow(self, vma: VmArea, address: int) -> int | None:
        """The PFN that is mapped at an address, by follow_pfnmap_start or, before `huge-pfnmap`, by follow_pte."""
        if not self.kernel.has("huge-pfnmap"):
            pte = self.machine.mm.follow_pte(vma, address)
            return None if pte is None else int(self.kernel.ops.pte_pfn(pte))
        with self.machine.mm.follow_pfnmap(vma, address) as args:
            return None if args is None else int(args.pfn)

    # Without MIO: copies between a BAR and the kernel's buffer, taken to be aligned to 8 and to lie in one page

    def _memcpy_toio(self, io_addr: int, data: bytes) -> int:
        done = 0
        while done < len(data):
            size = zpci_get_max_io_size(io_addr + done, done, len(data) - done, ZPCI_MAX_WRITE_SIZE)
            self.machine.trace.emit(Call("zpci_write_block" if size > _DOUBLEWORD else "zpci_store", io_addr + done))
            error = self._by_cookie(io_addr + done, size)
            if error:
                return error
            self._store(io_addr + done, data[done : done + size])
            done += size
        return 0

    def _memcpy_fromio(self, io_addr: int, length: int) -> tuple[int, bytes]:
        data = b""
        while len(data) < length:
            at = io_addr + len(data)
            size = zpci_get_max_io_size(at, len(data), length - len(data), ZPCI_MAX_READ_SIZE)
            self.machine.trace.emit(Call("zpci_load", at))
            error = self._by_cookie(at, size)
            if error:
                return error, b""
            data += self._load(at, size)
        return 0, data

    def _by_cookie(self, io_addr: int, size: int) -> int:
        """What PCI LOAD, STORE and STORE BLOCK answer: 0; -EIO for a handle that names no function (condition code 3);
        -ENXIO where they raise an exception."""
        offset = io_addr % (1 << ZPCI_IOMAP_SHIFT)
        bar = next((bar for bar in self._bars if bar.phys == io_addr - offset), None)
        if bar is None:
            return -EIO
        return self._operands(bar, offset, size)

    @staticmethod
    def _operands(bar: DeviceBar, offset: int, size: int) -> int:
        crosses = size <= _DOUBLEWORD and offset % _DOUBLEWORD + size > _DOUBLEWORD
        if crosses or offset + size > bar.size:
            return -ENXIO
        if bar.parts is None:
            return 0
        step = min(size, _DOUBLEWORD)  # a block is stored by doublewords
        return 0 if all(_answers(bar.parts, at, step) for at in range(offset, offset + size, step)) else -ENXIO

    def memcpy_io(self, phys: int, size: int, write: bool) -> int:
        """memcpy_fromio and memcpy_toio: of a BAR by PCI instructions, of anything else plainly. What the device
        refuses reads as ones (res1.rw, generic_access_phys)."""
        if not self._mio and phys >= ZPCI_IOMAP_ADDR_BASE:
            if write:
                self._memcpy_toio(phys, bytes(size))
            else:
                self._memcpy_fromio(phys, size)
        return 0

    # With MIO: the instructions take user addresses, of the mapping and of the buffer, and either may fault

    def _memcpy_toio_inuser(self, mm: MmStruct, dst: int, src: int | None, data: bytes) -> int:
        """An unreadable buffer is -ENXIO too: the code that would say -EFAULT is not reached with it."""
        if src == 0:
            return -EINVAL
        done = 0
        while done < len(data):
            size = zpci_get_max_io_size(dst + done, (src or 0) + done, len(data) - done, ZPCI_MAX_WRITE_SIZE)
            if src is not None and not self._touches(mm, src + done, size, write=False):
                return -ENXIO
            io_addr, error = self._in_user(mm, dst + done, size, write=True)
            if error:
                return error
            self._store(io_addr, data[done : done + size])
            done += size
        return 0

    def _memcpy_fromio_inuser(self, mm: MmStruct, src: int, dst: int | None, length: int) -> tuple[int, bytes]:
        data = b""
        while len(data) < length:
            done = len(data)
            size = zpci_get_max_io_size(src + done, (dst or 0) + done, length - done, ZPCI_MAX_READ_SIZE)
            io_addr, error = self._in_user(mm, src + done, size, write=False)
            if not error and dst is not None and not self._touches(mm, dst + done, size, write=True):
                error = -EFAULT
            if error:
                return error, b""
            data += self._load(io_addr, size)
        return 0, data

    def _in_user(self, mm: MmStruct, address: int, size: int, *, write: bool) -> tuple[int, int]:
        """Return (the address that is mapped there, 0), or (0, -errno) where the instruction raises an exception."""
        if not self._touches(mm, address, size, write=write):
            return 0, -ENXIO
        vma = mm.vma_lookup(address)
        with self.machine.mm.mmap_lock(mm):
            mapped = vma is not None and vma.vm_flags & (VM_IO | VM_PFNMAP)
            pfn = self._follow(vma, address) if vma is not None and mapped else None
        io_addr = -1 if pfn is None else pfn * self._page + address % self._page
        for bar in self._bars:
            if bar.phys <= io_addr < bar.phys + bar.size:
                return io_addr, self._operands(bar, io_addr - bar.phys, size)
        raise Refused("pci_mmio", f"a MIO instruction on {address:#x}, where no BAR is mapped")

    def _touches(self, mm: MmStruct, address: int, size: int, *, write: bool) -> bool:
        """Whether the kernel can access user memory, faulting it in."""
        copy = self.machine.mm.copy_to_user if write else self.machine.mm.copy_from_user
        last = address + size - 1
        crosses = address // self._page != last // self._page
        return all(copy(mm, at, 1) == 0 for at in ((address, last) if crosses else (address,)))

    # The contents of BARs, in the order of bytes that both sides see

    def _store(self, io_addr: int, data: bytes) -> None:
        self._contents.update(enumerate(data, io_addr))

    def _load(self, io_addr: int, size: int) -> bytes:
        return bytes(self._contents.get(io_addr + n, 0) for n in range(size))

    # As scenario actions

    def actions(self) -> Mapping[str, Action]:
        """Return the calls as scenario actions. `data` are bytes in hex; without `buffer` they are resident memory."""
        optional = frozenset({"buffer"})
        return {
            "pci_mmio_write": Action(self._write, {"va": "address", "data": "str", "buffer": "address"}, optional),
            "pci_mmio_read": Action(self._read, {"va": "address", "length": "size", "buffer": "address"}, optional),
        }

    def _write(self, run: ScenarioRun, va: int, data: str, buffer: int | None = None) -> dict[str, Any]:
        try:
            moved = bytes.fromhex(data)
        except ValueError:
            raise BadInput("data", f"{data!r:.40} is no bytes in hex") from None
        self.zpci_scan_devices(run.devices.values())
        return _result(self.write(run.current, va, buffer, moved))

    def _read(self, run: ScenarioRun, va: int, length: int, buffer: int | None = None) -> dict[str, Any]:
        if length < 0:
            raise BadInput("length", f"{length} is negative")
        self.zpci_scan_devices(run.devices.values())
        error, data = self.read(run.current, va, buffer, length)
        return _result(error) if error else {**_result(error), "data": data.hex()}


def _answers(parts: Iterable[BarPart], offset: int, size: int) -> bool:
    """Tell whether a device answers an access."""
    return offset % size == 0 and any(
        size in part.sizes and part.offset <= offset and offset + size <= part.offset + part.length for part in parts
    )


def _result(ret: int) -> dict[str, Any]:
    return {"result": errorcode[-ret] if ret < 0 else "ok"}
