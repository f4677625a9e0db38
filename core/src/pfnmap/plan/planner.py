"""One kernel with who takes part in its answers: drivers, DMA backends, a hypervisor, placement policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pfnmap.contract.dma import DmaBackend
from pfnmap.contract.guest import Hypervisor
from pfnmap.contract.module import Driver
from pfnmap.contract.placement import Vmm
from pfnmap.contract.plan import HUGE_LEVELS, LeafLevel, RegionRules, Request, by_device
from pfnmap.contract.region import check_sparse
from pfnmap.errors import BadInput, PluginError, Refused, Unknown
from pfnmap.plan.document import MappingPlan
from pfnmap.plan.mapping import Region
from pfnmap.plan.paging import Paging
from pfnmap.plan.placement import place, vmm_class, vmm_named
from pfnmap.plan.policies import congruent
from pfnmap.plan.runs import Levels, up
from pfnmap.plan.space import Space
from pfnmap.plugins import Registry, calling, environment, why_unusable
from pfnmap.records import dataclass, replace
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel

__all__ = ["Planner", "Question", "region_rules"]


@dataclass(frozen=True)
class Question:
    """What is asked of every kernel; `vmms`: the placement policies by what requests call them. `congruent`: whoever
    places an area does it at an address that is congruent to the BAR."""

    requests: tuple[Request, ...]
    mmap_base: int | None
    dma: str | None
    hypervisor: str | None
    registry: Registry
    vmms: Mapping[str, Vmm]
    congruent: bool = False

    @classmethod
    def of(
        cls,
        requests: Sequence[Request],
        mmap_base: int | None = None,
        dma: str | None = None,
        hypervisor: str | None = None,
        registry: Registry | None = None,
        vmm_options: Sequence[str] = (),
        newest_vmm: bool = False,
    ) -> Question:
        """Return what `plan` is asked; it says what the arguments mean."""
        registry = registry or environment()
        vmms = _vmms(requests, registry, vmm_options, newest_vmm)
        return cls(tuple(requests), mmap_base, dma, hypervisor, registry, vmms)


class Planner:
    """One kernel with who takes part in its answers."""

    def __init__(self, kernel: Kernel, question: Question) -> None:
        self.kernel = kernel
        self.question = question
        self.paging = kernel.once(Paging.of)
        beside = by_device(question.requests)
        self.rules = [self._region_rules(request, beside[request.device]) for request in question.requests]
        self.levels = [Levels.of(self.paging, rules) for rules in self.rules]
        self.backends = [_backend(kernel, question.dma, rules.dma) for rules in self.rules]
        self.hypervisor = _hypervisor(kernel, question.hypervisor)
        self.hypervisor_changes: tuple[str, ...] = ()
        if self.hypervisor is not None:
            with calling(self.hypervisor.name, "changes()") as gave:
                self.hypervisor_changes = gave(self.hypervisor.changes(kernel), tuple[str, ...])

    def _region_rules(self, request: Request, others: Sequence[Request]) -> RegionRules:
        _check_bar(self.kernel, request)
        return region_rules(self.kernel, request, others, self.question.registry)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """Every request with where it goes, and all that is said of it."""
        settled = [
            replace(
                request,
                length=_length(self.kernel, request, rules),
                mmapable=not rules.refused,
            )
            for request, rules in zip(self.question.requests, self.rules, strict=True)
        ]
        levels = {(request.device, request.bar): levels for request, levels in zip(settled, self.levels, strict=True)}
        space = Space(self.kernel, self.paging, levels, self.question.mmap_base)
        placed = place(space, settled, self.question.vmms, [rules.refused for rules in self.rules])
        if self.question.congruent:
            placed = [congruent(space, *pair) for pair in zip(settled, placed, strict=True)]
        found: list[Region] = []
        for n, where in enumerate(placed):
            paging, rules, level = self.paging, self.rules[n], self.levels[n]
            if where.madvise_hugepage:
                paging = self.kernel.once(Paging.of_madvised)
                level = Levels.of(paging, rules)
            found.append(
                Region(self.kernel, paging, level, rules, settled[n], where, self.backends[n], self.hypervisor)
            )
        return tuple(found)

    def mappings(self) -> tuple[MappingPlan, ...]:
        """Plan every area of every request."""
        return tuple([region.plan(area) for region in self.regions for area in region.areas])

    def answer(self) -> tuple[MappingPlan, ...]:
        """Return `mappings`. Raises Refused for leaves that this kernel would die of."""
        planned = self.mappings()
        _refuse_absent(self.kernel, planned)
        return planned

    def changes(self) -> frozenset[str]:
        """The upstream changes that any of the answers can hang on."""
        found = {*self.paging.changes, *self.hypervisor_changes}
        found.update(change for vmm in self.question.vmms.values() for change in vmm.changes)
        for rules, backend in zip(self.rules, self.backends, strict=True):
            found |= {*rules.changes, *(backend.changes if backend else ())}
        return frozenset(found)

    def legends(self) -> tuple[str, ...]:
        """What the numbers of DMA maps and guests are."""
        spoken = [backend.legend for backend in self.backends if backend]
        return tuple(dict.fromkeys([*spoken, *([self.hypervisor.legend] if self.hypervisor else ())]))


# --- who takes part


def region_rules(kernel: Kernel, request: Request, others: Sequence[Request], registry: Registry) -> RegionRules:
    """Ask the driver of a request how it maps the region; `others`: all that is planned of its device.

    Raises BadInput for a driver that is not linked, Refused for a region whose mapping it does not model.
    """
    driver = kernel.drivers.get(request.driver)
    if driver is None:
        why = kernel.left_out.get(request.driver) or why_unusable(registry, "driver", request.driver)
        raise BadInput(request.where, why or f"driver {request.driver} is not linked")
    if not isinstance(driver, Driver):
        raise BadInput(request.where, f"{request.driver} is no driver: it binds no device")
    with calling(request.driver, "region()") as gave:
        rules = gave(driver.region(kernel, request, others), RegionRules)
    if rules.end < 0:
        raise PluginError(request.driver, f"region() gave end: {rules.end}")
    return rules


def _backends(kernel: Kernel) -> dict[str, DmaBackend]:
    return {backend.name: backend for module in kernel.drivers.values() for backend in module.dma_backends}


def _backend(kernel: Kernel, asked: str | None, own: str | None) -> DmaBackend | None:
    """Who maps a region for DMA; nobody where the driver's own choice is of a plugin that is not linked."""
    backends = kernel.once(_backends)
    if asked is not None and asked not in backends:
        raise _not_brought(kernel, "DMA backend", asked, backends)
    return backends.get(asked or own or "")


