"""What an architecture is: the abstract class that it implements, its levels and its geometry.

Three kinds of operations on page-table entries (`defined` in the golden vectors tells which is which):

* *abstract* methods of `Arch`: every architecture with huge pages defines them, no kernel header falls back for them.
  A missing one fails when a kernel is linked, with its name.
* *hooks* (`pfnmap.hookspecs.EntryHooks`): the kernel's headers have a fallback under ``#ifndef``. An architecture that
  marks a method with `pfnmap.hookimpl` owns the op; else `pfnmap.generic` does.
* *optional* methods (`OPTIONAL_OPS`): an architecture may lack them and nobody falls back. Calling one that is absent
  is a refusal that names it.

An **entry** is an unsigned 64-bit integer, never wrapped in an object: a Python ``int`` in [0, 2**64), or a
``numpy.uint64`` array whose lanes are entries. Every op is elementwise and gives the same bits for both, without
importing numpy: masks are non-negative 64-bit constants, left shifts are masked to 64 bits, predicates answer 0 or 1 in
the entry's own type, selection is ``predicate * MASK``; no branch on an entry, no ``~``. ``prot`` arguments are pgprot
values (also unsigned 64-bit), ``pfn`` arguments page frame numbers of the base page size, ``pa`` physical addresses in
bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_WRITE

if TYPE_CHECKING:
    from pfnmap.contract.guest import Host, SecondStage
    from pfnmap.contract.plan import LeafLevel
    from pfnmap.driver import Action
    from pfnmap.kernel import Kernel

__all__ = [
    "LEVELS",
    "OPTIONAL_OPS",
    "PKUERR",
    "Arch",
    "Entry",
    "Geometry",
    "Has",
    "Level",
    "MmuCpu",
    "WalkLevel",
    "WordFormat",
]

Level = Literal["pte", "pmd", "pud", "p4d", "pgd"]
LEVELS: tuple[Level, ...] = ("pte", "pmd", "pud", "p4d", "pgd")

Entry: TypeAlias = Any
"""An ``int`` or a ``numpy.uint64`` array; see the module's text. (`Any`, so that numpy need not be imported.)"""

Has: TypeAlias = Callable[[str], bool]
"""Asks whether the release that is being linked has an upstream change, by its id in changes.toml."""

SEGV_ACCERR = 2
PKUERR = 4
"""si_code of a refusal by a protection key (SEGV_PKUERR)."""

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
    "pud_mkwrite_novma": "pud_mkwrite_novma(pud): return the PUD leaf made writable, by another name (arm64).",
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


@dataclass(frozen=True, slots=True)
class WalkLevel:
    """One level that the hardware walks: its name in output, its shift (bits) and its table's entries."""

    name: Level
    shift: int
    ptrs: int


Bits: TypeAlias = "tuple[int, int]"
"""(mask, value): holds for a word w where ``w & mask == value``."""

Fields: TypeAlias = "tuple[tuple[int, int], ...]"
"""(mask, shift) pairs: the bits of a word that hold an address (bytes), each moved left by its shift (right by a
negative one): ``address = OR of (w & mask) << shift``."""


@dataclass(frozen=True, slots=True)
class WordFormat:
    """How the CPU's table walker reads a word of one level's tables, as the CPU's manual says, not the kernel.

    `valid`: the word takes part in a walk at all. `table`: a valid word points to the next table; None where it always
    maps memory (the last level). `address`: where a word that maps memory holds the physical address of what it maps;
    `next_table`: where one that points to a table holds that table's (None: as `address`).
    """

    valid: Bits
    table: Bits | None
    address: Fields
    next_table: Fields | None = None


@dataclass(frozen=True, slots=True)
class MmuCpu:
    """The emulated CPU whose MMU the kit takes as a judge: one of `pfnmap.testing.unicorn_cpu`, by name.

    `state`: what that CPU has and has not, as `cpu` keys with their values; only boots with these are judged.
    """

    name: str
    state: Mapping[str, object]


