"""Named bits of a stage-1 descriptor and the user protections made of them.

Read from arch/arm64/include/asm/pgtable-hwdef.h, pgtable-prot.h and memory.h (6.12); the `bits` of the vector
files agree.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "MASK64",
    "MT_NORMAL_NC",
    "PROTECTION_MAP",
    "PTE_AF",
    "PTE_ATTRINDX_MASK",
    "PTE_DEVMAP",
    "PTE_DIRTY",
    "PTE_PROT_NONE",
    "PTE_PXN",
    "PTE_RDONLY",
    "PTE_SHARED",
    "PTE_SPECIAL",
    "PTE_TABLE_BIT",
    "PTE_USER",
    "PTE_UXN",
    "PTE_VALID",
    "PTE_WRITE",
    "TABLE_PXN",
    "TYPE_TABLE",
    "MT_DEVICE_nGnRE",
    "MT_DEVICE_nGnRnE",
]

MASK64: Final = (1 << 64) - 1

PTE_VALID: Final = 1 << 0
PTE_TABLE_BIT: Final = 1 << 1
PTE_ATTRINDX_MASK: Final = 7 << 2
PTE_USER: Final = 1 << 6
PTE_RDONLY: Final = 1 << 7
PTE_SHARED: Final = 3 << 8
PTE_AF: Final = 1 << 10
PTE_NG: Final = 1 << 11
PTE_GP: Final = 1 << 50
PTE_WRITE: Final = 1 << 51
"""Also DBM: hardware that manages the dirty state clears PTE_RDONLY where this is set."""
PTE_PXN: Final = 1 << 53
PTE_UXN: Final = 1 << 54
PTE_PO_IDX_MASK: Final = 7 << 60

# Software bits
PTE_DIRTY: Final = 1 << 55
PTE_SPECIAL: Final = 1 << 56
PTE_DEVMAP: Final = 1 << 57
PTE_PRESENT_INVALID: Final = PTE_NG
"""With PTE_VALID clear: present to the kernel, a fault to the CPU."""
PTE_PROT_NONE: Final = 1 << 58
"""The same, before PTE_PRESENT_INVALID took its place (`arm64-present-invalid`)."""

TYPE_TABLE: Final = 3
TABLE_PXN: Final = 1 << 59

PTE_MODIFY_MASK: Final = (
    PTE_USER | PTE_PXN | PTE_UXN | PTE_RDONLY | PTE_PRESENT_INVALID | PTE_VALID | PTE_WRITE | PTE_GP
    | PTE_ATTRINDX_MASK | PTE_PO_IDX_MASK
)  # fmt: skip
"""What pte_modify takes from the new protection."""

PTE_ACCESS_FLAGS: Final = PTE_RDONLY | PTE_AF | PTE_WRITE | PTE_DIRTY
"""What __ptep_set_access_flags takes from the new entry."""

# Memory types: indices into MAIR_EL1
MT_NORMAL_NC: Final = 2 << 2
MT_DEVICE_nGnRnE: Final = 3 << 2
MT_DEVICE_nGnRE: Final = 4 << 2
MEMORY_TYPES: Final = {0: "Normal", 1: "Normal-Tagged", 2: "Normal-NC", 3: "Device-nGnRnE", 4: "Device-nGnRE"}
"""Index -> what it is called."""

_PAGE_DEFAULT: Final = TYPE_TABLE | PTE_AF | PTE_SHARED
_USER: Final = _PAGE_DEFAULT | PTE_USER | PTE_RDONLY | PTE_NG | PTE_PXN
PAGE_NONE: Final = (_PAGE_DEFAULT ^ PTE_VALID) | PTE_PRESENT_INVALID | PTE_RDONLY | PTE_PXN | PTE_UXN
PAGE_READONLY: Final = _USER | PTE_UXN
PAGE_READONLY_EXEC: Final = _USER
PAGE_SHARED: Final = _USER | PTE_UXN | PTE_WRITE
PAGE_SHARED_EXEC: Final = _USER | PTE_WRITE

PROTECTION_MAP: Final = (
    # private: none; r, w, rw; x, rx, wx, rwx. Never writable at once: a private page is copied first.
    PAGE_NONE, *[PAGE_READONLY] * 3, *[PAGE_READONLY_EXEC] * 4,
    # shared
    PAGE_NONE, PAGE_READONLY, *[PAGE_SHARED] * 2, *[PAGE_READONLY_EXEC] * 2, *[PAGE_SHARED_EXEC] * 2,
)  # fmt: skip
"""arch/arm64/mm/mmap.c protection_map, without LPA2 and without Enhanced PAN."""
