"""sparc64: page-table entries, and what the MMU makes of a leaf.

Source: arch/sparc/include/asm/pgtable_64.h, pgalloc_64.h and arch/sparc/mm/init_64.c of 6.12.117 and 7.3.4, which the
vectors in this plugin's tests were made with. No helper differs between the two releases.

The hardware walks no tables: a TLB miss traps, and the kernel's handler loads the word of a leaf as it stands
(arch/sparc/include/asm/tsb.h, USER_PGTABLE_WALK_TL1). A table entry is the physical address of the table alone.
"""

# One function serves several levels, whose contract names its argument after the level.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pfnmap import Arch, Entry, Geometry, Has, Level, WalkLevel, WordFormat, hookimpl
from pfnmap.kconfig import fragment
from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_WRITE
from pfnmap_sparc64.bits import HUGE, MASK64, SPECIAL, SUN4U, SUN4V, SUN4V_M7, VALID, clear, equals, holds

__all__ = ["Sparc64"]

_PAGE_SHIFT: Final = 13
_PTRS: Final = 1 << (_PAGE_SHIFT - 3)
_SHIFTS: Final[Mapping[Level, int]] = {"pgd": 43, "pud": 33, "pmd": 23, "pte": _PAGE_SHIFT}
_STACK_TOP64: Final = (1 << 43) - (1 << 32)
_SEGV_ACCERR: Final = 2


