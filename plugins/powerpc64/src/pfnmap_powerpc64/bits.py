"""Named bits of an entry and the user protections made of them.

Read from arch/powerpc/include/asm/book3s/64/pgtable.h, hash-4k.h, hash-64k.h and radix.h, and asm/pgtable-masks.h
(6.12); the `bits` of the vector files agree. Values are logical: memory holds them big-endian. Leaves of every level
and both MMUs share one format; what hash keeps beside it depends on the page size and is in `Boot`.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ACCESSED",
    "ACCESS_FLAGS",
    "CACHE_CTL",
    "CHG_MASK",
    "DEVMAP",
    "DIRTY",
    "LEAF",
    "MASK64",
    "NON_IDEMPOTENT",
    "PA_MAX",
    "PRESENT",
    "PRIVILEGED",
    "PROTECTION_MAP",
    "READ",
    "RW",
    "SAO",
    "SOFT_DIRTY",
    "SPECIAL",
    "TABLE_MASKED",
    "TOLERANT",
    "WRITE",
]

MASK64: Final = (1 << 64) - 1

EXEC: Final = 1 << 0
WRITE: Final = 1 << 1
READ: Final = 1 << 2
PRIVILEGED: Final = 1 << 3
SAO: Final = 0x10
NON_IDEMPOTENT: Final = 0x20
TOLERANT: Final = 0x30
CACHE_CTL: Final = SAO | NON_IDEMPOTENT | TOLERANT
DIRTY: Final = 1 << 7
ACCESSED: Final = 1 << 8
LEAF: Final = 1 << 62
"""_PAGE_PTE: not a pointer to a table."""
PRESENT: Final = 1 << 63

# Software bits
SOFT_DIRTY: Final = 1 << 9
SPECIAL: Final = 1 << 10
DEVMAP: Final = 1 << 11

PA_MAX: Final = 53
"""Bits of a physical address that an entry holds, from PAGE_SHIFT on."""

TABLE_MASKED: Final = 0xC000_0000_0000_00FF
"""What is not the address in an entry that points to a table (PMD_MASKED_BITS and those of PUD and P4D)."""

RW: Final = READ | WRITE

CHG_MASK: Final = DIRTY | ACCESSED | LEAF | SOFT_DIRTY
"""What pte_modify and pmd_modify both keep, besides the address and hash's own bits."""

ACCESS_FLAGS: Final = DIRTY | SOFT_DIRTY | ACCESSED | RW | EXEC
"""What ptep_set_access_flags adds to an entry."""

_BASE: Final = PRESENT | ACCESSED
PAGE_NONE: Final = _BASE
PAGE_EXECONLY_X: Final = _BASE | EXEC
PAGE_READONLY: Final = _BASE | READ
PAGE_READONLY_X: Final = _BASE | READ | EXEC
PAGE_COPY: Final = PAGE_READONLY
PAGE_COPY_X: Final = PAGE_READONLY_X
PAGE_SHARED: Final = _BASE | RW
PAGE_SHARED_X: Final = _BASE | RW | EXEC

PROTECTION_MAP: Final[tuple[int, ...]] = (
    *(PAGE_NONE, PAGE_READONLY, PAGE_COPY, PAGE_COPY),
    *(PAGE_EXECONLY_X, PAGE_READONLY_X, PAGE_COPY_X, PAGE_COPY_X),
    *(PAGE_NONE, PAGE_READONLY, PAGE_SHARED, PAGE_SHARED),
    *(PAGE_EXECONLY_X, PAGE_READONLY_X, PAGE_SHARED_X, PAGE_SHARED_X),
)
"""protection_map (arch/powerpc/mm/pgtable.c)."""
