"""The bits of entries, protections and empty words (arch/loongarch/include/asm/pgtable-bits.h, addrspace.h)."""

from __future__ import annotations

from typing import Final

from pfnmap import Entry

__all__ = ["bit", "clear", "differs", "equals"]

MASK64: Final = (1 << 64) - 1

# What the TLB takes (EntryLo)
VALID: Final = 1 << 0
ACCESSED: Final = VALID  # one bit for both: an entry that is not accessed is not valid
DIRTY: Final = 1 << 1
PLV: Final = 3 << 2
PLV_USER: Final = 3 << 2
CACHE: Final = 3 << 4
CACHE_SUC: Final = 0 << 4  # strongly ordered, uncached
CACHE_CC: Final = 1 << 4  # coherent, cached
CACHE_WUC: Final = 2 << 4  # weakly ordered, uncached: write-combining
GLOBAL: Final = 1 << 6
HUGE: Final = 1 << 6  # the same bit in a PMD entry, where global is HGLOBAL
HGLOBAL: Final = 1 << 12
NO_READ: Final = 1 << 61
NO_EXEC: Final = 1 << 62

# What the kernel and the table walker use
PRESENT: Final = 1 << 7
WRITE: Final = 1 << 8
MODIFIED: Final = 1 << 9
PROTNONE: Final = 1 << 10
SPECIAL: Final = 1 << 11
DEVMAP: Final = 1 << 59
PRESENT_INVALID: Final = 1 << 60

PFN_END_SHIFT: Final = 48
"""Physical addresses in entries end below this bit (_PAGE_PFN_END_SHIFT)."""

DMW_PABITS: Final = 48
TO_PHYS_MASK: Final = (1 << DMW_PABITS) - 1
PAGE_OFFSET: Final = 0x9000 << DMW_PABITS
"""Where the cached direct-mapped window shows physical address 0: entries hold virtual addresses of tables."""

_USER = CACHE_CC | PLV_USER | PRESENT | VALID
_NONE = CACHE_CC | PLV_USER | NO_EXEC | NO_READ | PROTNONE


def _protection(vm_flags: int) -> int:
    if not vm_flags & 7:
        return _NONE
    writable = WRITE if vm_flags & 10 == 10 else 0
    return _USER | writable | (0 if vm_flags & 4 else NO_EXEC)


PROTECTION_MAP: Final = tuple(_protection(vm_flags) for vm_flags in range(16))
"""arch/loongarch/mm/cache.c: protection_map. A private mapping is never writable: it is copied first."""


def bit(entry: Entry, mask: int) -> Entry:
    """Return 1 where any bit of a mask is set, else 0."""
    return differs(entry & mask, 0)


def clear(entry: Entry, mask: int) -> Entry:
    """Return the entry without the bits of a mask."""
    return entry & (MASK64 ^ mask)


def equals(entry: Entry, word: int) -> Entry:
    """Return 1 where an entry is a word, else 0, in the entry's own type."""
    return (entry == word) | (entry & 0)


def differs(entry: Entry, word: int) -> Entry:
    """Return 1 where an entry is not a word, else 0, in the entry's own type."""
    return equals(entry, word) ^ 1
