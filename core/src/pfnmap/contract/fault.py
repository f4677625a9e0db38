"""What a fault is told and what it answers: FAULT_FLAG_ and VM_FAULT_ (include/linux/mm_types.h), si_codes."""

from __future__ import annotations

from typing import Final

__all__ = [
    "BUS_ADRERR",
    "BUS_MCEERR_AO",
    "BUS_MCEERR_AR",
    "FAULT_FLAG_REMOTE",
    "FAULT_FLAG_UNSHARE",
    "FAULT_FLAG_USER",
    "FAULT_FLAG_VMA_LOCK",
    "FAULT_FLAG_WRITE",
    "ILL_ILLADR",
    "SEGV_ACCERR",
    "SEGV_MAPERR",
    "SEGV_PKUERR",
    "VM_FAULT_ERROR",
    "VM_FAULT_FALLBACK",
    "VM_FAULT_HWPOISON",
    "VM_FAULT_NOPAGE",
    "VM_FAULT_OOM",
    "VM_FAULT_RETRY",
    "VM_FAULT_SIGBUS",
    "VM_FAULT_SIGSEGV",
    "vm_fault_name",
]

FAULT_FLAG_WRITE: Final = 0x1
FAULT_FLAG_USER: Final = 0x40
FAULT_FLAG_REMOTE: Final = 0x80
FAULT_FLAG_UNSHARE: Final = 0x400
FAULT_FLAG_VMA_LOCK: Final = 0x1000

VM_FAULT_OOM: Final = 0x1
VM_FAULT_SIGBUS: Final = 0x2
VM_FAULT_HWPOISON: Final = 0x10
VM_FAULT_SIGSEGV: Final = 0x40
VM_FAULT_NOPAGE: Final = 0x100
VM_FAULT_RETRY: Final = 0x400
VM_FAULT_FALLBACK: Final = 0x800
VM_FAULT_ERROR: Final = VM_FAULT_OOM | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV | VM_FAULT_HWPOISON
"""The codes after which the access cannot be tried again."""

SEGV_MAPERR: Final = 1
SEGV_ACCERR: Final = 2
SEGV_PKUERR: Final = 4
"""si_code of a refusal by a protection key."""
ILL_ILLADR: Final = 3
BUS_ADRERR: Final = 2
BUS_MCEERR_AR: Final = 4
BUS_MCEERR_AO: Final = 5

_NAMES = {
    VM_FAULT_OOM: "OOM",
    VM_FAULT_SIGBUS: "SIGBUS",
    VM_FAULT_HWPOISON: "HWPOISON",
    VM_FAULT_SIGSEGV: "SIGSEGV",
    VM_FAULT_NOPAGE: "NOPAGE",
    VM_FAULT_RETRY: "RETRY",
    VM_FAULT_FALLBACK: "FALLBACK",
}


def vm_fault_name(code: int) -> str:
    """Return the name of a VM_FAULT code without its prefix, or the code in hex."""
    return _NAMES.get(code) or hex(code)
