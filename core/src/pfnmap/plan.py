"""The closed-form planner: at which level each part of a mapped BAR is mapped, what that costs, and why not larger.

Works on intervals alone: its cost grows with the levels, not with pages (DESIGN rule 9). It shares nothing with
`pfnmap.mm`, which does the same bit by bit; property tests hold the two equal.

A mapping of physical memory is cut into at most five runs: base pages up to the first aligned PMD block, PMD leaves up
to the first aligned PUD block, PUD leaves, and the same mirrored. A level counts only where

* the driver is *asked* for it: it has a huge_fault (`huge-pfnmap`, ARCH_SUPPORTS_HUGE_PFNMAP), THP is compiled in and
  not disabled, and the architecture has that level (HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD for the PUD);
* the driver answers with a *leaf*: ARCH_SUPPORTS_PMD_PFNMAP or _PUD_PFNMAP, the aligned block lies in the mapping, and
  VA and physical address are congruent modulo its size (not looked at before `vfio-unaligned-pfn-fallback`).

The costs, as recordings of real kernels show them:

* A user fault that ends at a base page runs twice where the per-VMA lock is tried first: the second pass asks for the
  PMD order again (no PTE table yet), not for the PUD order (a PMD table by then). Faults inside the kernel run once.
* Before `huge-pfnmap` one call of the handler fills the whole vma with base pages.
* vfio type1 walks once per base page, once per leaf from `type1-pfnmap-batch` on; where nothing is mapped yet the walk
  fails, one fixup_user_fault follows, and the walk is repeated (vfio_iommu_type1.c, follow_fault_pfn).
* iommufd pins pages and walks nothing: of a pfnmap it gets none (drivers/iommu/iommufd/pages.c, pfn_reader_user_pin;
  mm/gup.c, check_vma_flags; read, the refusal itself is recorded by the gup.* records).

Addresses, sizes, offsets and lengths are in bytes. The address space is taken to be otherwise empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Literal

from pfnmap.errors import BadInput, Refused, Unknown
from pfnmap.guest import GUEST_BASE, KVM_CHANGES, GuestPlan, KvmMmu
from pfnmap.release import upstream_changes
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.contract.geometry import Geometry, WalkLevel
    from pfnmap.kernel import Kernel

__all__ = [
    "ALIGNED_BASE",
    "DMA_BACKENDS",
    "MMAP_BASE",
    "POLICIES",
    "REASONS",
    "Blocked",
    "Costs",
    "DmaMap",
    "LeafLevel",
    "Machine",
    "MappingPlan",
    "Plan",
    "Request",
    "Run",
    "Undetermined",
    "plan",
]

LeafLevel = Literal["pte", "pmd", "pud"]

REASONS: Final = (
    "not_mmapable",
    "arch_no_level",
    "config",
    "release",
    "no_huge_fault",
    "thp_disabled",
    "not_congruent",
    "vma_edge",
    "lower_table",
)
"""Why a level is not used, in the order in which the first one is named. `lower_table` cannot apply in an empty address
space, which is what is planned for."""

POLICIES: Final = ("kernel", "aligned")
"""The placements that need no VMM: what mmap(NULL) gives, and the lowest address congruent to the BAR."""

DMA_BACKENDS: Final = ("type1", "iommufd")
"""Who maps memory for DMA: vfio's own container, or iommufd."""

MMAP_BASE: Final = 0x7FFF_F7FF_F000
"""Where mmap(NULL) searches downwards from in policy `kernel`, unless the address space ends below. Only page-aligned
on purpose: a real process's base is random; where it happens to be 2M-aligned, larger leaves are luck (FINDINGS F7)."""

ALIGNED_BASE: Final = 0x1000_0000_0000
"""Policy `aligned` takes the lowest address from here on; from an eighth of the address space where that is less (39 or
42 bits of virtual addresses)."""

_LEVELS: Final[tuple[LeafLevel, ...]] = ("pte", "pmd", "pud")
_HUGE: Final = _LEVELS[1:]

_REGION_BITS: Final = 40
"""Bits of a vfio-pci file offset within a region (VFIO_PCI_OFFSET_SHIFT); above them is the region's index."""

_HANDLER_FIXES: Final = ("vfio-unaligned-pfn-fallback", "vfio-align-fault-to-order")

