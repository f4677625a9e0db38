"""The kit's own architecture: 4K pages, four levels, every bit in its own place, and no tradition.

No machine is like it. Drivers are tested on it where no architecture is installed, and the kit is tested with it: with
nothing wrong, and with one thing wrong at a time. PMD and PUD leaves are PTEs with the leaf bit.
"""

# One function serves several levels, whose contract names its argument after the level.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pfnmap.contract.arch import Arch
from pfnmap.contract.entry import Entry, Has, Level
from pfnmap.contract.fault import SEGV_ACCERR
from pfnmap.contract.geometry import Geometry, WalkLevel, WordFormat
from pfnmap.hookspecs import hookimpl
from pfnmap.kconfig import settle
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE

__all__ = ["Plain"]

ALL: Final = (1 << 64) - 1
PRESENT: Final = 1 << 0
READ: Final = 1 << 1
WRITE: Final = 1 << 2
EXEC: Final = 1 << 3
ACCESSED: Final = 1 << 4
DIRTY: Final = 1 << 5
LEAF: Final = 1 << 6
SPECIAL: Final = 1 << 7
UNCACHED: Final = 1 << 8
COMBINING: Final = 1 << 9
ADDRESS: Final = ((1 << 52) - 1) & (ALL << 12)
KEPT: Final = ADDRESS | PRESENT | ACCESSED | DIRTY | LEAF | SPECIAL
"""What the modify ops keep of the old entry."""

_KCONFIG = """\
config PLAIN
	def_bool y
	select ARCH_HAS_PTE_SPECIAL
	select HAVE_ARCH_TRANSPARENT_HUGEPAGE
	select HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD
#: since huge-pfnmap
	select ARCH_SUPPORTS_HUGE_PFNMAP if TRANSPARENT_HUGEPAGE
#: end
	select HAVE_PCI
#: since per-vma-lock-faults
	select ARCH_SUPPORTS_PER_VMA_LOCK
#: end

config 64BIT
	def_bool y

config MMU
	def_bool y

config SMP
	def_bool y

config PGTABLE_LEVELS
	int
	default 4
"""


def bit(entry: Entry, mask: int) -> Entry:
    """Return 1 where the one bit of a mask is set, else 0."""
    return (entry >> (mask.bit_length() - 1)) & 1


def clear(entry: Entry, mask: int) -> Entry:
    """Return the entry without the bits of a mask."""
    return entry & (ALL ^ mask)


def is_zero(entry: Entry) -> Entry:
    """Return 1 where a word is 0, in the word's own type."""
    return (entry == 0) | (entry & 0)


