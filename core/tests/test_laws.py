"""pfnmap.testing.laws: what the laws find in real kernels' own answers, and that each law can be broken."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pfnmap.errors import BadInput
from pfnmap.host.bounded import MIB, read_json
from pfnmap.testing.laws import LAWS, Result, judge
from pfnmap.testing.vectors import parse_vectors, read_vectors

DATA = Path(__file__).parent / "data" / "laws"
KEEP_ALL_LAWS = ("x86_64-4k-7.3.4", "x86_64-4k-sme", "arm64-64k", "arm64-4k-lpa2", "powerpc64-64k-7.3.4", "riscv64-4k")
TRAMPLED = 1 << 40

Document = dict[str, Any]


def results_of(name: str) -> dict[tuple[str, str], Result]:
    return {(r.law.name, r.level): r for r in judge(read_vectors(DATA / f"{name}.json.gz"))}


@pytest.mark.parametrize("name", KEEP_ALL_LAWS)
def test_nothing_is_found_in_architectures_that_keep_the_laws(name: str):
    results = results_of(name).values()
    assert [(r.law.name, r.level, r.examples) for r in results if r.broken] == []
    assert sum(r.rows for r in results) > 5000


def test_every_law_is_tried_at_every_level_that_x86_64_maps_leaves_at():
    results = results_of("x86_64-4k-7.3.4")
    folded = [("table-is-table", "pgd"), ("table-holds-address", "pgd")]
    assert [key for key, r in results.items() if not r.rows] == folded


def test_riscv64_loses_a_protnone_pud_leaf_and_not_a_pmd_one():
    # FINDINGS F17: the same value is no leaf as a PUD and is one as a PMD.
    results = results_of("riscv64-4k-7.3.4")
    assert [key for key, r in results.items() if r.broken] == [("leaf-stays-leaf", "pud")]
    lost = results["leaf-stays-leaf", "pud"]
    assert {(one.helper, one.inputs[1]) for one in lost.examples} == {("pud_modify", 0x22)}
    assert lost.examples[-1].wrong == "pud 0x30000022: present 0, none 0, leaf 0, bad 1"
    assert results["leaf-stays-leaf", "pmd"].rows > 1000


def test_s390_leaves_the_address_in_pte_pgprot():
    # arch/s390/include/asm/pgtable.h, pte_pgprot: masked by _PAGE_CHG_MASK, which has the address in it.
    results = results_of("s390x-4k")
    assert [key for key, r in results.items() if r.broken] == [("pgprot-less-pfn", "pte")]
    kept = results["pgprot-less-pfn", "pte"]
    assert kept.broken == kept.rows == 93
    assert kept.examples[0].as_dict() == {
        "helper": "pte_pgprot",
        "inputs": ["0xe0000315"],
        "wrong": "pte_pgprot is 0xe0000315: it keeps bits 29 to 31 of the address",
    }


def test_a_law_that_is_not_tried_says_why():
    riscv, arm64 = results_of("riscv64-4k"), results_of("arm64-64k")
    assert riscv["special-kept", "pmd"].not_tried == "pmd_special is generic"
    assert arm64["pfn-kept", "pud"].not_tried == "no leaves here: HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD is not set"
    # Four levels: the PGD is folded and its populate writes nothing.
    assert results_of("x86_64-4k-7.3.4")["table-is-table", "pgd"].not_tried == "no row has both sides of it"


# Each law can be broken


def document() -> Document:
    found: Document = copy.deepcopy(read_json(DATA / "x86_64-4k-7.3.4.json.gz", 8 * MIB))
    return found


def outputs(helper: str, change: Callable[[int], int]) -> Callable[[Document], None]:
    """Change the answers of a helper."""

    def break_it(vectors: Document) -> None:
        for row in vectors["vectors"][helper]:
            row[-1] = hex(change(int(row[-1], 16)))

    return break_it


def past_the_linear_map(vectors: Document) -> None:
    """As riscv64's populate with Sv39, whose linear map ends at 128G."""
    for row in vectors["vectors"]["pud_populate"]:
        row[1] = hex(int(row[1], 16) | (0xFF << 56 if int(row[0], 16) >= 1 << 37 else 0))


def trap_pfn_pud(vectors: Document) -> None:
    vectors["trapped_inputs_skipped"] = {"pfn_pud": len(vectors["vectors"].pop("pfn_pud"))}


WRONG = {
    ("special-after-mkspecial", "pmd"): outputs("pmd_special", lambda answer: 0),
    ("special-kept", "pud"): outputs("pud_mkyoung", lambda entry: entry & ~0x200),
    ("special-alone", "pte"): outputs("pte_mkspecial", lambda entry: entry & ~0x2),
    ("pfn-kept", "pmd"): outputs("pmd_wrprotect", lambda entry: 0),
    ("pfn-comes-out", "pte"): outputs("pte_pfn", lambda pfn: pfn ^ 1),
    ("pgprot-less-pfn", "pud"): outputs("pud_pgprot", lambda prot: prot | TRAMPLED),
    ("leaf-stays-leaf", "pmd"): outputs("pmd_mkclean", lambda entry: 0),
    ("inserted-is-leaf", "pud"): outputs("composite_insert_pfn_pud", lambda entry: 0),
    ("flags-as-said", "pte"): outputs("pte_dirty", lambda answer: 1 - answer),
    ("table-is-table", "pmd"): outputs("pmd_leaf", lambda answer: 1),
    ("table-holds-address", "pud"): past_the_linear_map,
    ("none-is-nothing-else", "pte"): outputs("pte_none", lambda answer: 1),
    ("claimed-level-works", "pud"): trap_pfn_pud,
}


@pytest.mark.parametrize(("law", "level"), WRONG)
def test_each_law_finds_answers_that_break_it(law: str, level: str):
    wrong = document()
    WRONG[law, level](wrong)
    results = {(r.law.name, r.level): r for r in judge(parse_vectors(wrong))}
    assert results[law, level].broken > 0


def test_every_law_is_broken_once():
    assert {law for law, _ in WRONG} == {law.name for law in LAWS}


def test_a_level_whose_helper_traps_on_every_input_is_named():
    # FINDINGS F18: powerpc's pfn_pud is BUG() under the hash MMU, and PUD_PFNMAP=y.
    wrong = document()
    trap_pfn_pud(wrong)
    (found,) = (r for r in judge(parse_vectors(wrong)) if (r.law.name, r.level) == ("claimed-level-works", "pud"))
    assert found.examples[0].wrong.startswith("ARCH_SUPPORTS_PUD_PFNMAP=y, and pfn_pud trapped on every one of ")


@pytest.mark.parametrize("trapped", [[], {"pfn_pud": "3"}, {"pfn_pud": True}])
def test_malformed_counts_of_trapped_inputs_are_bad_input(trapped: Any):
    wrong = document()
    wrong["trapped_inputs_skipped"] = trapped
    with pytest.raises(BadInput, match="trapped_inputs_skipped"):
        parse_vectors(wrong)
