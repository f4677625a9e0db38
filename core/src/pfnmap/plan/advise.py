"""Advice: the smallest sets of steps that map more of a BAR with larger leaves, or cut the walks of its DMA map.

A set helps towards an *end*: more bytes in PMD leaves or larger ones, more in PUD leaves, the same of a guest where one
is asked for, fewer walks of a DMA map of what is mapped already. It is advised where no smaller set helps towards one
of its ends, and where nothing is lost: no end, nothing that is mapped or mapped for DMA, no leaf that maps the wrong
memory. A backport is as large as all that it requires: one that helps by what it requires alone is not advised. Every
set is planned anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from pfnmap.contract.plan import HUGE_LEVELS, LEAF_LEVELS, LeafLevel, Request
from pfnmap.plan.candidates import STEPS, Candidate, Variants, candidates
from pfnmap.plan.planner import Planner, Question
from pfnmap.plan.runs import Levels, cut
from pfnmap.plugins import Registry
from pfnmap.records import dataclass

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel
    from pfnmap.plan.document import MappingPlan

__all__ = ["MOST", "Advice", "Outcome", "Saves", "advise"]

MOST: Final = 3
"""How many steps a set has at most."""


@dataclass(frozen=True, slots=True)
class Saves:
    """By how much less a mapping costs; negative where it costs more. `dma_walks` are those of a cold map."""

    driver_calls: int
    table_bytes: int
    dma_walks: int


@dataclass(frozen=True, slots=True)
class Advice:
    """A set of steps that helps towards `ends` where `policy` (None: a given address) places the BARs."""

    policy: str | None
    steps: tuple[Candidate, ...]
    ends: tuple[str, ...]
    saves: Saves

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --advise --json` prints."""
        return {
            "changes": [str(step) for step in self.steps],
            "saves": {name: getattr(self.saves, name) for name in Saves.__slots__},
            "policy": self.policy,
            "ends": list(self.ends),
            "details": [step.detail for step in self.steps],
        }

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """What sorts advice: what saves most first, then what takes least."""
        effort = sum(STEPS.index(step.step) for step in self.steps)
        return -self.saves.dma_walks - self.saves.driver_calls, -self.saves.table_bytes, len(self.steps), effort


@dataclass(frozen=True)
class Outcome:
    """What a plan comes to. `ends`: how far each end is reached, more is better; `mapped`: bytes mapped of each request
    and bytes of it mapped for DMA; `wrong`: how many warnings of harm there are."""

    ends: Mapping[str, int]
    mapped: tuple[int, ...]
    wrong: int
    saves: Saves

    @classmethod
    def of(cls, mappings: Sequence[MappingPlan], sizes: Mapping[LeafLevel, int]) -> Outcome:
        """Sum a plan up; `sizes`: bytes of a leaf by level that the ends are about."""
        ends: dict[str, int] = {}
        for level in HUGE_LEVELS:
            ends[level] = sum(run.length for m in mappings for run in m.runs if m.sizes[run.level] >= sizes[level])
            if any(m.guest for m in mappings):
                ends[f"guest_{level}"] = sum(
                    run.length
                    for m in mappings
                    if m.guest
                    for run in m.guest.runs
                    if m.sizes[run.level] >= sizes[level]
                )
        maps = [m.costs.dma_map for m in mappings]
        ends["walks"] = -sum(dma.warm_walks for dma in maps if dma)
        mapped: dict[tuple[str | None, int, int], list[int]] = {}
        for m in mappings:
            asked = m.request
            sums = mapped.setdefault((asked.device, asked.bar, asked.offset), [0, 0])
            sums[0] += m.length if m.runs else 0
            sums[1] += m.length if m.costs.dma_map and not m.costs.dma_map.error else 0
        return cls(
            ends,
            tuple(number for sums in mapped.values() for number in sums),
            sum(len(m.warnings) + len(m.guest.warnings if m.guest else ()) for m in mappings),
            Saves(
                sum(m.costs.driver_calls for m in mappings),
                sum(m.costs.table_bytes for m in mappings),
                sum(dma.cold_walks for dma in maps if dma),
            ),
        )

    def loses(self, before: Outcome) -> bool:
        """Tell whether anything that was before is lost."""
        return (
            any(self.ends[end] < reached for end, reached in before.ends.items())
            or any(now < then for now, then in zip(self.mapped, before.mapped, strict=True))
            or self.wrong > before.wrong
        )


