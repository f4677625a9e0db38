"""The conformance kit is itself tested: plugins that are wrong on purpose, each caught by the check that should.

A wrong plugin is the kit's own architecture, or a small driver, with one thing wrong. `ARCHES` and `DRIVERS` say which
check catches it, by name; every check of the kit stands there, so a check that is taken away, or one that is added and
catches nothing, makes this file fail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from errno import EINVAL
from typing import Any, ClassVar

import pytest

from pfnmap import (
    Action,
    Arch,
    BadInput,
    Device,
    Driver,
    File,
    Machine,
    Unknown,
    VmArea,
    VmFault,
    VmOperations,
    hookimpl,
)
from pfnmap.errors import PluginError, Unwritten
from pfnmap.testing import driver_checks, mmu
from pfnmap.testing.check import Result, bits, cases
from pfnmap.testing.kit import ARCH_CHECKS, DRIVER_CHECKS, Item, Kit, arch_kit, driver_kit
from pfnmap.testing.plain import (
    ACCESSED,
    ADDRESS,
    COMBINING,
    DIRTY,
    EXEC,
    KEPT,
    LEAF,
    PRESENT,
    READ,
    SPECIAL,
    UNCACHED,
    WRITE,
    Plain,
    bit,
    clear,
    is_zero,
)
from pfnmap.vm_flags import VM_DONTDUMP, VM_DONTEXPAND, VM_IO, VM_PFNMAP

MACHINE = "7.3.4"
MOVED = 1 << 10


def hooked(function: Any) -> Any:
    """An entry hook of an architecture made of a function of one entry."""
    return hookimpl(function)


# One wrong architecture a check. What is wrong stands in its name.


class PmdTableOfHalfTheEntries(Plain):
    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Any) -> None:
        super().setup_arch(config, cpu, has)
        walk = tuple(replace(w, ptrs=256) if w.name == "pmd" else w for w in self.geometry.walk)
        self.geometry = replace(self.geometry, walk=walk, PTRS_PER_PMD=256)


class PmdOrderOfEight(Plain):
    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Any) -> None:
        super().setup_arch(config, cpu, has)
        self.geometry = replace(self.geometry, PMD_SHIFT=20)


class UserSpaceBeyondTheTopTable(Plain):
    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Any) -> None:
        super().setup_arch(config, cpu, has)
        self.geometry = replace(self.geometry, task_size=1 << 49)


class PgdCountedAsALevelThoughFolded(Plain):
    @hookimpl
    def pgd_none(self, pgd: Any) -> Any:
        return is_zero(pgd)


class NoKconfigFragment(Plain):
    @hookimpl
    def kconfig(self, has: Any) -> None:
        return None


class SelectWithoutItsDependency(Plain):
    @hookimpl
    def kconfig(self, has: Any) -> str:
        extra = "config PLAIN_EXTRA\n\tbool\n\tdepends on !PLAIN\n"
        return super().kconfig(has).replace("\tdef_bool y\n", "\tdef_bool y\n\tselect PLAIN_EXTRA\n", 1) + extra


class SelectOfWhatNobodyDeclares(Plain):
    @hookimpl
    def kconfig(self, has: Any) -> str:
        return super().kconfig(has).replace("\tdef_bool y\n", "\tdef_bool y\n\tselect NO_SUCH_SYMBOL\n", 1)


class MkspecialForgottenForPuds(Plain):
    pud_mkspecial = None


class PteSpecialClaimedAndNotProvided(Plain):
    pte_special = None
    pte_mkspecial = None


class PgprotWithoutItsMark(Plain):
    def pte_pgprot(self, pte: Any) -> Any:
        return clear(pte, ADDRESS)


class PresentAnswersABool(Plain):
    def pte_present(self, pte: Any) -> Any:
        return pte & PRESENT == PRESENT


class YoungSetsTheTopBitTwice(Plain):
    def pte_mkyoung(self, pte: Any) -> Any:
        return (pte | ACCESSED) << 1 >> 1 | pte << 1


class SpecialAnswersNone(Plain):
    @hookimpl
    def pmd_special(self, pmd: Any) -> Any:
        return bit(pmd, SPECIAL) or None


class DepositAnswersNone(Plain):
    @hookimpl
    def arch_needs_pgtable_deposit(self) -> None:
        return None


class ArraysGetAnotherBit(Plain):
    def pte_mkdirty(self, pte: Any) -> Any:
        return pte | (DIRTY if isinstance(pte, int) else ACCESSED)


class ArrayIsChangedInPlace(Plain):
    def pmd_mkclean(self, pmd: Any) -> Any:
        pmd &= ALL_BUT_DIRTY
        return pmd


ALL_BUT_DIRTY = clear((1 << 64) - 1, DIRTY)


class PmdPfnCutAt32Bits(Plain):
    def pfn_pmd(self, pfn: Any, prot: Any) -> Any:
        return ((pfn << 12) & ADDRESS & 0xFFFF_FFFF) | prot


class TopAddressBitForgotten(Plain):
    def pfn_pte(self, pfn: Any, prot: Any) -> Any:
        return clear(super().pfn_pte(pfn, prot), 1 << 51)


class UncachedIsLost(Plain):
    def pfn_pud(self, pfn: Any, prot: Any) -> Any:
        return ((pfn << 12) & ADDRESS) | clear(prot, UNCACHED)


class PgprotKeepsTheAddress(Plain):
    @hookimpl
    def pmd_pgprot(self, pmd: Any) -> Any:
        return pmd


class WrprotectClearsAnAddressBit(Plain):
    def pud_wrprotect(self, pud: Any) -> Any:
        return clear(pud, WRITE | 1 << 31)


class SpecialNeverTold(Plain):
    @hookimpl
    def pud_special(self, pud: Any) -> Any:
        return pud & 0


class MkwriteLosesSpecial(Plain):
    def pmd_mkwrite_novma(self, pmd: Any) -> Any:
        return clear(pmd, SPECIAL) | WRITE


class SpecialBitInTheAddress(Plain):
    @hookimpl
    def pmd_special(self, pmd: Any) -> Any:
        return bit(pmd, 1 << 40)

    @hookimpl
    def pmd_mkspecial(self, pmd: Any) -> Any:
        return pmd | 1 << 40


class ProtNonePmdIsNoLeaf(Plain):
    def pmd_leaf(self, pmd: Any) -> Any:
        return super().pmd_leaf(pmd) & bit(pmd, READ)


class TablesAreLeaves(Plain):
    def pmd_leaf(self, pmd: Any) -> Any:
        return bit(pmd, PRESENT)


class EmptyIsNotNone(Plain):
    def empty(self, level: Any) -> int:
        return 1 << 9 if level == "pmd" else 0


class WrprotectCleans(Plain):
    def pte_wrprotect(self, pte: Any) -> Any:
        return clear(pte, WRITE | DIRTY)


class DirtyIsTakenForYoung(Plain):
    def pmd_mkdirty(self, pmd: Any) -> Any:
        return pmd | ACCESSED


class OldIsAlsoClean(Plain):
    def pud_mkold(self, pud: Any) -> Any:
        return clear(pud, ACCESSED | DIRTY)


class DirtyNotMovedBack(Plain):
    """Dirty moves to a software bit of a read-only entry, as on x86, and mkwrite forgets it there."""

    def pte_dirty(self, pte: Any) -> Any:
        return bit(pte, DIRTY) | (bit(pte, MOVED) & (bit(pte, WRITE) ^ 1))

    def pte_wrprotect(self, pte: Any) -> Any:
        return clear(pte, WRITE | DIRTY) | (bit(pte, DIRTY) * MOVED)


class MkspecialToggles(Plain):
    @hookimpl
    def pmd_mkspecial(self, pmd: Any) -> Any:
        return pmd ^ SPECIAL


class ModifyLosesSpecial(Plain):
    def pmd_modify(self, pmd: Any, newprot: Any) -> Any:
        return (pmd & clear(KEPT, SPECIAL)) | clear(newprot, KEPT)


class GupMayWriteWhereItMayRead(Plain):
    @hookimpl
    def pte_access_permitted(self, pte: Any, write: int) -> Any:
        return bit(pte, PRESENT)


class CpuStoresThroughReadOnly(Plain):
    def mmu_access(self, level: Any, entry: int, write: bool) -> tuple[int, bool]:
        return super().mmu_access(level, entry | WRITE, write)


class CpuFaultsThoughItMarks(Plain):
    def mmu_access(self, level: Any, entry: int, write: bool) -> tuple[int, bool]:
        return super().mmu_access(level, entry, write) if entry & ACCESSED else (entry, False)


class SpecialPmdIsNotTransHuge(Plain):
    def pmd_trans_huge(self, pmd: Any) -> Any:
        return self.pmd_leaf(pmd) & (bit(pmd, SPECIAL) ^ 1)


class ProtNonePudIsATable(Plain):
    """What riscv64 does (FINDINGS F17)."""

    def pud_modify(self, pud: Any, newprot: Any) -> Any:
        entry = super().pud_modify(pud, newprot)
        return clear(entry, LEAF) if not entry & READ else entry


class AddressOneBitTooHigh(Plain):
    """Every op agrees with every other; only the CPU does not."""

    def pfn_pte(self, pfn: Any, prot: Any) -> Any:
        return ((pfn << 13) & ADDRESS) | prot

    def pte_pfn(self, pte: Any) -> Any:
        return (pte & ADDRESS) >> 13


class ModifyMovesPresent(Plain):
    """After mprotect present is in a software bit, which ops and the modelled CPU know, and the real one does not."""

    def pmd_modify(self, pmd: Any, newprot: Any) -> Any:
        return clear(super().pmd_modify(pmd, newprot), PRESENT) | MOVED

    def pmd_present(self, pmd: Any) -> Any:
        return bit(pmd, PRESENT) | bit(pmd, MOVED)

    def pmd_leaf(self, pmd: Any) -> Any:
        return self.pmd_present(pmd) & bit(pmd, LEAF)

    def pmd_trans_huge(self, pmd: Any) -> Any:
        return self.pmd_leaf(pmd)

    def mmu_access(self, level: Any, entry: int, write: bool) -> tuple[int, bool]:
        after, allowed = super().mmu_access(level, entry | bit(entry, MOVED), write)
        return (clear(after, PRESENT) if entry & MOVED else after), allowed


# Laws that were once missing: what each of these does wrong, nothing else sees


class StoresForgottenByWrprotect(Plain):
    """The CPU marks dirty in a bit of its own, which wrprotect and modify do not carry over."""

    def mmu_access(self, level: Any, entry: int, write: bool) -> tuple[int, bool]:
        after, allowed = super().mmu_access(level, entry, write)
        return (clear(after, DIRTY) | entry & DIRTY | MOVED if allowed and write else after), allowed

    def pmd_dirty(self, pmd: Any) -> Any:
        return bit(pmd, DIRTY) | bit(pmd, MOVED)

    pte_dirty = pud_dirty = pmd_dirty

    def pmd_mkclean(self, pmd: Any) -> Any:
        return clear(pmd, DIRTY | MOVED)

    pte_mkclean = pud_mkclean = pmd_mkclean

    def pmd_wrprotect(self, pmd: Any) -> Any:
        return clear(pmd, WRITE | MOVED)


class MkhugeAlsoDirties(Plain):
    def pmd_mkhuge(self, pmd: Any) -> Any:
        return pmd | LEAF | DIRTY


DEVMAP_SYMBOL = "\nconfig PLAIN_DEVMAP\n\tdef_bool y\n\tselect ARCH_HAS_PTE_DEVMAP\n"


class Devmap(Plain):
    """With a devmap bit, as the architectures had until `devmap-removed`."""

    @hookimpl
    def kconfig(self, has: Any) -> str:
        return super().kconfig(has) + DEVMAP_SYMBOL

    @hookimpl
    def pte_devmap(self, pte: Any) -> Any:
        return bit(pte, MOVED)

    def pte_mkdevmap(self, pte: Any) -> Any:
        return pte | MOVED

    def pte_modify(self, pte: Any, newprot: Any) -> Any:
        return super().pte_modify(pte, newprot) | pte & MOVED


class DevmapReadsAnotherBit(Devmap):
    def pte_mkdevmap(self, pte: Any) -> Any:
        return pte | MOVED << 1


class DevmapIsDirty(Devmap):
    def pte_dirty(self, pte: Any) -> Any:
        return bit(pte, DIRTY) | self.pte_devmap(pte)


class DevmapWithoutItsSymbol(Devmap):
    @hookimpl
    def kconfig(self, has: Any) -> str:
        return Plain.kconfig(self, has)


class DevmapClaimedAndNotProvided(Plain):
    @hookimpl
    def kconfig(self, has: Any) -> str:
        return super().kconfig(has) + DEVMAP_SYMBOL


class HugeSpecialWithoutItsSymbol(Plain):
    @hookimpl
    def kconfig(self, has: Any) -> str:
        text: str = super().kconfig(has)
        return text.replace("\tselect ARCH_SUPPORTS_HUGE_PFNMAP if TRANSPARENT_HUGEPAGE\n", "")


class PteSpecialWithoutItsSymbol(Plain):
    @hookimpl
    def kconfig(self, has: Any) -> str:
        text: str = super().kconfig(has)
        return text.replace("\tselect ARCH_HAS_PTE_SPECIAL\n", "")


class FiveLevelsSaidAndFourThere(Plain):
    @hookimpl
    def kconfig(self, has: Any) -> str:
        text: str = super().kconfig(has)
        return text.replace("default 4", "default 5")


class TablesPastTheLinearMap(Plain):
    linear_map = 1 << 40


class PrivatePagesAreWritable(Plain):
    @property
    def protection_map(self) -> tuple[int, ...]:
        return tuple(prot | (WRITE if flags & 2 else 0) for flags, prot in enumerate(super().protection_map))


class EverythingMayBeExecuted(Plain):
    @property
    def protection_map(self) -> tuple[int, ...]:
        return tuple(prot | EXEC for prot in super().protection_map)


class ExecutablePagesCannotBeRead(Plain):
    def access_error(self, vm_flags: int, write: bool) -> int:
        return 2 if not write and vm_flags & 5 == 5 else super().access_error(vm_flags, write)


class NoncachedLeavesWriteCombining(Plain):
    @hookimpl
    def pgprot_noncached(self, prot: Any) -> Any:
        return prot | ((bit(prot, COMBINING) ^ 1) * UNCACHED)


class WriteCombiningIsReadOnly(Plain):
    def pgprot_writecombine(self, prot: Any) -> Any:
        return clear(super().pgprot_writecombine(prot), WRITE)


class MprotectMakesCached(Plain):
    def pmd_modify(self, pmd: Any, newprot: Any) -> Any:
        return super().pmd_modify(pmd, clear(newprot, UNCACHED | COMBINING))


class ProtNoneCanBeReadAfterMprotect(Plain):
    """What refuses the access is a bit of software, which ops and the modelled CPU know, and the real one does not."""

    def pmd_modify(self, pmd: Any, newprot: Any) -> Any:
        entry = super().pmd_modify(pmd, newprot)
        return entry | ((bit(entry, READ) ^ 1) * (READ | MOVED))

    def mmu_access(self, level: Any, entry: int, write: bool) -> tuple[int, bool]:
        return (entry, False) if entry & MOVED else super().mmu_access(level, entry, write)


class EmptyIsNotNoneAtTheTop(Plain):
    def empty(self, level: Any) -> int:
        return 1 << 9 if level == "p4d" else 0


class OnlyForPagesOfMemory(Plain):
    """With large leaves that no pfnmap may use, so that no mapping of the kit's has any."""

    undefined = frozenset({"pmd_special", "pud_special", "pmd_mkspecial", "pud_mkspecial"})

    @hookimpl
    def kconfig(self, has: Any) -> str:
        text: str = super().kconfig(has)
        return text.replace("\tselect ARCH_SUPPORTS_HUGE_PFNMAP if TRANSPARENT_HUGEPAGE\n", "")


