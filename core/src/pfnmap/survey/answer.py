"""A host's answer: at which level its processes have the BARs that they map, what that costs, what stops the next
level, and what would mend it.

Whether it holds is checked by VmPTE, the bytes of page tables that the kernel says a process has, which needs no
privilege: with all that is mapped touched it is what the plan says and what the rest of the process can have at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pfnmap.archnames import arch_of_config, canonical_arch
from pfnmap.contract.defaults import DEFAULT_DRIVER
from pfnmap.contract.entry import Level
from pfnmap.contract.module import Driver
from pfnmap.contract.plan import LEAF_LEVELS, Request
from pfnmap.errors import PfnmapError, PluginError, Unknown
from pfnmap.host.machine import RELEASE, Host, Missing, read_host
from pfnmap.host.pci import Skipped
from pfnmap.host.processes import SMAPS_READERS
from pfnmap.plan import Advice, MappingPlan, Plan, plan
from pfnmap.plan.planner import region_rules
from pfnmap.plugins import calling, why_unusable
from pfnmap.recognition import Recognition
from pfnmap.records import dataclass
from pfnmap.release import facts, parse_release
from pfnmap.spec import KernelSpec
from pfnmap.survey.attached import Attached, attached
from pfnmap.survey.fixes import fixes_of
from pfnmap.survey.running import RunningVmm, running_vmms

if TYPE_CHECKING:
    from pfnmap.host.processes import Process
    from pfnmap.host.tree import Tree
    from pfnmap.kernel import Kernel
    from pfnmap.plugins import Registry

__all__ = ["Row", "Survey", "VmPte", "spec_of", "survey"]

_TABLES: Final[tuple[tuple[Level, Level], ...]] = (("pmd", "pte"), ("pud", "pmd"))
_UPPER_TABLES: Final = 64 << 10
"""What the upper tables of a process take at most that are not counted one by one: a few pages."""


@dataclass(frozen=True, slots=True)
class VmPte:
    """Page-table bytes of a process: what the kernel says (None: nothing), what the plan says that the mappings of BARs
    need once all of them is touched, and what all else that the process maps can take at most."""

    kernel: int | None
    plan: int
    others_at_most: int

    @property
    def agrees(self) -> bool | None:
        """False: the process has more than the plan and all else can explain. None: that cannot be told."""
        if self.kernel is None or self.kernel < self.plan:
            return None
        return self.kernel <= self.plan + self.others_at_most

    @property
    def said(self) -> str:
        """What that means, in words."""
        if self.kernel is None:
            return "VmPTE is not known"
        if self.agrees:
            return "VmPTE agrees with the plan"
        if self.agrees is None:
            return "VmPTE is less than the plan: not all of it has been touched yet, or leaves are larger"
        return "VmPTE is more than the plan and all else can explain: leaves are smaller than planned"

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `host --json` prints."""
        return {**{name: getattr(self, name) for name in self.__slots__}, "agrees": self.agrees}


