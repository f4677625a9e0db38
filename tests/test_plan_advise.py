"""`plan --advise`: the smallest sets of steps that help, held against planning every set there is."""

from __future__ import annotations

import json
from functools import cache
from itertools import chain, combinations, pairwise
from typing import Any

import pytest

from pfnmap.kernel import Kernel
from pfnmap.plan import Request, advise
from pfnmap.plan.advise import MOST, Advice, Outcome, Saves
from pfnmap.plan.candidates import Candidate, Variants, candidates
from pfnmap.plan.planner import Planner, Question
from pfnmap.spec import KernelSpec

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PHYS = 0x8_0000_0000


@cache
def linked(release: str, thp: str = "always", arch: str = "x86_64", **symbols: str) -> Kernel:
    return KernelSpec(arch=arch, release=release, thp=thp, set=symbols).link()


def question(*requests: Request, hypervisor: str | None = None) -> Question:
    return Question.of(requests, hypervisor=hypervisor)


def sets(kernel: Kernel, *requests: Request, **how: Any) -> dict[tuple[str, ...], tuple[str, ...]]:
    return {tuple(map(str, advice.steps)): advice.ends for advice in advise(kernel, requests, **how)}


CASES = {
    "THP off, any address": (("6.12.94", "never"), Request(0, PHYS, 4 * GIB, va=0x1000_0010_0000), None),
    "no series at all": (("6.12.94", "madvise"), Request(0, PHYS, 4 * MIB, policy="kernel"), None),
    "nothing to mend but walks": (("6.12.117",), Request(0, PHYS, 2 * GIB, policy="aligned"), None),
    "before the series": (("6.1.192",), Request(0, PHYS, 4 * GIB, policy="aligned"), None),
    "pages by mmap(NULL)": (("7.3.4",), Request(0, PHYS, 2 * GIB, policy="kernel"), None),
    "a VMM": (("7.3.4",), Request(0, PHYS, 4 * GIB, policy="qemu-9.1"), None),
    "a guest": (("6.12.94", "never", "arm64"), Request(0, PHYS, GIB, policy="aligned"), "kvm"),
}


@pytest.mark.parametrize("case", CASES)
def test_no_smaller_set_helps_and_none_is_missing(case: str) -> None:
    """Brute force: every set is planned, and advised is what meets an end that no smaller one meets.

    A set is as large as its steps, and with each backport all that it requires; of equal ones the fewest steps count.
    """
    said, request, hypervisor = CASES[case]
    kernel, asked = linked(*said), question(request, hypervisor=hypervisor)
    planned = Planner(kernel, asked).answer()
    sizes = planned[0].sizes
    before = Outcome.of(planned, sizes)
    steps, variants = candidates(kernel, asked), Variants(kernel)
    meets: dict[frozenset[str], set[str]] = {}
    names, saves = {}, {}
    for chosen in chain.from_iterable(combinations(steps, n) for n in range(1, MOST + 1)):
        whole = frozenset(str(one) for one in chosen) | {f"with={c}" for one in chosen for c in one.changes}
        if whole in meets or any(one.excludes(other) for one, other in combinations(chosen, 2)):
            continue
        changed = variants.plan(asked, chosen)
        after = Outcome.of(changed, sizes) if changed else before
        meets[whole] = {e for e in before.ends if after.ends[e] > before.ends[e]} if not after.loses(before) else set()
        names[whole] = frozenset(map(str, chosen))
        saves[names[whole]] = before.saves.dma_walks - after.saves.dma_walks
    smallest = {
        names[whole]: ends
        for whole, ends in meets.items()
        if any(not any(other < whole and end in meets[other] for other in meets) for end in ends)
    }
    found = advise(kernel, [request], hypervisor=hypervisor)
    assert {frozenset(map(str, one.steps)): set(one.ends) for one in found} == smallest
    assert all(one.saves.dma_walks == saves[frozenset(map(str, one.steps))] for one in found)
    assert found


def test_a_configuration_is_changed_only_where_it_is_to_blame() -> None:
    off = question(Request(0, PHYS, GIB, va=0x1000_0000_0000 + 4096))
    assert not [one for one in candidates(linked("6.12.117"), off) if one.step == "set"]
    unset = linked("6.12.117", TRANSPARENT_HUGEPAGE="n")
    assert "set=TRANSPARENT_HUGEPAGE=y" in map(str, candidates(unset, off))


def test_backport_that_helps_by_what_it_requires_alone_is_not_advised() -> None:
    """Before the series each change that needs it would lift levels, by bringing it."""
    advised = [one.steps for one in advise(linked("6.1.192"), [Request(0, PHYS, 8 * GIB, policy="aligned")])]
    backports = {str(steps[0]) for steps in advised if len(steps) == 1 and steps[0].step == "with"}
    assert backports == {"with=huge-pfnmap", "with=type1-pfnmap-batch"}


def test_what_saves_most_comes_first_and_what_takes_least_before_its_like() -> None:
    found = advise(linked("6.12.94", "never"), [Request(0, PHYS, 8 * GIB, policy="aligned")])
    saved = [advice.saves.dma_walks + advice.saves.driver_calls for advice in found]
    assert saved == sorted(saved, reverse=True)
    assert [str(step) for step in found[0].steps] == ["release=7.2.8"]
    lifting = [str(advice.steps[0]) for advice in found if advice.ends == ("pmd", "pud")]
    assert lifting == ["thp=always", "with=thp-bypass-pfnmap", "release=6.12.115"]


