"""What could be otherwise: the single steps that advice is made of, and what a question becomes with some of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pfnmap.boundary import calling
from pfnmap.contract.kernel import THP_SETTINGS
from pfnmap.contract.placement import Vmm
from pfnmap.errors import PfnmapError
from pfnmap.plan.ask import required
from pfnmap.plan.planner import Planner, Question
from pfnmap.plan.policies import POLICIES
from pfnmap.records import dataclass
from pfnmap.release import Release, Status, facts, parse_release

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel
    from pfnmap.plan.document import MappingPlan

__all__ = ["STEPS", "Candidate", "Variants", "candidates"]

Step: TypeAlias = Literal["va", "thp", "vmm-opt", "vmm", "set", "with", "release"]
STEPS: Final[tuple[Step, ...]] = ("va", "thp", "vmm-opt", "vmm", "set", "with", "release")
"""The kinds of steps, the cheapest first. A set has several of one kind only of `set`, `with` and `vmm-opt`; and it has
another release or backports to this one."""
_CONFIGURED: Final = frozenset({"not_mmapable", "arch_no_level", "config", "no_huge_fault"})
"""The reasons that a configuration can be to blame for."""


@dataclass(frozen=True)
class Candidate:
    """One step: `step` and `value` as in ``thp=always``, and what it is in words (`detail`)."""

    step: Step
    value: str
    detail: str
    release: Release | None = field(default=None, compare=False, repr=False)
    changes: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.step}={self.value}"

    @property
    def parts(self) -> frozenset[str]:
        """What it consists of: for a backport it and each that it requires and the kernel lacks, else itself."""
        return frozenset(f"with={change}" for change in self.changes) or frozenset((str(self),))

    def excludes(self, other: Candidate) -> bool:
        """Tell whether two of them make no set."""
        if self.step == other.step:
            return self.step not in ("set", "with", "vmm-opt")
        return {self.step, other.step} == {"release", "with"}


class _Asked(Mapping[str, str]):
    """The values of a configuration's symbols; it notes of which it is asked."""

    def __init__(self, symbols: Mapping[str, str]) -> None:
        self._symbols = symbols
        self.noted = set[str]()

    def __getitem__(self, symbol: str) -> str:
        self.noted.add(symbol)
        return self._symbols[symbol]

    def __iter__(self) -> Iterator[str]:
        return iter(self._symbols)

    def __len__(self) -> int:
        return len(self._symbols)


def candidates(kernel: Kernel, question: Question) -> tuple[Candidate, ...]:
    """Return every step that an answer can hang on: releases and single backports that bring changes which are asked
    for and not there, the other THP settings, other versions and options of the VMM, addresses congruent to the BAR,
    and, where the configuration blocks a level, other values of the symbols that are asked for or that those follow
    from.

    Of releases only those that have all of these changes that this one has; of several that have the same the oldest.
    """
    asked = _Asked(kernel.config.symbols)
    planner = Planner(replace(kernel, config=replace(kernel.config, symbols=asked)), question)
    planned = planner.mappings()
    reasons = {name for m in planned for row in m.blocked for name in (row.reason, *row.also)}
    symbols = kernel.config.levers(sorted(asked.noted)) if reasons & _CONFIGURED else {}
    changes = frozenset(
        change
        for change in planner.changes()
        if (known := kernel.release.known[change]).modelled and (not known.arch or kernel.arch.name in known.arch)
    )
    found = [
        *_addresses(question),
        *(
            Candidate("thp", setting, f"transparent_hugepage/enabled is {setting}")
            for setting in THP_SETTINGS
            if setting != kernel.thp
        ),
        *_versions(question),
        *(
            Candidate("set", f"{symbol}={value}", f"the kernel is built with {symbol}={value}")
            for symbol, value in symbols.items()
        ),
        *(_backport(kernel, change) for change in sorted(changes) if not kernel.has(change)),
        *_releases(kernel, question, changes),
    ]
    return tuple(sorted(found, key=lambda one: STEPS.index(one.step)))


def _addresses(question: Question) -> Iterator[Candidate]:
    if any(request.policy != "aligned" or request.va is not None for request in question.requests):
        yield Candidate("va", "congruent", "whoever maps the BAR does it at an address congruent to the BAR's")


