"""A booted machine, as far as plugins know it, and what they may call of the mm core by kernel name:
``machine.mm.vmf_insert_pfn_pmd(...)``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final

from pfnmap.contract import fault
from pfnmap.contract.follow import FollowPfnmapArgs
from pfnmap.contract.iomem import IoMem
from pfnmap.contract.kernel import MachineState
from pfnmap.contract.vma import AddressSpace, MmStruct, VmArea, VmFault
from pfnmap.records import dataclass

__all__ = ["FOLL_FORCE", "FOLL_LONGTERM", "FOLL_WRITE", "Machine", "MmFunctions", "PfnSpace"]

FOLL_WRITE: Final = 0x1
FOLL_FORCE: Final = 0x8
FOLL_LONGTERM: Final = 0x100


@dataclass(frozen=True)
class PfnSpace:
    """pfn_address_space: `count` PFNs from `pfn` on, which `mapping` has from page offset `pgoff` on."""

    mapping: AddressSpace
    pfn: int
    count: int
    pgoff: int


@dataclass(frozen=True, kw_only=True)
class MmFunctions:
    """The functions, each documented where `pfnmap.mm` defines it; addresses and sizes in bytes, PFNs of base pages."""

    do_mmap: Callable[..., int]

    vmf_insert_pfn: Callable[[VmArea, int, int], int]
    vmf_insert_pfn_pmd: Callable[[VmFault, int, bool], int]
    vmf_insert_pfn_pud: Callable[[VmFault, int, bool], int]
    insert_pfns: Callable[[VmArea, int, int, int, int], None]
    remap_pfn_range: Callable[[VmArea, int, int, int, int], int]
    unmap_mapping_range: Callable[[AddressSpace, int, int], None]
    zap_vma_ptes: Callable[[VmArea, int, int], None]

    register_pfn_address_space: Callable[[Machine, PfnSpace], None]
    is_poisoned: Callable[[Machine, int, int], bool]

    mmu_notifier_register: Callable[[MmStruct, Callable[[int, int], None]], None]

    mmap_lock: Callable[[MmStruct], AbstractContextManager[Any]]
    i_mmap_rwsem: Callable[[AddressSpace], AbstractContextManager[Any]]

    follow_pfnmap_start: Callable[[FollowPfnmapArgs], int]
    follow_pfnmap_end: Callable[[FollowPfnmapArgs], None]
    follow_pfnmap: Callable[[VmArea, int], AbstractContextManager[FollowPfnmapArgs | None]]
    follow_pte: Callable[[VmArea, int], int | None]
    follow_again: Callable[[VmArea, int, int], int]
    each_page: Callable[[MmStruct, int, int, Callable[[int], bool], str], Iterator[tuple[int, int, int]]]
    generic_access_phys: Callable[[VmArea, int, int, bool], int]
    access_process_vm: Callable[[MmStruct, int, int, int], int]

    ioremap: Callable[[MachineState, int, int], int]
    iounmap: Callable[[MachineState, int, int], None]
    request_mem_region: Callable[[Machine, int, int, str], int]
    release_mem_region: Callable[[Machine, int, int], None]
    iomem_is_exclusive: Callable[[Machine, int], bool]

    fixup_user_fault: Callable[[MmStruct, int, int], tuple[int, bool]]
    get_user_pages_fast: Callable[[MmStruct, int, int, int, list[int]], int]
    get_user_pages_fast_only: Callable[[MmStruct, int, int, int, list[int]], int]
    get_user_pages_unlocked: Callable[[MmStruct, int, int, int, list[int]], int]
    put_pages: Callable[[MachineState, Iterable[int]], None]
    pin_user_pages_fast: Callable[[MmStruct, int, int, int, list[int]], int]
    pin_user_pages_remote: Callable[[MmStruct, int, int, int, list[int]], int]
    unpin_user_pages: Callable[[MachineState, Iterable[int]], None]

    copy_from_user: Callable[[MmStruct, int, int], int]
    copy_to_user: Callable[[MmStruct, int, int], int]

    folio_walk_start: Callable[..., Any]
    pfn_valid: Callable[[MachineState, int], bool]
    vm_normal_page: Callable[[VmArea, int, int], int | None]
    vm_normal_page_pmd: Callable[[VmArea, int, int], int | None]
    vm_normal_page_pud: Callable[[VmArea, int, int], int | None]

    FollowPfnmapArgs: type[FollowPfnmapArgs] = FollowPfnmapArgs
    PfnSpace: type[PfnSpace] = PfnSpace

    VM_FAULT_OOM: int = fault.VM_FAULT_OOM
    VM_FAULT_SIGBUS: int = fault.VM_FAULT_SIGBUS
    VM_FAULT_HWPOISON: int = fault.VM_FAULT_HWPOISON
    VM_FAULT_NOPAGE: int = fault.VM_FAULT_NOPAGE
    VM_FAULT_FALLBACK: int = fault.VM_FAULT_FALLBACK
    FAULT_FLAG_WRITE: int = fault.FAULT_FLAG_WRITE
    FAULT_FLAG_REMOTE: int = fault.FAULT_FLAG_REMOTE
    FOLL_WRITE: int = FOLL_WRITE
    FOLL_FORCE: int = FOLL_FORCE
    FOLL_LONGTERM: int = FOLL_LONGTERM


class Machine(MachineState):
    """A booted machine (`pfnmap.mm.boot.boot` makes one): its state, and `mm`, what plugins may call of the mm core.

    `pfn_spaces`: what drivers registered for memory failure. `iomem`: which physical ranges they requested. `modules`:
    its instances of modules and drivers, by name.
    """

    mm: MmFunctions
    iomem: IoMem
    modules: Mapping[str, object]
    pfn_spaces: list[PfnSpace]