class Plain(Arch):
    """The architecture. `cpu` keys: `hw_access_dirty`."""

    name: ClassVar[str] = "plain"
    cpu_defaults: ClassVar[Mapping[str, object]] = {"hw_access_dirty": True}

    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Has) -> None:
        """Four levels of 512 entries; user space is the lower half."""
        walk = (("pgd", 39), ("pud", 30), ("pmd", 21), ("pte", 12))
        self.geometry = Geometry(
            PAGE_SHIFT=12,
            PMD_SHIFT=21,
            PUD_SHIFT=30,
            P4D_SHIFT=39,
            PGDIR_SHIFT=39,
            PTRS_PER_PTE=512,
            PTRS_PER_PMD=512,
            PTRS_PER_PUD=512,
            PTRS_PER_P4D=1,
            PTRS_PER_PGD=512,
            walk=tuple(WalkLevel(name, shift, 512) for name, shift in walk),  # type: ignore[arg-type]
            task_size=1 << 47,
        )
        self.hw_access_dirty = bool(cpu["hw_access_dirty"])
        self.thp = int(config.get("TRANSPARENT_HUGEPAGE") == "y")

    @hookimpl
    def kconfig(self, has: Has) -> str:
        """The symbols."""
        return settle(_KCONFIG, has)

    def word_format(self, level: Level) -> WordFormat:
        """Bit 0 is valid, bit 6 tells a leaf; a leaf holds its address from its own size up."""
        shift = next(walked.shift for walked in self.geometry.walk if walked.name == level)
        table = {"pte": None, "pgd": (0, 0)}.get(level, (LEAF, 0))
        return WordFormat(
            (PRESENT, PRESENT),
            table,
            ((ADDRESS & -(1 << shift), 0),),
            ((ADDRESS, 0),),
            load=(READ, READ),
            execute=(EXEC, EXEC),
            store=(READ | WRITE, READ | WRITE),
            uncached=(UNCACHED, UNCACHED),
            combining=(COMBINING, COMBINING),
            software=SPECIAL | 3 << 10,
            marks=ACCESSED | DIRTY,
            reserved=0xFFF << 52,
        )

    def mmu_access(self, level: Level, entry: int, write: bool) -> tuple[int, bool]:
        """A load needs READ, a store WRITE as well; marks are set, or missing ones refused."""
        needed = PRESENT | READ | (WRITE if write else 0)
        marks = ACCESSED | (DIRTY if write else 0)
        allowed = entry & needed == needed and (self.hw_access_dirty or entry & marks == marks)
        return (entry | marks if allowed else entry), allowed

    def access_error(self, vm_flags: int, write: bool) -> int:
        """What may be executed alone cannot be read."""
        return 0 if vm_flags & (VM_WRITE if write else VM_READ | VM_WRITE) else SEGV_ACCERR

    # Made of what

    def pfn_pte(self, pfn: Entry, prot: Entry) -> Entry:
        return ((pfn << 12) & ADDRESS) | prot

    pfn_pmd = pfn_pte
    pfn_pud = pfn_pte

    def pte_pfn(self, pte: Entry) -> Entry:
        return (pte & ADDRESS) >> 12

    pmd_pfn = pte_pfn

    @hookimpl
    def pud_pfn(self, pud: Entry) -> Entry:
        return self.pte_pfn(pud)

    @hookimpl
    def pte_pgprot(self, pte: Entry) -> Entry:
        return clear(pte, ADDRESS)

    @hookimpl
    def pmd_pgprot(self, pmd: Entry) -> Entry:
        return clear(pmd, ADDRESS)

    @hookimpl
    def pud_pgprot(self, pud: Entry) -> Entry:
        return clear(pud, ADDRESS)

    # Predicates

    def pte_present(self, pte: Entry) -> Entry:
        return bit(pte, PRESENT)

    pmd_present = pte_present
    pud_present = pte_present

    def pte_none(self, pte: Entry) -> Entry:
        return is_zero(pte)

    pmd_none = pte_none
    pud_none = pte_none

    def pte_write(self, pte: Entry) -> Entry:
        return bit(pte, WRITE)

    pmd_write = pte_write

    @hookimpl
    def pud_write(self, pud: Entry) -> Entry:
        return self.pte_write(pud)

    def pte_dirty(self, pte: Entry) -> Entry:
        return bit(pte, DIRTY)

    pmd_dirty = pte_dirty
    pud_dirty = pte_dirty

    def pte_young(self, pte: Entry) -> Entry:
        return bit(pte, ACCESSED)

    pmd_young = pte_young
    pud_young = pte_young

    def pmd_leaf(self, pmd: Entry) -> Entry:
        return bit(pmd, PRESENT) & bit(pmd, LEAF)

    pud_leaf = pmd_leaf

    def pmd_trans_huge(self, pmd: Entry) -> Entry:
        return self.pmd_leaf(pmd) & self.thp

    @hookimpl
    def pud_trans_huge(self, pud: Entry) -> Entry:
        return self.pud_leaf(pud) & self.thp

    def pmd_bad(self, pmd: Entry) -> Entry:
        return (bit(pmd, PRESENT) ^ 1) | bit(pmd, LEAF)

    pud_bad = pmd_bad

    @hookimpl
    def pte_special(self, pte: Entry) -> Entry:
        return bit(pte, SPECIAL)

    @hookimpl
    def pmd_special(self, pmd: Entry) -> Entry:
        return bit(pmd, SPECIAL)

    @hookimpl
    def pud_special(self, pud: Entry) -> Entry:
        return bit(pud, SPECIAL)

    # Changes

    @hookimpl
    def pte_mkspecial(self, pte: Entry) -> Entry:
        return pte | SPECIAL

    @hookimpl
    def pmd_mkspecial(self, pmd: Entry) -> Entry:
        return pmd | SPECIAL

    @hookimpl
    def pud_mkspecial(self, pud: Entry) -> Entry:
        return pud | SPECIAL

    def pmd_mkhuge(self, pmd: Entry) -> Entry:
        return pmd | LEAF

    pud_mkhuge = pmd_mkhuge

    def pte_mkwrite_novma(self, pte: Entry) -> Entry:
        return pte | WRITE

    pmd_mkwrite_novma = pte_mkwrite_novma
    pud_mkwrite = pte_mkwrite_novma

    def pte_wrprotect(self, pte: Entry) -> Entry:
        return clear(pte, WRITE)

    pmd_wrprotect = pte_wrprotect
    pud_wrprotect = pte_wrprotect

    def pte_mkdirty(self, pte: Entry) -> Entry:
        return pte | DIRTY

    pmd_mkdirty = pte_mkdirty
    pud_mkdirty = pte_mkdirty

    def pte_mkclean(self, pte: Entry) -> Entry:
        return clear(pte, DIRTY)

    pmd_mkclean = pte_mkclean
    pud_mkclean = pte_mkclean

    def pte_mkyoung(self, pte: Entry) -> Entry:
        return pte | ACCESSED

    pmd_mkyoung = pte_mkyoung
    pud_mkyoung = pte_mkyoung

    def pte_mkold(self, pte: Entry) -> Entry:
        return clear(pte, ACCESSED)

    pmd_mkold = pte_mkold
    pud_mkold = pte_mkold

    def pte_modify(self, pte: Entry, newprot: Entry) -> Entry:
        return (pte & KEPT) | clear(newprot, KEPT)

    pmd_modify = pte_modify
    pud_modify = pte_modify

    # Table entries; the P4D is the PGD's slot

    def pmd_populate(self, pa: Entry) -> Entry:
        return pa | PRESENT

    pud_populate = pmd_populate

    def pmd_pgtable(self, pmd: Entry) -> Entry:
        return pmd & ADDRESS

    pud_pgtable = pmd_pgtable
    p4d_pgtable = pmd_pgtable

    @hookimpl
    def p4d_populate(self, pa: Entry) -> Entry:
        return pa | PRESENT

    @hookimpl
    def p4d_present(self, p4d: Entry) -> Entry:
        return bit(p4d, PRESENT)

    @hookimpl
    def p4d_none(self, p4d: Entry) -> Entry:
        return is_zero(p4d)

    @hookimpl
    def p4d_bad(self, p4d: Entry) -> Entry:
        return bit(p4d, PRESENT) ^ 1

    # Protection

    @hookimpl
    def pgprot_noncached(self, prot: Entry) -> Entry:
        return clear(prot, COMBINING) | UNCACHED

    def pgprot_writecombine(self, prot: Entry) -> Entry:
        return clear(prot, UNCACHED) | COMBINING

    @property
    def protection_map(self) -> tuple[int, ...]:
        return tuple(_protection(flags) for flags in range(16))


def _protection(flags: int) -> int:
    """The pgprot of VM_ flags: a private mapping is not writable at once, its pages are copied first."""
    prot = PRESENT | ACCESSED
    if flags & (VM_READ | VM_WRITE):
        prot |= READ
    if flags & VM_WRITE and flags & VM_SHARED:
        prot |= WRITE
    return prot | (EXEC if flags & VM_EXEC else 0)