def swapped(entry: Any, one: int, other: int) -> Any:
    """Exchange two bits."""
    return clear(entry, 1 << one | 1 << other) | bit(entry, 1 << one) << other | bit(entry, 1 << other) << one


class LargeLeavesHaveTwoAddressBitsSwapped(OnlyForPagesOfMemory):
    def pfn_pmd(self, pfn: Any, prot: Any) -> Any:
        return swapped(super().pfn_pmd(pfn, prot), 30, 31)

    def pmd_pfn(self, pmd: Any) -> Any:
        return super().pmd_pfn(swapped(pmd, 30, 31))


class HighTablesHaveTwoAddressBitsSwapped(Plain):
    def pud_populate(self, pa: Any) -> Any:
        return swapped(super().pud_populate(pa), 49, 50)

    def pud_pgtable(self, pud: Any) -> Any:
        return super().pud_pgtable(swapped(pud, 49, 50))


class CpuStoresWhereItMayNotLoad(Plain):
    def mmu_access(self, level: Any, entry: int, write: bool) -> tuple[int, bool]:
        after, allowed = super().mmu_access(level, entry | (READ if write else 0), write)
        return after & ~(READ if not entry & READ else 0), allowed


class MprotectLetsWhatIsWritableBeExecuted(Plain):
    def pte_modify(self, pte: Any, newprot: Any) -> Any:
        return super().pte_modify(pte, newprot) | bit(newprot, WRITE) * EXEC