class Sparc64(Arch):
    """UltraSPARC and SPARC Mn/Tn. `cpu` keys: `sun4v`, and of sun4v `m7` (M7, M8, SN)."""

    name: ClassVar[str] = "sparc64"
    config_symbol: ClassVar[str] = "SPARC64"
    cpu_defaults: ClassVar[Mapping[str, object]] = {"sun4v": True, "m7": True}
    expected_failures: ClassVar[Mapping[str, str]] = {
        "pgprot-less-pfn:pmd": "arch/sparc's pmd_pgprot returns the whole entry, the address included",
        **dict.fromkeys(
            ("access-permitted:pte", "gup-reads:pte"),
            "arch/sparc's pte_access_permitted asks for the privileged bit, which no user page has",
        ),
        "hugetlb-leaf": "what makes it a leaf is arch_make_huge_pte's (arch/sparc/mm/hugetlbpage.c), not pte_mkhuge's",
        "cpu-access-modified:pte": "pte_modify makes an old entry valid again, and leaves it not accessed",
        "cpu-access-modified:pmd": "pmd_modify makes an old entry valid again, and leaves it not accessed",
    }

    @hookimpl
    def kconfig(self, has: Has) -> str:
        return fragment(__package__, has)

    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Has) -> None:
        """Four levels of 1024 entries. `task_size` is where the hole in the virtual addresses begins: what a process
        may map above it (from 0xfffff80000000000 on) is not modelled."""
        self.geometry = Geometry(
            PAGE_SHIFT=_PAGE_SHIFT,
            PMD_SHIFT=_SHIFTS["pmd"],
            PUD_SHIFT=_SHIFTS["pud"],
            P4D_SHIFT=_SHIFTS["pgd"],
            PGDIR_SHIFT=_SHIFTS["pgd"],
            PTRS_PER_PTE=_PTRS,
            PTRS_PER_PMD=_PTRS,
            PTRS_PER_PUD=_PTRS,
            PTRS_PER_P4D=1,
            PTRS_PER_PGD=_PTRS,
            walk=tuple(WalkLevel(name, shift, _PTRS) for name, shift in _SHIFTS.items()),
            task_size=_STACK_TOP64,
        )
        self._sun4v = bool(cpu["sun4v"])
        self._tte = (SUN4V_M7 if cpu["m7"] else SUN4V) if cpu["sun4v"] else SUN4U
        self._thp = int(config.get("TRANSPARENT_HUGEPAGE") == "y")
        self.undefined = frozenset() if self._thp else frozenset({"pmd_pgprot"})

    def word_format(self, level: Level) -> WordFormat:
        """No hardware walks these tables, so the words are the kernel's own format, which the TLB takes as it stands
        (UltraSPARC Architecture 2005 and 2007, "Translation Table Entry"). No bit tells a word that maps nothing but
        its being 0: so an empty slot stands here as a shared table, and what may be read is what the TLB calls valid,
        for stores writable as well; sun4u's bit for execution is software's."""
        shift = next(walked.shift for walked in self.geometry.walk if walked.name == level)
        if self._sun4v:
            top, execute, store, privileged = 56, 1 << 7, 1 << 6, 1 << 8
            uncached, software = (3 << 10, 2 << 10), 0x3F << 56
            sizes, large = 7, 3
        else:
            top, execute, store, privileged = 43, 1 << 12, 1 << 1, 1 << 2
            uncached, software = (7 << 3, 1 << 3), 0x1FF << 50 | 0x3F << 7
            sizes, large = 3 << 61 | 1 << 48, 3 << 61
        valid = 1 << 63
        return WordFormat(
            valid=(0, 0),
            table={"pte": None, "pgd": (0, 0)}.get(level, (1 << 56, 0)),
            address=(((1 << top) - (1 << shift), 0),),
            next_table=(((1 << top) - (1 << 13), 0),),
            load=(valid | privileged, valid),
            execute=(execute | privileged, execute),
            shared=0,
            store=(valid | store | privileged, valid | store),
            uncached=uncached,
            software=software,
            marks=valid,
            size=(sizes, 0 if level == "pte" else large),  # 8K, or two of 4M
        )

    # The CPU

    def mmu_access(self, level: Level, entry: int, write: bool) -> tuple[int, bool]:
        """Valid, not privileged, and writable for a store; the MMU marks nothing."""
        needed = VALID | (self._tte.W if write else 0)
        return entry, entry & (needed | self._tte.P) == needed

    def access_error(self, vm_flags: int, write: bool) -> int:
        """arch/sparc/mm/fault_64.c, do_sparc64_fault: a load needs read or execute; write alone does not do."""
        needed = VM_WRITE if write else VM_READ | VM_EXEC
        return 0 if vm_flags & needed else _SEGV_ACCERR

    # pfn and prot to entry and back

    def pfn_pte(self, pfn: Entry, prot: Entry) -> Entry:
        return ((pfn << _PAGE_SHIFT) & MASK64) | prot

    pfn_pmd = pfn_pte

    def pte_pfn(self, pte: Entry) -> Entry:
        return (pte & self._tte.paddr) >> _PAGE_SHIFT

    pmd_pfn = pte_pfn

    @hookimpl
    def pud_pfn(self, pud: Entry) -> Entry:
        return self.pte_pfn(pud)

    @hookimpl
    def pmd_pgprot(self, pmd: Entry) -> Entry:
        return pmd  # the address included: so arch/sparc has it

    @property
    def protection_map(self) -> tuple[int, ...]:
        return tuple(self._tte.protection(vm_flags) for vm_flags in range(16))

    @hookimpl
    def pgprot_noncached(self, prot: Entry) -> Entry:
        return clear(prot, self._tte.CACHE) | self._tte.E

    def pgprot_writecombine(self, prot: Entry) -> Entry:
        return self.pgprot_noncached(prot)

    # Leaf, table or empty

    def pte_present(self, pte: Entry) -> Entry:
        return holds(pte, self._tte.PRESENT)

    def pte_none(self, pte: Entry) -> Entry:
        return equals(pte, 0)

    pmd_none = pte_none
    pud_none = pte_none

    def pmd_present(self, pmd: Entry) -> Entry:
        return holds(pmd, MASK64)

    pud_present = pmd_present

    def pmd_leaf(self, pmd: Entry) -> Entry:
        return holds(pmd, HUGE)

    pud_leaf = pmd_leaf

    def pmd_bad(self, pmd: Entry) -> Entry:
        return holds(pmd, (1 << _PAGE_SHIFT) - 1)

    pud_bad = pmd_bad

    def pmd_trans_huge(self, pmd: Entry) -> Entry:
        return holds(pmd, HUGE) & self._thp

    def pte_mkhuge(self, pte: Entry) -> Entry:
        return pte | self._tte.SZHUGE

    def pmd_mkhuge(self, pmd: Entry) -> Entry:
        return pmd | self._tte.SZHUGE | HUGE

    # Special: no struct page stands behind it

    @hookimpl
    def pte_special(self, pte: Entry) -> Entry:
        return holds(pte, SPECIAL)

    @hookimpl
    def pte_mkspecial(self, pte: Entry) -> Entry:
        return pte | SPECIAL

    # Write, dirty, young. WRITE and MODIFIED are the kernel's; both together set W, which the MMU sees. What is not
    # accessed is not valid.

    def pte_write(self, pte: Entry) -> Entry:
        return holds(pte, self._tte.WRITE)

    pmd_write = pte_write

    @hookimpl
    def pud_write(self, pud: Entry) -> Entry:
        return self.pte_write(pud)

    def pte_dirty(self, pte: Entry) -> Entry:
        return holds(pte, self._tte.MODIFIED)

    def pmd_dirty(self, pmd: Entry) -> Entry:
        return self.pte_dirty(pmd) & self._thp

    def pte_young(self, pte: Entry) -> Entry:
        return holds(pte, self._tte.ACCESSED)

    def pmd_young(self, pmd: Entry) -> Entry:
        return self.pte_young(pmd) & self._thp

    def pte_mkold(self, pte: Entry) -> Entry:
        return clear(pte, self._tte.ACCESSED | VALID)

    pmd_mkold = pte_mkold

    def pte_mkyoung(self, pte: Entry) -> Entry:
        return pte | self._tte.ACCESSED | VALID

    pmd_mkyoung = pte_mkyoung

    def pte_mkclean(self, pte: Entry) -> Entry:
        return clear(pte, self._tte.MODIFIED | self._tte.W)

    pmd_mkclean = pte_mkclean

    def pte_mkdirty(self, pte: Entry) -> Entry:
        return pte | self._tte.MODIFIED | self.pte_write(pte) * self._tte.W

    pmd_mkdirty = pte_mkdirty

    def pte_mkwrite_novma(self, pte: Entry) -> Entry:
        return pte | self._tte.WRITE | self.pte_dirty(pte) * self._tte.W

    pmd_mkwrite_novma = pte_mkwrite_novma

    def pte_wrprotect(self, pte: Entry) -> Entry:
        return clear(pte, self._tte.WRITE | self._tte.W)

    pmd_wrprotect = pte_wrprotect

    def pte_modify(self, pte: Entry, newprot: Entry) -> Entry:
        return (pte & self._tte.kept) | clear(newprot, self._tte.kept)

    pmd_modify = pte_modify

    @hookimpl
    def pte_access_permitted(self, pte: Entry, write: int) -> Entry:
        """It asks for the *privileged* bit, which no user page has: gup-fast never takes a page on sparc64."""
        needed = self._tte.PRESENT | self._tte.P | (self._tte.WRITE if write else 0)
        return equals(pte & (needed | SPECIAL), needed)

    # Table entries

    def pmd_populate(self, pa: Entry) -> Entry:
        return pa

    pud_populate = pmd_populate

    @hookimpl
    def p4d_populate(self, pa: Entry) -> Entry:
        return pa

    def pmd_pgtable(self, pmd: Entry) -> Entry:
        return pmd & self._tte.paddr

    pud_pgtable = pmd_pgtable

    def p4d_pgtable(self, p4d: Entry) -> Entry:
        return p4d

    @hookimpl
    def p4d_present(self, p4d: Entry) -> Entry:
        return holds(p4d, MASK64)

    @hookimpl
    def p4d_none(self, p4d: Entry) -> Entry:
        return equals(p4d, 0)

    @hookimpl
    def p4d_bad(self, p4d: Entry) -> Entry:
        return holds(p4d, (1 << _PAGE_SHIFT) - 1)