@dataclass(frozen=True)
class Row:
    """A mapping of a process, its plan, and the other plans that it may have by the device that it is of (`others`)."""

    attached: Attached
    plan: MappingPlan
    others: tuple[MappingPlan, ...]

    @property
    def agree(self) -> bool:
        """Whether the plan is the same whatever device it is of."""
        return all((one.runs, one.costs) == (self.plan.runs, self.plan.costs) for one in self.others)

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `host --json` prints."""
        row = self.plan.as_json() | {"pid": self.attached.pid}
        if len(self.attached.candidates) > 1:
            row |= {"device": None, "candidates": list(self.attached.candidates), "phys": None}
            if not self.agree:
                row |= {"counts": None, "runs": [], "driver_calls": None, "table_bytes": None}
        return row


@dataclass(frozen=True)
class Survey:
    """What is known of a host, and planned for it. `plan` has the rows' mappings and those of other candidates;
    `fixes`: by pid."""

    host: Host
    kernel: Kernel
    vmms: tuple[RunningVmm, ...]
    plan: Plan
    rows: tuple[Row, ...]
    fixes: Mapping[int, Advice]
    missing: tuple[Missing, ...]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]

    @property
    def pids(self) -> list[int]:
        """The processes that map BARs."""
        return list(self._rows_of)

    def process(self, pid: int) -> Process:
        """Return a process."""
        return self._processes[pid]

    def rows_of(self, pid: int) -> list[Row]:
        """Return the mappings of a process."""
        return self._rows_of.get(pid, [])

    @cached_property
    def _processes(self) -> Mapping[int, Process]:
        return {one.pid: one for one in self.host.processes}

    @cached_property
    def _rows_of(self) -> Mapping[int, list[Row]]:
        found: dict[int, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.attached.pid, []).append(row)
        return found

    @cached_property
    def vmpte(self) -> Mapping[int, VmPte]:
        """The check of each process that maps BARs."""
        return {pid: self._vmpte(pid) for pid in self.pids}

    def _vmpte(self, pid: int) -> VmPte:
        process, rows = self.process(pid), self.rows_of(pid)
        mine = {row.attached.vma for row in rows}
        others = [vma for vma in process.maps or () if vma not in mine and vma.accessible]
        geometry, at_most = self.kernel.geometry, _UPPER_TABLES
        for level, below in _TABLES:
            size = geometry.size(level)
            blocks = {n for vma in others for n in (vma.start // size, (vma.end - 1) // size)}
            whole = sum(max((vma.end - 1) // size - vma.start // size - 1, 0) for vma in others)
            at_most += (len(blocks) + whole) * 8 * geometry.ptrs(below)
        return VmPte(process.vmpte, sum(row.plan.costs.table_bytes for row in rows), at_most)

    def as_json(self) -> dict[str, Any]:
        """Return the document that `host --json` prints, without its schema."""
        host = self.host
        checks = {pid: check.as_json() for pid, check in self.vmpte.items()}
        fixes = {pid: fix.as_json() for pid, fix in self.fixes.items()}
        return {
            "host": {
                "release": host.release,
                "distribution": host.distribution,
                "config_source": host.config_source,
                "thp": host.thp,
                "parameters": list(host.parameters),
                "cpu": dict(self.kernel.cpu),
                "cpu_model": host.cpuinfo.get("model name"),
                "virtualization": host.virtualization,
                "page_size": self.kernel.geometry.PAGE_SIZE,
                "iommus": list(host.iommus),
                "vmms": [vmm.as_json() for vmm in self.vmms],
                "devices": [
                    {"device": f.device.bdf, "id": f.device.pci_id, "driver": f.device.driver, "iommu_group": f.group}
                    for f in host.functions
                ],
            },
            "kernel": dict(self.plan.kernel),
            "mappings": [
                {**row.as_json(), "vmpte": checks[row.attached.pid], "fix": fixes.get(row.attached.pid)}
                for row in self.rows
            ],
            "undetermined": [row.as_json() for row in self.plan.undetermined],
            "missing": [one.as_json() for one in self.missing],
            "skipped": [{"device": one.device, "reason": one.reason} for one in self.skipped],
            "warnings": list(self.warnings),
        }


def survey(
    tree: Tree,
    registry: Registry,
    said: Callable[[KernelSpec], KernelSpec] = lambda spec: spec,
    warn: Callable[[str], None] = lambda text: None,
    pid: int | None = None,
    link: Callable[[KernelSpec, Callable[[str], None]], Kernel] | None = None,
) -> Survey:
    """Read a host, and plan what its processes map, or one of them. `said` puts what a user says of the kernel over
    what the host says; `link` links it (None: anew).

    Raises what `pfnmap.plan.plan` and `KernelSpec.link` raise, and BadInput for a process that is not there.
    """
    host = read_host(tree, pid)
    missing = list(host.missing)
    spec = said(spec_of(host, registry, missing))
    kernel = spec.link(registry, warn) if link is None else link(spec, warn)
    drivers = {name: type(one) for name, one in kernel.drivers.items() if isinstance(one, Driver)}
    if not drivers:
        why = why_unusable(registry, "driver", DEFAULT_DRIVER)
        missing.append(Missing("drivers", why, "which BARs the processes map"))
    skipped = list(host.skipped)
    asked = Recognition(drivers, lambda why: skipped.append(Skipped(None, why)))
    found = _planned(attached(host, asked, kernel.has, tree), kernel, registry, skipped)
    vmms = running_vmms(host, tree, registry, missing)
    requests = [request for _, some in found for request in some]
    answer = plan(kernel, requests, registry=registry)
    plans = iter(answer.mappings)
    rows = tuple(Row(one, next(plans), tuple(next(plans) for _ in some[1:])) for one, some in found)
    first = {id(row.plan) for row in rows}
    short = replace(answer, mappings=tuple(one for one in answer.mappings if id(one) in first))
    policies = {vmm.pid: vmm.policy for vmm in vmms}
    planned: dict[int, list[MappingPlan]] = {}
    for row in rows:
        planned.setdefault(row.attached.pid, []).append(row.plan)
    fixes = fixes_of(kernel, planned, policies, registry)
    return Survey(host, kernel, tuple(vmms), short, rows, fixes, tuple(missing), tuple(skipped), _warnings(host, rows))


def spec_of(host: Host, registry: Registry, missing: list[Missing]) -> KernelSpec:
    """Return what a host says of its kernel; `missing` gets what of it cannot be used."""
    arch = canonical_arch(host.machine, registry) if host.machine else None
    if arch is not None and arch not in registry.names("arch"):
        arch = None
    cpu: Mapping[str, Any] = {}
    if of_cpu := arch or (arch_of_config(host.config, registry) if host.config else None):
        try:
            known = registry.load("arch", of_cpu)
            with calling(of_cpu, "cpu_of()") as gave:
                cpu = gave(known.cpu_of(host.cpuinfo), Mapping[str, object])
        except PluginError as error:
            missing.append(Missing("/proc/cpuinfo", str(error), "which CPU it has"))
    return KernelSpec(
        arch=arch,
        release=_known_release(host, registry, missing),
        config=host.config_source,
        file=host.config,
        page_size=None if host.page_size is None else str(host.page_size),
        thp=host.thp,
        cpu=cpu,
    )


def _known_release(host: Host, registry: Registry, missing: list[Missing]) -> str | None:
    if host.release is None:
        return None
    try:
        parse_release(host.release, known=facts(registry))
    except Unknown as error:
        missing.append(Missing(RELEASE, str(error), "which kernel it runs"))
        return None
    return host.release


def _planned(
    found: Sequence[Attached], kernel: Kernel, registry: Registry, skipped: list[Skipped]
) -> list[tuple[Attached, list[Request]]]:
    """Return the mappings with what is planned for each: one request of those that differ in nothing that the answer
    hangs on. What a driver does not say how it maps is skipped."""
    kept = []
    for one in found:
        distinct: dict[object, Request] = {}
        for request in one.requests:
            try:
                region_rules(kernel, request, [request], registry)
            except PfnmapError as error:
                skipped.append(Skipped(request.device, str(error)))
            else:
                place = request.phys % kernel.geometry.size("pud")
                distinct.setdefault((request.driver, request.bar_size, request.offset, place, request.bits), request)
        if distinct:
            kept.append((one, list(distinct.values())))
    return kept


def _warnings(host: Host, rows: Sequence[Row]) -> tuple[str, ...]:
    if not any(row.plan.costs.counts[LEAF_LEVELS[-1]] for row in rows):
        return ()
    return tuple(
        f"process {one.pid} {one.command} may read what drops 1G leaves ({SMAPS_READERS[one.command]})"
        for one in host.processes
        if one.command in SMAPS_READERS
    )