class DirtySetsAReservedBit(Plain):
    def pmd_mkdirty(self, pmd: Any) -> Any:
        return pmd | DIRTY | 1 << 55


class NoncachedAndWriteCombiningExchanged(Plain):
    @hookimpl
    def pgprot_noncached(self, prot: Any) -> Any:
        return clear(prot, UNCACHED) | COMBINING

    def pgprot_writecombine(self, prot: Any) -> Any:
        return clear(prot, COMBINING) | UNCACHED


class SoftDirty(Plain):
    """With a soft-dirty bit, and a kernel that uses it."""

    @hookimpl
    def kconfig(self, has: Any) -> str:
        text: str = super().kconfig(has)
        return (
            text
            + "\nconfig PLAIN_SOFT_DIRTY\n\tdef_bool y\n\tselect MEM_SOFT_DIRTY\n\tselect HAVE_ARCH_SOFT_DIRTY\n\n"
            + ("config CHECKPOINT_RESTORE\n\tdef_bool y\n\nconfig PROC_FS\n\tdef_bool y\n")
        )

    @hookimpl
    def pte_soft_dirty(self, pte: Any) -> Any:
        return bit(pte, MOVED)

    @hookimpl
    def pte_mksoft_dirty(self, pte: Any) -> Any:
        return pte | MOVED

    @hookimpl
    def pte_clear_soft_dirty(self, pte: Any) -> Any:
        return clear(pte, MOVED)

    def pte_modify(self, pte: Any, newprot: Any) -> Any:
        return super().pte_modify(pte, newprot) | pte & MOVED


class SoftDirtyMarksNothing(SoftDirty):
    @hookimpl
    def pte_mksoft_dirty(self, pte: Any) -> Any:
        return pte


class SoftDirtyLostByMprotect(SoftDirty):
    def pte_modify(self, pte: Any, newprot: Any) -> Any:
        return Plain.pte_modify(self, pte, newprot)


class SoftDirtyNeverCleared(SoftDirty):
    @hookimpl
    def pte_clear_soft_dirty(self, pte: Any) -> Any:
        return pte


class SoftDirtyIsTakenForDirty(SoftDirty):
    @hookimpl
    def pte_mksoft_dirty(self, pte: Any) -> Any:
        return pte | MOVED | DIRTY


class NewLeavesAreOld(Plain):
    """Each leaf that a read fault installs costs a second fault."""

    cpu_defaults: ClassVar[Mapping[str, object]] = {"hw_access_dirty": False}

    @property
    def protection_map(self) -> tuple[int, ...]:
        return tuple(clear(prot, ACCESSED) for prot in super().protection_map)


class WriteCombiningIsCached(Plain):
    def word_format(self, level: Any) -> Any:
        return replace(super().word_format(level), combining=None)

    def pgprot_writecombine(self, prot: Any) -> Any:
        return prot


class BitOfSoftwareForbidsStores(Plain):
    """And the format, which is told of all but this bit, does not know."""

    def mmu_access(self, level: Any, entry: int, write: bool) -> tuple[int, bool]:
        return (entry, False) if entry & MOVED << 1 else super().mmu_access(level, entry, write)


class SharedPagesHaveAnotherBit(Plain):
    @property
    def protection_map(self) -> tuple[int, ...]:
        return tuple(prot | (MOVED if flags & 8 else 0) for flags, prot in enumerate(super().protection_map))


class FormatTellsOfA65thBit(Plain):
    def word_format(self, level: Any) -> Any:
        return replace(super().word_format(level), software=SPECIAL | 3 << 10 | 1 << 64)


class FormatGivesAnAddressBitToSoftware(Plain):
    def word_format(self, level: Any) -> Any:
        return replace(super().word_format(level), software=SPECIAL | 3 << 10 | 1 << 40)


class WaitsForAChangeThatThePlannerIsNotToldOf(Plain):
    __module__ = Plain.__module__  # whose package brings the change

    @hookimpl
    def kconfig(self, has: Any) -> str:
        text: str = super().kconfig(has)
        return text if has("per-vma-lock-faults") else text.replace("\tselect ARCH_SUPPORTS_HUGE_PFNMAP", "\tselect X")


class FormatSaysThatEverythingMayBeExecuted(Plain):
    def word_format(self, level: Any) -> Any:
        return replace(super().word_format(level), execute=(PRESENT, PRESENT))


class GupReadsWhatMayBeExecuted(Plain):
    @hookimpl
    def pud_access_permitted(self, pud: Any, write: int) -> Any:
        return bit(pud, PRESENT) & (bit(pud, READ) | bit(pud, EXEC)) & (bit(pud, WRITE) | (1 - write))


class BothWaysOfTracking(Plain):
    @hookimpl
    def track_pfn_insert(self, vma: Any, prot: int, pfn: int) -> int:
        return prot

    @hookimpl
    def pfnmap_track(self, machine: Any, pfn: int, size: int, prot: int) -> int:
        return prot


class HugetlbPageIsNoLeaf(Plain):
    def pte_mkhuge(self, pte: Any) -> Any:
        return pte | MOVED


class MappingsAreNotEncrypted(Plain):
    """Though there is a bit for it."""

    @hookimpl
    def pgprot_decrypted(self, prot: Any) -> Any:
        return clear(prot, 1 << 51)


class FoldedP4dOfTwoEntries(Plain):
    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Any) -> None:
        super().setup_arch(config, cpu, has)
        self.geometry = replace(self.geometry, PTRS_PER_P4D=2)


class NovmaWritesNothing(Plain):
    def pte_mkwrite_novma(self, pte: Any) -> Any:
        return pte

    @hookimpl
    def pte_mkwrite(self, pte: Any, vm_flags: int) -> Any:
        return pte | WRITE


class NewLeavesAreSoftDirty(SoftDirty):
    def pfn_pte(self, pfn: Any, prot: Any) -> Any:
        return super().pfn_pte(pfn, prot) | MOVED


class WalkerReadsAnAddressBitThatNoOpReads(Plain):
    linear_map = 1 << 48

    def pmd_pgtable(self, pmd: Any) -> Any:
        return pmd & ADDRESS & (1 << 48) - 1

    pud_pgtable = pmd_pgtable
    p4d_pgtable = pmd_pgtable


class PudLeavesWithoutPfnmapsHaveNoPfn(Plain):
    """Where an architecture has no transparent huge pages of that size, only what it maps for itself is a leaf."""

    @hookimpl
    def kconfig(self, has: Any) -> str:
        text: str = super().kconfig(has)
        text = text.replace("\tselect HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD\n", "")
        return text.replace("\tselect ARCH_SUPPORTS_HUGE_PFNMAP if TRANSPARENT_HUGEPAGE\n", "")

    @hookimpl
    def pud_pfn(self, pud: Any) -> Any:
        return pud & 0

    pmd_special = pud_special = pmd_mkspecial = pud_mkspecial = pud_trans_huge = None