def test_of_what_saves_alike_page_tables_count_then_fewer_steps_then_cheaper_ones() -> None:
    va, thp, release = (
        Candidate("va", "congruent", ""),
        Candidate("thp", "always", ""),
        Candidate("release", "6.12", ""),
    )
    found = [
        Advice(None, (va, thp), ("pmd",), Saves(1, 8192, 0)),
        Advice(None, (thp,), ("pmd",), Saves(0, 4096, 1)),
        Advice(None, (release,), ("pmd",), Saves(1, 4096, 0)),
        Advice(None, (va, thp), ("pmd",), Saves(1, 4096, 0)),
    ]
    assert all(one.rank < other.rank for one, other in pairwise(found))


def test_what_helps_a_guest_too_has_its_ends() -> None:
    found = sets(linked("6.12.94", "never"), Request(0, PHYS, GIB, policy="aligned"), hypervisor="kvm", most=1)
    assert found["thp=always",] == ("pmd", "guest_pmd", "pud", "guest_pud")
    assert all(len(steps) == 1 for steps in found)


@pytest.mark.parametrize(("dma", "reached"), [("type1", (GIB, 2 * MIB - 4 * KIB)), ("iommufd", (0, 0))])
def test_an_outcome_has_what_is_mapped_of_each_bar_and_what_of_it_for_dma(dma: str, reached: tuple[int, int]) -> None:
    bars = (Request(0, PHYS, GIB, policy="aligned"), Request(2, 2 * PHYS, 2 * MIB, offset=4 * KIB, policy="aligned"))
    planned = Planner(linked("6.12.117"), Question.of(bars, dma=dma)).answer()
    assert Outcome.of(planned, planned[0].sizes).mapped == (GIB, reached[0], 2 * MIB - 4 * KIB, reached[1])
    within_a_page = Question.of([Request(0, 0xFE00_0100, 256, policy="aligned")], dma=dma)
    assert Outcome.of(Planner(linked("6.12.117"), within_a_page).answer(), planned[0].sizes).mapped[0] == 0


def test_a_slow_dma_map_is_mended_by_the_one_backport_with_what_it_requires() -> None:
    (backport, *_) = advise(linked("6.12.117"), [Request(0, PHYS, 8 * GIB, policy="aligned")])
    assert [str(step) for step in backport.steps] == ["with=type1-pfnmap-batch"]
    assert backport.steps[0].changes == {"type1-pfnmap-batch", "follow-addr-mask"}
    assert (backport.ends, backport.saves.dma_walks) == (("walks",), 2_097_152 - 8)


def test_the_real_time_kernel_has_to_go_before_anything_helps() -> None:
    found = sets(linked("7.3.4", PREEMPT_RT="y"), Request(0, PHYS, 2 * GIB, policy="aligned"))
    assert found == {("set=PREEMPT_RT=n",): ("pmd", "pud", "walks")}


def test_a_symbol_that_would_take_another_with_it_is_no_step() -> None:
    """EXPERT=n would end PREEMPT_RT too."""
    levers = linked("6.12.117", PREEMPT_RT="y").config.levers(["TRANSPARENT_HUGEPAGE"])
    assert levers["PREEMPT_RT"] == "n"
    assert "EXPERT" not in levers


def test_nothing_is_advised_where_all_is_as_good_as_it_can_be() -> None:
    assert not sets(linked("7.3.4"), Request(0, PHYS, 8 * GIB, policy="aligned"))


def test_leaves_that_map_the_wrong_memory_are_no_help() -> None:
    """6.12 maps a leaf wherever the VA is aligned (no vfio-unaligned-pfn-fallback)."""
    found = sets(linked("6.1.192"), Request(0, PHYS, 2 * GIB, va=0x1000_0010_0000))
    assert ("release=6.12",) not in found
    assert "pud" in found["va=congruent", "release=6.12"]


def test_a_newer_version_of_the_same_vmm_helps() -> None:
    """QEMU aligns what it maps from 9.2 on."""
    found = sets(linked("7.3.4"), Request(0, PHYS, 4 * GIB, policy="qemu-9.1"))
    assert found["vmm=qemu-10.2",] == ("pmd", "pud", "walks")


def test_each_policy_has_its_own_advice(pfnmap) -> None:
    result = pfnmap("plan", "--bar", "8G@0x800000000", "--release", "7.3.4", "--advise", "--json")
    (row, *_) = json.loads(result.stdout)["advice"]
    assert (row["policy"], row["changes"]) == ("kernel", ["va=congruent"])
    assert row["saves"] == {"driver_calls": 2_105_347, "table_bytes": 16_818_176, "dma_walks": 4_194_288}


def test_advice_is_shown_below_the_plan(pfnmap) -> None:
    arguments = ("plan", "--bar", "8G@0x800000000", "--vmm", "aligned", "--advise", "--release")
    assert "with=type1-pfnmap-batch: 2,097,144 DMA walks less" in pfnmap(*arguments, "6.12.117").output
    assert "that is known helps" in pfnmap(*arguments, "7.3.4").output
