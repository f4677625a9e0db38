"""Planning: from requests to plans, and once more each way for every unknown change that alters the answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pfnmap.contract.plan import Request
from pfnmap.plan.alike import Alike
from pfnmap.plan.document import MappingPlan, Plan, Undetermined
from pfnmap.plan.planner import Planner, Question
from pfnmap.plugins import Registry
from pfnmap.release import facts, unknown_as_absent

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel

__all__ = ["plan", "required"]


def plan(
    kernel: Kernel,
    requests: Sequence[Request],
    *,
    mmap_base: int | None = None,
    dma: str | None = None,
    hypervisor: str | None = None,
    registry: Registry | None = None,
    vmm_options: Sequence[str] = (),
    newest_vmm: bool = False,
) -> Plan:
    """Plan mappings on a kernel, and once more each way for every unknown change that alters the answer.

    `mmap_base`: where policy `kernel` searches downwards from (default MMAP_BASE). `dma`: who maps for DMA, a backend
    that a linked plugin brings (None: as each driver says). `hypervisor`: say too how a guest of it has the mappings.
    `registry`: where VMMs are looked up. `vmm_options`: options of theirs, each for those that take it. `newest_vmm`:
    a version of one that is newer than what is known is taken for the newest known.

    Raises BadInput for a mapping that mmap would refuse or that does not fit into the address space, and for a driver
    that is not linked, Unknown for a policy, a backend or a hypervisor that nobody has, Refused for leaves that the
    architecture has no entry for and for what a plugin does not model.
    """
    question = Question.of(requests, mmap_base, dma, hypervisor, registry, vmm_options, newest_vmm)
    alike = kernel.once(Alike)
    key = alike.key(question)
    if key is not None and (found := alike.plan(key, question.requests)) is not None:
        return found
    first = Planner(kernel, question)
    mappings = first.answer()
    relevant = first.changes()
    undetermined = tuple(_undetermined(kernel, question, relevant, mappings))
    described = {**kernel.once(_described), "assumed": _assumed(kernel, question, undetermined, relevant)}
    found = Plan(described, mappings, undetermined, first.legends(), relevant)
    if key is not None:
        alike.keep(key, found, first.regions)
    return found


def _described(kernel: Kernel) -> dict[str, Any]:
    return kernel.describe()


def _unknown(kernel: Kernel) -> frozenset[str]:
    return frozenset(change for change, status in kernel.release.changes.items() if status == "unknown")


def _undetermined(
    kernel: Kernel, question: Question, relevant: frozenset[str], planned: tuple[MappingPlan, ...]
) -> Iterable[Undetermined]:
    changes = kernel.release.changes
    unknown = kernel.once(_unknown)

    def answer(yes: Iterable[str]) -> dict[str, Any]:
        settled = dict(changes)
        settled.update(dict.fromkeys(yes, "yes"))
        mappings = planned
        if settled != changes:
            mappings = Planner(kernel.relink(replace(kernel.release, changes=settled)), question).mappings()
        return {"mappings": [mapping.answer() for mapping in mappings]}

    mattering = unknown & relevant
    for change in filter(mattering.__contains__, changes) if mattering else ():
        given = required(kernel, change) & unknown
        if_yes, if_no = answer({change, *given}), answer(given)
        if if_yes != if_no:
            yield Undetermined(change, tuple(sorted(given)), if_yes, if_no)


def required(kernel: Kernel, change: str) -> set[str]:
    """Return the changes without which a change cannot be there, at any remove."""
    direct = kernel.release.known[change].requires
    return {*direct, *(name for one in direct for name in required(kernel, one))}


def _assumed_anyhow(kernel: Kernel) -> tuple[str, ...]:
    every = unknown_as_absent(kernel.release.name, kernel.release.changes, kernel.release.known)
    return tuple(sentence for sentence in kernel.assumed if sentence not in every)


def _assumed(
    kernel: Kernel, question: Question, undetermined: Sequence[Undetermined], relevant: frozenset[str]
) -> list[str]:
    """What nobody said of the kernel, and can alter this answer: of unknown changes those that do, of what its
    distribution has that which it hangs on."""
    name, changes, known = kernel.release.name, kernel.release.changes, kernel.release.known
    flavours = facts(question.registry).has_by_sentence
    return [
        *(said for said in kernel.once(_assumed_anyhow) if said not in flavours or flavours[said] & relevant),
        *unknown_as_absent(name, {row.change: changes[row.change] for row in undetermined}, known),
        *(
            f"address of {request.where}: {request.phys:#x}, a multiple of its size"
            for request in {(r.device, r.bar): r for r in question.requests if r.phys_assumed}.values()
        ),
    ]