class ReservedBitInEveryPgprot(Plain):
    @property
    def protection_map(self) -> tuple[int, ...]:
        return tuple(prot | 1 << 62 for prot in super().protection_map)


class PgprotsOfTheKernel(Plain):
    """As s390's pte_pgprot, which is for a mapping of the kernel's own; this one forbids what the leaf allows."""

    expected_failures: ClassVar[Mapping[str, str]] = {
        "prot-round-trip:pte": "the kernel's pgprot is another",
        "pgprot-less-pfn:pte": "the kernel's pgprot is another",
    }

    @hookimpl
    def pte_pgprot(self, pte: Any) -> Any:
        return clear(pte, ADDRESS | WRITE)


class FewerLevelsAtFirst(Plain):
    """As s390, whose words say which table they are of; these do not."""

    def setup_arch(self, config: Mapping[str, str], cpu: Mapping[str, Any], has: Any) -> None:
        super().setup_arch(config, cpu, has)
        self.geometry = replace(self.geometry, new_process_levels=3)


class ExecuteOnlyFaultsForEver(Plain):
    """The fault of a load is served, and the leaf that it installs cannot be read."""

    def access_error(self, vm_flags: int, write: bool) -> int:
        return 0 if vm_flags & 7 == 4 and not write else super().access_error(vm_flags, write)


class MprotectLeavesATraceOfProtNone(Plain):
    """As if PROT_NONE had a bit of its own, which the next protection does not take away."""

    def pmd_modify(self, pmd: Any, newprot: Any) -> Any:
        return super().pmd_modify(pmd, newprot) | pmd & MOVED

    @property
    def protection_map(self) -> tuple[int, ...]:
        return tuple(prot | (0 if flags & 7 else MOVED) for flags, prot in enumerate(super().protection_map))


class DirtyOfWritableLeavesSetsAnotherBit(Plain):
    """Which mkwrite of a dirty leaf forgets: as the TLB's dirty bit beside the kernel's modified bit (LoongArch)."""

    def pmd_mkdirty(self, pmd: Any) -> Any:
        return pmd | DIRTY | bit(pmd, WRITE) * MOVED


class WhatIsNoneMayBeALeaf(Plain):
    """Where the ignored marks stand in a slot, they say nothing else; here LEAF is ignored too."""

    def pud_none(self, pud: Any) -> Any:
        return is_zero(clear(pud, LEAF))

    def pud_leaf(self, pud: Any) -> Any:
        return bit(pud, LEAF)

    pud_bad = pud_leaf


class HugeWithoutBeingPresent(Plain):
    def pmd_trans_huge(self, pmd: Any) -> Any:
        return bit(pmd, LEAF)


class HugeWhereNoPagesAre(Plain):
    """Of a kernel without transparent huge pages the headers say that no PMD is one."""

    def pmd_trans_huge(self, pmd: Any) -> Any:
        return self.pmd_leaf(pmd)


class FoldedLevelWithLeaves(Plain):
    @hookimpl
    def pgd_leaf(self, pgd: Any) -> Any:
        return bit(pgd, LEAF)


class SoftDirtyWithoutItsSymbol(SoftDirty):
    @hookimpl
    def kconfig(self, has: Any) -> str:
        return Plain.kconfig(self, has)


class LargeLeavesSayTheSizeOfAPage(Plain):
    """As the TTEs of SPARC, whose page size is in bits of the word."""

    def word_format(self, level: Any) -> Any:
        return replace(super().word_format(level), size=(MOVED, 0 if level == "pte" else MOVED))


class MprotectMakesOldLeavesAccessible(Plain):
    """As sparc64: what is not accessed is not valid, by a bit that comes with every pgprot."""

    VALID = 1 << 11
    cpu_defaults: ClassVar[Mapping[str, object]] = {"hw_access_dirty": False}

    @property
    def protection_map(self) -> tuple[int, ...]:
        return tuple(prot | self.VALID for prot in super().protection_map)

    def pte_mkold(self, pte: Any) -> Any:
        return clear(pte, ACCESSED | self.VALID)

    def pte_mkyoung(self, pte: Any) -> Any:
        return pte | ACCESSED | self.VALID

    def word_format(self, level: Any) -> Any:
        return replace(super().word_format(level), marks=ACCESSED | DIRTY | self.VALID)

    def mmu_access(self, level: Any, entry: int, write: bool) -> tuple[int, bool]:
        if level != "pte":
            return super().mmu_access(level, entry, write)
        needed = PRESENT | READ | self.VALID | (WRITE if write else 0)
        return entry | (DIRTY if write else 0), entry & needed == needed


ALONE: list[tuple[type[Arch], str]] = [
    (LargeLeavesHaveTwoAddressBitsSwapped, "format-leaf:pmd"),
    (CpuStoresWhereItMayNotLoad, "format-access:pte"),
    (MprotectLetsWhatIsWritableBeExecuted, "modify-grants:pte"),
    (DirtySetsAReservedBit, "own-bits:pmd"),
    (NoncachedAndWriteCombiningExchanged, "memory-types:pte"),
    (MprotectMakesOldLeavesAccessible, "cpu-access-modified:pte"),
    (SoftDirtyMarksNothing, "soft-dirty:pte"),
    (SoftDirtyLostByMprotect, "soft-dirty:pte"),
    (SoftDirtyNeverCleared, "soft-dirty:pte"),
    (SoftDirtyIsTakenForDirty, "soft-dirty:pte"),
    (NewLeavesAreOld, "new-leaf-accessible:pte"),
    (WriteCombiningIsCached, "writecombine-uncached"),
    (LargeLeavesSayTheSizeOfAPage, "leaf-size:pmd"),
    (BitOfSoftwareForbidsStores, "format-complete:pte"),
    (GupReadsWhatMayBeExecuted, "gup-reads:pud"),
    (BothWaysOfTracking, "tracking-claim"),
    (HugetlbPageIsNoLeaf, "hugetlb-leaf"),
    (MappingsAreNotEncrypted, "decryption"),
    (FoldedP4dOfTwoEntries, "constants-fit"),
    (NovmaWritesNothing, "mkwrite-wrprotect:pte"),
    (NewLeavesAreSoftDirty, "soft-dirty:pte"),
    (WalkerReadsAnAddressBitThatNoOpReads, "format-table:p4d"),
    (PudLeavesWithoutPfnmapsHaveNoPfn, "format-leaf-read:pud"),
    (ReservedBitInEveryPgprot, "reserved-bits:pte"),
    (PgprotsOfTheKernel, "mapped-again:pte"),
    (FewerLevelsAtFirst, "shorter-walks"),
    (ExecuteOnlyFaultsForEver, "execute-only:pte"),
    (MprotectLeavesATraceOfProtNone, "modify-forgets:pmd"),
    (WaitsForAChangeThatThePlannerIsNotToldOf, "leaf-changes:pud"),
    (DirtyOfWritableLeavesSetsAnotherBit, "marks-in-any-order:pmd"),
    (WhatIsNoneMayBeALeaf, "none-is-nothing-else:pud"),
    (HugeWithoutBeingPresent, "huge-is-a-leaf:pmd"),
    (FoldedLevelWithLeaves, "folded-leaf:pgd"),
    (HugeWhereNoPagesAre, "no-huge-pages@thp=n"),
    (SharedPagesHaveAnotherBit, "shared-as-private"),
    (FormatTellsOfA65thBit, "format-fits"),
    (FormatGivesAnAddressBitToSoftware, "format-fits"),
    (SoftDirtyWithoutItsSymbol, "soft-dirty-claim"),
    (StoresForgottenByWrprotect, "dirty-survives:pmd"),
    (MkhugeAlsoDirties, "mkhuge-alone:pmd"),
    (DevmapReadsAnotherBit, "devmap-agrees:pte"),
    (DevmapIsDirty, "devmap-agrees:pte"),
    (DevmapWithoutItsSymbol, "devmap-claim"),
    (DevmapClaimedAndNotProvided, "devmap-claim"),
    (HugeSpecialWithoutItsSymbol, "special-claim:pud"),
    (PteSpecialWithoutItsSymbol, "pte-special-claim"),
    (FiveLevelsSaidAndFourThere, "pgtable-levels"),
    (TablesPastTheLinearMap, "linear-map:pud"),
    (PrivatePagesAreWritable, "protection-map:pte"),
    (FormatSaysThatEverythingMayBeExecuted, "protection-execute:pte"),
    (EverythingMayBeExecuted, "protection-execute:pte"),
    (ExecutablePagesCannotBeRead, "access-error"),
    (NoncachedLeavesWriteCombining, "cache-modes"),
    (WriteCombiningIsReadOnly, "cache-keeps-permissions:pmd"),
    (MprotectMakesCached, "modify-keeps-memory-type:pmd"),
]
"""As `ARCHES`, on 6.12.117, which still has devmap, or the machine that is named; no other check sees what is wrong."""

