"""What the mm asks of an architecture: its ops on page-table entries and its CPU's table walker.

Three kinds of ops on entries (`defined` in the golden vectors tells which is which):

* *abstract* methods of `PgtableOps`: every architecture with huge pages defines them, no kernel header falls back for
  them. A missing one fails when a kernel is linked, with its name.
* *hooks* (`pfnmap.hookspecs.EntryHooks`): the kernel's headers have a fallback under ``#ifndef``. An architecture that
  marks a method with `pfnmap.hookimpl` owns the op; else `pfnmap.generic` does.
* *optional* methods (`OPTIONAL_OPS`): an architecture may lack them and nobody falls back. Calling one that is absent
  is a refusal that names it.

`pfnmap.contract.entry` says what an entry is. Ops take their arguments by position.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pfnmap.contract.entry import Entry, Level
from pfnmap.contract.fault import SEGV_ACCERR
from pfnmap.contract.geometry import Geometry, WordFormat
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_WRITE

__all__ = ["OPTIONAL_OPS", "Ops", "Owner", "PgtableOps"]

OPTIONAL_OPS: Mapping[str, str] = {
    "pte_mkdevmap": "pte_mkdevmap(pte): return the PTE with the devmap bit; until `devmap-removed`.",
    "pmd_mkdevmap": "pmd_mkdevmap(pmd): return the PMD leaf with the devmap bit; until `devmap-removed`.",
    "pud_mkdevmap": "pud_mkdevmap(pud): return the PUD leaf with the devmap bit; until `devmap-removed`.",
    "pte_mkhuge": "pte_mkhuge(pte): return the PTE made a huge one (of hugetlb).",
    "pfn_pud": "pfn_pud(pfn, prot): return the PUD entry for `pfn` with `prot`; not yet a leaf (see pud_mkhuge).",
    "pud_mkhuge": "pud_mkhuge(pud): return the PUD entry made a leaf.",
    "pud_young": "pud_young(pud): tell (0 or 1) whether a PUD leaf was accessed.",
    "pud_dirty": "pud_dirty(pud): tell (0 or 1) whether a PUD leaf is dirty.",
    "pud_mkyoung": "pud_mkyoung(pud): return the PUD leaf made accessed.",
    "pud_mkold": "pud_mkold(pud): return the PUD leaf made not accessed.",
    "pud_mkdirty": "pud_mkdirty(pud): return the PUD leaf made dirty.",
    "pud_mkclean": "pud_mkclean(pud): return the PUD leaf made clean.",
    "pud_mkwrite": "pud_mkwrite(pud): return the PUD leaf made writable; unlike that of a PTE or PMD it takes no vma.",
    "pud_mkwrite_novma": "pud_mkwrite_novma(pud): return the PUD leaf made writable, by another name that some have.",
    "pud_wrprotect": "pud_wrprotect(pud): return the PUD leaf made read-only.",
    "pud_modify": "pud_modify(pud, newprot): return the PUD leaf with the protection of `newprot`.",
    "p4d_pfn": "p4d_pfn(p4d): return the page frame number that a P4D entry holds.",
    "pgd_pfn": "pgd_pfn(pgd): return the page frame number that a PGD entry holds.",
    "p4d_pgtable": "p4d_pgtable(p4d): return the physical address (bytes) of the table that a P4D entry points to; "
    "needed where P4D slots are walked.",
    "pgd_pgtable": "pgd_pgtable(pgd): return the physical address (bytes) of the table that a PGD entry points to; "
    "needed where PGD slots are walked.",
}
"""Ops that an architecture may lack and no kernel header falls back for (pud_mkhuge on s390, say), each in a
sentence."""

Owner = Literal["arch", "generic", "absent"]


class Ops:
    """The bound ops of a kernel: one attribute per op, each a plain function. `owners` tells who provides which."""

    owners: Mapping[str, Owner]

    def __setattr__(self, name: str, value: object) -> None:
        """Bind an op; `owners` is set last, and from then on nothing is."""
        if "owners" in self.__dict__:
            raise AttributeError(f"the ops of a linked kernel cannot be changed: {name}")
        super().__setattr__(name, value)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Any]: ...


class PgtableOps(ABC):
    """An architecture, as far as the mm asks it; the whole of it is `pfnmap.Arch`."""

    name: ClassVar[str]
    """The plugin's name, as in ``--arch``."""

    undefined: frozenset[str] = frozenset()
    """Ops that this class implements but that this config or release does not define; settled in `setup_arch`. A hook
    falls back to generic, an optional op becomes absent."""

    geometry: Geometry
    """Set by `setup_arch`."""

    cookies_from: int | None = None
    """The physical address (bytes) from which on an entry holds a cookie that no load or store of user space can use
    (SIGILL), settled in `setup_arch`; None: there are no cookies."""

    linear_map: int = 1 << 64
    """The first physical address (bytes) that the kernel's linear map does not reach, settled in `setup_arch`: RAM
    beyond it is not used, so that tables lie below."""

    # What is in memory

    def empty(self, level: Level, /) -> int:
        """Return the empty slot of a level; new tables are filled with it. Zero but on s390 and loongarch.

        A table whose slots several levels share is filled with that of the lowest of them.
        """
        return 0

    @abstractmethod
    def pmd_pgtable(self, pmd: Entry, /) -> Entry:
        """Return the physical address (bytes) of the PTE table that a table entry points to."""

    @abstractmethod
    def pud_pgtable(self, pud: Entry, /) -> Entry:
        """Return the physical address (bytes) of the PMD table that a table entry points to."""

    # The CPU

    def word_format(self, level: Level) -> WordFormat | None:
        """Return how this boot's table walker reads a word of a walked level, or None where that is not said.

        From the CPU's manual. No op may use it: the kit's walk of the raw words is independent of the ops by it.
        """
        return None

    @abstractmethod
    def mmu_access(self, level: Level, entry: int, write: bool, /) -> tuple[int, bool]:
        """Return what the CPU's table walker makes of a present leaf on a user load or store.

        The pair is (entry after the access, whether the access is allowed). Hardware accessed and dirty updates show
        in the entry; a refused access is a page fault and may have changed the entry too.
        """

    def cache_mode(self, level: Level, leaf: int, /) -> str | None:
        """Return what this architecture calls the cache mode that a leaf asks for, None where that is not said.

        For showing real entries; what the CPU makes of it together with what else has a say (MTRRs) is not in it.
        """
        return None

    def access_error(self, vm_flags: int, write: bool, /) -> int:
        """Return 0, or the si_code with which a user access to a vma of these VM_ flags is refused before any fault.

        The default is the rule most architectures share: a store needs VM_WRITE, a load any of read, write, execute.
        """
        needed = VM_WRITE if write else VM_READ | VM_WRITE | VM_EXEC
        return 0 if vm_flags & needed else SEGV_ACCERR

    def copy_tries_again(self, address: int, length: int, done: int, write: bool, /) -> bool:
        """Tell whether a copy of the kernel's that met a bad page touches it once more before it gives up.

        It was of `length` bytes from or (`write`) to the user's `address`; the bad page begins `done` bytes on. The
        default is a copy by words of eight bytes, which tries a word that fails again by bytes; for architectures that
        do not say otherwise that is by analogy.
        """
        return length - done // 8 * 8 >= 8

    cont_ptes: int = 1
    """How many PTEs in a row, aligned, can be marked as one translation."""

    PTE_CONT: int = 0
    """The mark; 0: the architecture has none, or does not use it."""

    def arch_wants_old_prefaulted_pte(self) -> bool:
        """Tell whether an entry that was made for a page beside the one that faulted is not accessed yet."""
        return False

    def fault_address(self, address: int, /) -> int:
        """Return what the CPU tells of the address (bytes) of an access that faults: a signal's si_addr."""
        return address

    # pfn and prot to entry and back

    @abstractmethod
    def pfn_pte(self, pfn: Entry, prot: Entry, /) -> Entry:
        """Return the PTE that maps `pfn` with `prot`."""

    @abstractmethod
    def pfn_pmd(self, pfn: Entry, prot: Entry, /) -> Entry:
        """Return the PMD entry for `pfn` with `prot`; not yet a leaf (see pmd_mkhuge)."""

    @abstractmethod
    def pte_pfn(self, pte: Entry, /) -> Entry:
        """Return the page frame number of a PTE."""

    @abstractmethod
    def pmd_pfn(self, pmd: Entry, /) -> Entry:
        """Return the page frame number of a PMD leaf."""

    # predicates: 0 or 1

    @abstractmethod
    def pte_present(self, pte: Entry, /) -> Entry:
        """Tell whether a PTE is present (a PROT_NONE one is)."""

    @abstractmethod
    def pte_none(self, pte: Entry, /) -> Entry:
        """Tell whether a PTE is empty."""

    @abstractmethod
    def pte_write(self, pte: Entry, /) -> Entry:
        """Tell whether a PTE is writable."""

    @abstractmethod
    def pte_dirty(self, pte: Entry, /) -> Entry:
        """Tell whether a PTE is dirty, in hardware or software."""

    @abstractmethod
    def pte_young(self, pte: Entry, /) -> Entry:
        """Tell whether a PTE was accessed."""

    @abstractmethod
    def pmd_present(self, pmd: Entry, /) -> Entry:
        """Tell whether a PMD entry is present."""

    @abstractmethod
    def pmd_none(self, pmd: Entry, /) -> Entry:
        """Tell whether a PMD entry is empty."""

    @abstractmethod
    def pmd_leaf(self, pmd: Entry, /) -> Entry:
        """Tell whether a PMD entry maps memory and not a table."""

    @abstractmethod
    def pmd_bad(self, pmd: Entry, /) -> Entry:
        """Tell whether a PMD entry is not a valid table entry."""

    @abstractmethod
    def pmd_trans_huge(self, pmd: Entry, /) -> Entry:
        """Tell whether a PMD entry is a transparent huge one (on x86 also a special one: FINDINGS F19)."""

    @abstractmethod
    def pmd_write(self, pmd: Entry, /) -> Entry:
        """Tell whether a PMD leaf is writable."""

    @abstractmethod
    def pmd_dirty(self, pmd: Entry, /) -> Entry:
        """Tell whether a PMD leaf is dirty."""

    @abstractmethod
    def pmd_young(self, pmd: Entry, /) -> Entry:
        """Tell whether a PMD leaf was accessed."""

    @abstractmethod
    def pud_present(self, pud: Entry, /) -> Entry:
        """Tell whether a PUD entry is present."""

    @abstractmethod
    def pud_none(self, pud: Entry, /) -> Entry:
        """Tell whether a PUD entry is empty; always 0 where the PUD is folded."""

    @abstractmethod
    def pud_leaf(self, pud: Entry, /) -> Entry:
        """Tell whether a PUD entry maps memory and not a table."""

    @abstractmethod
    def pud_bad(self, pud: Entry, /) -> Entry:
        """Tell whether a PUD entry is not a valid table entry."""

    # mk*

    @abstractmethod
    def pte_mkwrite_novma(self, pte: Entry, /) -> Entry:
        """Return the PTE made writable."""

    @abstractmethod
    def pte_wrprotect(self, pte: Entry, /) -> Entry:
        """Return the PTE made read-only."""

    @abstractmethod
    def pte_mkdirty(self, pte: Entry, /) -> Entry:
        """Return the PTE made dirty."""

    @abstractmethod
    def pte_mkclean(self, pte: Entry, /) -> Entry:
        """Return the PTE made clean."""

    @abstractmethod
    def pte_mkyoung(self, pte: Entry, /) -> Entry:
        """Return the PTE made accessed."""

    @abstractmethod
    def pte_mkold(self, pte: Entry, /) -> Entry:
        """Return the PTE made not accessed."""

    @abstractmethod
    def pte_modify(self, pte: Entry, newprot: Entry, /) -> Entry:
        """Return the PTE with the protection of `newprot`; pfn, special and dirty state are kept."""

    @abstractmethod
    def pmd_mkhuge(self, pmd: Entry, /) -> Entry:
        """Return the PMD entry made a leaf."""

    @abstractmethod
    def pmd_mkwrite_novma(self, pmd: Entry, /) -> Entry:
        """Return the PMD leaf made writable."""

    @abstractmethod
    def pmd_wrprotect(self, pmd: Entry, /) -> Entry:
        """Return the PMD leaf made read-only."""

    @abstractmethod
    def pmd_mkdirty(self, pmd: Entry, /) -> Entry:
        """Return the PMD leaf made dirty."""

    @abstractmethod
    def pmd_mkclean(self, pmd: Entry, /) -> Entry:
        """Return the PMD leaf made clean."""

    @abstractmethod
    def pmd_mkyoung(self, pmd: Entry, /) -> Entry:
        """Return the PMD leaf made accessed."""

    @abstractmethod
    def pmd_mkold(self, pmd: Entry, /) -> Entry:
        """Return the PMD leaf made not accessed."""

    @abstractmethod
    def pmd_modify(self, pmd: Entry, newprot: Entry, /) -> Entry:
        """Return the PMD leaf with the protection of `newprot`."""

    # table entries

    @abstractmethod
    def pmd_populate(self, pa: Entry, /) -> Entry:
        """Return the PMD entry that points to the PTE table at physical address `pa`."""

    @abstractmethod
    def pud_populate(self, pa: Entry, /) -> Entry:
        """Return the PUD entry that points to the PMD table at `pa`; 0 where the PUD is folded (nothing is written)."""

    # protection

    @abstractmethod
    def pgprot_writecombine(self, prot: Entry, /) -> Entry:
        """Return the pgprot made write-combining."""

    @property
    @abstractmethod
    def protection_map(self) -> tuple[int, ...]:
        """The 16 pgprots indexed by vm_flags & 15 (1 read, 2 write, 4 execute, 8 shared)."""
