"""Named bits of an entry and the user protections made of them.

Read from arch/riscv/include/asm/pgtable-bits.h, pgtable-64.h and pgtable.h (6.12); the `bits` of the vector files
agree. Bits 59 and 60 are software's where the CPU has Svrsw60t59b, bits 61 and 62 the memory type where it has Svpbmt.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ACCESSED",
    "DEVMAP",
    "DIRTY",
    "IO",
    "MASK64",
    "MTMASK",
    "NOCACHE",
    "PAGE_COPY",
    "PAGE_SHADOWSTACK",
    "PFN_MASK",
    "PFN_SHIFT",
    "PRESENT",
    "PROTECTION_MAP",
    "PROT_BITS",
    "READ",
    "SOFT_DIRTY",
    "SPECIAL",
    "USER",
    "WRITE",
]

MASK64: Final = (1 << 64) - 1

PRESENT: Final = 1 << 0
READ: Final = 1 << 1
WRITE: Final = 1 << 2
EXEC: Final = 1 << 3
USER: Final = 1 << 4
GLOBAL: Final = 1 << 5
PROT_NONE: Final = GLOBAL
"""With PRESENT clear: present to the kernel, a fault to the CPU."""
ACCESSED: Final = 1 << 6
DIRTY: Final = 1 << 7
SPECIAL: Final = 1 << 8
DEVMAP: Final = 1 << 9
PFN_SHIFT: Final = 10
PFN_MASK: Final = (1 << 54) - (1 << PFN_SHIFT)

LEAF: Final = READ | WRITE | EXEC
"""A present entry with any of these is a leaf, else it points to a table."""

SOFT_DIRTY: Final = 1 << 59
NOCACHE: Final = 1 << 61
IO: Final = 1 << 62
MTMASK: Final = NOCACHE | IO

PROT_BITS: Final = PRESENT | LEAF | USER | GLOBAL
"""What pte_modify takes from the new protection, besides the memory type."""

_BASE: Final = PRESENT | ACCESSED | USER
PAGE_NONE: Final = PROT_NONE | READ
PAGE_READ: Final = _BASE | READ
PAGE_WRITE: Final = _BASE | READ | WRITE
PAGE_EXEC: Final = _BASE | EXEC
PAGE_READ_EXEC: Final = _BASE | READ | EXEC
PAGE_WRITE_EXEC: Final = _BASE | READ | WRITE | EXEC
PAGE_COPY: Final = PAGE_READ
PAGE_SHADOWSTACK: Final = _BASE | WRITE

PROTECTION_MAP: Final[tuple[int, ...]] = (
    *(PAGE_NONE, PAGE_READ, PAGE_COPY, PAGE_COPY, PAGE_EXEC, PAGE_READ_EXEC, PAGE_READ_EXEC, PAGE_READ_EXEC),
    *(PAGE_NONE, PAGE_READ, PAGE_WRITE, PAGE_WRITE, PAGE_EXEC, PAGE_READ_EXEC, PAGE_WRITE_EXEC, PAGE_WRITE_EXEC),
)
"""protection_map (arch/riscv/mm/init.c); that of VM_WRITE alone depends on the release."""
