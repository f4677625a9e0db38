"""loongarch64: page-table entries, and what the CPU's table walker does to a leaf.

Source: arch/loongarch/include/asm/pgtable.h, pgtable-bits.h, page.h and pgalloc.h of 6.12.117 and 7.3.4, which the
vectors in this plugin's tests were made with.

Table entries have no bits of their own: they hold the virtual address of the next table, and an empty word is the
address of a table that all empty slots share, whose own words are empty. So no table word is 0.
"""

# One function serves PTE and PMD, whose contract names its argument after the level.
# mypy: disable-error-code="assignment"

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pfnmap import Arch, Entry, Has, Level, Machine, Module, Refused, WordFormat, hookimpl
from pfnmap.kconfig import fragment
from pfnmap.vm_flags import VM_READ, VM_WRITE
from pfnmap_loongarch64 import bits
from pfnmap_loongarch64.bits import bit, clear, differs, equals
from pfnmap_loongarch64.geometry import geometry

__all__ = ["Loongarch64"]

_SEGV_ACCERR: Final = 2
_DEVMAP_OPS: Final = frozenset({"pte_devmap", "pmd_devmap", "pte_mkdevmap", "pmd_mkdevmap"})
_THP_OPS: Final = frozenset({"pmd_devmap", "pmd_mkdevmap"})
_P4D_OPS: Final = frozenset({"p4d_present", "p4d_none", "p4d_bad", "p4d_populate", "p4d_pgtable"})


class KernelImage(Module):
    """What the kernel's image keeps of a machine's memory: the shared tables of the empty slots."""

    name: ClassVar[str] = "loongarch64"
    aliases: ClassVar[tuple[str, ...]] = ("loong64",)
    config_symbol: ClassVar[str] = "LOONGARCH"

    def boot(self, machine: Machine) -> None:
        super().boot(machine)
        arch, geometry = machine.kernel.arch, machine.kernel.geometry
        for level in ("pmd", "pud", "p4d"):
            machine.phys.reserve(arch.empty(level) & bits.TO_PHYS_MASK, geometry.PAGE_SIZE)


