"""vmas, address spaces and what a fault carries: the kernel's structures, with the fields the model needs.

Sources: include/linux/mm_types.h, include/linux/fs.h, include/linux/mm.h, mm/vma.c. Addresses and lengths are in bytes,
`vm_pgoff` in base pages.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import field
from errno import errorcode
from typing import Any

from pfnmap.contract.fault import FAULT_FLAG_WRITE
from pfnmap.contract.geometry import WalkLevel
from pfnmap.contract.kernel import LinkedKernel, MachineState
from pfnmap.contract.page_tables import PageTables
from pfnmap.contract.slot import Slot
from pfnmap.errors import Misuse
from pfnmap.records import dataclass
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_WRITE

__all__ = [
    "PROT_TO_VM",
    "AddressSpace",
    "AnonVma",
    "File",
    "FileOperations",
    "MmStruct",
    "PfnmapTrackCtx",
    "VmArea",
    "VmFault",
    "VmOperations",
    "answered",
    "prot_flags",
]

PROT_TO_VM = {"r": VM_READ, "w": VM_WRITE, "x": VM_EXEC}


def prot_flags(prot: str) -> int:
    """Return the VM_ flags of a protection in words: "none", or any of r, w, x ("rw")."""
    return 0 if prot == "none" else sum(PROT_TO_VM[letter] for letter in prot)


def answered(op: Callable[..., int], value: object) -> int:
    """Return the number that an op of a file or a vma gave. Raises Misuse, with the op's name, for anything else."""
    if not isinstance(value, int):
        raise Misuse(_who(op), f"gave {type(value).__name__} where a number is expected")
    return value


def errno_of(op: Callable[..., int], value: object) -> int:
    """Return the number that an op gave, which if negative is an errno. Raises Misuse, with the op's name, for anything
    else."""
    number = answered(op, value)
    if number < 0 and -number not in errorcode:
        raise Misuse(_who(op), f"gave {number}, which is no errno")
    return number


def _who(op: Callable[..., int]) -> str:
    return f"{getattr(op, '__module__', '?')}.{getattr(op, '__qualname__', '?')}"


@dataclass(eq=False)
class AddressSpace:
    """address_space: what `unmap_mapping_range` walks, the vmas that map one file, in the order they were linked."""

    machine: MachineState
    i_mmap: dict[int, VmArea] = field(default_factory=dict)

    def insert(self, vma: VmArea) -> None:
        """Link a vma."""
        self.i_mmap[id(vma)] = vma

    def remove(self, vma: VmArea) -> None:
        """Unlink a vma."""
        del self.i_mmap[id(vma)]


@dataclass(frozen=True)
class FileOperations:
    """file_operations and the path of an open file, as far as mmap and /proc ask them. An op that is None is absent."""

    mmap: Callable[[File, VmArea], int]
    """``mmap(file, vma)``: map the file into a new vma; return 0 or a negative errno."""

    path: Callable[[File], str]
    """``path(file)``: what /proc shows."""

    get_mapping_order: Callable[[File, int, int], int] | None = None
    """``get_mapping_order(file, offset, length)``: the largest order (log2 of base pages) that a mapping of `length`
    bytes from file offset `offset` (bytes) can have leaves of; asked where a release has `get-mapping-order`."""

    fsync: bool = False
    """msync reaches the file (fsync); without, it is EINVAL."""

    noexec: bool = False
    """The file system that the file is of allows no PROT_EXEC (path_noexec)."""


@dataclass(eq=False)
class File:
    """An open file: its operations, the machine that it is open on, and the driver's own `private_data`. `f_mapping`:
    the address space of what it maps."""

    f_op: FileOperations
    machine: MachineState
    private_data: Any
    f_mapping: AddressSpace = field(init=False)

    def __post_init__(self) -> None:
        self.f_mapping = AddressSpace(self.machine)


@dataclass(eq=False)
class AnonVma:
    """anon_vma: what the private pages of a vma belong to. `singular`: the vma's chain has this one alone, that is, the
    vma does not come from a fork of one that had pages (list_is_singular)."""

    singular: bool = True


@dataclass(eq=False)
class PfnmapTrackCtx:
    """pfnmap_track_ctx: `size` bytes from `pfn` on are tracked until the last of `vmas` is gone, whatever of them is
    still mapped."""

    pfn: int
    size: int
    vmas: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class VmOperations:
    """vm_operations_struct: what a vma's driver answers. An op that is None is absent, as a NULL pointer is."""

    fault: Callable[[VmFault], int] | None
    """``fault(vmf)``: map the page at `vmf.address` and return a VM_FAULT code. Without it a page that is not there is
    SIGBUS."""

    huge_fault: Callable[[VmFault, int], int] | None = None
    """``huge_fault(vmf, order)``: map the block of 2**order base pages around `vmf.address` with one leaf and return
    VM_FAULT_NOPAGE, or map nothing and return VM_FAULT_FALLBACK: then the next smaller order is asked for."""

    alike: Callable[[VmFault], int] | None = None
    """``alike(vmf)``: for how many bytes from `vmf.address` on the handlers would answer alike, whatever was mapped of
    them before: each page is mapped to the PFN after that of the page before it, and an order is answered by how the
    block around an address lies in the vma and how its PFN is aligned, by nothing else. No function of the kernel's:
    what is alike the mm may make at once. Without it, page by page."""

    map_pages: Callable[[VmFault], int] | None = None
    """``map_pages(vmf)``: a read fault maps what the page cache has around it; return VM_FAULT_NOPAGE where the page
    was there, else 0. Its being there has `fault` called under the per-VMA lock."""

    page_mkwrite: Callable[[VmFault], int] | None = None
    """``page_mkwrite(vmf)``: a read-only page is about to become writable. Its being there has entries made read-only,
    also those of a pfnmap, for which it is never called (vma_wants_writenotify)."""

    pfn_mkwrite: Callable[[VmFault], int] | None = None
    """``pfn_mkwrite(vmf)``: the same of a pfnmap's entry; return 0 or a VM_FAULT code."""

    access: Callable[[VmArea, int, int, bool], int] | None = None
    """``access(vma, address, length, write)``: serve access_process_vm (ptrace); return bytes moved or a negative
    errno."""

    open: Callable[[VmArea], None] | None = None
    """``open(vma)``: a vma that a split or a fork made."""

    close: Callable[[VmArea], None] | None = None
    """``close(vma)``: a vma is gone."""