@dataclass(frozen=True)
class Geometry:
    """Page-table geometry of one boot. Two things that are not derived from each other (DESIGN rule 5):

    the constants (what ``PGDIR_SHIFT``, ``PTRS_PER_P4D``, ``pgd_index`` say in that boot, compared with the vectors)
    and `walk`, the levels that are really walked, top first, each with the shift and the entries of its table.
    Shifts are in bits, `task_size` in bytes: the first address past user space.

    On s390 a process begins with the lowest `new_process_levels` of `walk`, and gets others on top once it maps
    something that those do not reach (`levels`). Elsewhere (0) every process walks all.
    """

    PAGE_SHIFT: int
    PMD_SHIFT: int
    PUD_SHIFT: int
    P4D_SHIFT: int
    PGDIR_SHIFT: int
    PTRS_PER_PTE: int
    PTRS_PER_PMD: int
    PTRS_PER_PUD: int
    PTRS_PER_P4D: int
    PTRS_PER_PGD: int
    walk: tuple[WalkLevel, ...]
    task_size: int
    new_process_levels: int = 0

    @property
    def PAGE_SIZE(self) -> int:
        """Bytes in a base page."""
        return 1 << self.PAGE_SHIFT

    @property
    def PMD_ORDER(self) -> int:
        """Order (log2 of base pages) of a PMD leaf."""
        return self.PMD_SHIFT - self.PAGE_SHIFT

    @property
    def PUD_ORDER(self) -> int:
        """Order (log2 of base pages) of a PUD leaf."""
        return self.PUD_SHIFT - self.PAGE_SHIFT

    @property
    def stack_top(self) -> int:
        """The end (bytes) of what a new process's tables reach: its stack and what mmap chooses lie below."""
        top = self.lowest(self.new_process_levels)[0]
        return min(self.task_size, top.ptrs << top.shift)

    def lowest(self, count: int) -> tuple[WalkLevel, ...]:
        """Return the lowest `count` walked levels (0: all), the first of them named ``pgd``, as what is on top is."""
        top, *below = self.walk[-count:]
        return (replace(top, name="pgd"), *below)

    def levels(self, end: int) -> tuple[WalkLevel, ...]:
        """Return the levels that are walked in a process whose mappings end at `end` (bytes)."""
        count = self.new_process_levels or len(self.walk)
        while count < len(self.walk) and end > self.walk[-count].ptrs << self.walk[-count].shift:
            count += 1
        return self.lowest(count)

    def shift(self, level: Level) -> int:
        """Return the kernel's shift of a level in bits (PAGE_SHIFT for ``pte``, PGDIR_SHIFT for ``pgd``)."""
        return {
            "pte": self.PAGE_SHIFT,
            "pmd": self.PMD_SHIFT,
            "pud": self.PUD_SHIFT,
            "p4d": self.P4D_SHIFT,
            "pgd": self.PGDIR_SHIFT,
        }[level]

    def size(self, level: Level) -> int:
        """Return the bytes that one entry of a level maps."""
        return 1 << self.shift(level)

    def ptrs(self, level: Level) -> int:
        """Return PTRS_PER_x of a level."""
        return {
            "pte": self.PTRS_PER_PTE,
            "pmd": self.PTRS_PER_PMD,
            "pud": self.PTRS_PER_PUD,
            "p4d": self.PTRS_PER_P4D,
            "pgd": self.PTRS_PER_PGD,
        }[level]

    def index(self, level: Level, address: Entry) -> Entry:
        """Return X_index(address): the kernel's macro, which is not always the slot that is walked."""
        return (address >> self.shift(level)) & (self.ptrs(level) - 1)

    def folded(self, level: Level) -> bool:
        """Tell whether a level is folded into the one above it in this boot, i.e. not walked."""
        return all(w.name != level for w in self.walk)

    def constants(self) -> dict[str, int]:
        """Return the geometry constants by their kernel names (compared with a vector file's `constants`)."""
        names = [f"PTRS_PER_{x}" for x in ("PTE", "PMD", "PUD", "P4D", "PGD")]
        names += [
            "PAGE_SHIFT",
            "PMD_SHIFT",
            "PUD_SHIFT",
            "P4D_SHIFT",
            "PGDIR_SHIFT",
            "PMD_ORDER",
            "PUD_ORDER",
        ]
        return {name: getattr(self, name) for name in names}


