"""Whether the plugins that are installed work: each is linked and booted, as far as that needs no question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from pfnmap.boundary import calling
from pfnmap.contract.defaults import DEFAULT_ARCH
from pfnmap.contract.step import Action
from pfnmap.errors import PfnmapError, Unwritten
from pfnmap.kernel import Kernel
from pfnmap.mm.boot import BootedMachine, boot
from pfnmap.plugins import Kind, Registry
from pfnmap.release import facts, parse_release
from pfnmap.spec import with_drivers

__all__ = ["failures"]


def failures(registry: Registry) -> dict[tuple[Kind, str], PfnmapError]:
    """Return what fails of the plugins that may be used, by kind and name."""
    found: dict[tuple[Kind, str], PfnmapError] = {}
    known = facts(registry)
    link = partial(Kernel.link, release=parse_release(str(known.newest), known=known), registry=registry)
    drivers = registry.names("driver")  # they are tried with the first architecture that works
    for name in sorted(registry.names("arch"), key=lambda name: name != DEFAULT_ARCH):
        try:
            kernel, failed = with_drivers(partial(link, name), drivers)
            kernel.try_ops()
            machine = boot(kernel)
        except Unwritten:  # a new package, whose author is not there yet
            continue
        except PfnmapError as error:
            found["arch", name] = error
            continue
        if drivers:
            found |= {("driver", driver): failure for driver, failure in (*failed.items(), *_booted(machine))}
        drivers = []
    others: tuple[Kind, ...] = ("vmm", "recording")
    for kind in others:
        for name in (p.name for p in registry.plugins(kind) if p.status == "ok" and not p.of_core):
            try:
                with calling(name, "__init__()"):
                    registry.load(kind, name)()
            except PfnmapError as error:
                found[kind, name] = error
    return found


def _booted(machine: BootedMachine) -> Iterator[tuple[str, PfnmapError]]:
    """Yield the drivers that failed when a machine booted, and those that fail to tell their actions."""
    yield from machine.left_out.items()
    for name, module in machine.modules.items():
        if module is not machine.arch_module:
            try:
                with calling(name, "actions()") as gave:
                    gave(module.actions(), Mapping[str, Action])
            except PfnmapError as error:
                yield name, error