@dataclass(eq=False)
class VmArea:
    """vm_area_struct: [vm_start, vm_end) in bytes, flags, protection, file and page offset. `anon_vma` is the
    identity of the anon_vma that its private pages belong to, `vm_policy` that of its memory policy; `pfnmap_track_ctx`
    what the architecture tracks of it."""

    vm_mm: MmStruct
    vm_start: int
    vm_end: int
    vm_flags: int
    vm_pgoff: int = 0
    vm_file: File | None = None
    vm_ops: VmOperations | None = None
    vm_page_prot: int = 0
    vm_private_data: Any = None
    anon_vma: AnonVma | None = None
    vm_policy: object | None = None
    pfnmap_track_ctx: PfnmapTrackCtx | None = None

    @property
    def is_anonymous(self) -> bool:
        """vma_is_anonymous: no vm_ops."""
        return self.vm_ops is None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.vm_end - self.vm_start


@dataclass(slots=True, eq=False)
class VmFault:
    """vm_fault: what a handler is told. `address` is page-aligned, `real_address` not; `pmd` and `pud` are slots."""

    vma: VmArea
    address: int
    real_address: int
    flags: int
    pud: Slot | None = None
    pmd: Slot | None = None

    @property
    def write(self) -> bool:
        """Whether this is a write fault."""
        return bool(self.flags & FAULT_FLAG_WRITE)


class MmStruct:
    """mm_struct: the address space of a process; `pid` tells processes apart in the trace.

    `has_pinned`: a page was pinned once (MMF_HAS_PINNED). `levels`: the levels that its tables have, if not those of a
    new process.
    """

    def __init__(self, machine: MachineState, pid: int = 1, levels: tuple[WalkLevel, ...] | None = None) -> None:
        self.machine = machine
        self.kernel: LinkedKernel = machine.kernel
        self.pid = pid
        self.has_pinned = False
        self.thp_disabled = False
        self.thp_disabled_except_advised = False
        self.def_flags = 0
        self.mmu_notifiers: list[Callable[[int, int], None]] = []
        self.tables = PageTables(machine, levels)
        self._starts: list[int] = []
        self._vmas: list[VmArea] = []

    @property
    def pgtables_bytes(self) -> int:
        """What VmPTE shows: bytes of PTE, PMD and PUD tables."""
        return self.tables.pgtables_bytes

    def __iter__(self) -> Iterator[VmArea]:
        """Iterate over the vmas in ascending order."""
        return iter(list(self._vmas))

    def find_vma(self, address: int) -> VmArea | None:
        """Return the first vma that ends above `address`, or None (it may start above it)."""
        index = bisect_right(self._starts, address)
        if index and self._vmas[index - 1].vm_end > address:
            return self._vmas[index - 1]
        return self._vmas[index] if index < len(self._vmas) else None

    def vma_lookup(self, address: int) -> VmArea | None:
        """Return the vma that holds `address`, or None."""
        index = bisect_right(self._starts, address)
        if index and self._vmas[index - 1].vm_end > address:
            return self._vmas[index - 1]
        return None

    def intersecting(self, start: int, end: int) -> list[VmArea]:
        """Return the vmas that overlap [start, end), ascending."""
        index = bisect_right(self._starts, start)
        if index and self._vmas[index - 1].vm_end > start:
            index -= 1
        return self._vmas[index : bisect_left(self._starts, end)]

    def previous(self, address: int) -> VmArea | None:
        """Return the last vma that starts below `address`, or None."""
        index = bisect_left(self._starts, address)
        return self._vmas[index - 1] if index else None

    def insert(self, vma: VmArea) -> None:
        """Link a vma into the address space and its file's mapping."""
        index = bisect_left(self._starts, vma.vm_start)
        self._starts.insert(index, vma.vm_start)
        self._vmas.insert(index, vma)
        if vma.vm_file is not None:
            vma.vm_file.f_mapping.insert(vma)

    def remove(self, vma: VmArea) -> None:
        """Unlink a vma."""
        index = bisect_left(self._starts, vma.vm_start)
        assert self._vmas[index] is vma
        del self._starts[index], self._vmas[index]
        if vma.vm_file is not None:
            vma.vm_file.f_mapping.remove(vma)

    def resize(self, vma: VmArea, start: int, end: int) -> None:
        """Change the ends of a linked vma, its page offset with the start (vma_adjust without the tables)."""
        index = bisect_left(self._starts, vma.vm_start)
        assert self._vmas[index] is vma
        vma.vm_pgoff += (start - vma.vm_start) >> self.kernel.geometry.PAGE_SHIFT
        self._starts[index] = start
        vma.vm_start, vma.vm_end = start, end