ARCHES: list[tuple[type[Arch], str]] = [
    (HighTablesHaveTwoAddressBitsSwapped, "format-table:pud"),
    (PmdTableOfHalfTheEntries, "levels-fit"),
    (PmdOrderOfEight, "constants-fit"),
    (UserSpaceBeyondTheTopTable, "addresses-resolve"),
    (PgdCountedAsALevelThoughFolded, "folded-levels:pgd"),
    (NoKconfigFragment, "kconfig-fragment"),
    (SelectWithoutItsDependency, "kconfig-selects"),
    (SelectOfWhatNobodyDeclares, "kconfig-selects"),
    (MkspecialForgottenForPuds, "kconfig-claims:pud"),
    (PteSpecialClaimedAndNotProvided, "pte-special-claim"),
    (PgprotWithoutItsMark, "hooks-marked"),
    (PresentAnswersABool, "answers-are-words"),
    (YoungSetsTheTopBitTwice, "answers-are-words"),
    (SpecialAnswersNone, "answers-are-words"),
    (DepositAnswersNone, "hooks-answer"),
    (ArraysGetAnotherBit, "arrays-agree"),
    (ArrayIsChangedInPlace, "arrays-agree"),
    (PmdPfnCutAt32Bits, "pfn-round-trip:pmd"),
    (TopAddressBitForgotten, "highest-address:pte"),
    (UncachedIsLost, "prot-round-trip:pud"),
    (PgprotKeepsTheAddress, "pgprot-less-pfn:pmd"),
    (WrprotectClearsAnAddressBit, "pfn-survives:pud"),
    (SpecialNeverTold, "special-agrees:pud"),
    (MkwriteLosesSpecial, "special-survives:pmd"),
    (SpecialBitInTheAddress, "special-disturbs-nothing:pmd"),
    (ProtNonePmdIsNoLeaf, "leaf-is-a-leaf:pmd"),
    (TablesAreLeaves, "table-is-a-table:pmd"),
    (EmptyIsNotNone, "empty-is-none:pmd"),
    (EmptyIsNotNoneAtTheTop, "empty-is-none:p4d"),
    (WrprotectCleans, "mkwrite-wrprotect:pte"),
    (DirtyIsTakenForYoung, "mkdirty-mkclean:pmd"),
    (OldIsAlsoClean, "mkyoung-mkold:pud"),
    (DirtyNotMovedBack, "mkwrite-after-wrprotect:pte"),
    (MkspecialToggles, "idempotent:pmd"),
    (ModifyLosesSpecial, "modify-keeps:pmd"),
    (GupMayWriteWhereItMayRead, "access-permitted:pte"),
    (CpuStoresThroughReadOnly, "cpu-access:pte"),
    (CpuFaultsThoughItMarks, "hardware-marks:pmd"),
    (SpecialPmdIsNotTransHuge, "mm-life:pmd"),
    (ProtNonePudIsATable, "mm-protection:pud"),
    (AddressOneBitTooHigh, "words-life:pte"),
    (ModifyMovesPresent, "words-protection:pmd"),
    (ProtNoneCanBeReadAfterMprotect, "words-protection:pmd"),
]

# One thing wrong for each thing that a check looks at, where the wrong architectures above break another of its rules


def geometry(**changed: Any) -> dict[str, Any]:
    def setup_arch(self: Any, config: Mapping[str, str], cpu: Mapping[str, Any], has: Any) -> None:
        Plain.setup_arch(self, config, cpu, has)
        walk = changed.get("walk", lambda levels: levels)(self.geometry.walk)
        self.geometry = replace(self.geometry, **{**changed, "walk": walk})

    return {"setup_arch": setup_arch}


def symbols(change: Any) -> dict[str, Any]:
    def kconfig(self: Any, has: Any) -> Any:
        return change(Plain.kconfig(self, has))

    return {"kconfig": hookimpl(kconfig)}


def protections(change: Any) -> dict[str, Any]:
    return {"protection_map": property(lambda self: tuple(map(change, Plain.protection_map.fget(self))))}  # type: ignore[attr-defined]


def cpu(allows: Any) -> dict[str, Any]:
    def mmu_access(self: Any, level: Any, entry: int, write: bool) -> tuple[int, bool]:
        after, allowed = Plain.mmu_access(self, level, entry, write)
        return (after, allowed) if allows(entry, write) is None else (entry, bool(allows(entry, write)))

    return {"mmu_access": mmu_access}


