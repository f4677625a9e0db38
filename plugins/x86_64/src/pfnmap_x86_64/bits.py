"""Bits of an x86-64 page-table entry by their kernel names, and the arithmetic on them that knows no boot.

Sources (Linux 6.12): arch/x86/include/asm/pgtable_types.h, pgtable-invert.h, and the *_shift functions of pgtable.h.
Everything here works elementwise on ints and numpy.uint64 arrays. What every entry goes through is spelled out: a call
takes longer than the arithmetic in it.
"""

from __future__ import annotations

from typing import Final, overload

from pfnmap import Entry

ALL: Final = (1 << 64) - 1
"""Every bit: ``entry & (ALL ^ mask)`` clears a mask without a negative number."""

BIT_PRESENT: Final = 0
BIT_RW: Final = 1
BIT_USER: Final = 2
BIT_ACCESSED: Final = 5
BIT_DIRTY: Final = 6
BIT_PSE: Final = 7
BIT_PROTNONE: Final = 8
BIT_SPECIAL: Final = 9
BIT_SAVED_DIRTY: Final = 58
BIT_PKEY: Final = 59

PRESENT: Final = 1 << BIT_PRESENT
RW: Final = 1 << BIT_RW
USER: Final = 1 << BIT_USER
PWT: Final = 1 << 3
PCD: Final = 1 << 4
ACCESSED: Final = 1 << BIT_ACCESSED
DIRTY: Final = 1 << BIT_DIRTY
PSE: Final = 1 << BIT_PSE
PAT: Final = 1 << 7
PROTNONE: Final = 1 << BIT_PROTNONE
SPECIAL: Final = 1 << BIT_SPECIAL
UFFD_WP: Final = 1 << 10
SOFT_DIRTY: Final = 1 << 11
PAT_LARGE: Final = 1 << 12
SAVED_DIRTY: Final = 1 << BIT_SAVED_DIRTY
PKEY_MASK: Final = 0xF << BIT_PKEY
NX: Final = 1 << 63

CACHE_MASK: Final = PWT | PCD | PAT
"""Cache mode of a 4K entry. Write-combining is PWT and uncached-minus PCD in the kernel's full PAT layout."""

KERNPG_TABLE: Final = PRESENT | RW | ACCESSED | DIRTY
PAGE_TABLE: Final = KERNPG_TABLE | USER

PAGE_NONE: Final = PROTNONE | ACCESSED
PAGE_SHARED_EXEC: Final = PRESENT | RW | USER | ACCESSED
PAGE_SHARED: Final = PAGE_SHARED_EXEC | NX
PAGE_READONLY_EXEC: Final = PRESENT | USER | ACCESSED
PAGE_READONLY: Final = PAGE_READONLY_EXEC | NX
PAGE_COPY_EXEC: Final = PAGE_READONLY_EXEC
PAGE_COPY: Final = PAGE_READONLY

PHYSICAL_MASK_SHIFT: Final = 52
PHYSICAL_MASK: Final = (1 << PHYSICAL_MASK_SHIFT) - 1
PAGE_SHIFT: Final = 12
PMD_SHIFT: Final = 21
PUD_SHIFT: Final = 30
P4D_SHIFT: Final = 39
PGDIR_SHIFT: Final = 48
"""The top of 5 levels; of 4 levels it is P4D_SHIFT."""
PTRS: Final = 512
"""Entries of a table, at every level."""

VM_PKEY_SHIFT: Final = 32
VM_PKEY_MASK: Final = 0xF << VM_PKEY_SHIFT
VM_SHADOW_STACK: Final = 1 << 37
"""Flags of a vma that only x86-64 has (include/linux/mm.h: VM_HIGH_ARCH_0 to 3, VM_HIGH_ARCH_5)."""


def bit(entry: Entry, number: int) -> Entry:
    """Return one bit of an entry, 0 or 1."""
    return (entry >> number) & 1


def zero(entry: Entry) -> Entry:
    """Return 1 where the value is 0, else 0, in the value's own type."""
    return (entry == 0) | (entry & 0)


@overload
def clear(entry: int, mask: int) -> int: ...
@overload
def clear(entry: Entry, mask: Entry) -> Entry: ...
def clear(entry: Entry, mask: Entry) -> Entry:
    """Return the entry without the bits of the mask."""
    return entry & (ALL ^ mask)


def protnone_mask(entry: Entry) -> Entry:
    """Return what to xor an entry with for its true address bits (`protnone_mask`): they are stored inverted where it
    is not empty and not present (`__pte_needs_invert`)."""
    return (1 ^ ((entry == 0) | (entry & PRESENT))) * ALL


def flip_protnone_guard(old: Entry, entry: Entry, mask: int) -> Entry:
    """Return `entry` with the bits of `mask` flipped where `old` and `entry` differ in being stored inverted."""
    differ = ((old == 0) | (old & PRESENT)) ^ ((entry == 0) | (entry & PRESENT))
    return entry ^ (differ * mask)


def mksaveddirty_shift(entry: Entry, where: Entry) -> Entry:
    """Return the entry with dirty moved to saved dirty if it is read-only; only lanes with `where` 1 change."""
    condition = (1 ^ (entry >> BIT_RW)) & 1 & where
    moved = ((entry >> BIT_DIRTY) & condition) << BIT_SAVED_DIRTY
    return (entry | moved) & (ALL ^ (condition << BIT_DIRTY))


def clear_saveddirty_shift(entry: Entry, where: Entry) -> Entry:
    """Return the entry with saved dirty moved back to dirty if it is writable; only lanes with `where` 1 change."""
    condition = (entry >> BIT_RW) & 1 & where
    moved = ((entry >> BIT_SAVED_DIRTY) & condition) << BIT_DIRTY
    return (entry | moved) & (ALL ^ (condition << BIT_SAVED_DIRTY))