_CHANGES: Final = (
    "huge-pfnmap",
    "vfio-unaligned-pfn-fallback",
    "per-vma-lock-faults",
    "thp-bypass-pfnmap",
    "no-thp-align-without-get-unmapped-area",
    "type1-pfnmap-batch",
    "iommufd-dmabuf-bar",
    *KVM_CHANGES,
)
"""The changes that a plan depends on; besides them an architecture's own `NAME-huge-pfnmap`."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to plan: `length` bytes from `offset` of BAR `bar` (None: the rest of it), which lies at physical address
    `phys` and is `bar_size` bytes long.

    Placed at `va`, or by the policy of that name (`POLICIES`); with a `va`, `policy` only says who chose it. `device`
    is the PCI address or None. `mmapable`: whether vfio-pci offers the BAR to mmap; None leaves that to its own rule.
    `gpa`: where a guest has the mapping, None: where its firmware would place the BAR.
    """

    bar: int
    phys: int
    bar_size: int
    device: str | None = None
    offset: int = 0
    length: int | None = None
    va: int | None = None
    policy: str | None = None
    mmapable: bool | None = None
    gpa: int | None = None

    @property
    def where(self) -> str:
        """How errors call it."""
        return f"BAR {self.bar}" + (f" of {self.device}" if self.device else "")


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a mapping at one level: `count` leaves from `va` on."""

    va: int
    length: int
    level: LeafLevel
    count: int

    @property
    def end(self) -> int:
        """The first address past the run."""
        return self.va + self.length


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why [va, va + length) is not mapped at `level`: the first reason of `REASONS` that applies, in words with
    numbers, and what would still block once that is lifted."""

    va: int
    length: int
    level: LeafLevel
    reason: str
    detail: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DmaMap:
    """A DMA map: page-table walks, fixups (fixup_user_fault) and calls of the driver's fault handler when nothing is
    mapped yet (cold), and walks when all is (warm).

    iommufd (`backend`) refuses the address with `error` before any of them; `by` is the other way in which it maps a
    BAR, None where there is none."""

    cold_walks: int = 0
    cold_fixups: int = 0
    cold_driver_calls: int = 0
    warm_walks: int = 0
    backend: str = "type1"
    error: str | None = None
    by: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --json` prints."""
        costs = {
            "backend": self.backend,
            "cold": {
                "walks": self.cold_walks,
                "fixups": self.cold_fixups,
                "driver_calls": self.cold_driver_calls,
            },
            "warm": {"walks": self.warm_walks},
        }
        return costs if self.backend == "type1" else {**costs, "error": self.error, "by": self.by}


@dataclass(frozen=True, slots=True)
class Costs:
    """What a mapping costs: leaves per level, calls of the driver's fault handler when user space touches every page
    once in ascending order, bytes of page tables, and a DMA map of all of it."""

    counts: Mapping[LeafLevel, int]
    driver_calls: int
    table_bytes: int
    dma_map: DmaMap

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --json` prints."""
        return {
            "counts": {level: self.counts[level] for level in reversed(_LEVELS)},
            "driver_calls": self.driver_calls,
            "table_bytes": self.table_bytes,
            "dma_map": self.dma_map.as_json(),
        }


@dataclass(frozen=True)
class MappingPlan:
    """The plan of one mapping. `phys` is where the mapped part of the BAR begins, `offset` its place in the BAR,
    `length` whole pages. `before` is what the same mapping costs without huge pfnmaps, as before 6.12. `warnings` tell
    of harm, `notes` of what the answer hangs on. `steps` counts the work done, which does not depend on sizes. `guest`:
    how a KVM guest has it, where that was asked for."""

    device: str | None
    bar: int
    bar_size: int
    offset: int
    policy: str | None
    phys: int
    va: int
    length: int
    runs: tuple[Run, ...]
    costs: Costs
    before: Costs
    blocked: tuple[Blocked, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    steps: int = field(compare=False)
    machine: Machine = field(compare=False, repr=False)
    guest: GuestPlan | None = None

    def dma_map(self, va: int, length: int) -> DmaMap:
        """Return what a DMA map of a part of the mapping costs (page-aligned)."""
        delta = _down(self.phys, self.machine.page) - self.va
        return self.machine.dma_map(self.runs, va, va + length, delta)

    def answer(self) -> dict[str, Any]:
        """Return the part that is compared when a change of unknown state is planned both ways."""
        return {
            "device": self.device,
            "bar": self.bar,
            "policy": self.policy,
            "va": hex(self.va),
            **self.costs.as_json(),
            "warnings": list(self.warnings),
            **self._guest_json(),
        }

    def _guest_json(self) -> dict[str, Any]:
        return {"guest": self.guest.as_json()} if self.guest else {}

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --json` prints."""
        return {
            "device": self.device,
            "bar": self.bar,
            "policy": self.policy,
            "phys": hex(self.phys),
            "va": hex(self.va),
            "length": self.length,
            "runs": [
                {"va": hex(run.va), "length": run.length, "level": run.level, "count": run.count} for run in self.runs
            ],
            **self.costs.as_json(),
            "blocked": [
                {
                    "va": hex(row.va),
                    "length": row.length,
                    "level": row.level,
                    "reason": row.reason,
                    "detail": row.detail,
                    "also": list(row.also),
                }
                for row in self.blocked
            ],
            "offset": self.offset,
            "bar_size": self.bar_size,
            "before_huge_pfnmap": self.before.as_json(),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            **self._guest_json(),
        }


