"""The bits of a TTE in both formats, and what protections are made of (arch/sparc/include/asm/pgtable_64.h).

The kernel is patched at boot for the machine it finds itself on: sun4u (UltraSPARC I to IV), sun4v (a hypervisor: T1
to M8), and of the latter the M7 and later, where the bit of the virtual cache means something else.
"""

from __future__ import annotations

from typing import Final

from pfnmap import Entry
from pfnmap.records import dataclass

__all__ = ["HUGE", "MASK64", "SPECIAL", "SUN4U", "SUN4V", "SUN4V_M7", "VALID", "Tte", "clear", "equals", "holds"]

MASK64: Final = (1 << 64) - 1

# The same in both formats
VALID: Final = 1 << 63
SPECIAL: Final = 1 << 57
HUGE: Final = 1 << 56  # of a PMD, and of a PUD


@dataclass(frozen=True, slots=True)
class Tte:
    """One format, by the kernel's names: masks, and the highest bit of a physical address."""

    MODIFIED: int
    ACCESSED: int
    READ: int
    WRITE: int  # what the kernel allows
    EXEC: int
    PRESENT: int
    W: int  # what the MMU allows
    P: int  # privileged
    E: int  # side effect: device memory
    CACHE: int
    SZHUGE: int
    SZALL: int
    pa_top: int

    @property
    def paddr(self) -> int:
        """The bits of the physical address of a page of 8K."""
        return (1 << (self.pa_top + 1)) - (1 << 13)

    @property
    def kept(self) -> int:
        """What pte_modify keeps of an entry."""
        state = self.MODIFIED | self.ACCESSED | self.CACHE | self.E | self.SZALL
        return self.paddr | state | SPECIAL | HUGE

    def protection(self, vm_flags: int) -> int:
        """arch/sparc/mm/init_64.c, prot_init_common. PROT_NONE is present and not valid; private is never writable."""
        none = self.PRESENT | self.ACCESSED | self.CACHE
        if not vm_flags & 7:
            return none
        writable = self.WRITE if vm_flags & 10 == 10 else 0
        return none | VALID | self.READ | writable | (self.EXEC if vm_flags & 4 else 0)


SUN4U: Final = Tte(
    MODIFIED=1 << 11,
    ACCESSED=1 << 10,
    READ=1 << 9,
    WRITE=1 << 8,
    EXEC=1 << 12,
    PRESENT=1 << 7,
    W=1 << 1,
    P=1 << 2,
    E=1 << 3,
    CACHE=3 << 4,
    SZHUGE=3 << 61,
    SZALL=3 << 61 | 1 << 48,
    pa_top=42,
)


def _sun4v(cache: int) -> Tte:
    return Tte(
        MODIFIED=1 << 61,
        ACCESSED=1 << 60,
        READ=1 << 59,
        WRITE=1 << 58,
        EXEC=1 << 7,
        PRESENT=1 << 4,
        W=1 << 6,
        P=1 << 8,
        E=1 << 11,
        CACHE=cache,
        SZHUGE=3,
        SZALL=7,
        pa_top=55,
    )


SUN4V: Final = _sun4v(cache=3 << 9)
SUN4V_M7: Final = _sun4v(cache=1 << 10)
"""M7, M8 and SN: bit 9 is not the virtual cache's, but enables memory corruption detection."""


def holds(entry: Entry, mask: int) -> Entry:
    """Return 1 where any bit of a mask is set, else 0."""
    return equals(entry & mask, 0) ^ 1


def clear(entry: Entry, mask: int) -> Entry:
    """Return the entry without the bits of a mask."""
    return entry & (MASK64 ^ mask)


def equals(entry: Entry, word: int) -> Entry:
    """Return 1 where an entry is a word, else 0, in the entry's own type."""
    return (entry == word) | (entry & 0)
