"""What would mend a host's mappings with the least effort: advice on those of each process, as its VMM places them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pfnmap.contract.plan import HUGE_LEVELS, Request
from pfnmap.plan import Advice, MappingPlan, advise
from pfnmap.plan.candidates import STEPS

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel
    from pfnmap.plugins import Registry

__all__ = ["fixes_of"]

_STEPS: Final = 2
"""How many steps a fix has at most."""


def fixes_of(
    kernel: Kernel,
    planned: Mapping[int, Sequence[MappingPlan]],
    policies: Mapping[int, str | None],
    registry: Registry,
) -> dict[int, Advice]:
    """Return for each process, of those that something helps, the set of steps that helps it most and takes least.

    `planned`: what processes map, by pid; `policies`: what ``--vmm`` calls them, None where that is not known.
    """
    found: dict[int, Advice] = {}
    met: dict[object, Advice | None] = {}
    for pid, plans in planned.items():
        if not any(_could_be_larger(one) for one in plans):
            continue
        policy = policies.get(pid)
        requests = _alike_once([one.request for one in plans if one.runs], kernel, policy)
        key = policy, tuple(requests)
        if key not in met:
            sets = advise(kernel, requests, registry=registry, newest_vmm=True, most=_STEPS) if requests else []
            met[key] = min(sets, key=lambda one: _effort(one, policy is not None), default=None)
        if (best := met[key]) is not None:
            found[pid] = best
    return found


def _could_be_larger(one: MappingPlan) -> bool:
    """Tell whether a leaf larger than some of a mapping's fits into it, or a DMA map of it walks in vain."""
    larger = any(row.level in HUGE_LEVELS and one.length >= one.sizes[row.level] for row in one.blocked)
    return larger or bool(one.costs.dma_map and one.costs.dma_map.reasons)


def _alike_once(requests: Sequence[Request], kernel: Kernel, policy: str | None) -> list[Request]:
    """Return one of the requests that differ in nothing but multiples of the largest leaf, and in the device.

    With a policy they are for whole BARs, which it places.
    """
    largest = kernel.geometry.size("pud")
    found: dict[object, Request] = {}
    for one in requests:
        if policy is not None:
            one = replace(one, va=None, offset=0, length=None, policy=policy)
        place = one.phys % largest, None if one.va is None else one.va % largest
        found.setdefault((one.bar, one.bar_size, one.offset, one.length, one.driver, place), one)
    return list(found.values())


def _effort(one: Advice, placed_by_vmm: bool) -> tuple[int, int, int, str]:
    """What sorts advice: what helps towards most, then what takes least. Where a VMM is known to place BARs, to be
    placed elsewhere is something that a version of it does, and no step of its own."""
    effort = sum(len(STEPS) if placed_by_vmm and step.step == "va" else STEPS.index(step.step) for step in one.steps)
    return -len(one.ends), len(one.steps), effort, str(one.steps)
