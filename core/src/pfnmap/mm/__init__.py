"""The memory-management core. File and function names are the kernel's."""

from pfnmap.arch import Has
from pfnmap.mm import gup, huge_memory, locking, memory, memory_failure, mmu_notifier, uaccess
from pfnmap.mm.access_process_vm import access_process_vm, generic_access_phys
from pfnmap.mm.folio_walk import folio_walk_start
from pfnmap.mm.follow_pfnmap import (
    FollowPfnmapArgs,
    follow_pfnmap,
    follow_pfnmap_end,
    follow_pfnmap_start,
    follow_pte,
)
from pfnmap.mm.mmap import do_mmap
from pfnmap.mm.vm_normal_page import pfn_valid, vm_normal_page, vm_normal_page_pmd, vm_normal_page_pud

__all__ = ["MmFunctions", "in_release"]

_SINCE = {
    "follow_pfnmap": "huge-pfnmap",
    "follow_pfnmap_start": "huge-pfnmap",
    "follow_pfnmap_end": "huge-pfnmap",
    "register_pfn_address_space": "memory-failure-pfn",
}
"""The change that brought a function."""

_UNTIL = {"follow_pte": "huge-pfnmap"}
"""The change that took a function away."""


def in_release(function: str, has: Has) -> bool:
    """Tell whether a release has a function of `MmFunctions`, as far as that depends on the changes that are known."""
    since, until = _SINCE.get(function), _UNTIL.get(function)
    return (since is None or has(since)) and not (until is not None and has(until))


class MmFunctions:
    """What a plugin may call of the mm core, by kernel name: `kernel.mm.vmf_insert_pfn_pmd(...)`."""

    VM_FAULT_OOM = memory.VM_FAULT_OOM
    VM_FAULT_SIGBUS = memory.VM_FAULT_SIGBUS
    VM_FAULT_HWPOISON = memory.VM_FAULT_HWPOISON
    VM_FAULT_NOPAGE = memory.VM_FAULT_NOPAGE
    VM_FAULT_FALLBACK = memory.VM_FAULT_FALLBACK

    do_mmap = staticmethod(do_mmap)

    vmf_insert_pfn = staticmethod(memory.vmf_insert_pfn)
    vmf_insert_pfn_pmd = staticmethod(huge_memory.vmf_insert_pfn_pmd)
    vmf_insert_pfn_pud = staticmethod(huge_memory.vmf_insert_pfn_pud)
    insert_pfns = staticmethod(memory.insert_pfns)
    remap_pfn_range = staticmethod(memory.remap_pfn_range)
    unmap_mapping_range = staticmethod(memory.unmap_mapping_range)
    zap_vma_ptes = staticmethod(memory.zap_vma_ptes)

    PfnSpace = memory_failure.PfnSpace
    register_pfn_address_space = staticmethod(memory_failure.register_pfn_address_space)
    is_poisoned = staticmethod(memory_failure.is_poisoned)

    mmu_notifier_register = staticmethod(mmu_notifier.mmu_notifier_register)

    mmap_lock = staticmethod(locking.mmap_lock)
    i_mmap_rwsem = staticmethod(locking.i_mmap_rwsem)

    FollowPfnmapArgs = FollowPfnmapArgs
    follow_pfnmap_start = staticmethod(follow_pfnmap_start)
    follow_pfnmap_end = staticmethod(follow_pfnmap_end)
    follow_pfnmap = staticmethod(follow_pfnmap)
    follow_pte = staticmethod(follow_pte)
    generic_access_phys = staticmethod(generic_access_phys)
    access_process_vm = staticmethod(access_process_vm)

    FOLL_WRITE = gup.FOLL_WRITE
    FOLL_FORCE = gup.FOLL_FORCE
    FOLL_LONGTERM = gup.FOLL_LONGTERM
    FAULT_FLAG_WRITE = gup.FAULT_FLAG_WRITE
    FAULT_FLAG_REMOTE = gup.FAULT_FLAG_REMOTE
    fixup_user_fault = staticmethod(gup.fixup_user_fault)
    get_user_pages_fast = staticmethod(gup.get_user_pages_fast)
    pin_user_pages_fast = staticmethod(gup.pin_user_pages_fast)
    pin_user_pages_remote = staticmethod(gup.pin_user_pages_remote)
    unpin_user_pages = staticmethod(gup.unpin_user_pages)

    copy_from_user = staticmethod(uaccess.copy_from_user)
    copy_to_user = staticmethod(uaccess.copy_to_user)

    folio_walk_start = staticmethod(folio_walk_start)
    pfn_valid = staticmethod(pfn_valid)
    vm_normal_page = staticmethod(vm_normal_page)
    vm_normal_page_pmd = staticmethod(vm_normal_page_pmd)
    vm_normal_page_pud = staticmethod(vm_normal_page_pud)
