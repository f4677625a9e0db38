"""The kprobe events by which a kernel is observed, and what recordings call what they count.

Argument positions and offsets are those of 6.1 to 7.3 on 64-bit machines (struct vm_fault: address at 24, flags at 40;
struct follow_pfnmap_args: address at 8). A function that a kernel has not, or has inlined, cannot be probed and is not
counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["HANDLERS", "PROBES", "Probe"]


@dataclass(frozen=True)
class Probe:
    """A probe on a kernel function: `event` is its short name in the guest, `fetch` what of the call is noted."""

    event: str
    function: str
    fetch: str = ""
    module: str = ""
    is_return: bool = False

    def definition(self, in_module: bool = True) -> str:
        """Return the line for kprobe_events, with commas for spaces; `in_module`: the function's module is one."""
        where = f"{self.module}:{self.function}" if self.module and in_module else self.function
        return ",".join(filter(None, (f"{'r' if self.is_return else 'p'}:{self.event}", where, self.fetch)))


_OF_VMF = "addr=+24($arg1):x64"
_RET = "ret=$retval:x32"
_CORE = "vfio_pci_core"


def _handler(function: str, order: str = "") -> Sequence[Probe]:
    return (
        Probe("fault", function, f"{order}{_OF_VMF},flags=+40($arg1):x32", _CORE),
        Probe("fault_r", function, _RET, _CORE, is_return=True),
    )


HANDLERS: Sequence[Sequence[Probe]] = (
    _handler("vfio_pci_mmap_huge_fault", "order=$arg2:u32,"),
    _handler("vfio_pci_mmap_page_fault"),
    _handler("vfio_pci_mmap_fault"),
)
"""vfio-pci's fault handlers, one of which has to be there: that for any order, that for pages alone into which the
compiler puts the first where no huge pfnmap can be (no transparent huge pages, as with PREEMPT_RT), and that of before
6.12."""

PROBES: Sequence[Probe] = (
    Probe("pgd", "pgd_alloc", "ret=$retval:x64", is_return=True),
    Probe("hmf", "handle_mm_fault", "addr=$arg2:x64"),
    Probe("ins_pte", "vmf_insert_pfn", "addr=$arg2:x64"),
    Probe("ins_pmd", "vmf_insert_pfn_pmd", _OF_VMF),
    Probe("ins_pud", "vmf_insert_pfn_pud", _OF_VMF),
    Probe("split_pmd", "__split_huge_pmd", "addr=$arg3:x64"),
    Probe("split_pud", "__split_huge_pud", "addr=$arg3:x64"),
    Probe("zap_pmd", "zap_huge_pmd", "addr=$arg4:x64"),
    Probe("zap_pud", "zap_huge_pud", "addr=$arg4:x64"),
    Probe("copy_pmd", "copy_huge_pmd", "addr=$arg5:x64"),
    Probe("copy_pud", "copy_huge_pud", "addr=$arg5:x64"),
    Probe("change_pmd", "change_huge_pmd", "addr=$arg4:x64"),
    Probe("change_pud", "change_huge_pud", "addr=$arg4:x64"),
    Probe("move_pmd", "move_huge_pmd", "addr=$arg2:x64"),
    Probe("acc_pmd", "huge_pmd_set_accessed", _OF_VMF),
    Probe("acc_pud", "huge_pud_set_accessed", _OF_VMF),
    Probe("wp_pmd", "do_huge_pmd_wp_page", _OF_VMF),
    Probe("follow", "follow_pfnmap_start", "addr=+8($arg1):x64"),
    Probe("follow_r", "follow_pfnmap_start", _RET, is_return=True),
    Probe("fpte", "follow_pte"),
    Probe("fpte_r", "follow_pte", _RET, is_return=True),
    Probe("gap", "generic_access_phys", "addr=$arg2:x64"),
    Probe("fuf", "fixup_user_fault", "addr=$arg2:x64"),
    Probe("umr", "unmap_mapping_range"),
    Probe("tdp", "kvm_tdp_page_fault", "addr=+0($arg2):x64", "kvm"),
    Probe("root", "svm_load_mmu_pgd", "root=$arg2:x64", "kvm_amd"),
)