class Loongarch64(Arch):
    """LoongArch, 64 bits. `cpu` keys: `hw_access_dirty`, `invalid_pte_table`, `invalid_pmd_table`,
    `invalid_pud_table`."""

    name: ClassVar[str] = "loongarch64"
    module: ClassVar[type[Module]] = KernelImage
    cpu_defaults: ClassVar[Mapping[str, object]] = {
        "hw_access_dirty": True,
        "invalid_pte_table": bits.PAGE_OFFSET + 0x1F0_0000,
        "invalid_pmd_table": bits.PAGE_OFFSET + 0x1F1_0000,
        "invalid_pud_table": bits.PAGE_OFFSET + 0x1F2_0000,
    }
    machines: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"{layout} {release}": {"given": {layout: "y"}, "release": release}
        for layout in ("4KB_3LEVEL", "16KB_2LEVEL")
        for release in ("6.12.117", "7.3.4")
    } | {"6.1.192": {"release": "6.1.192"}, "write-combining": {"given": {"ARCH_WRITECOMBINE": "y"}}}
    expected_failures: ClassVar[Mapping[str, str]] = {
        "folded-leaf:pud@16KB_2LEVEL *": "F33: pud_leaf is loongarch's own also where pgtable-nopmd.h folds the PUD",
        "dirty-survives@* without loongarch-wrprotect-keeps-dirty": "CVE-2026-72043, which that change mends",
        "execute-only": "__do_page_fault refuses the load, and protection_map sets no NR: what is mapped can be read",
        "mkhuge-alone:pmd": "a second pmd_mkhuge takes HUGE for GLOBAL, which is the same bit, and sets HGLOBAL",
    }

    @hookimpl
    def kconfig(self, has: Has) -> str:
        return fragment(__package__, has)

    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Has) -> None:
        self.geometry = geometry(config)
        self._levels = len(self.geometry.walk)
        self._hw_access_dirty = bool(cpu["hw_access_dirty"])
        self._pfn_mask = (1 << bits.PFN_END_SHIFT) - self.geometry.PAGE_SIZE
        self._thp = int(config.get("TRANSPARENT_HUGEPAGE") == "y")
        self._wc_enabled = config.get("ARCH_WRITECOMBINE") == "y"
        self._no_pte, self._no_pmd, self._no_pud = (cpu[f"invalid_{level}_table"] for level in ("pte", "pmd", "pud"))
        self._empty: dict[Level, int] = {
            "pte": 0,
            "pmd": self._no_pte,
            "pud": self._no_pmd if self._levels > 2 else self._no_pte,
        }
        self._empty["p4d"] = self._empty["pgd"] = self._no_pud if self._levels > 3 else self._empty["pud"]
        self._wrprotect_keeps_dirty = int(has("loongarch-wrprotect-keeps-dirty"))
        devmap = not has("devmap-removed")
        kept = bits.MODIFIED | bits.SPECIAL | self._pfn_mask | bits.CACHE | bits.PLV | (bits.DEVMAP if devmap else 0)
        self._pte_kept, self._pmd_kept = kept, kept | bits.HUGE
        self.undefined = (
            (frozenset() if devmap else _DEVMAP_OPS)
            | (frozenset() if self._thp else _THP_OPS)
            | (frozenset() if self._levels > 3 else _P4D_OPS)
        )

    # What is in memory

    def empty(self, level: Level) -> int:
        return self._empty[level]

    def word_format(self, level: Level) -> WordFormat:
        """LoongArch manual, volume 1, 5.4.5 (page table entries) and 5.4.2 (permission bits).

        Bit 0: valid; bit 1: dirty; bits 3:2: privilege level; bits 5:4: memory type, 0 is uncached; bit 6: huge; bit 7:
        present; bit 8: writable; bit 61: no reading; bit 62: no execution. Bits 11:9, 59 and 60 the walker ignores.
        """
        shift = next(walked.shift for walked in self.geometry.walk if walked.name == level)
        present = 0 if level == "pte" else 1 << 7  # of a huge leaf; a table's word is an address
        return WordFormat(
            valid=(1 << 7, 1 << 7) if level == "pte" else (0, 0),
            table=None if level == "pte" else (1 << 6, 0),
            address=(((1 << 48) - (1 << shift), 0),),
            next_table=(((1 << 48) - (1 << self.geometry.PAGE_SHIFT), 0),),
            load=(1 << 61 | 3 << 2 | present, 3 << 2 | present),
            execute=(1 << 62 | 3 << 2 | present, 3 << 2 | present),
            store=(1 << 8 | 3 << 2 | present, 1 << 8 | 3 << 2 | present),
            shared=None if level == "pte" else self.empty(level),
            uncached=(3 << 4, 0),
            combining=(3 << 4, 2 << 4) if self._wc_enabled else None,
            software=7 << 9 | 3 << 59,
            marks=3,
        )

    # The CPU

    def mmu_access(self, level: Level, entry: int, write: bool) -> tuple[int, bool]:
        """arch/loongarch/mm/tlbex.S: handle_tlb_load, handle_tlb_store, handle_tlb_modify, which take no page fault.

        The page walker of a CPU that has one (`hw_access_dirty`: LA664) marks valid and dirty by itself; the kernel's
        handlers also mark modified. That the walker leaves modified alone is said by the commit that introduced it
        (01158487af7d) and was not run.
        """
        needed = bits.PRESENT | bits.PLV_USER | (bits.WRITE if write else 0)
        if entry & needed != needed or (not write and entry & bits.NO_READ):
            return entry, False
        dirty = bits.DIRTY | (0 if self._hw_access_dirty else bits.MODIFIED)
        return entry | bits.VALID | (dirty if write else 0), True

    def access_error(self, vm_flags: int, write: bool) -> int:
        """arch/loongarch/mm/fault.c, __do_page_fault: a load needs read or write; execute alone does not do."""
        needed = VM_WRITE if write else VM_READ | VM_WRITE
        return 0 if vm_flags & needed else _SEGV_ACCERR

    # pfn and prot to entry and back

    def pfn_pte(self, pfn: Entry, prot: Entry) -> Entry:
        return ((pfn << self.geometry.PAGE_SHIFT) & bits.MASK64) | prot

    pfn_pmd = pfn_pte

    def pte_pfn(self, pte: Entry) -> Entry:
        return (pte & self._pfn_mask) >> self.geometry.PAGE_SHIFT

    pmd_pfn = pte_pfn

    @hookimpl
    def pte_pgprot(self, pte: Entry) -> Entry:
        return clear(pte, self._pfn_mask)

    @property
    def protection_map(self) -> tuple[int, ...]:
        return bits.PROTECTION_MAP

    @hookimpl
    def pgprot_noncached(self, prot: Entry) -> Entry:
        return clear(prot, bits.CACHE) | bits.CACHE_SUC

    def pgprot_writecombine(self, prot: Entry) -> Entry:
        """`wc_enabled` as CONFIG_ARCH_WRITECOMBINE says; the boot parameter ``writecombine=`` is not modelled."""
        return clear(prot, bits.CACHE) | (bits.CACHE_WUC if self._wc_enabled else bits.CACHE_SUC)

    # Leaf, table or empty

    def pte_present(self, pte: Entry) -> Entry:
        return bit(pte, bits.PRESENT | bits.PROTNONE)

    def pte_none(self, pte: Entry) -> Entry:
        return equals(clear(pte, bits.GLOBAL), 0)

    def pmd_present(self, pmd: Entry) -> Entry:
        huge = bit(pmd, bits.HUGE)
        marked = bit(pmd, bits.PRESENT | bits.PROTNONE | bits.PRESENT_INVALID)
        return (huge & marked) | ((huge ^ 1) & differs(pmd, self._no_pte))

    def pmd_none(self, pmd: Entry) -> Entry:
        return equals(pmd, self._no_pte)

    def pmd_leaf(self, pmd: Entry) -> Entry:
        return bit(pmd, bits.HUGE)

    def pmd_bad(self, pmd: Entry) -> Entry:
        return bit(pmd, self.geometry.PAGE_SIZE - 1)

    def pmd_trans_huge(self, pmd: Entry) -> Entry:
        return bit(pmd, bits.HUGE) & self.pmd_present(pmd) & self._thp

    def pmd_mkhuge(self, pmd: Entry) -> Entry:
        return clear(pmd, bits.GLOBAL) | ((pmd & bits.GLOBAL) << 6) | bits.HUGE

    # pgtable-nopmd.h folds the PUD of two levels; pud_leaf is loongarch's own even there (FINDINGS F33).

    def pud_present(self, pud: Entry) -> Entry:
        return differs(pud, self._no_pmd) if self._levels > 2 else (pud & 0) | 1

    def pud_none(self, pud: Entry) -> Entry:
        return equals(pud, self._no_pmd) if self._levels > 2 else pud & 0

    def pud_bad(self, pud: Entry) -> Entry:
        return bit(pud, self.geometry.PAGE_SIZE - 1) if self._levels > 2 else pud & 0

    pud_leaf = pmd_leaf

    # Special and devmap: no struct page, or one of device memory

    @hookimpl
    def pte_special(self, pte: Entry) -> Entry:
        return bit(pte, bits.SPECIAL)

    @hookimpl
    def pte_mkspecial(self, pte: Entry) -> Entry:
        return pte | bits.SPECIAL

    @hookimpl
    def pte_devmap(self, pte: Entry) -> Entry:
        return bit(pte, bits.DEVMAP)

    @hookimpl
    def pmd_devmap(self, pmd: Entry) -> Entry:
        return bit(pmd, bits.DEVMAP)

    def pte_mkdevmap(self, pte: Entry) -> Entry:
        return pte | bits.DEVMAP

    pmd_mkdevmap = pte_mkdevmap

    def pte_mkhuge(self, pte: Entry) -> Entry:
        return pte | bits.HUGE

    # Write, dirty, young. Dirty is what the TLB lets stores through by, modified what the kernel remembers.

    def pte_write(self, pte: Entry) -> Entry:
        return bit(pte, bits.WRITE)

    def pmd_write(self, pmd: Entry) -> Entry:
        if not self._thp:
            raise Refused("pmd_write", "BUG() without transparent huge pages")
        return bit(pmd, bits.WRITE)

    def pte_dirty(self, pte: Entry) -> Entry:
        return bit(pte, bits.DIRTY | bits.MODIFIED)

    def pmd_dirty(self, pmd: Entry) -> Entry:
        return self.pte_dirty(pmd) & self._thp

    def pte_young(self, pte: Entry) -> Entry:
        return bit(pte, bits.ACCESSED)

    def pmd_young(self, pmd: Entry) -> Entry:
        return self.pte_young(pmd) & self._thp

    def pte_mkold(self, pte: Entry) -> Entry:
        return clear(pte, bits.ACCESSED)

    pmd_mkold = pte_mkold

    def pte_mkyoung(self, pte: Entry) -> Entry:
        return pte | bits.ACCESSED

    pmd_mkyoung = pte_mkyoung

    def pte_mkclean(self, pte: Entry) -> Entry:
        return clear(pte, bits.DIRTY | bits.MODIFIED)

    pmd_mkclean = pte_mkclean

    def pte_mkdirty(self, pte: Entry) -> Entry:
        return pte | bits.MODIFIED | bit(pte, bits.WRITE) * bits.DIRTY

    pmd_mkdirty = pte_mkdirty

    def pte_mkwrite_novma(self, pte: Entry) -> Entry:
        return pte | bits.WRITE | bit(pte, bits.MODIFIED) * bits.DIRTY

    pmd_mkwrite_novma = pte_mkwrite_novma

    def pte_wrprotect(self, pte: Entry) -> Entry:
        """Until `loongarch-wrprotect-keeps-dirty` it lost what the page walker had marked dirty (CVE-2026-72043)."""
        kept = (bit(pte, bits.DIRTY) & self._wrprotect_keeps_dirty) * bits.MODIFIED
        return clear(pte | kept, bits.WRITE | bits.DIRTY)

    pmd_wrprotect = pte_wrprotect

    def pte_modify(self, pte: Entry, newprot: Entry) -> Entry:
        return (_remember_dirty(pte) & self._pte_kept) | clear(newprot, self._pte_kept)

    def pmd_modify(self, pmd: Entry, newprot: Entry) -> Entry:
        return (_remember_dirty(pmd) & self._pmd_kept) | clear(newprot, self._pmd_kept)

    # Table entries

    def pmd_populate(self, pa: Entry) -> Entry:
        return (pa + bits.PAGE_OFFSET) & bits.MASK64

    def pud_populate(self, pa: Entry) -> Entry:
        return self.pmd_populate(pa) if self._levels > 2 else pa & 0

    def pmd_pgtable(self, pmd: Entry) -> Entry:
        return pmd & bits.TO_PHYS_MASK

    pud_pgtable = pmd_pgtable
    p4d_pgtable = pmd_pgtable

    @hookimpl
    def p4d_present(self, p4d: Entry) -> Entry:
        return differs(p4d, self._no_pud)

    @hookimpl
    def p4d_none(self, p4d: Entry) -> Entry:
        return equals(p4d, self._no_pud)

    @hookimpl
    def p4d_bad(self, p4d: Entry) -> Entry:
        return bit(p4d, self.geometry.PAGE_SIZE - 1)

    @hookimpl
    def p4d_populate(self, pa: Entry) -> Entry:
        return self.pmd_populate(pa)


def _remember_dirty(entry: Entry) -> Entry:
    """Return an entry that also remembers as modified what the TLB or the page walker marked dirty."""
    return entry | bit(entry, bits.DIRTY) * bits.MODIFIED
