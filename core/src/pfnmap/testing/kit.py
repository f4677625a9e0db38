"""The conformance kit: every check on every machine of one plugin.

    for result in arch_kit("x86_64").results():
        if not result.good: print(result.machine, result.case.id, result.detail)

An `Item` is one check on one machine. Everything is deterministic: the same plugin gives the same results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple
from unittest import SkipTest

from pfnmap.contract.arch import Arch
from pfnmap.contract.module import Module
from pfnmap.errors import PluginError, Unwritten
from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.kernel import Kernel
from pfnmap.plugins import Registry, environment, implemented_hooks
from pfnmap.testing import (
    driver_checks,
    entry_checks,
    format_checks,
    geometry_checks,
    kconfig_checks,
    mark_checks,
    mm_checks,
    mmu,
    protection_checks,
    table_checks,
    word_checks,
)
from pfnmap.testing.arch_subject import ArchSubject
from pfnmap.testing.bar_driver import BarDriver
from pfnmap.testing.check import (
    Case,
    Check,
    Result,
    Subject,
    Violation,
    cases,
    check_expectations,
    expected_failure,
    run,
)
from pfnmap.testing.driver_subject import DriverSubject
from pfnmap.testing.kconfig_records import record_checks
from pfnmap.testing.machines import Machine, arch_machines, driver_machines, link
from pfnmap.testing.vector_checks import vector_checks
from pfnmap.testing.written_checks import written_checks

__all__ = ["ARCH_CHECKS", "DRIVER_CHECKS", "Item", "Kit", "arch_kit", "driver_kit"]

ARCH_CHECKS: tuple[Check, ...] = (
    *geometry_checks.CHECKS,
    *kconfig_checks.CHECKS,
    *table_checks.CHECKS,
    *word_checks.CHECKS,
    *entry_checks.CHECKS,
    *mark_checks.CHECKS,
    *format_checks.CHECKS,
    *protection_checks.CHECKS,
    *mm_checks.CHECKS,
    *mmu.CHECKS,
)
"""Every check of an architecture."""

DRIVER_CHECKS: tuple[Check, ...] = driver_checks.CHECKS
"""Every check of a driver."""


class Item(NamedTuple):
    """One check on one machine; machine "" is no machine: the check looks at the plugin alone."""

    machine: str
    case: Case

    @property
    def id(self) -> str:
        """A name for a test."""
        return f"{self.machine}-{self.case.id}" if self.machine else self.case.id


class _Links(NamedTuple):
    """What a machine turned into: the subject of its checks, or what linking raised."""

    subject: Subject | None
    error: Exception | None = None


class _Plugin(NamedTuple):
    """The subject of checks that look at the plugin alone."""

    machine: str = ""
    capabilities: frozenset[str] = frozenset()
    kernel: Kernel | None = None


@dataclass
class Kit:
    """The kit on one plugin. `links` makes the subject of a machine, or None where the machine is none; `alone` are
    checks that look at the plugin alone, on no machine of the kit."""

    name: str
    plugin: type[Any]
    checks: tuple[Check, ...]
    machines: Sequence[Machine]
    links: Callable[[Machine], Subject | None]
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    alone: Sequence[Check] = ()

    def __post_init__(self) -> None:
        self.alone = (*written_checks(self.plugin), *self.alone)
        self._linked = cache(self._link)
        check_expectations(self.expected_failures, [*cases(self.checks), *cases(self.alone)], self.name)

    def _link(self, name: str) -> _Links:
        machine = next(machine for machine in self.machines if machine.name == name)
        try:
            subject = self.links(machine)
            if subject is not None:
                _ = subject.capabilities  # asks hooks, which may raise
            return _Links(subject)
        except Exception as error:  # a plugin may raise anything
            return _Links(None, error)

    def subject(self, machine: str) -> Subject:
        """Return the subject of a machine; raises what linking it raised."""
        links = self._linked(machine)
        if links.error is not None:
            raise links.error
        assert links.subject is not None
        return links.subject

    def described(self, machine: str) -> dict[str, Any]:
        """Return for JSON what a machine is and what the plugin claims there; nothing where it cannot be linked."""
        subject = self._linked(machine).subject
        if subject is None or subject.kernel is None:
            return {"kernel": None, "capabilities": []}
        return {"kernel": subject.kernel.describe(), "capabilities": sorted(subject.capabilities)}

    def items(self, *, unclaimed: bool = False) -> Iterator[Item]:
        """Yield what there is to do: what is claimed, and with `unclaimed` the rest too.

        A machine that cannot be linked has one item, the check ``links``.
        """
        yield from (Item("", case) for case in cases(self.alone))
        for machine in self.machines:
            subject, error = self._linked(machine.name)
            if subject is None and error is None:
                continue
            if isinstance(error, Unwritten):  # its own item tells of it
                continue
            yield Item(machine.name, Case(self._links_check(machine.name)))
            if subject is not None:
                for case in cases(self.checks):
                    if unclaimed or case.needs <= subject.capabilities:
                        yield Item(machine.name, case)

    def _links_check(self, machine: str) -> Check:
        def check(subject: Subject) -> None:
            self.subject(machine)

        return Check("links", "a kernel can be linked with the plugin", check)

    def run(self, item: Item) -> Result:
        """Run one item."""
        links = self._linked(item.machine) if item.machine else _Links(None)
        return run(item.case, links.subject or _Plugin(item.machine), self.expected_failures)

    def do(self, item: Item) -> None:
        """Run one item and raise what it raises, for pytest."""
        item.case(self._linked(item.machine).subject or _Plugin() if item.machine else _Plugin())

    def expected(self, item: Item) -> str:
        """Return why an item is expected to fail, or ""."""
        return expected_failure(item.case, item.machine, self.expected_failures)

    def results(self, *, unclaimed: bool = False) -> Iterator[Result]:
        """Run every item."""
        for item in self.items(unclaimed=unclaimed):
            yield self.run(item)


def arch_kit(
    arch: str | type[Arch],
    machines: Mapping[str, Mapping[str, Any]] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    checks: tuple[Check, ...] = ARCH_CHECKS,
    vectors: Iterable[str | os.PathLike[str]] = (),
    kconfig: Iterable[str | os.PathLike[str]] = (),
) -> Kit:
    """Return the kit on an architecture (its name, or its class).

    `machines`, `expected_failures`: in addition to those that the class declares. `vectors`: golden vector files;
    `kconfig`: records of the kernel's own conf.
    Raises PfnmapError for a plugin that cannot be loaded, and for declarations that cannot be.
    """
    plugin = (registry or environment()).load("arch", arch) if isinstance(arch, str) else arch
    if not (isinstance(plugin, type) and issubclass(plugin, Arch)):
        raise PluginError(str(arch), f"{plugin!r} is no subclass of pfnmap.Arch")

    def links(machine: Machine) -> Subject | None:
        kernel = link(plugin, machine, [BarDriver])
        return None if kernel is None else ArchSubject(kernel, machine.name)

    def hooks_used(subject: Subject) -> None:
        unused = set(implemented_hooks(plugin)) & set(ENTRY_HOOKS)
        for machine in kit.machines:
            linked, error = kit._linked(machine.name)
            if isinstance(error, Unwritten):
                raise error
            if error is not None:
                raise SkipTest(f"{machine.name} does not link")
            if linked is not None and linked.kernel is not None:
                unused -= {name for name, owner in linked.kernel.ops.owners.items() if owner == "arch"}
        if unused:
            raise Violation(f"no machine uses {', '.join(sorted(unused))}: is a symbol not selected?")

    used = Check("hooks-used", "each hook that is provided is in use on some machine of the kit", hooks_used)
    kit = Kit(
        plugin.name,
        plugin,
        checks,
        arch_machines(plugin, machines or {}),
        links,
        {**plugin.expected_failures, **(expected_failures or {})},
        [used, *vector_checks(plugin, vectors), *record_checks(plugin, kconfig)],
    )
    return kit


def driver_kit(
    driver: str | type[Module],
    machines: Mapping[str, Mapping[str, Any]] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry | None = None,
    checks: tuple[Check, ...] = DRIVER_CHECKS,
) -> Kit:
    """Return the kit on a driver (its name, or its class), as `arch_kit`.

    It is linked with the kit's own architecture and with every architecture that is installed.
    """
    registry = registry or environment()
    plugin = registry.load("driver", driver) if isinstance(driver, str) else driver
    if not (isinstance(plugin, type) and issubclass(plugin, Module)):
        raise PluginError(str(driver), f"{plugin!r} is no subclass of pfnmap.Module")

    def links(machine: Machine) -> Subject | None:
        arguments = dict(machine.arguments)
        arch = arguments.pop("arch")
        arch_class = registry.load("arch", arch) if isinstance(arch, str) else arch
        kernel = link(arch_class, Machine(machine.name, arguments, machine.tried), [plugin])
        return None if kernel is None else DriverSubject(kernel, machine.name, plugin)

    return Kit(
        plugin.name,
        plugin,
        checks,
        driver_machines(plugin, machines or {}, registry),
        links,
        {**plugin.expected_failures, **(expected_failures or {})},
    )