def advise(
    kernel: Kernel,
    requests: Sequence[Request],
    *,
    mmap_base: int | None = None,
    dma: str | None = None,
    hypervisor: str | None = None,
    registry: Registry | None = None,
    vmm_options: Sequence[str] = (),
    newest_vmm: bool = False,
    most: int = MOST,
) -> list[Advice]:
    """Return the advice on what each policy places, what saves most first; asked, and raising, as `plan` is. `most`:
    how many steps a set has at most."""
    question = Question.of(requests, mmap_base, dma, hypervisor, registry, vmm_options, newest_vmm)
    variants = Variants(kernel)
    found: list[Advice] = []
    for policy in dict.fromkeys(request.policy for request in question.requests):
        requests = tuple(request for request in question.requests if request.policy == policy)
        found += _search(kernel, replace(question, requests=requests), variants, most)
    return sorted(found, key=lambda advice: (advice.rank, [str(step) for step in advice.steps]))


def _search(kernel: Kernel, question: Question, variants: Variants, most: int) -> Iterator[Advice]:
    planned = Planner(kernel, question).answer()
    sizes = planned[0].sizes
    before = Outcome.of(planned, sizes)
    best = _best(planned, sizes)
    open_ends = {end for end, reached in before.ends.items() if reached < best[end]}
    steps = candidates(kernel, question) if open_ends else ()
    policy = question.requests[0].policy
    met: dict[frozenset[str], set[str]] = {}
    for parts, chosen in _sets(steps, most):
        left = open_ends.difference(*(ends for smaller, ends in met.items() if smaller < parts))
        changed = variants.plan(question, chosen) if left else None
        if changed is None:
            continue
        after = Outcome.of(changed, sizes)
        ends = {end for end in open_ends if after.ends[end] > before.ends[end]}
        if ends & left and not after.loses(before):
            met[parts] = ends
            yield Advice(policy, chosen, tuple(end for end in before.ends if end in ends), _less(before, after))


def _sets(steps: Sequence[Candidate], most: int) -> Sequence[tuple[frozenset[str], tuple[Candidate, ...]]]:
    """Return all sets of up to `most` steps that can be taken together and what they consist of, those of least first;
    of several that come to the same the one with the fewest steps."""
    found: dict[frozenset[str], tuple[Candidate, ...]] = {}
    for count in range(1, most + 1):
        for chosen in combinations(steps, count):
            if not any(one.excludes(other) for one, other in combinations(chosen, 2)):
                found.setdefault(frozenset().union(*(one.parts for one in chosen)), chosen)
    return sorted(found.items(), key=lambda pair: (len(pair[0]), len(pair[1])))


def _less(before: Outcome, after: Outcome) -> Saves:
    return Saves(*(getattr(before.saves, name) - getattr(after.saves, name) for name in Saves.__slots__))


def _best(mappings: Sequence[MappingPlan], sizes: Mapping[LeafLevel, int]) -> dict[str, int]:
    """Return how far each end can be reached at all: where every block that fits is a leaf, and each leaf a walk."""
    ideal = Levels(sizes, "fault", frozenset(), frozenset(HUGE_LEVELS), True, 1, 0)
    best = dict.fromkeys((*HUGE_LEVELS, *(f"guest_{level}" for level in HUGE_LEVELS), "walks"), 0)
    for m in mappings:
        start = m.phys // sizes["pte"] * sizes["pte"]
        for run in cut(ideal, start, start + m.length, 0)[0]:
            best["walks"] -= run.count if m.costs.dma_map and not m.costs.dma_map.error else 0
            for level in HUGE_LEVELS:
                if LEAF_LEVELS.index(run.level) >= LEAF_LEVELS.index(level):
                    best[level] += run.length
                    best[f"guest_{level}"] += run.length
    return best
