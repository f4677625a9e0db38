"""The machines that the kit links a plugin as: those that it declares, and a choice that fits every architecture.

The choice: Linux 6.12.117 (the first releases with huge pfnmaps) and the newest known one, both also with every page
size of the architecture's Kconfig that is not the default, a kernel without transparent huge pages, one that tracks
soft-dirty pages where the architecture selects HAVE_ARCH_SOFT_DIRTY, every on/off key of `cpu_defaults` the other way
round, where an architecture names an emulated CPU that the defaults are not, that CPU, and each change of the
architecture's own that all of these have, or have not, the other way round. A combination that the architecture
refuses is no machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pfnmap.contract.arch import Arch
from pfnmap.contract.module import Module
from pfnmap.errors import BadInput, PfnmapError
from pfnmap.kconfig import DEFAULTS, page_size_symbols
from pfnmap.kernel import Kernel
from pfnmap.plugins import Registry
from pfnmap.release import facts, newest, parse_release

__all__ = ["Machine", "arch_machines", "driver_machines", "link", "releases"]

_PAGE_SIZES = ("4K", "8K", "16K", "32K", "64K", "256K")
_OLD_RELEASE = "6.1.192"
_LINK_ARGUMENTS = frozenset({"release", "given", "config", "page_size", "cpu", "thp"})


@dataclass(frozen=True)
class Machine:
    """A machine: arguments of `Kernel.link`. One that is `tried` is none where the architecture refuses it."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tried: bool = False


def arch_machines(arch: type[Arch], declared: Mapping[str, Mapping[str, Any]]) -> list[Machine]:
    """Return the machines of an architecture, the declared ones last; one of the same name replaces the kit's
    choice."""
    found = {machine.name: machine for machine in _choice(arch)}
    for name, arguments in {**arch.machines, **declared}.items():
        if unknown := sorted(arguments.keys() - _LINK_ARGUMENTS):
            raise BadInput(f"machine {name} of {arch.name}", f"unknown {', '.join(unknown)}")
        found[name] = Machine(name, arguments)
    return [*found.values(), *_other_way_round(arch, found.values())]


def releases() -> tuple[str, str]:
    """Return the releases that every plugin is linked as."""
    return ("6.12.117", newest())


def _choice(arch: type[Arch]) -> Iterator[Machine]:
    sizes = _page_sizes(arch)
    for release in releases():
        yield Machine(release, {"release": release})
        for size in sizes:
            yield Machine(f"{release} {size}", {"release": release, "page_size": size})
    yield Machine("thp=n", {"given": {"TRANSPARENT_HUGEPAGE": "n"}})
    if "HAVE_ARCH_SOFT_DIRTY" in _fragment(arch):
        yield Machine("soft dirty", {"given": {"CHECKPOINT_RESTORE": "y", "MEM_SOFT_DIRTY": "y"}})
    for key, value in getattr(arch, "cpu_defaults", {}).items():
        if isinstance(value, bool):
            yield Machine(_named({key: not value}), {"cpu": {key: not value}}, tried=True)
    emulated = arch.mmu_cpu.state if arch.mmu_cpu else {}
    if cpu := {key: value for key, value in emulated.items() if value != arch.cpu_defaults.get(key)}:
        yield Machine(_named(cpu), {"cpu": cpu})
        for size in sizes:
            yield Machine(f"{size} {_named(cpu)}", {"cpu": cpu, "page_size": size})


def _other_way_round(arch: type[Arch], machines: Iterable[Machine]) -> Iterator[Machine]:
    """Yield the newest release with, or without, each change of the architecture's own that it asks for and that all
    machines agree on."""
    try:
        kernel = Kernel.link(arch, defaults=DEFAULTS, release=newest())
    except Exception:  # linking will tell
        return
    package = arch.__module__.partition(".")[0]
    known = kernel.release.known
    of = [parse_release(name) for name in {str(m.arguments.get("release", newest())) for m in machines}]
    for change in sorted(change for change in kernel.asked if known[change].package == package):
        if len(had := {release.has(change) for release in of}) == 1:
            out = [change] if had.pop() else []
            try:
                release = parse_release(newest(), () if out else [change], out)
            except PfnmapError:  # another change requires it
                continue
            yield Machine(f"{newest()} {'without' if out else 'with'} {change}", {"release": release}, tried=True)


def _named(cpu: Mapping[str, object]) -> str:
    words = {True: "on", False: "off"}
    return ", ".join(f"{key}={words[value] if isinstance(value, bool) else value}" for key, value in cpu.items())


def _page_sizes(arch: type[Arch]) -> list[str]:
    """Return the page sizes that an architecture's Kconfig gives, less the one that is the default."""
    text = _fragment(arch)
    try:
        default = Kernel.link(arch, defaults=DEFAULTS, release=newest()).geometry.PAGE_SIZE
    except Exception:  # linking will tell
        return []
    found = []
    for size in _PAGE_SIZES:
        try:
            page_size_symbols([(arch.name, text)], size)
        except BadInput:
            continue
        if int(size[:-1]) << 10 != default:
            found.append(size)
    return found


def _fragment(arch: type[Arch]) -> str:
    """Return an architecture's Kconfig as of the newest release, "" where it gives none."""
    try:
        return arch().kconfig(parse_release(newest()).has) or ""  # type: ignore[attr-defined]
    except Exception:  # linking will tell
        return ""


def link(arch: type[Arch], machine: Machine, drivers: Iterable[type[Module]] = ()) -> Kernel | None:
    """Link a machine; None where it is only tried and refused. Raises what `Kernel.link` raises."""
    arguments = {"defaults": DEFAULTS, "thp": "always", **machine.arguments}
    try:
        return Kernel.link(arch, drivers, **arguments)
    except PfnmapError:
        if machine.tried:
            return None
        raise


def driver_machines(
    driver: type[Module], declared: Mapping[str, Mapping[str, Any]], registry: Registry
) -> list[Machine]:
    """Return the machines of a driver: the kit's own architecture and every installed one, as every release.

    The releases are those of `releases`, one from before huge pfnmaps and every named tree. Declared machines come
    last; one of the same name replaces the kit's choice.
    """
    from pfnmap.testing.plain import Plain

    found = {}
    archs: list[str | type[Arch]] = [Plain, *registry.names("arch")]
    for arch in archs:
        name = arch if isinstance(arch, str) else arch.name
        for release in (_OLD_RELEASE, *facts(registry).trees, *releases()):
            machine = Machine(f"{name} {release}", {"arch": arch, "release": release}, tried=isinstance(arch, str))
            found[machine.name] = machine
    for name, arguments in {**driver.machines, **declared}.items():
        if unknown := sorted(arguments.keys() - _LINK_ARGUMENTS - {"arch"}):
            raise BadInput(f"machine {name} of {driver.name}", f"unknown {', '.join(unknown)}")
        found[name] = Machine(name, {"arch": Plain, **arguments})
    return list(found.values())
