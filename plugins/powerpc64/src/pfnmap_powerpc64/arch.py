"""Powerpc64: the architecture and its CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pfnmap import Has, Level, WordFormat, hookimpl
from pfnmap.contract.fault import SEGV_ACCERR
from pfnmap.contract.plan import HUGE_LEVELS, LeafLevel
from pfnmap.kconfig import fragment
from pfnmap.vm_flags import VM_ACCESS_FLAGS, VM_EXEC, VM_WRITE
from pfnmap_powerpc64.bits import ACCESSED, DIRTY, LEAF, PRESENT, PRIVILEGED, READ, WRITE
from pfnmap_powerpc64.pgtable import Pgtable

__all__ = ["Powerpc64"]


class Powerpc64(Pgtable):
    """The architecture. Not modelled, taken as absent: protection keys, coprocessors, 4K pages inside of 64K ones."""

    name: ClassVar[str] = "powerpc64"
    aliases: ClassVar[tuple[str, ...]] = ("powerpc64le", "ppc64", "ppc64el", "ppc64le")
    config_symbol: ClassVar[str] = "PPC64"
    release_suffixes: ClassVar[Mapping[str, str]] = {"64k": "64K"}
    """A flavour of Debian 7.2."""
    leaf_changes: Mapping[LeafLevel, tuple[str, ...]] = dict.fromkeys(HUGE_LEVELS, ("powerpc-huge-pfnmap",))

    cpu_defaults: ClassVar[Mapping[str, object]] = {"mmu": "auto", "hw_access_dirty": True, "pte_table_size": 0}
    """`mmu`: radix (POWER9 and later), hash, or auto: what the kernel takes on a CPU with both.

    `hw_access_dirty`: radix sets reference and change bits itself; without, it faults. Hash has no table walker: every
    access that its table does not hold yet goes through the kernel.

    `pte_table_size`: the variable __pte_table_size (bytes), a power of two whose lower bits are bad in hash's PMD
    entries; 0: as hash__early_init_mmu leaves it. Golden vectors were computed before __pte_frag_size_shift was set
    (their `bits` say 0), and hash's 64K pages take the size from that: 1 byte, so that nothing is bad. They say so."""

    vector_state: ClassVar[Mapping[str, str]] = {"pte_table_size": "PTE_TABLE_SIZE"}

    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hash": {"cpu": {"mmu": "hash"}},
        "hash 4K": {"cpu": {"mmu": "hash"}, "page_size": "4K"},
        "6.1.192": {"release": "6.1.192"},
    }
    expected_failures: ClassVar[Mapping[str, str]] = {
        "kconfig-claims:pud@hash*": "FINDINGS F18: pfn_pud is BUG() under hash, whatever Kconfig promises",
    }

    def word_format(self, level: Level) -> WordFormat | None:
        """See `pfnmap.Arch.word_format`. Source: Power ISA 3.0, Book III, "Radix Tree Translation".

        Bit 63 (the manual's 0): valid; bit 62: maps memory. A leaf's address ends at bit 56, but Linux uses 53 and
        above for other things; a table's is in 59:8. Bits 8 and 7 are reference and change, 5:4 the memory's
        attributes, 61 and 11:9 software's. Hash walks no tables.
        """
        if not self._radix:
            return None
        shift = next(walked.shift for walked in self.geometry.walk if walked.name == level)
        valid, leaf, address = 1 << 63, 1 << 62, (((1 << 53) - (1 << shift), 0),)
        return WordFormat(
            valid=(valid | leaf, valid | leaf) if level == "pte" else (valid, valid),
            table=None if level == "pte" else (leaf, 0),
            address=address,
            next_table=(((1 << 60) - (1 << 8), 0),),
            load=(0b1100, 0b0100),  # the manual's 60 to 63: privileged, read, write, execute
            execute=(0b1001, 0b0001),
            store=(0b1010, 0b0010),
            uncached=(3 << 4, 2 << 4),  # non-idempotent
            combining=(3 << 4, 3 << 4),  # tolerant
            software=1 << 61 | 7 << 9,
            marks=3 << 7,
        )

    @hookimpl
    def kconfig(self, has: Has) -> str:
        return fragment(__package__, has)

    def mmu_access(self, level: Level, entry: int, write: bool) -> tuple[int, bool]:
        """Inference from the Power ISA (3.0, Book III, radix: R and C bits, EAA) and from hash_page(); nothing pins it.

        Radix refuses what is not present, privileged, or lacks read or write, and then leaves the entry alone. Hash
        walks no tables: the low-level fault (mm/book3s64/hash_utils.c, hash_page_mm) does it, grants the same accesses
        and sets the same bits; that it notes the hash table's slot in the entry besides is left out.
        """
        needed = PRESENT | LEAF | (WRITE if write else READ)
        flags = ACCESSED | (DIRTY if write else 0)
        allowed = entry & (needed | PRIVILEGED) == needed
        if self._radix and not self._hw_access_dirty:
            allowed = allowed and entry & flags == flags
        return (entry | flags if allowed else entry), allowed

    def access_error(self, vm_flags: int, write: bool) -> int:
        """Refuse as access_error in arch/powerpc/mm/fault.c: a load needs any access but execute alone."""
        access = vm_flags & VM_ACCESS_FLAGS
        allowed = access & VM_WRITE if write else access not in (0, VM_EXEC)
        return 0 if allowed else SEGV_ACCERR
