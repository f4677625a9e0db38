"""The functions of the mm core that a plugin may call."""

from __future__ import annotations

from pfnmap.contract.machine import MmFunctions
from pfnmap.mm import gup, huge_memory, locking, memory, memory_failure, mmu_notifier, uaccess, zap
from pfnmap.mm.access_process_vm import access_process_vm, generic_access_phys
from pfnmap.mm.folio_walk import folio_walk_start
from pfnmap.mm.follow_pfnmap import follow_again, follow_pfnmap, follow_pfnmap_end, follow_pfnmap_start, follow_pte
from pfnmap.mm.ioremap import ioremap, iounmap
from pfnmap.mm.mmap import do_mmap
from pfnmap.mm.resource import iomem_is_exclusive, release_mem_region, request_mem_region
from pfnmap.mm.touch_pages import each_page
from pfnmap.mm.vm_normal_page import pfn_valid, vm_normal_page, vm_normal_page_pmd, vm_normal_page_pud

__all__ = ["FUNCTIONS"]

FUNCTIONS = MmFunctions(
    do_mmap=do_mmap,
    vmf_insert_pfn=memory.vmf_insert_pfn,
    vmf_insert_pfn_pmd=huge_memory.vmf_insert_pfn_pmd,
    vmf_insert_pfn_pud=huge_memory.vmf_insert_pfn_pud,
    insert_pfns=memory.insert_pfns,
    remap_pfn_range=memory.remap_pfn_range,
    unmap_mapping_range=zap.unmap_mapping_range,
    zap_vma_ptes=zap.zap_vma_ptes,
    register_pfn_address_space=memory_failure.register_pfn_address_space,
    is_poisoned=memory_failure.is_poisoned,
    mmu_notifier_register=mmu_notifier.mmu_notifier_register,
    mmap_lock=locking.mmap_lock,
    i_mmap_rwsem=locking.i_mmap_rwsem,
    follow_pfnmap_start=follow_pfnmap_start,
    follow_pfnmap_end=follow_pfnmap_end,
    follow_pfnmap=follow_pfnmap,
    follow_pte=follow_pte,
    follow_again=follow_again,
    each_page=each_page,
    generic_access_phys=generic_access_phys,
    access_process_vm=access_process_vm,
    ioremap=ioremap,
    iounmap=iounmap,
    request_mem_region=request_mem_region,
    release_mem_region=release_mem_region,
    iomem_is_exclusive=iomem_is_exclusive,
    fixup_user_fault=gup.fixup_user_fault,
    get_user_pages_fast=gup.get_user_pages_fast,
    get_user_pages_fast_only=gup.get_user_pages_fast_only,
    get_user_pages_unlocked=gup.get_user_pages_unlocked,
    put_pages=gup.put_pages,
    pin_user_pages_fast=gup.pin_user_pages_fast,
    pin_user_pages_remote=gup.pin_user_pages_remote,
    unpin_user_pages=gup.unpin_user_pages,
    copy_from_user=uaccess.copy_from_user,
    copy_to_user=uaccess.copy_to_user,
    folio_walk_start=folio_walk_start,
    pfn_valid=pfn_valid,
    vm_normal_page=vm_normal_page,
    vm_normal_page_pmd=vm_normal_page_pmd,
    vm_normal_page_pud=vm_normal_page_pud,
)
"""What a plugin may call (`Machine.mm`)."""