def _hypervisor(kernel: Kernel, name: str | None) -> Hypervisor | None:
    if name is None:
        return None
    found = {m.hypervisor.name: m.hypervisor for m in kernel.drivers.values() if m.hypervisor is not None}
    if name not in found:
        raise _not_brought(kernel, "hypervisor", name, found)
    return found[name]


def _not_brought(kernel: Kernel, kind: str, name: str, known: Iterable[str]) -> Unknown:
    """Say of what nobody brings that, and who was left out that may have."""
    error = Unknown(kind, name, known)
    if kernel.left_out:
        error.args = ("; ".join([str(error), *(f"left out: {why}" for why in kernel.left_out.values())]),)
    return error


def _vmms(requests: Iterable[Request], registry: Registry, options: Sequence[str], newest: bool) -> Mapping[str, Vmm]:
    """The policies that requests name; an option goes to those that take it, and one that nobody takes to the first."""
    names = list(dict.fromkeys(r.policy for r in requests if r.policy is not None and r.va is None))
    takes = {name: vmm_class(name, registry).takes for name in names}
    everyone = {option for taken in takes.values() for option in taken}
    found = {}
    for name in names:
        mine = tuple(o for o in options if (key := o.partition("=")[0]) in takes[name] or key not in everyone)
        found[name] = vmm_named(name, registry, mine, newest=newest)
    return found


# --- what is asked for


def _check_bar(kernel: Kernel, request: Request) -> None:
    if request.bar_size <= 0:
        raise BadInput(request.where, f"size {request.bar_size} is not positive")
    end = request.phys + request.bar_size
    if request.phys < 0 or end > kernel.phys_limit:
        limit = f"the {kernel.phys_limit:#x} that an entry of {kernel.arch.name} can hold"
        raise BadInput(request.where, f"it ends at {end:#x}, beyond {limit}")
    if request.msix is not None and (why := request.msix.why_not(request.bar, request.bar_size)):
        raise BadInput(request.where, why)
    check_sparse(request.sparse, request.bar_size, kernel.geometry.PAGE_SIZE, request.where)


def _length(kernel: Kernel, request: Request, rules: RegionRules) -> int:
    """Check the part of the BAR that is mapped, and return its length in whole pages."""
    where, page = request.where, kernel.geometry.PAGE_SIZE
    if request.offset < 0 or request.offset % page:
        page_text = f"a multiple of the {format_size(page)} page"
        raise BadInput(where, f"offset {request.offset:#x} is not {page_text}: mmap gives EINVAL")
    length = rules.end - request.offset if request.length is None else up(request.length, page)
    if length <= 0:
        raise BadInput(where, f"nothing to map: length {length} from offset {request.offset:#x}")
    if request.offset + length > rules.end:
        last = request.offset + length
        raise BadInput(where, f"offset + length {last:#x} is beyond {rules.beyond} {rules.end:#x}: mmap gives EINVAL")
    return length


def _absent(kernel: Kernel) -> list[LeafLevel]:
    return [level for level in HUGE_LEVELS if kernel.ops.owners.get(f"pfn_{level}") == "absent"]


def _refuse_absent(kernel: Kernel, planned: Iterable[MappingPlan]) -> None:
    """Refuse leaves that this kernel would die of: a level that Kconfig allows and the architecture has no entry for
    (FINDINGS F18, powerpc hash with 64K pages)."""
    for level in kernel.once(_absent):
        if any(p.costs.counts[level] for p in planned):
            raise Refused(f"pfn_{level}", f"{kernel.arch.name} has none in this boot, and the driver would ask for it")