@dataclass(frozen=True)
class Undetermined:
    """A change of which it is not known whether the release has it, and which alters the answer; `given` are the
    unknown changes that it requires, taken as there on both sides."""

    change: str
    given: tuple[str, ...]
    if_yes: Mapping[str, Any]
    if_no: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --json` prints."""
        row = {"change": self.change, "if_yes": dict(self.if_yes), "if_no": dict(self.if_no)}
        return {**row, "given": list(self.given)} if self.given else row


@dataclass(frozen=True)
class Plan:
    """Plans of mappings on one kernel; `kernel` is what `Kernel.describe` says of it."""

    kernel: Mapping[str, Any]
    mappings: tuple[MappingPlan, ...]
    undetermined: tuple[Undetermined, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the document that `plan --json` prints, without its schema."""
        return {
            "kernel": dict(self.kernel),
            "mappings": [mapping.as_json() for mapping in self.mappings],
            "undetermined": [row.as_json() for row in self.undetermined],
        }


def plan(
    kernel: Kernel,
    requests: Sequence[Request],
    *,
    mmap_base: int | None = None,
    dma: str = "type1",
    kvm: bool = False,
) -> Plan:
    """Plan mappings on a kernel, and once more each way for every unknown change that alters the answer.

    `mmap_base`: where policy `kernel` searches downwards from (default MMAP_BASE). `dma`: who maps for DMA, of
    DMA_BACKENDS. `kvm`: say too how a KVM guest has the mappings. Raises BadInput for a mapping that mmap would refuse
    or that does not fit into the address space, Unknown for a policy or a backend that there is not, Refused for leaves
    that the architecture has no entry for and for a KVM that is not modelled.
    """
    if dma not in DMA_BACKENDS:
        raise Unknown("DMA backend", dma, DMA_BACKENDS)
    mappings = _plan_all(kernel, requests, mmap_base, dma, kvm)
    _refuse_absent(kernel, mappings)
    return Plan(kernel.describe(), mappings, tuple(_undetermined(kernel, requests, mmap_base, dma, kvm, mappings)))


def _refuse_absent(kernel: Kernel, planned: Iterable[MappingPlan]) -> None:
    """Refuse leaves that this kernel would die of: a level that Kconfig allows and the architecture has no entry for
    (FINDINGS F18, powerpc hash with 64K pages)."""
    for level in _HUGE:
        if kernel.ops.owners.get(f"pfn_{level}") == "absent" and any(p.costs.counts[level] for p in planned):
            raise Refused(f"pfn_{level}", f"{kernel.arch.name} has none in this boot, and the driver would ask for it")


def _plan_all(
    kernel: Kernel, requests: Sequence[Request], mmap_base: int | None, dma: str, kvm: bool
) -> tuple[MappingPlan, ...]:
    machine = Machine.of(kernel, dma, kvm)
    return tuple(machine.plan(request, requests, mmap_base) for request in requests)


def _undetermined(
    kernel: Kernel,
    requests: Sequence[Request],
    mmap_base: int | None,
    dma: str,
    kvm: bool,
    planned: tuple[MappingPlan, ...],
) -> Iterable[Undetermined]:
    changes = kernel.release.changes
    unknown = {change for change, status in changes.items() if status == "unknown"}

    def answer(yes: Iterable[str]) -> dict[str, Any]:
        settled = dict(changes)
        settled.update(dict.fromkeys(yes, "yes"))
        mappings = planned
        if settled != changes:
            other = kernel.relink(replace(kernel.release, changes=settled))
            mappings = _plan_all(other, requests, mmap_base, dma, kvm)
        return {"mappings": [mapping.answer() for mapping in mappings]}

    for change in changes:
        if change not in unknown or not (change in _CHANGES or _is_own_change(change, kernel.arch.name)):
            continue
        given = _required(change) & unknown
        if_yes, if_no = answer({change, *given}), answer(given)
        if if_yes != if_no:
            yield Undetermined(change, tuple(sorted(given)), if_yes, if_no)


def _required(change: str) -> set[str]:
    """The changes without which a change cannot be there, at any remove."""
    direct = upstream_changes()[change].requires
    return {*direct, *(name for required in direct for name in _required(required))}


def _is_own_change(change: str, arch: str) -> bool:
    """Whether a change brings huge pfnmaps to an architecture (`riscv-huge-pfnmap`: to riscv64)."""
    name, dash, _ = change.partition("-huge-pfnmap")
    return bool(dash) and arch.startswith(name)


# --- arithmetic


def _down(value: int, size: int) -> int:
    return value // size * size


def _up(value: int, size: int) -> int:
    return -(-value // size) * size


def _blocks(start: int, end: int, size: int) -> int:
    """How many aligned blocks [start, end) touches."""
    return (_up(end, size) - _down(start, size)) // size if start < end else 0


@dataclass(frozen=True)
class Machine:
    """What of a kernel decides where leaves go and what they cost.

    `sizes`: bytes of a leaf per level. `tables`: up to which address a process's tables reach, and for each table that
    VmPTE counts then, the bytes that it spans and its own; a process with higher mappings has the next (s390).
    `stack_top`: the end of what those of a new process reach.
    `huge`: has huge-pfnmap. `asked`: the levels that a fault asks the driver for. `leaves`: those that it can map.
    `checks_pfn`: falls back where the PFN is not aligned; `aligns`: maps the block from a fault anywhere in it.
    `passes`: of a user fault that ends at a base page. `batch`: type1 walks once per leaf. `deposit`: bytes of page
    table that a PMD leaf needs. `thp_aligned`: mmap(NULL) may align to the PMD size. `offers_mmap`: VFIO_PCI_MMAP.
    `reasons`: what rules a level out anywhere, as (reason, detail). `lacks`: a sentence for a change that is not there.
    `dma`: who maps for DMA; `dmabuf`: iommufd takes a BAR's dma-buf. `kvm`: what its KVM does, where that is asked.
    """

    sizes: Mapping[LeafLevel, int]
    tables: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
    task_size: int
    stack_top: int
    huge: bool
    asked: frozenset[LeafLevel]
    leaves: frozenset[LeafLevel]
    checks_pfn: bool
    aligns: bool
    passes: int
    batch: bool
    deposit: int
    thp_aligned: bool
    offers_mmap: bool
    reasons: Mapping[LeafLevel, tuple[tuple[str, str], ...]]
    lacks: Mapping[str, str]
    dma: str
    dmabuf: bool
    kvm: KvmMmu | None

    @classmethod
    def of(cls, kernel: Kernel, dma: str = "type1", kvm: bool = False) -> Machine:
        """Read a linked kernel."""
        geometry, config, has = kernel.geometry, kernel.config, kernel.has
        huge = has("huge-pfnmap")
        asked = frozenset(level for level in _HUGE if huge and _asked(kernel, level))
        counts = range(geometry.new_process_levels or len(geometry.walk), len(geometry.walk) + 1)
        return cls(
            sizes={level: geometry.size(level) for level in _LEVELS},
            tables=tuple(_counted_tables(geometry, geometry.lowest(count)) for count in counts),
            task_size=geometry.task_size,
            stack_top=geometry.stack_top,
            huge=huge,
            asked=asked,
            leaves=frozenset(level for level in asked if kernel.pfnmap(level)),
            checks_pfn=has("vfio-unaligned-pfn-fallback"),
            aligns=has("vfio-align-fault-to-order"),
            passes=2 if has("per-vma-lock-faults") and config.enabled("PER_VMA_LOCK") else 1,
            batch=has("type1-pfnmap-batch"),
            deposit=geometry.ptrs("pte") * 8 if kernel.ops.arch_needs_pgtable_deposit() else 0,
            thp_aligned=huge
            and config.enabled("TRANSPARENT_HUGEPAGE")
            and not has("no-thp-align-without-get-unmapped-area"),
            offers_mmap=not (config.enabled("VFIO_PCI_CORE") and config.value("VFIO_PCI_MMAP") == "n"),
            reasons={level: tuple(_level_reasons(kernel, level)) for level in _HUGE},
            lacks={id: _lacks(kernel, id) for id in (*_HANDLER_FIXES, "iommufd-dmabuf-bar")},
            dma=dma,
            dmabuf=has("iommufd-dmabuf-bar"),
            kvm=KvmMmu.of(kernel) if kvm else None,
        )

    @property
    def page(self) -> int:
        """Bytes of a base page."""
        return self.sizes["pte"]

    def plan(self, request: Request, others: Sequence[Request] = (), mmap_base: int | None = None) -> MappingPlan:
        """Plan one mapping; `others` are asked for at the same time, and may share a page with it."""
        length = self._length(request)
        # vma_to_pfn: the page in which the BAR starts, whatever its offset in it
        phys = _down(request.phys, self.page) + request.offset
        va = self._place(request, phys, length, mmap_base)
        start, end, delta = va, va + length, phys - va
        refused = self._not_mmapable(request, others)
        pages = self._run(start, end, "pte")
        cut, steps = ((pages,), 0) if refused else self._cut(start, end, delta)
        blocked = [Blocked(va, length, "pte", "not_mmapable", refused)] if refused else []
        for run in cut:
            for level in _HUGE:
                steps += 1
                if run.length and self.sizes[level] > self.sizes[run.level]:
                    blocked.append(self._blocked(run, level, start, end, delta, refused))
        runs = () if refused else tuple(run for run in cut if run.length)
        before = replace(self, huge=False)
        return MappingPlan(
            request.device,
            request.bar,
            request.bar_size,
            request.offset,
            request.policy,
            request.phys + request.offset,
            va,
            length,
            runs,
            self._costs(runs, start, end, delta),
            before._costs(() if refused else (pages,), start, end, delta),
            tuple(blocked),
            tuple(self._warnings(runs, delta)),
            () if refused else tuple(self._notes(request, mmap_base, runs, delta)),
            steps,
            self,
            self._guest(request, va, length, runs),
        )

    # what is asked for

    def _length(self, request: Request) -> int:
        """Check the part of the BAR that is mapped, and return its length in whole pages."""
        where = request.where
        if request.bar_size <= 0:
            raise BadInput(where, f"size {request.bar_size} is not positive")
        if request.phys < 0 or request.phys + request.bar_size > 1 << 64:
            raise BadInput(where, f"physical address {request.phys:#x} does not fit in 64 bits")
        if request.offset < 0 or request.offset % self.page:
            raise BadInput(where, f"offset {request.offset:#x} is not a multiple of the {format_size(self.page)} page")
        if request.offset >> _REGION_BITS:
            raise BadInput(where, f"offset {request.offset:#x} is not below 1T, where vfio-pci's next region begins")
        whole = _up(request.bar_size, self.page)
        length = whole - request.offset if request.length is None else _up(request.length, self.page)
        if length <= 0:
            raise BadInput(where, f"nothing to map: length {length} from offset {request.offset:#x}")
        if request.offset + length > whole:
            last = request.offset + length
            raise BadInput(where, f"offset + length {last:#x} is beyond the BAR's end {request.bar_size:#x}")
        return length

    def _not_mmapable(self, request: Request, others: Iterable[Request]) -> str:
        """Why vfio-pci does not offer the BAR to mmap (vfio_pci_probe_mmaps); empty if it does."""
        if request.mmapable is not None:
            return "" if request.mmapable else "vfio-pci's region has no mmap flag"
        if not self.offers_mmap:
            return "VFIO_PCI_MMAP=n"
        if request.bar_size >= self.page:
            return ""
        page = format_size(self.page)
        into = request.phys % self.page
        if into:
            return f"the BAR has {request.bar_size} bytes and starts {into:#x} into its {page} page"
        for other in others:
            same = other.device is not None and other.device == request.device and other.bar != request.bar
            if same and request.phys <= other.phys < request.phys + self.page:
                neighbour = f"BAR {other.bar} at {other.phys:#x}"
                return f"the BAR has {request.bar_size} bytes and shares its {page} page with {neighbour}"
        return ""

    # placement

    def _place(self, request: Request, phys: int, length: int, mmap_base: int | None) -> int:
        where = request.where
        if request.va is not None:
            va = request.va
            if va % self.page:
                raise BadInput(where, f"VA {va:#x} is not a multiple of the {format_size(self.page)} page")
        elif request.policy == "kernel":
            va = self._mmap_null(request.offset, length, self._base(mmap_base))
        elif request.policy == "aligned":
            largest = max((self.sizes[level] for level in self.leaves), default=self.page)
            base = min(ALIGNED_BASE, (1 << (self.task_size - 1).bit_length()) >> 3)
            va = base + (phys - base) % largest
        else:
            raise Unknown("placement policy", str(request.policy), POLICIES)
        if va < 0 or va + length > self.task_size:
            at = "nowhere" if va < 0 else f"not at VA {va:#x}"
            text = f"{format_size(length)} fit {at} in an address space of {self.task_size:#x} bytes"
            raise BadInput(where, text)
        return va

    def _base(self, mmap_base: int | None) -> int:
        base = min(MMAP_BASE, self.stack_top - self.page) if mmap_base is None else mmap_base
        if not 0 < base <= self.task_size:
            raise BadInput("mmap base", f"{base:#x} is not in an address space of {self.task_size:#x} bytes")
        return _down(base, self.page)

    def _mmap_null(self, offset: int, length: int, base: int) -> int:
        """What mmap(NULL) gives below `base`; negative where it does not fit.

        mm/huge_memory.c __thp_get_unmapped_area in 6.12.y: room for one PMD more, then up to the next address that is
        congruent to the file offset modulo the PMD size (null.* records).
        """
        pmd = self.sizes["pmd"]
        lowest = base - length - pmd
        if not self._thp_places(offset, length) or lowest < self.page:
            return base - length if base - length >= self.page else -1
        return lowest + ((offset - lowest) % pmd or pmd)

    def _thp_places(self, offset: int, length: int) -> bool:
        """Whether mmap(NULL) makes this part of a BAR congruent modulo the PMD size."""
        pmd = self.sizes["pmd"]
        return self.thp_aligned and length % pmd == 0 and _up(offset, pmd) + pmd <= offset + length

    # levels

    def _cut(self, start: int, end: int, delta: int) -> tuple[tuple[Run, ...], int]:
        """Cut a mapping into five runs, some of them empty, and count the steps; `delta` is physical minus virtual."""
        low, high = start, end
        level: LeafLevel = "pte"
        before: list[Run] = []
        after: list[Run] = []
        steps = 0
        for larger in _HUGE:
            steps += 1
            inner = self._body(larger, start, end, delta)
            before.append(self._run(low, inner[0] if inner else low, level))
            after.append(self._run(inner[1] if inner else high, high, level))
            if inner:
                low, high = inner
                level = larger
        return (*before, self._run(low, high, level), *reversed(after)), steps

    def _body(self, level: LeafLevel, start: int, end: int, delta: int) -> tuple[int, int] | None:
        """What of [start, end) is mapped at a level or at a larger one; None if nothing is."""
        size = self.sizes[level]
        low, high = _up(start, size), _down(end, size)
        congruent = delta % size == 0 or not self.checks_pfn
        return (low, high) if level in self.leaves and congruent and low < high else None

    def _run(self, start: int, end: int, level: LeafLevel) -> Run:
        return Run(start, end - start, level, (end - start) // self.sizes[level])

    # why not larger

    def _blocked(self, run: Run, level: LeafLevel, start: int, end: int, delta: int, refused: str) -> Blocked:
        size = self.sizes[level]
        name = format_size(size)
        found = [("not_mmapable", refused)] if refused else []
        found += self.reasons[level]
        off = -delta % size
        if off and (self.checks_pfn or not self.huge):
            found.append(("not_congruent", f"VA is {off:#x} off the BAR's address modulo {name}"))
        low, high = _down(run.va, size), _up(run.end, size)
        if _up(max(low, start), size) + size > min(_down(end, size), high):
            block = f"the {name}-aligned block {low:#x}-{low + size:#x} does not fit"
            if high - low > size:
                block = f"none of the {name}-aligned blocks of {low:#x}-{high:#x} fits"
            found.append(("vma_edge", f"{block} in the mapping {start:#x}-{end:#x}"))
        assert found, f"nothing blocks the {level} level of {run}"
        reason, detail = found[0]
        return Blocked(run.va, run.length, level, reason, detail, tuple(name for name, _ in found[1:]))

    # costs

    def _covered(self, runs: Iterable[Run], start: int, end: int, size: int) -> int:
        """How many aligned blocks of a size [start, end) touches that are mapped by leaves of that size or a larger."""
        return sum(
            _blocks(max(run.va, start), min(run.end, end), size) for run in runs if self.sizes[run.level] >= size
        )

    def _leaves(self, runs: Iterable[Run], start: int, end: int) -> dict[LeafLevel, int]:
        found: dict[LeafLevel, int] = dict.fromkeys(_LEVELS, 0)
        for run in runs:
            found[run.level] += _blocks(max(run.va, start), min(run.end, end), self.sizes[run.level])
        return found

    def _calls(self, runs: Sequence[Run], start: int, end: int, passes: int) -> int:
        """Calls of the driver's fault handler when [start, end), empty so far, is faulted in page by page."""
        if not self.huge:
            return 1 if runs else 0
        calls = sum(self._leaves(runs, start, end).values())
        for level in self.asked if runs else ():
            size = self.sizes[level]
            fallbacks = _blocks(start, end, size) - self._covered(runs, start, end, size)
            # The second pass finds a table in the PUD entry, but nothing yet in the PMD entry.
            calls += fallbacks * (passes if level == "pmd" else 1)
        return calls

    def _costs(self, runs: tuple[Run, ...], start: int, end: int, delta: int) -> Costs:
        counts = self._leaves(runs, start, end)
        table_bytes = counts["pmd"] * self.deposit
        tables = next((tables for reach, tables in self.tables if end <= reach), self.tables[-1][1])
        for span, size in tables if runs else ():
            table_bytes += (_blocks(start, end, span) - self._covered(runs, start, end, span)) * size
        calls = self._calls(runs, start, end, self.passes)
        return Costs(counts, calls, table_bytes, self.dma_map(runs, start, end, delta))

    def dma_map(self, runs: Sequence[Run], start: int, end: int, delta: int) -> DmaMap:
        """Return what a DMA map of [start, end) costs; with type1: vfio_pin_pages_remote until it has all pages.

        That a break in the physical addresses (only where leaves map the wrong memory) costs one walk more is read from
        its source and not recorded.
        """
        if self.dma == "iommufd":
            by = "IOMMU_IOAS_MAP_FILE" if self.dmabuf else None
            return DmaMap(backend="iommufd", error="EFAULT", by=by)
        leaves = sum(self._leaves(runs, start, end).values())
        pages = _blocks(start, end, self.page) if runs else 0
        inside = [run for run in runs if run.va < end and start < run.end]
        shifts = [delta % self.sizes[run.level] for run in inside]
        breaks = sum(a != b for a, b in pairwise(shifts)) if not self.checks_pfn else 0
        warm = (leaves if self.batch else pages) + breaks
        fixups = leaves if self.huge else min(pages, 1)
        return DmaMap(warm + fixups, fixups, self._calls(runs, start, end, 1), warm)

    def _guest(self, request: Request, va: int, length: int, runs: Sequence[Run]) -> GuestPlan | None:
        """How a KVM guest has a mapping, where that was asked for."""
        if self.kvm is None:
            return None
        gpa = request.gpa
        if gpa is None:
            size = 1 << (max(request.bar_size, self.page) - 1).bit_length()
            gpa = _up(GUEST_BASE, size) + request.offset
        leaves = sum(self._leaves(runs, va, va + length).values())
        fixups = leaves if self.huge else min(leaves, 1)
        return self.kvm.plan(runs, gpa, va, self.sizes, fixups, self._calls(runs, va, va + length, 1))

    # in words

    def _warnings(self, runs: Iterable[Run], delta: int) -> Iterable[str]:
        for run in runs:
            size = self.sizes[run.level]
            right = run.va + delta
            if off := right % size:
                yield (
                    f"WRONG MEMORY: the {format_size(size)} leaf at VA {run.va:#x} maps {right - off:#x} instead of "
                    f"{right:#x}, {off:#x} below: {self.lacks['vfio-unaligned-pfn-fallback']}"
                )

    def _notes(self, request: Request, mmap_base: int | None, runs: Sequence[Run], delta: int) -> Iterable[str]:
        if not self.aligns and any(run.level != "pte" for run in runs):
            yield (
                "a first touch that is not at the start of a block leaves that block to smaller entries:"
                f" {self.lacks['vfio-align-fault-to-order']}"
            )
        if self.dma == "iommufd":
            other = "a BAR is mapped by IOMMU_IOAS_MAP_FILE of its dma-buf instead, without any walk"
            if not self.dmabuf:
                other = f"there is no other way for a BAR: {self.lacks['iommufd-dmabuf-bar']}"
            yield f"iommufd pins pages, and a pfnmap has none: IOMMU_IOAS_MAP of its address is EFAULT; {other}"
        length = sum(run.length for run in runs)
        wide = bool(self.leaves) and length >= self.sizes["pmd"]
        if request.va is not None or request.policy != "kernel" or not wide:
            return
        pmd = format_size(self.sizes["pmd"])
        if self._thp_places(request.offset, length):
            yield f"mmap(NULL) makes such mappings congruent modulo {pmd}, never modulo a larger leaf"
            return
        found = "no larger leaf fits, below another base one may by luck"
        if delta % self.sizes["pmd"] == 0:
            found = f"they are congruent modulo {pmd} by luck"
        yield f"mmap(NULL) aligns such mappings to pages only: below {self._base(mmap_base):#x} {found}"


# --- reading a kernel


def _counted_tables(geometry: Geometry, levels: tuple[WalkLevel, ...]) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return how far (bytes) tables of these levels reach, and the span and size of each that VmPTE counts."""
    spans = ((1 << above.shift, table.ptrs * 8) for above, table in pairwise(levels) if table.name in _LEVELS)
    return levels[0].ptrs << levels[0].shift, tuple(spans)


def _asked(kernel: Kernel, level: LeafLevel) -> bool:
    """Whether a fault asks vfio-pci's huge_fault for a level (mm/memory.c, __handle_mm_fault; recordings' faults)."""
    return (
        kernel.config.enabled("ARCH_SUPPORTS_HUGE_PFNMAP")
        and kernel.config.enabled("TRANSPARENT_HUGEPAGE")
        and not _arch_lacks(kernel, level)
        and not _thp_disabled(kernel)
    )


def _level_reasons(kernel: Kernel, level: LeafLevel) -> Iterable[tuple[str, str]]:
    """What rules a level out whatever the mapping, in the order of REASONS."""
    checks = (
        ("arch_no_level", _arch_lacks(kernel, level)),
        ("config", _config_lacks(kernel, level)),
        ("release", _release_lacks(kernel)),
        ("no_huge_fault", _driver_lacks(kernel, level)),
        ("thp_disabled", _thp_disabled(kernel)),
    )
    return ((reason, detail) for reason, detail in checks if detail)


def _arch_lacks(kernel: Kernel, level: LeafLevel) -> str:
    name = f"{kernel.arch.name} has no {format_size(kernel.geometry.size(level))} pfnmap leaf"
    symbol = {"pmd": "HAVE_ARCH_TRANSPARENT_HUGEPAGE", "pud": "HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"}[level]
    if not getattr(kernel.ops, f"{level}_none")(kernel.arch.empty(level)):
        return f"{name}: the {level.upper()} is folded with {len(kernel.geometry.walk)} levels of page tables"
    return "" if kernel.config.enabled(symbol) else f"{name}: it does not select {symbol}"


def _config_lacks(kernel: Kernel, level: LeafLevel) -> str:
    config = kernel.config
    if not config.enabled("TRANSPARENT_HUGEPAGE"):
        return "TRANSPARENT_HUGEPAGE=n" + (", which PREEMPT_RT=y forbids" if config.enabled("PREEMPT_RT") else "")
    symbol = f"ARCH_SUPPORTS_{level.upper()}_PFNMAP"
    if config.enabled(symbol) or _arch_lacks(kernel, level) or _release_lacks(kernel):
        return ""
    selected = config.enabled("ARCH_SUPPORTS_HUGE_PFNMAP")
    return f"{symbol}=n" + ("" if selected else f": {kernel.arch.name} does not select ARCH_SUPPORTS_HUGE_PFNMAP")


def _release_lacks(kernel: Kernel) -> str:
    for id in kernel.release.changes:
        if (id == "huge-pfnmap" or _is_own_change(id, kernel.arch.name)) and not kernel.has(id):
            return _lacks(kernel, id)
    return ""


def _lacks(kernel: Kernel, id: str) -> str:
    change = upstream_changes()[id]
    lacks = "is not known to have" if kernel.release.changes[id] == "unknown" else "lacks"
    since = "never merged" if change.first == "-" else f"first in {', '.join((change.first, *change.backports))}"
    return f"{kernel.release.name} {lacks} {id} ({since})"


def _driver_lacks(kernel: Kernel, level: LeafLevel) -> str:
    supported = kernel.config.enabled(f"ARCH_SUPPORTS_{level.upper()}_PFNMAP")
    if not supported or kernel.config.enabled("ARCH_SUPPORTS_HUGE_PFNMAP"):
        return ""
    return "vfio-pci is built without huge_fault: ARCH_SUPPORTS_HUGE_PFNMAP=n"


def _thp_disabled(kernel: Kernel) -> str:
    if kernel.config.enabled("TRANSPARENT_HUGEPAGE") and not kernel.ops.has_transparent_hugepage():
        return "the CPU has no huge leaves: has_transparent_hugepage() is false"
    if kernel.thp == "always" or kernel.has("thp-bypass-pfnmap"):
        return ""
    needs = " and nothing asks for MADV_HUGEPAGE" if kernel.thp == "madvise" else ""
    why = _lacks(kernel, "thp-bypass-pfnmap")
    return f"transparent_hugepage/enabled is {kernel.thp}{needs}, which gates pfnmaps too: {why}"
