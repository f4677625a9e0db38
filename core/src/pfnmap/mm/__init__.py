"""The memory-management core. File and function names are the kernel's."""

from pfnmap.mm import huge_memory, memory

__all__ = ["MmFunctions"]


class MmFunctions:
    """What a plugin may call of the mm core, by kernel name: `kernel.mm.vmf_insert_pfn_pmd(...)`."""

    VM_FAULT_OOM = memory.VM_FAULT_OOM
    VM_FAULT_SIGBUS = memory.VM_FAULT_SIGBUS
    VM_FAULT_HWPOISON = memory.VM_FAULT_HWPOISON
    VM_FAULT_NOPAGE = memory.VM_FAULT_NOPAGE
    VM_FAULT_FALLBACK = memory.VM_FAULT_FALLBACK

    vmf_insert_pfn = staticmethod(memory.vmf_insert_pfn)
    vmf_insert_pfn_pmd = staticmethod(huge_memory.vmf_insert_pfn_pmd)
    vmf_insert_pfn_pud = staticmethod(huge_memory.vmf_insert_pfn_pud)
    insert_pfns = staticmethod(memory.insert_pfns)
    remap_pfn_range = staticmethod(memory.remap_pfn_range)
    unmap_mapping_range = staticmethod(memory.unmap_mapping_range)
    zap_vma_ptes = staticmethod(memory.zap_vma_ptes)
