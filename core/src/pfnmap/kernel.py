"""Kernel: one linked image of the mm core, one architecture, any number of drivers, a configuration and a release.

Linking goes in this order: register `generic`, the architecture and the drivers with one pluggy manager; collect the
`kconfig` fragments and resolve them; let the architecture settle its boot (`Arch.setup_arch`); bind every op to its
owner. After that nothing goes through pluggy. Two kernels live side by side; nothing is global but discovery.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar, cast

import pluggy

from pfnmap.binding import ABSTRACT_OPS, bind, hooks_of
from pfnmap.changes import asks
from pfnmap.config import Config
from pfnmap.contract.arch import Arch
from pfnmap.contract.defaults import DEFAULT_ARCH
from pfnmap.contract.entry import LEVELS, Has
from pfnmap.contract.geometry import Geometry
from pfnmap.contract.kernel import THP_SETTINGS, LinkedKernel
from pfnmap.contract.module import Module
from pfnmap.contract.pgtable_ops import Ops
from pfnmap.errors import BadInput, LinkError, PluginError, Refused, Unknown, Unwritten
from pfnmap.fits import undeclared
from pfnmap.hookspecs import ENTRY_HOOKS, EntryHooks
from pfnmap.kconfig import fragment, page_size_symbols, resolve
from pfnmap.plugins import Gave, Registry, calling, environment
from pfnmap.records import dataclass
from pfnmap.release import Release, facts, parse_release

__all__ = ["Kernel"]

Part = TypeVar("Part", Arch, Module)

_ARGUMENTS = {
    name: function.__code__.co_argcount - 1
    for of, names in ((Arch, ABSTRACT_OPS), (EntryHooks, ENTRY_HOOKS))
    for name in names
    for function in (getattr(of, name),)
    if {*function.__annotations__.values()} <= {"Entry", "int", "bool"}
}
"""How many arguments an op takes, of those that take numbers and give one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Kernel(LinkedKernel):
    """A linked kernel: immutable, without memory or devices; any number of machines boot it (`pfnmap.mm.boot.boot`).

    Attributes: `arch` (the Arch instance), `ops`, `geometry`, `config`, `release`, `cpu` (boot-time state), `thp` (what
    a boot sets the sysfs knob transparent_hugepage/enabled to), `drivers` (name -> Module, not booted), `assumed` (what
    of all this nobody said).
    """

    arch: Arch
    ops: Ops
    geometry: Geometry
    config: Config
    release: Release
    cpu: Mapping[str, Any]
    thp: str
    drivers: Mapping[str, Module]
    assumed: tuple[str, ...]
    link_again: partial[Kernel] = field(repr=False)
    asked: frozenset[str] = field(default=frozenset(), repr=False)
    """The upstream changes that were asked for while it was linked."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """The drivers that were to be linked and failed, with what they did, where whoever links leaves such out."""

    @classmethod
    def link(
        cls,
        arch: str | type[Arch] = DEFAULT_ARCH,
        drivers: Iterable[str | type[Module]] = (),
        config: Mapping[str, str] | None = None,
        release: str | Release | None = None,
        cpu: Mapping[str, Any] | None = None,
        *,
        given: Mapping[str, str] | None = None,
        file: Mapping[str, str] | None = None,
        whole: bool = True,
        defaults: Mapping[str, str] | None = None,
        known: Collection[str] = (),
        page_size: str | None = None,
        config_source: str = "",
        thp: str | None = None,
        registry: Registry | None = None,
    ) -> Kernel:
        """Link a kernel from plugins.

        `config`: resolved symbols that are taken as they are, whatever depends on what (a vector file's); all others
        take their Kconfig default. `given`, `file`, `whole`, `defaults`, `known`: what a user would set, a real
        .config, what is set where neither says otherwise, symbols of plugins that are not linked, all as
        `pfnmap.kconfig.resolve` takes them. `page_size`: "4K", "16K", ..., set by the architecture's own symbols.
        `release`: a name or a Release (default: the newest known). `cpu`: keys of the architecture's `cpu_defaults`.
        `thp`: the setting in sysfs (default: the one that this configuration boots with).

        Raises LinkError for parts that do not fit together, Unknown for a name nobody has, PluginError for a plugin
        that fails.
        """
        registry = registry or environment()
        drivers = tuple(drivers)
        link_again = partial(
            cls.link,
            arch,
            drivers,
            config,
            cpu=cpu,
            file=file,
            whole=whole,
            defaults=defaults,
            known=known,
            page_size=page_size,
            config_source=config_source,
            registry=registry,
        )
        found = _release(release, registry)
        arch_class = registry.load("arch", arch) if isinstance(arch, str) else arch
        of = _instance(arch_class, "architecture")
        parts = [_driver(registry, d) if isinstance(d, str) else d for d in drivers]
        linked = [_instance(part, "driver") for part in parts]
        _refuse_unasked(found, of, linked, registry)
        manager = hooks_of(of, linked)
        changes_asked: set[str] = set()

        def has(change: str) -> bool:
            changes_asked.add(change)
            return found.has(change)

        fragments = _fragments(manager, has)
        otherwise = _fragments(manager, lambda change: found.changes.get(change) != "no") if file else ()
        asked = {**(page_size_symbols(fragments, page_size) if page_size else {}), **(given or {})}
        resolved = resolve(
            fragments,
            asked,
            file=file,
            whole=whole,
            otherwise=otherwise,
            defaults=defaults,
            force=config,
            known=known,
            source=config_source,
        )
        if thp is not None and thp not in THP_SETTINGS:
            raise BadInput("thp", f"{thp!r} is none of {', '.join(THP_SETTINGS)}")
        state = _cpu(of, cpu or {})
        with calling(of.name, "setup_arch()") as gave:
            of.setup_arch(resolved, state, has)
            _check_settled(of, gave)
        return cls(
            arch=of,
            ops=bind(manager, of, resolved),
            geometry=of.geometry,
            config=resolved,
            release=replace(found, changes=MappingProxyType(dict(found.changes))),
            cpu=MappingProxyType(state),
            thp=thp or _thp(resolved),
            drivers=MappingProxyType({driver.name: driver for driver in linked}),
            assumed=(*found.assumed, *_assumed(of, cpu or {}, resolved)),
            link_again=partial(link_again, given=given, thp=thp),
            asked=frozenset(changes_asked),
        )

    def relink(
        self, release: Release | None = None, *, given: Mapping[str, str] | None = None, thp: str | None = None
    ) -> Kernel:
        """Link this kernel again as another release, with other values of some config symbols or another THP setting,
        and with everything else as it was said for this one.

        Nothing is linked where linking asks for none of what is new.
        """
        found = self.release if release is None else release
        if given or found.settled != self.release.settled or any(self._differs(found, change) for change in self.asked):
            said = self.link_again.keywords
            return self.link_again(
                release=found, given={**(said["given"] or {}), **(given or {})}, thp=thp or said["thp"]
            )
        assumed = (*(text for text in self.assumed if text not in self.release.assumed), *found.assumed)
        return replace(self, release=found, assumed=assumed, thp=thp or self.thp)

    def _differs(self, release: Release, change: str) -> bool:
        return release.changes.get(change) != self.release.changes.get(change)

    def try_ops(self) -> None:
        """Ask each op of the architecture's own for zeros, once: where a kernel is used, nobody looks at what they
        answer (DESIGN rule 3). Raises PluginError for one that fails or gives no number."""
        for name, owner in self.ops.owners.items():
            if owner == "arch" and name in _ARGUMENTS:
                with calling(self.arch.name, f"{name}()") as gave, suppress(Refused, Unwritten):
                    gave(getattr(self.ops, name)(*(0,) * _ARGUMENTS[name]), int)

    def lacks(self, change: str) -> str:
        """Return a sentence that says that this release has not, or is not known to have, an upstream change."""
        known = self.release.known[change]
        lacks = "is not known to have" if self.release.changes[change] == "unknown" else "lacks"
        since = "never merged" if known.first == "-" else f"first in {', '.join((known.first, *known.backports))}"
        return f"{self.release.name} {lacks} {change} ({since})"

    def describe(self) -> dict[str, Any]:
        """Return the ``"kernel"`` object of the command line's JSON: what this kernel is and what of it was assumed."""
        return {
            "arch": self.arch.name,
            "release": self.release.name,
            "config_source": self.config.source or "Kconfig defaults",
            "page_size": self.geometry.PAGE_SIZE,
            "thp": self.thp,
            "cpu": dict(self.cpu),
            "changes": dict(self.release.changes),
            "assumed": list(self.assumed),
        }


def _release(release: str | Release | None, registry: Registry) -> Release:
    if isinstance(release, Release):
        return release
    known = facts(registry)
    return parse_release(release or str(known.newest), known=known)


def _refuse_unasked(release: Release, arch: Arch, drivers: list[Module], registry: Registry) -> None:
    """Refuse a change that somebody set and that nothing which is linked asks for: it would do nothing, in silence."""
    if not release.settled:
        return
    linked = {type(part).__module__.partition(".")[0] for part in (arch, *drivers)}
    asking = {"pfnmap", *registry.with_dependencies(linked)}
    for id in sorted(release.settled):
        change = release.known[id]
        what = f"change {id!r}"
        if not change.modelled:
            raise Refused(what, "it is listed and not modelled: setting it would alter nothing")
        if change.arch and arch.name not in change.arch:
            raise Refused(what, f"it is about {', '.join(change.arch)} and alters nothing on {arch.name}")
        if change.package not in asking:
            by = registry.distribution_of(change.package)
            raise Refused(what, f"it is brought by {by}, and nothing of that is linked with {arch.name}")
        if not any(asks(package, id) for package in sorted(asking, key=lambda package: package != change.package)):
            raise Refused(what, "nothing that is linked asks for it: setting it would alter nothing")


def _driver(registry: Registry, name: str) -> type[Module]:
    """Return the class that is plugged in under a name; it has to call itself so, for that is what it is found by."""
    part: type[Module] = registry.load("driver", name)
    if getattr(part, "name", name) != name:
        raise PluginError(name, f"its class calls itself {part.name!r}")
    return part


def _instance(part: type[Part], what: str) -> Part:
    attributes: tuple[str, ...] = ("name", "cpu_defaults") if issubclass(part, Arch) else ("name",)
    missing = sorted((*getattr(part, "__abstractmethods__", ()), *(a for a in attributes if not hasattr(part, a))))
    name = getattr(part, "name", part.__name__)
    if missing:
        raise LinkError(f"{what} {name}: {part.__name__} does not define {', '.join(missing)}").of(name)
    with calling(name, "__init__()") as gave:
        return gave(part(), part)


def _check_settled(arch: Arch, gave: Gave) -> None:
    """Refuse an architecture whose `setup_arch` leaves anything of another type than it says."""
    gave(arch.geometry, Geometry)
    gave(arch.protection_map, tuple[int, ...])
    for level in LEVELS:
        gave(arch.empty(level), int)
    if wrong := undeclared(arch, Arch):
        raise PluginError(arch.name, f"setup_arch() left its {wrong}")


def _thp(config: Config) -> str:
    """Return the THP setting that a configuration boots with (hugepage_flags, mm/huge_memory.c); "always" without
    THP."""
    chosen = (s for s in THP_SETTINGS if config.enabled(f"TRANSPARENT_HUGEPAGE_{s.upper()}"))
    return next(chosen, "always")


def _fragments(manager: pluggy.PluginManager, has: Has) -> list[tuple[str, str]]:
    fragments = [("pfnmap", fragment("pfnmap", has))]
    for impl in manager.hook.kconfig.get_hookimpls():
        with calling(impl.plugin_name, "kconfig()") as gave:
            text = gave(cast("str | None", impl.function(has)), str | None)
        if text is not None:
            fragments.append((impl.plugin_name, text))
    return fragments


def _cpu(arch: Arch, said: Mapping[str, Any]) -> dict[str, Any]:
    for key in said:
        if key not in arch.cpu_defaults:
            raise Unknown(f"cpu key of {arch.name}", key, arch.cpu_defaults)
    return {**arch.cpu_defaults, **{key: _cpu_value(key, said[key], arch.cpu_defaults[key]) for key in said}}


def _cpu_value(key: str, value: Any, default: object) -> Any:
    """Check a value by the kind of its default; a number may be written as text (vector files have "0x...")."""
    if isinstance(value, str) and value.isascii() and type(default) is int:
        try:
            return int(value, 0)
        except ValueError:
            pass
    elif type(value) is type(default):
        return value
    raise BadInput(f"cpu {key}", f"{value!r} is of the wrong kind; {default!r} is of the right one")


def _assumed(arch: Arch, cpu: Mapping[str, Any], config: Config) -> Iterable[str]:
    if not config.source:
        yield "configuration: Kconfig defaults"
    words = {True: "on", False: "off"}
    left = [
        f"{key} {words[value] if isinstance(value, bool) else value}"
        for key, value in arch.cpu_defaults.items()
        if key not in cpu
    ]
    if left:
        yield f"cpu: {', '.join(left)}"
