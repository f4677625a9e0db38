"""Named bits of page, segment and region table entries, and the protections made of them.

Read from arch/s390/include/asm/pgtable.h (6.12, and mainline of 6.16 for the bits that moved) and arch/s390/mm/mmap.c
(protection_map); the `bits` of the vector files agree.
"""

from __future__ import annotations

from typing import Final

from pfnmap import Entry
from pfnmap.records import dataclass

__all__ = [
    "MASK64",
    "NEWER_SEGMENT_BITS",
    "OLDER_SEGMENT_BITS",
    "PAGE_DIRTY",
    "PAGE_INVALID",
    "PAGE_KERNEL",
    "PAGE_KERNEL_RO",
    "PAGE_LARGE",
    "PAGE_MASK",
    "PAGE_NOEXEC",
    "PAGE_NONE",
    "PAGE_PRESENT",
    "PAGE_PROTECT",
    "PAGE_READ",
    "PAGE_RO",
    "PAGE_RW",
    "PAGE_RWX",
    "PAGE_RX",
    "PAGE_SOFT_DIRTY",
    "PAGE_SPECIAL",
    "PAGE_WRITE",
    "PAGE_YOUNG",
    "PROTECTION_MAP",
    "REGION1_EMPTY",
    "REGION1_ENTRY",
    "REGION2_EMPTY",
    "REGION2_ENTRY",
    "REGION3_EMPTY",
    "REGION3_ENTRY",
    "REGION3_ORIGIN_LARGE",
    "REGION_FOREIGN_BITS",
    "REGION_INVALID",
    "REGION_ORIGIN",
    "REGION_TYPE_MASK",
    "REGION_TYPE_R1",
    "REGION_TYPE_R2",
    "REGION_TYPE_R3",
    "SEGMENT_DIRTY",
    "SEGMENT_EMPTY",
    "SEGMENT_FOREIGN_BITS",
    "SEGMENT_INVALID",
    "SEGMENT_LARGE",
    "SEGMENT_NOEXEC",
    "SEGMENT_ORIGIN",
    "SEGMENT_ORIGIN_LARGE",
    "SEGMENT_PROTECT",
    "SEGMENT_TYPE_MASK",
    "SEGMENT_YOUNG",
    "SegmentBits",
    "any_of",
    "zero",
]

MASK64: Final = (1 << 64) - 1


def zero(value: Entry) -> Entry:
    """Return 1 where the value is 0, else 0, in the value's own type."""
    return (value == 0) | (value & 0)


def any_of(entry: Entry, bits: int) -> Entry:
    """Return 1 where any of the bits is set, else 0, in the entry's own type."""
    return zero(entry & bits) ^ 1


# Page table entries. The hardware knows three bits; all else is software.

PAGE_MASK: Final = MASK64 ^ 0xFFF
PAGE_NOEXEC: Final = 0x100
PAGE_PROTECT: Final = 0x200
PAGE_INVALID: Final = 0x400
"""Alone: an empty entry."""
PAGE_LARGE: Final = 0x800

PAGE_PRESENT: Final = 0x001
PAGE_SOFT_DIRTY: Final = 0x002
PAGE_YOUNG: Final = 0x004
PAGE_DIRTY: Final = 0x008
PAGE_READ: Final = 0x010
PAGE_WRITE: Final = 0x020
PAGE_SPECIAL: Final = 0x040

PAGE_NONE: Final = PAGE_PRESENT | PAGE_INVALID | PAGE_PROTECT
PAGE_RX: Final = PAGE_NONE | PAGE_READ
PAGE_RO: Final = PAGE_RX | PAGE_NOEXEC
PAGE_RWX: Final = PAGE_RX | PAGE_WRITE
PAGE_RW: Final = PAGE_RWX | PAGE_NOEXEC
PAGE_KERNEL: Final = PAGE_PRESENT | PAGE_READ | PAGE_WRITE | PAGE_YOUNG | PAGE_DIRTY | PAGE_NOEXEC
PAGE_KERNEL_RO: Final = PAGE_PRESENT | PAGE_READ | PAGE_YOUNG | PAGE_PROTECT | PAGE_NOEXEC

PROTECTION_MAP: Final = (
    # private: none; r, w, rw; x, rx, wx, rwx. Never writable at once: a private page is copied first.
    PAGE_NONE, *[PAGE_RO] * 3, *[PAGE_RX] * 4,
    # shared
    PAGE_NONE, PAGE_RO, *[PAGE_RW] * 2, *[PAGE_RX] * 2, *[PAGE_RWX] * 2,
)  # fmt: skip

# Segment table entries (PMD). A leaf has LARGE.

SEGMENT_ORIGIN: Final = MASK64 ^ 0x7FF
SEGMENT_ORIGIN_LARGE: Final = MASK64 ^ 0xF_FFFF
SEGMENT_TYPE_MASK: Final = 0x00C
SEGMENT_INVALID: Final = 0x020
SEGMENT_EMPTY: Final = SEGMENT_INVALID
SEGMENT_NOEXEC: Final = 0x100
SEGMENT_PROTECT: Final = 0x200
SEGMENT_LARGE: Final = 0x400
SEGMENT_YOUNG: Final = 0x1000
SEGMENT_DIRTY: Final = 0x2000
SEGMENT_FOREIGN_BITS: Final = 0x1C0
"""What a table entry must not have: the complement of _SEGMENT_ENTRY_BITS."""


@dataclass(frozen=True, slots=True)
class SegmentBits:
    """The software bits of segment and region-third entries that `s390-segment-software-bits` moved.

    `present` is 0 where there was no such bit: everything that is not empty was present.
    """

    read: int
    write: int
    soft_dirty: int
    present: int


OLDER_SEGMENT_BITS: Final = SegmentBits(read=0x1, write=0x2, soft_dirty=0x4000, present=0)
NEWER_SEGMENT_BITS: Final = SegmentBits(read=0x4000, write=0x8000, soft_dirty=0x2, present=0x1)

# Region table entries: first (PGD), second (P4D), third (PUD). An entry says which it is; one whose type is below a
# level's belongs to a lower table that takes that level's place, i.e. the level is folded.

REGION_ORIGIN: Final = MASK64 ^ 0xFFF
REGION3_ORIGIN_LARGE: Final = MASK64 ^ 0x7FFF_FFFF
REGION_TYPE_MASK: Final = 0x00C
REGION_TYPE_R1: Final = 0x00C
REGION_TYPE_R2: Final = 0x008
REGION_TYPE_R3: Final = 0x004
_REGION_LENGTH: Final = 0x003
REGION_INVALID: Final = 0x020
REGION_FOREIGN_BITS: Final = 0xDD0
"""What a table entry must not have: the complement of _REGION_ENTRY_BITS."""

REGION1_ENTRY: Final = REGION_TYPE_R1 | _REGION_LENGTH
REGION2_ENTRY: Final = REGION_TYPE_R2 | _REGION_LENGTH
REGION3_ENTRY: Final = REGION_TYPE_R3 | _REGION_LENGTH
REGION1_EMPTY: Final = REGION_TYPE_R1 | REGION_INVALID
REGION2_EMPTY: Final = REGION_TYPE_R2 | REGION_INVALID
REGION3_EMPTY: Final = REGION_TYPE_R3 | REGION_INVALID