def _versions(question: Question) -> Iterator[Candidate]:
    """Yield the other versions, and what options can be switched on, of the VMM that places everything."""
    vmm = _vmm(question)
    if vmm is None:
        return
    for known in type(vmm).versions:
        version = known.rpartition(" ")[2]  # of a range its last
        if version != vmm.version:
            yield Candidate("vmm", f"{vmm.name}-{version}", f"{vmm.name} {version}")
    for option in vmm.takes:
        if option not in vmm.options:
            yield Candidate("vmm-opt", option, f"{vmm.name} with {option}")


def _vmm(question: Question) -> Vmm | None:
    """Return the one VMM that places everything; None where there is none."""
    policies = {request.policy if request.va is None else None for request in question.requests}
    policy = policies.pop()
    return None if policies or policy is None or policy in POLICIES else question.vmms[policy]


def _backport(kernel: Kernel, change: str) -> Candidate:
    known = kernel.release.known[change]
    needs = sorted(one for one in required(kernel, change) if not kernel.has(one))
    what = f"{known.title}; {kernel.lacks(change)}"
    with_ = f", with what it requires: {', '.join(needs)}" if needs else ""
    return Candidate("with", change, what + with_, changes=frozenset({change, *needs}))


def _releases(kernel: Kernel, question: Question, changes: frozenset[str]) -> Iterator[Candidate]:
    known = facts(question.registry)
    here = frozenset(change for change in changes if kernel.has(change))
    seen = {here}
    for name in known.releases:
        if name in known.trees:
            continue
        release = parse_release(name, known=known)
        there = frozenset(change for change in changes if release.has(change))
        if here < there and there not in seen:
            seen.add(there)
            brings = ", ".join(sorted(there - here))
            yield Candidate("release", name, f"{name} has {brings}", release=release)


class Variants:
    """A kernel as it is with some steps taken. What is linked for one set serves the next."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._linked: dict[object, Kernel] = {}

    def plan(self, question: Question, steps: Sequence[Candidate]) -> tuple[MappingPlan, ...] | None:
        """Return the plan with these steps taken; None where they cannot be taken, or nothing can be planned then."""
        try:
            kernel = self._with(steps)
            question = _asked(question, steps)
            return None if kernel is None else Planner(kernel, question).answer()
        except PfnmapError:
            return None

    def _with(self, steps: Sequence[Candidate]) -> Kernel | None:
        """Return the kernel, None where a symbol does not take the value; linked anew only for what linking asks."""
        given = {
            symbol: value for step in steps if step.step == "set" for symbol, _, value in [step.value.partition("=")]
        }
        release = next((step.release for step in steps if step.release), self._kernel.release)
        changes: dict[str, Status] = {change: "yes" for step in steps for change in step.changes}
        if changes:
            release = replace(release, changes={**release.changes, **changes})
        thp = next((step.value for step in steps if step.step == "thp"), None)
        key = (*sorted(given.items()), *(release.changes[change] for change in sorted(self._kernel.asked)))
        if key not in self._linked:
            self._linked[key] = self._kernel.relink(release, given=given)
        kernel = self._linked[key].relink(release, thp=thp)
        return kernel if all(kernel.config.value(symbol) == value for symbol, value in given.items()) else None


def _asked(question: Question, steps: Sequence[Candidate]) -> Question:
    """Return the question with the address, the VMM's version and its options that the steps say."""
    question = replace(question, congruent=any(step.step == "va" for step in steps))
    version = next((step.value.rpartition("-")[2] for step in steps if step.step == "vmm"), None)
    more = [step.value for step in steps if step.step == "vmm-opt"]
    vmm = _vmm(question)
    if vmm is None or (version is None and not more):
        return question
    options = [f"{name}={value}" for name, value in vmm.options.items()]
    # Of a version that is newer than what is known the newest known was taken, and is taken again.
    with calling(vmm.name, "__init__()") as gave:
        again = type(vmm)(vmm.version if version is None else version, [*options, *more], newest=True)
        changed = gave(again, type(vmm))
    return replace(question, vmms=dict.fromkeys(question.vmms, changed))