RULES: list[tuple[str, dict[str, Any], str]] = [
    (
        "prot-round-trip:pte",
        {"pte_pgprot": hookimpl(lambda self, pte: clear(pte, ADDRESS | EXEC))},
        "made again of its own pfn and pgprot",
    ),
    (
        "pgprot-less-pfn:pte",
        {"pte_pgprot": hookimpl(lambda self, pte: clear(pte, ADDRESS | EXEC))},
        "the entry less its pfn is",
    ),
    (
        "mapped-again:pte",
        {"pte_pgprot": hookimpl(lambda self, pte: clear(pte, ADDRESS | PRESENT))},
        "is not present",
    ),
    ("special-agrees:pte", {"pte_special": hookimpl(lambda self, pte: bit(pte, PRESENT))}, "pte_special is 1 for"),
    (
        "modify-keeps:pte",
        {"pte_modify": lambda self, pte, prot: Plain.pte_modify(self, pte, prot) | pte & WRITE},
        "its new pgprot forbids",
    ),
    ("mkhuge-alone:pmd", {"pmd_mkhuge": lambda self, pmd: pmd ^ LEAF}, "of what is huge already"),
    (
        "access-permitted:pte",
        {"pte_access_permitted": hookimpl(lambda self, pte, write: bit(pte, WRITE))},
        "refuses to read through",
    ),
    ("cpu-access:pte", cpu(lambda entry, write: False), "the CPU refuses a load"),
    (
        "cpu-access-modified:pte",
        {"mmu_access": lambda self, level, e, write: (e | ACCESSED | write * DIRTY, not write or bool(e & WRITE))},
        "whose mapping has no permissions",
    ),
    ("hardware-marks:pte", cpu(lambda entry, write: None if entry & DIRTY or not write else False), "CPU sets dirty"),
    ("answers-are-words", {"pte_young": lambda self, pte: pte & ACCESSED}, "a predicate is 0 or 1"),
    (
        "arrays-agree",
        {"pte_young": lambda self, pte: bit(pte, ACCESSED) if isinstance(pte, int) else pte.astype("int64")},
        "no such array",
    ),
    ("format-leaf:pmd", {"pmd_mkhuge": lambda self, pmd: pmd}, "takes the pmd leaf"),
    ("format-table:pmd", {"pmd_populate": lambda self, pa: pa}, "is not valid to the walker"),
    ("format-table:pmd", {"pmd_populate": lambda self, pa: pa | PRESENT | LEAF}, "for a leaf"),
    ("memory-types:pmd", {"pgprot_writecombine": lambda self, prot: prot | 1 << 10}, "is not what the CPU takes for"),
    ("format-access:pte", cpu(lambda entry, write: None if entry & EXEC else False), "which the format allows"),
    (
        "format-fits",
        {"word_format": lambda self, level: replace(Plain.word_format(self, level), load=(READ, READ | EXEC))},
        "it never holds",
    ),
    ("levels-fit", geometry(walk=lambda levels: tuple(levels[n] for n in (0, 2, 1, 3))), "it starts at pgd"),
    ("levels-fit", geometry(walk=lambda levels: (*levels[:-1], replace(levels[-1], shift=13))), "PAGE_SHIFT is 12"),
    ("levels-fit", geometry(walk=lambda levels: (*levels[:-1], replace(levels[-1], ptrs=500))), "no power of two"),
    ("constants-fit", geometry(P4D_SHIFT=20), "an upper level maps no less"),
    (
        "constants-fit",
        symbols(lambda text: f"{text}\nconfig PAGE_SHIFT\n\tint\n\tdefault 13\n"),
        "the configuration says 13",
    ),
    ("addresses-resolve", geometry(task_size=(1 << 47) - 1), "no multiple of the page size"),
    ("addresses-resolve", geometry(PTRS_PER_PMD=256), "the walk takes"),
    ("folded-levels:pgd", {"pgd_populate": hookimpl(lambda self, pa: pa | PRESENT)}, "where nothing is written"),
    (
        "kconfig-fragment",
        symbols(lambda text: text.replace("config MMU\n\tdef_bool y", "config MMU\n\tbool")),
        "MMU is",
    ),
    ("kconfig-fragment", symbols(lambda text: text.replace("\tselect HAVE_PCI\n", "")), "HAVE_PCI is not selected"),
    (
        "leaf-changes:pmd",
        {"__module__": Plain.__module__, "leaf_changes": {"pmd": ("per-vma-lock-faults",)}},
        "there are still pmd leaves of pfnmaps",
    ),
    ("pgtable-levels", symbols(lambda text: text.replace("config PGTABLE_LEVELS", "config LEVELS")), "has no value"),
    ("protection-map:pte", {"protection_map": (0,) * 8}, "protection_map has 8 pgprots"),
    ("protection-map:pte", {"pte_present": lambda self, pte: bit(pte, WRITE)}, "pte_present is 0 of"),
    ("protection-map:pte", protections(lambda prot: clear(prot, READ)), "the CPU refuses a load"),
    ("access-error", {"access_error": lambda self, vm_flags, write: 99}, "no si_code of SIGSEGV"),
    ("cache-modes", {"pgprot_noncached": hookimpl(lambda self, prot: prot)}, "pgprot_noncached changes nothing"),
    ("cache-modes", {"pgprot_device": hookimpl(lambda self, prot: prot)}, "pgprot_device changes nothing"),
    (
        "cache-modes",
        {"pgprot_noncached": hookimpl(lambda self, prot: clear(prot, COMBINING) ^ UNCACHED)},
        "pgprot_noncached twice gives",
    ),
    ("cache-keeps-permissions:pte", {"pgprot_writecombine": lambda self, prot: prot | COMBINING | EXEC}, "execute"),
    ("table-is-a-table:pmd", {"pmd_pgtable": lambda self, pmd: (pmd & ADDRESS) ^ 1 << 20}, "pmd_populate was given"),
    ("linear-map:pmd", {"linear_map": (1 << 40) + 1}, "no multiple of the page size"),
    (
        "words-life:pte",
        {"pmd_populate": lambda self, pa: pa << 1 | PRESENT, "pmd_pgtable": lambda self, pmd: (pmd & ADDRESS) >> 1},
        "where no table is",
    ),
    ("mm-life:pte", {"track_pfn_copy": hookimpl(lambda self, dst, src: -EINVAL)}, "fork failed"),
    ("mm-life:pte", {"pte_special": hookimpl(lambda self, pte: pte & 0)}, "a leaf that is not special"),
    ("mm-life:pte", {"pte_pfn": lambda self, pte: (clear(pte, 1 << 51) & ADDRESS) >> 12}, "is looked up as"),
    (
        "mm-protection:pte",
        {"pte_modify": lambda self, pte, prot: Plain.pte_modify(self, pte, prot) | pte & WRITE},
        "after mprotect to read-only",
    ),
    (
        "mm-protection:pte",
        {"pte_modify": lambda self, pte, prot: Plain.pte_modify(self, pte, prot) | pte & READ},
        "after mprotect to PROT_NONE",
    ),
]
"""A check, what of the kit's own architecture is replaced, and what the check then says."""


# One wrong driver a check


