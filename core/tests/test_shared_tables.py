"""An architecture whose empty slots point to tables that all of them share, as LoongArch's do (invalid_pte_table)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pfnmap import Module, hookimpl
from pfnmap.kernel import Kernel
from pfnmap.mm.boot import boot
from pfnmap.testing.check import cases
from pfnmap.testing.kit import ARCH_CHECKS, Item, arch_kit
from pfnmap.testing.plain import ADDRESS, LEAF, PRESENT, Plain, bit, is_zero

INVALID_TABLE = 0x30_0000
MACHINE = "7.3.4"


class InvalidTable(Module):
    """Keeps the shared table's page free of RAM."""

    name = "plain"

    def boot(self, machine: Any) -> None:
        super().boot(machine)
        machine.phys.reserve(INVALID_TABLE, 0x1000)


class Shared(Plain):
    """A word that points to a table is the table's address and nothing else; an empty one is that of INVALID_TABLE."""

    module = InvalidTable

    def empty(self, level: Any) -> int:
        return 0 if level == "pte" else INVALID_TABLE

    def word_format(self, level: Any) -> Any:
        found = super().word_format(level)
        if level == "pte":
            return found
        present = {  # of a leaf; a table's word is an address
            name: tuple(bits | PRESENT for bits in getattr(found, name)) for name in ("load", "execute", "store")
        }
        return replace(found, valid=(0, 0), shared=INVALID_TABLE, **present)

    def pmd_none(self, pmd: Any) -> Any:
        return is_zero(pmd ^ INVALID_TABLE)

    def pmd_present(self, pmd: Any) -> Any:
        return self.pmd_none(pmd) ^ 1

    def pmd_leaf(self, pmd: Any) -> Any:
        return bit(pmd, LEAF)

    def pmd_bad(self, pmd: Any) -> Any:
        return is_zero(pmd & 0xFFF) ^ 1

    def pmd_populate(self, pa: Any) -> Any:
        return pa

    pud_none, pud_present, pud_leaf, pud_bad, pud_populate = pmd_none, pmd_present, pmd_leaf, pmd_bad, pmd_populate
    pmd_trans_huge = pmd_leaf

    p4d_none = p4d_present = p4d_bad = p4d_populate = None  # type: ignore[assignment]


def p4d(function: Any) -> Any:
    """A hook of the P4D, whose argument pluggy knows by its name."""
    return hookimpl(lambda self, p4d: function(self, p4d))


class SharedTables(Shared):
    p4d_none, p4d_present, p4d_bad = p4d(Shared.pmd_none), p4d(Shared.pmd_present), p4d(Shared.pmd_bad)

    @hookimpl
    def p4d_populate(self, pa: Any) -> Any:
        return pa & ADDRESS


class FormatWithoutTheSharedWord(SharedTables):
    def word_format(self, level: Any) -> Any:
        return replace(super().word_format(level), shared=None)


def failed(arch: type[Plain]) -> set[str]:
    kit = arch_kit(arch)
    results = [kit.run(Item(MACHINE, case)) for case in cases(ARCH_CHECKS)]
    assert sum(result.status == "passed" for result in results) > 30
    return {result.case.check.name for result in results if not result.good}


def test_such_a_format_can_be_told_and_keeps_every_law():
    assert failed(SharedTables) == set()


def test_without_the_shared_word_the_walk_of_raw_words_follows_it_to_no_table():
    assert failed(FormatWithoutTheSharedWord) == {"words-life", "words-protection"}


def test_what_is_reserved_in_boot_is_no_ram():
    machine = boot(Kernel.link(SharedTables))
    pages = [machine.phys.alloc_page() for _ in range(0x400)]
    assert pages[-1] > INVALID_TABLE
    assert INVALID_TABLE not in pages