class Arch(ABC):
    """An architecture. A subclass is what an entry point of group ``pfnmap.arch`` names.

    One instance belongs to one linked kernel. Linking calls, in this order: the constructor without arguments, the
    `kconfig` hook (a fragment of Kconfig text), then `setup_arch` with the resolved configuration, the boot-time CPU
    state and the release; only then are ops bound. Everything that an op needs is settled in `setup_arch`, so that ops
    are plain arithmetic.
    """

    name: ClassVar[str]
    """The plugin's name, as in ``--arch``."""

    aliases: ClassVar[tuple[str, ...]] = ()
    """What other tools call it (dpkg, uname -m, rpm), in lower case with ``_`` for ``-``."""

    config_symbol: ClassVar[str] = ""
    """The Kconfig symbol that every configuration of this architecture sets to y, and no other's."""

    release_suffixes: ClassVar[Mapping[str, str]] = {}
    """Words in distributions' kernel names (``uname -r``) that stand for a page size: ``{"64k": "64K"}``. Where no word
    names the architecture, it is taken for the first that has the suffix."""

    cpu_defaults: ClassVar[Mapping[str, object]]
    """Boot-time state that `--cpu` may set, with the value of a current machine: key -> bool, int or str."""

    provides: ClassVar[tuple[str, ...]] = ()
    """The kernel functions besides ops on entries that it models, by name (PAT's, system calls of its own)."""

    consumes: ClassVar[tuple[str, ...]] = ()
    """The functions of `kernel.mm` that it calls, of all releases."""

    leaf_changes: ClassVar[Mapping[LeafLevel, tuple[str, ...]]] = {}
    """The upstream changes without which this architecture has no pfnmap leaves of a level, for the planner."""

    undefined: frozenset[str] = frozenset()
    """Ops that this class implements but that this config or release does not define; settled in `setup_arch`. A hook
    falls back to generic, an optional op becomes absent."""

    geometry: Geometry
    """Set by `setup_arch`."""

    # What the conformance kit (`pfnmap.testing`) is told

    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Machines that the kit links besides its own choice: a name -> arguments of `pfnmap.kernel.Kernel.link`
    (`release`, `given`, `config`, `page_size`, `cpu`, `thp`)."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    """Checks of the kit that this architecture fails, with the reason: "check", "check:level" or
    "check:level@machine" (the machine may hold ``*``) -> why."""

    mmu_cpu: ClassVar[MmuCpu | None] = None
    """The emulated CPU that walks this architecture's tables, if the kit has one: ``MmuCpu("x86_64", {})``."""

    def word_format(self, level: Level) -> WordFormat | None:
        """Return how this boot's table walker reads a word of a walked level, or None where that is not said.

        From the CPU's manual. No op may use it: the kit's walk of the raw words is independent of the ops by it.
        """
        return None

    @abstractmethod
    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Has) -> None:
        """Settle this boot: geometry, masks, which ops are `undefined`.

        `config` holds resolved symbols without CONFIG_ ("y", "m", "n", numbers as text; absent means "n"), `cpu` the
        complete boot-time state (`cpu_defaults` updated with what the user said), `has` the release's changes.
        """

    kernel: Kernel
    """The kernel that it is linked into; set by `boot`, after `setup_arch`."""

    def boot(self, kernel: Kernel) -> None:
        """Start over; called when the kernel is linked and at each `Kernel.boot`, before the drivers'."""
        self.kernel = kernel

    def actions(self) -> Mapping[str, Action]:
        """Return the scenario actions of this architecture (system calls of its own, say), by name without its own."""
        return {}

    def second_stage(self, kernel: Host, hypervisor: str) -> SecondStage | None:
        """Tell the planner what a hypervisor (its plugin's name) makes of a process's leaves on this architecture.

        None: that is left to what the hypervisor's plugin itself knows.
        """
        return None

    # What is in memory

    def empty(self, level: Level) -> int:
        """Return the empty slot of a level; new tables are filled with it. Zero but on s390 and loongarch.

        A table whose slots several levels share is filled with that of the lowest of them.
        """
        return 0

    @abstractmethod
    def pmd_pgtable(self, pmd: Entry) -> Entry:
        """Return the physical address (bytes) of the PTE table that a table entry points to."""

    @abstractmethod
    def pud_pgtable(self, pud: Entry) -> Entry:
        """Return the physical address (bytes) of the PMD table that a table entry points to."""

    # The CPU

    @abstractmethod
    def mmu_access(self, level: Level, entry: int, write: bool) -> tuple[int, bool]:
        """Return what the CPU's table walker makes of a present leaf on a user load or store.

        The pair is (entry after the access, whether the access is allowed). Hardware accessed and dirty updates show
        in the entry; a refused access is a page fault and may have changed the entry too.
        """

    def access_error(self, vm_flags: int, write: bool) -> int:
        """Return 0, or the si_code with which a user access to a vma of these VM_ flags is refused before any fault.

        The default is the rule most architectures share: a store needs VM_WRITE, a load any of read, write, execute.
        """
        needed = VM_WRITE if write else VM_READ | VM_WRITE | VM_EXEC
        return 0 if vm_flags & needed else SEGV_ACCERR

    def fault_address(self, address: int) -> int:
        """Return what the CPU tells of the address (bytes) of an access that faults: a signal's si_addr."""
        return address

    # pfn and prot to entry and back

    @abstractmethod
    def pfn_pte(self, pfn: Entry, prot: Entry) -> Entry:
        """Return the PTE that maps `pfn` with `prot`."""

    @abstractmethod
    def pfn_pmd(self, pfn: Entry, prot: Entry) -> Entry:
        """Return the PMD entry for `pfn` with `prot`; not yet a leaf (see pmd_mkhuge)."""

    @abstractmethod
    def pte_pfn(self, pte: Entry) -> Entry:
        """Return the page frame number of a PTE."""

    @abstractmethod
    def pmd_pfn(self, pmd: Entry) -> Entry:
        """Return the page frame number of a PMD leaf."""

    @abstractmethod
    def pud_pfn(self, pud: Entry) -> Entry:
        """Return the page frame number of a PUD leaf."""

    # predicates: 0 or 1

    @abstractmethod
    def pte_present(self, pte: Entry) -> Entry:
        """Tell whether a PTE is present (a PROT_NONE one is)."""

    @abstractmethod
    def pte_none(self, pte: Entry) -> Entry:
        """Tell whether a PTE is empty."""

    @abstractmethod
    def pte_write(self, pte: Entry) -> Entry:
        """Tell whether a PTE is writable."""

    @abstractmethod
    def pte_dirty(self, pte: Entry) -> Entry:
        """Tell whether a PTE is dirty, in hardware or software."""

    @abstractmethod
    def pte_young(self, pte: Entry) -> Entry:
        """Tell whether a PTE was accessed."""

    @abstractmethod
    def pmd_present(self, pmd: Entry) -> Entry:
        """Tell whether a PMD entry is present."""

    @abstractmethod
    def pmd_none(self, pmd: Entry) -> Entry:
        """Tell whether a PMD entry is empty."""

    @abstractmethod
    def pmd_leaf(self, pmd: Entry) -> Entry:
        """Tell whether a PMD entry maps memory and not a table."""

    @abstractmethod
    def pmd_bad(self, pmd: Entry) -> Entry:
        """Tell whether a PMD entry is not a valid table entry."""

    @abstractmethod
    def pmd_trans_huge(self, pmd: Entry) -> Entry:
        """Tell whether a PMD entry is a transparent huge one (on x86 also a special one: FINDINGS F19)."""

    @abstractmethod
    def pmd_write(self, pmd: Entry) -> Entry:
        """Tell whether a PMD leaf is writable."""

    @abstractmethod
    def pmd_dirty(self, pmd: Entry) -> Entry:
        """Tell whether a PMD leaf is dirty."""

    @abstractmethod
    def pmd_young(self, pmd: Entry) -> Entry:
        """Tell whether a PMD leaf was accessed."""

    @abstractmethod
    def pud_present(self, pud: Entry) -> Entry:
        """Tell whether a PUD entry is present."""

    @abstractmethod
    def pud_none(self, pud: Entry) -> Entry:
        """Tell whether a PUD entry is empty; always 0 where the PUD is folded."""

    @abstractmethod
    def pud_leaf(self, pud: Entry) -> Entry:
        """Tell whether a PUD entry maps memory and not a table."""

    @abstractmethod
    def pud_bad(self, pud: Entry) -> Entry:
        """Tell whether a PUD entry is not a valid table entry."""

    @abstractmethod
    def pud_write(self, pud: Entry) -> Entry:
        """Tell whether a PUD leaf is writable."""

    # mk*

    @abstractmethod
    def pte_mkwrite_novma(self, pte: Entry) -> Entry:
        """Return the PTE made writable."""

    @abstractmethod
    def pte_wrprotect(self, pte: Entry) -> Entry:
        """Return the PTE made read-only."""

    @abstractmethod
    def pte_mkdirty(self, pte: Entry) -> Entry:
        """Return the PTE made dirty."""

    @abstractmethod
    def pte_mkclean(self, pte: Entry) -> Entry:
        """Return the PTE made clean."""

    @abstractmethod
    def pte_mkyoung(self, pte: Entry) -> Entry:
        """Return the PTE made accessed."""

    @abstractmethod
    def pte_mkold(self, pte: Entry) -> Entry:
        """Return the PTE made not accessed."""

    @abstractmethod
    def pte_modify(self, pte: Entry, newprot: Entry) -> Entry:
        """Return the PTE with the protection of `newprot`; pfn, special and dirty state are kept."""

    @abstractmethod
    def pmd_mkhuge(self, pmd: Entry) -> Entry:
        """Return the PMD entry made a leaf."""

    @abstractmethod
    def pmd_mkwrite_novma(self, pmd: Entry) -> Entry:
        """Return the PMD leaf made writable."""

    @abstractmethod
    def pmd_wrprotect(self, pmd: Entry) -> Entry:
        """Return the PMD leaf made read-only."""

    @abstractmethod
    def pmd_mkdirty(self, pmd: Entry) -> Entry:
        """Return the PMD leaf made dirty."""

    @abstractmethod
    def pmd_mkclean(self, pmd: Entry) -> Entry:
        """Return the PMD leaf made clean."""

    @abstractmethod
    def pmd_mkyoung(self, pmd: Entry) -> Entry:
        """Return the PMD leaf made accessed."""

    @abstractmethod
    def pmd_mkold(self, pmd: Entry) -> Entry:
        """Return the PMD leaf made not accessed."""

    @abstractmethod
    def pmd_modify(self, pmd: Entry, newprot: Entry) -> Entry:
        """Return the PMD leaf with the protection of `newprot`."""

    # table entries

    @abstractmethod
    def pmd_populate(self, pa: Entry) -> Entry:
        """Return the PMD entry that points to the PTE table at physical address `pa`."""

    @abstractmethod
    def pud_populate(self, pa: Entry) -> Entry:
        """Return the PUD entry that points to the PMD table at `pa`; 0 where the PUD is folded (nothing is written)."""

    # protection

    @abstractmethod
    def pgprot_writecombine(self, prot: Entry) -> Entry:
        """Return the pgprot made write-combining."""

    @property
    @abstractmethod
    def protection_map(self) -> tuple[int, ...]:
        """The 16 pgprots indexed by vm_flags & 15 (1 read, 2 write, 4 execute, 8 shared)."""