class Good(Driver):
    """A driver of memory BARs with nothing wrong: huge faults, and a switch for memory decode."""

    name: ClassVar[str] = "good"
    shift = 40

    def boot(self, machine: Machine) -> None:
        super().boot(machine)
        self.enabled: dict[str, bool] = {}
        self.files: dict[str, File] = {}

    def probe(self, device: Device) -> File:
        self.enabled[device.name] = True
        self.files[device.name] = self.open(device)
        return self.files[device.name]

    def mmap_offset(self, bar: int, offset: int) -> int:
        return (bar << self.shift) + offset

    def mmap(self, file: File, vma: VmArea) -> int:
        device: Device = file.private_data
        page_shift = self.kernel.geometry.PAGE_SHIFT
        index, offset = divmod(vma.vm_pgoff << page_shift, 1 << self.shift)
        if index not in device.bars or not self.fits(offset + vma.size, device.bars[index].size):
            return -EINVAL
        vma.vm_flags |= VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP
        vma.vm_private_data = (device, (device.bars[index].phys + offset) >> page_shift)
        vma.vm_ops = self.operations()
        return 0

    def operations(self) -> VmOperations:
        return VmOperations(fault=lambda vmf: self.fault(vmf, 0), huge_fault=self.fault)

    def fits(self, end: int, size: int) -> bool:
        page = self.kernel.geometry.PAGE_SIZE
        return end <= -(-size // page) * page

    def fault(self, vmf: VmFault, order: int) -> int:
        kernel, vma = self.kernel, vmf.vma
        mm, geometry = self.machine.mm, kernel.geometry
        device, first = vma.vm_private_data
        size = geometry.PAGE_SIZE << order
        address = vmf.address & -size
        # As vm_pgoff does, the first pfn goes with the start of the vma that mmap saw.
        pfn = first + ((address - vma.vm_start) >> geometry.PAGE_SHIFT)
        if not self.block_fits(vma, address, size, pfn % (1 << order) == 0):
            return mm.VM_FAULT_FALLBACK
        if not self.enabled[device.name]:
            return mm.VM_FAULT_SIGBUS
        return self.insert(vmf, order, address, pfn)

    def block_fits(self, vma: VmArea, address: int, size: int, aligned: bool) -> bool:
        return aligned and vma.vm_start <= address and address + size <= vma.vm_end

    def insert(self, vmf: VmFault, order: int, address: int, pfn: int) -> int:
        mm, geometry = self.machine.mm, self.kernel.geometry
        if order == 0:
            return mm.vmf_insert_pfn(vmf.vma, address, pfn)
        if order == geometry.PMD_ORDER and self.kernel.pfnmap("pmd"):
            return mm.vmf_insert_pfn_pmd(vmf, pfn, False)
        if order == geometry.PUD_ORDER and self.kernel.pfnmap("pud"):
            return mm.vmf_insert_pfn_pud(vmf, pfn, False)
        return mm.VM_FAULT_FALLBACK

    def actions(self) -> Mapping[str, Action]:
        return {"pci_memory": Action(self.pci_memory, {"device": "str", "enabled": "bool"})}

    def pci_memory(self, run: Any, device: str, enabled: bool) -> dict[str, Any]:
        self.enabled[device] = enabled
        if not enabled:
            self.machine.mm.unmap_mapping_range(self.files[device].f_mapping, 0, 0)
        return {}


class ActionWithAMisspeltKind(Good):
    def actions(self) -> Mapping[str, Action]:
        return {"zap": Action(self.pci_memory, {"device": "string"})}


class DriverSelectsWhatNobodyDeclares(Good):
    @hookimpl
    def kconfig(self, has: Any) -> str:
        return "config GOOD\n\tdef_bool y\n\tselect NO_SUCH_SYMBOL\n"


class RemembersDevicesAcrossBoots(Good):
    known: ClassVar[set[str]] = set()

    def probe(self, device: Device) -> File:
        if device.name in self.known:
            raise ValueError(f"{device.name} is bound already")
        self.known.add(device.name)
        return super().probe(device)


class BarsShareOffsets(Good):
    def mmap_offset(self, bar: int, offset: int) -> int:
        return offset


class VmaIsNoPfnmap(Good):
    def mmap(self, file: File, vma: VmArea) -> int:
        error = super().mmap(file, vma)
        vma.vm_flags &= ~VM_PFNMAP
        return error


class MapsBeyondTheBar(Good):
    def fits(self, end: int, size: int) -> bool:
        return True


class OffsetOfTheMappingForgotten(Good):
    def mmap(self, file: File, vma: VmArea) -> int:
        error = super().mmap(file, vma)
        if not error:
            device, first = vma.vm_private_data
            vma.vm_private_data = (device, first & -512)
        return error


class HugePfnOfTheFaultNotOfTheBlock(Good):
    def insert(self, vmf: VmFault, order: int, address: int, pfn: int) -> int:
        if order == self.kernel.geometry.PMD_ORDER:
            pfn += 1 << order
        return super().insert(vmf, order, address, pfn)


class UnalignedPfnInAHugeLeaf(Good):
    def block_fits(self, vma: VmArea, address: int, size: int, aligned: bool) -> bool:
        return super().block_fits(vma, address, size, True)


class BasePageForAHugeOrder(Good):
    def insert(self, vmf: VmFault, order: int, address: int, pfn: int) -> int:
        return self.machine.mm.vmf_insert_pfn(vmf.vma, address, pfn)


class HugeFaultThatAlwaysFallsBack(Good):
    def insert(self, vmf: VmFault, order: int, address: int, pfn: int) -> int:
        return self.machine.mm.VM_FAULT_FALLBACK if order else super().insert(vmf, order, address, pfn)


class AnyOrderIsABasePage(Good):
    def insert(self, vmf: VmFault, order: int, address: int, pfn: int) -> int:
        known = (0, self.kernel.geometry.PMD_ORDER, self.kernel.geometry.PUD_ORDER)
        return super().insert(vmf, order if order in known else 0, address, pfn)


class MemoryOffIgnoredByFaults(Good):
    def fault(self, vmf: VmFault, order: int) -> int:
        device, _ = vmf.vma.vm_private_data
        enabled, self.enabled[device.name] = self.enabled[device.name], True
        ret = super().fault(vmf, order)
        self.enabled[device.name] = enabled
        return ret


class MemoryOffLeavesMappings(Good):
    def pci_memory(self, run: Any, device: str, enabled: bool) -> dict[str, Any]:
        self.enabled[device] = enabled
        return {}


class ForkZapsEverybody(Good):
    def operations(self) -> VmOperations:
        return replace(super().operations(), open=self.open)

    def open(self, vma: VmArea) -> None:
        assert vma.vm_file is not None
        self.machine.mm.unmap_mapping_range(vma.vm_file.f_mapping, 0, 0)


DRIVERS: list[tuple[type[Driver], str]] = [
    (ActionWithAMisspeltKind, "actions"),
    (DriverSelectsWhatNobodyDeclares, "kconfig-selects"),
    (RemembersDevicesAcrossBoots, "probe-opens"),
    (BarsShareOffsets, "offsets-apart"),
    (VmaIsNoPfnmap, "vma-flags"),
    (MapsBeyondTheBar, "refuses-beyond"),
    (OffsetOfTheMappingForgotten, "right-pages"),
    (HugePfnOfTheFaultNotOfTheBlock, "right-pages-at:pmd"),
    (UnalignedPfnInAHugeLeaf, "unaligned-falls-back"),
    (BasePageForAHugeOrder, "order-as-asked:pmd"),
    (HugeFaultThatAlwaysFallsBack, "huge-leaves:pud"),
    (AnyOrderIsABasePage, "other-orders"),
    (MemoryOffIgnoredByFaults, "memory-off"),
    (MemoryOffLeavesMappings, "memory-off"),
    (ForkZapsEverybody, "fork-and-unmap"),
]

OWN_ARCH_CHECKS = tuple(check for check in ARCH_CHECKS if check not in mmu.CHECKS)
"""All but those that need an emulated CPU, which the kit's own architecture has not (tests/test_mmu_judge.py)."""


def run_one(kit: Kit, machine: str, name: str) -> Result:
    """Run the check of that name on a machine; LookupError where the kit has no such check."""
    for case in cases(kit.checks):
        if case.id == name:
            return kit.run(Item(machine, case))
    raise LookupError(name)


@pytest.mark.parametrize(("arch", "name"), ARCHES, ids=lambda value: getattr(value, "__name__", None))
def test_a_wrong_architecture_is_caught_by_the_check_that_should(arch: type[Arch], name: str):
    result = run_one(arch_kit(arch), MACHINE, name)
    assert (result.status, bool(result.detail)) == ("failed", True), result


@pytest.mark.parametrize(("arch", "name"), ALONE, ids=lambda value: getattr(value, "__name__", None))
def test_what_one_law_alone_sees_is_caught_by_it_and_by_nothing_else(arch: type[Arch], name: str):
    kit, (name, _, machine) = arch_kit(arch), name.partition("@")
    failed = {r.case.id for case in cases(ARCH_CHECKS) if not (r := kit.run(Item(machine or "6.12.117", case))).good}
    assert name in failed
    assert {found.partition(":")[0] for found in failed} == {name.partition(":")[0]}


@pytest.mark.parametrize(("driver", "name"), DRIVERS, ids=lambda value: getattr(value, "__name__", None))
def test_a_wrong_driver_is_caught_by_the_check_that_should(driver: type[Driver], name: str):
    result = run_one(driver_kit(driver), f"plain {MACHINE}", name)
    assert (result.status, bool(result.detail)) == ("failed", True), result


@pytest.mark.parametrize(("name", "ops", "text"), RULES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_check_reports_each_thing_that_it_looks_at(name: str, ops: dict[str, Any], text: str):
    result = run_one(arch_kit(type("Wrong", (Plain,), ops)), MACHINE, name)
    assert (result.status, text) == ("failed", text if text in result.detail else result.detail)


def test_what_all_releases_of_the_kit_have_is_left_out_of_one_machine():
    subject: Any = arch_kit(Plain).subject(f"{MACHINE} without kconfig-6.10")
    assert not subject.kernel.release.has("kconfig-6.10")


class HookThatNoMachineUses(Plain):
    """As a plugin whose Kconfig forgets the select on which `setup_arch` makes an op depend."""

    undefined = frozenset({"pmd_soft_dirty"})

    @hookimpl
    def pmd_soft_dirty(self, pmd: Any) -> Any:
        return bit(pmd, MOVED)


def test_a_hook_that_no_machine_uses_is_found_and_named():
    found = [result for result in arch_kit(HookThatNoMachineUses).results() if not result.good]
    assert [result.case.id for result in found] == ["hooks-used"]
    assert found[0].detail.startswith("no machine uses pmd_soft_dirty")


class GupReadsThroughProtNone(Plain):
    @hookimpl
    def pmd_access_permitted(self, pmd: Any, write: int) -> Any:
        return bit(pmd, PRESENT) & (bit(pmd, WRITE) | (1 - write))


def test_an_access_permitted_of_ones_own_does_not_read_through_prot_none():
    assert (
        "whose mapping allows nothing"
        in run_one(arch_kit(GupReadsThroughProtNone), MACHINE, "access-permitted:pmd").detail
    )


def test_every_check_catches_something():
    assert {re.split("[:@]", name)[0] for _, name in [*ARCHES, *ALONE]} == {check.name for check in OWN_ARCH_CHECKS}
    assert {name.partition(":")[0] for _, name in DRIVERS} == {check.name for check in DRIVER_CHECKS}
    assert DRIVER_CHECKS == driver_checks.CHECKS


@pytest.mark.parametrize("name", sorted({name for _, name in ARCHES}))
def test_without_its_check_a_wrong_architecture_is_not_caught_by_that_name(name: str):
    (wrong, _), *_ = (pair for pair in ARCHES if pair[1] == name)
    less = tuple(check for check in ARCH_CHECKS if check.name != name.partition(":")[0])
    with pytest.raises(LookupError):
        run_one(arch_kit(wrong, checks=less), MACHINE, name)


@pytest.mark.parametrize("machine", ["6.12.117", MACHINE, "thp=n", "hw_access_dirty=off"])
def test_nothing_is_found_in_an_architecture_with_nothing_wrong(machine: str):
    kit = arch_kit(Plain)
    results = [kit.run(Item(machine, case)) for case in cases(kit.checks)]
    assert [result for result in results if not result.good] == []
    assert sum(result.status == "passed" for result in results) > 30


def test_nothing_is_found_in_a_driver_with_nothing_wrong():
    kit = driver_kit(Good)
    results = [
        kit.run(Item(f"plain {release}", case)) for release in ("6.12.117", MACHINE) for case in cases(kit.checks)
    ]
    assert {result.status for result in results} == {"passed"}


# Messages: which op, which input, which bits


@pytest.mark.parametrize(
    ("arch", "name", "text"),
    [
        (
            MkwriteLosesSpecial,
            "special-survives:pmd",
            r"pmd_mkwrite\(0x[0-9a-f]+\) = 0x[0-9a-f]+ lost special, .*bits? .*7",
        ),
        (
            PgprotKeepsTheAddress,
            "pgprot-less-pfn:pmd",
            r"pmd_pgprot is 0x[0-9a-f]+, it keeps bits? [0-9 ,to]+ of the address",
        ),
        (MkspecialForgottenForPuds, "kconfig-claims:pud", r"does not provide pud_mkspecial \(generic\)"),
        (AddressOneBitTooHigh, "words-life:pte", r"the CPU reads 0x[0-9a-f]+ at 0x[0-9a-f]+, it maps 0x[0-9a-f]+"),
        (SelectWithoutItsDependency, "kconfig-selects", r"PLAIN_EXTRA is selected by PLAIN, but depends on !PLAIN"),
        (SpecialAnswersNone, "answers-are-words", r"pmd_special answers None"),
    ],
)
def test_a_failure_names_the_op_and_what_is_wrong_with_it(arch: type[Arch], name: str, text: str):
    assert re.search(text, run_one(arch_kit(arch), MACHINE, name).detail)


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [(0, 0, "no bit"), (1, 0, "bit 0"), (0b1011, 0, "bits 0 to 1, 3"), (1 << 63, 1, "bits 0, 63")],
)
def test_bits_are_told_in_words(first: int, second: int, text: str):
    assert bits(first, second) == text


# Capabilities, expectations, machines


class OwnsNoHugeSpecial(Plain):
    @hookimpl
    def kconfig(self, has: Any) -> str:
        text: str = super().kconfig(has)
        return text.replace("\tselect ARCH_SUPPORTS_HUGE_PFNMAP if TRANSPARENT_HUGEPAGE\n", "")

    pmd_special = pud_special = pmd_mkspecial = pud_mkspecial = None


def test_what_is_not_claimed_is_not_tested_and_said_to_be_missing():
    kit = arch_kit(OwnsNoHugeSpecial)
    result = run_one(kit, MACHINE, "special-survives:pmd")
    assert (result.status, result.detail) == ("not claimed", "pfnmap:pmd")
    assert run_one(kit, MACHINE, "special-survives:pte").status == "passed"
    assert run_one(kit, MACHINE, "kconfig-claims:pmd").status == "not claimed"


class SaysNoWordFormat(Plain):
    def word_format(self, level: Any) -> Any:
        return None


def test_without_a_declared_word_format_the_walk_of_raw_words_is_not_claimed():
    kit = arch_kit(SaysNoWordFormat)
    assert run_one(kit, MACHINE, "words-life:pmd").detail == "words"
    assert run_one(kit, MACHINE, "mm-life:pmd").status == "passed"
    assert run_one(kit, MACHINE, "pgprot-less-pfn:pmd").status == "passed"


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ("special-survives", "expected failure"),
        ("special-survives:pmd", "expected failure"),
        ("special-survives:pmd@7.3.4", "expected failure"),
        ("special-survives:pmd@7.*", "expected failure"),
        ("special-survives:pmd@6.*", "failed"),
        ("special-survives:pud", "failed"),
    ],
)
def test_an_expected_failure_is_declared_by_check_level_and_machine(key: str, status: str):
    result = run_one(arch_kit(MkwriteLosesSpecial, expected_failures={key: "known"}), MACHINE, "special-survives:pmd")
    assert result.status == status
    assert result.detail.startswith("known: ") == (status == "expected failure")


def test_an_expected_failure_that_passes_is_reported():
    kit = arch_kit(Plain, expected_failures={"idempotent:pte": "known"})
    result = run_one(kit, MACHINE, "idempotent:pte")
    assert (result.status, result.good) == ("unexpected pass", False)
    assert "known" in result.detail


def test_an_expectation_of_a_check_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(Unknown, match="special-survives"):
        arch_kit(Plain, expected_failures={"special-survive": "known"})
    with pytest.raises(BadInput, match="reason"):
        arch_kit(Plain, expected_failures={"special-survives": " "})


def test_a_declared_machine_is_linked_and_an_unknown_argument_of_it_refused():
    kit = arch_kit(Plain, machines={"old": {"release": "6.1.192"}})
    assert run_one(kit, "old", "mm-life:pte").status == "passed"
    assert run_one(kit, "old", "mm-life:pmd").status == "not claimed"
    with pytest.raises(BadInput, match="unknown releas"):
        arch_kit(Plain, machines={"old": {"releas": "6.1.192"}})


class DoesNotLink(Plain):
    def setup_arch(self, config: Any, cpu: Any, has: Any) -> None:
        raise KeyError("ARCH_PAGE_SHIFT")


def test_a_machine_that_cannot_be_linked_has_one_failed_check_and_the_reason():
    results = [result for result in arch_kit(DoesNotLink).results() if result.machine]
    assert {result.case.id for result in results} == {"links"}
    assert {result.status for result in results} == {"failed"}
    assert "ARCH_PAGE_SHIFT" in results[0].detail


class RaisesWhereItIsAskedWhatItClaims(Plain):
    @hookimpl
    def has_transparent_hugepage(self) -> bool:
        raise KeyError("no such feature")


def test_a_machine_whose_claims_cannot_be_asked_for_does_not_link_either():
    results = [result for result in arch_kit(RaisesWhereItIsAskedWhatItClaims).results() if result.machine]
    assert {(result.case.id, result.status) for result in results} == {("links", "failed")}
    assert "no such feature" in results[0].detail


@pytest.mark.parametrize("kit", [arch_kit, driver_kit])
def test_what_is_no_plugin_class_is_refused_and_named(kit: Any):
    with pytest.raises(PluginError, match=r"int.* is no subclass of pfnmap\.(Arch|Module)"):
        kit(int)


class PmdPfnUnwritten(Plain):
    def pmd_pfn(self, pmd: Any) -> Any:
        raise Unwritten("pmd_pfn")


def test_what_is_still_to_be_written_fails_alone_and_what_needs_it_waits():
    results = {(result.machine, result.case.id): result for result in arch_kit(PmdPfnUnwritten).results()}
    assert [key for key, result in results.items() if not result.good] == [("", "written-pmd_pfn")]
    assert "docs/hooks.md#pmd_pfn" in results["", "written-pmd_pfn"].detail
    assert results["", "written-pmd_pfn"].case.check.reason == "Return the page frame number of a PMD leaf."
    waits = results[MACHINE, "pfn-round-trip:pmd"]
    assert (waits.status, waits.detail) == ("waiting", "for pmd_pfn, which is still to be written")
    assert results[MACHINE, "pfn-round-trip:pte"].status == "passed"
