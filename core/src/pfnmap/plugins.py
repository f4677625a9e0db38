"""Discovery of plugins through entry points, and isolation of broken ones.

Kind and name of a plugin are known without importing it: the kind is the entry-point group (``pfnmap.arch``,
``pfnmap.driver``, ``pfnmap.vmm``, ``pfnmap.changes``, ``pfnmap.command``, ``pfnmap.recording``), the name the entry
point's. Only what is asked for is imported. A plugin of kind ``changes`` is a package that brings a changes.toml and
nothing else.

The variable ``PFNMAP_PLUGINS`` is an allow-list: names separated by commas, each optionally ``name@distribution`` to
choose between two distributions that claim one name. Everything else is listed as disabled, and the upstream changes
that it brings are not known, but for pfnmap's own commands.
"""

from __future__ import annotations

import inspect
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property
from importlib.metadata import Distribution, EntryPoint, entry_points, requires
from typing import Any, Literal

from pfnmap.changes import brought
from pfnmap.contract.arch import Arch
from pfnmap.contract.module import Module
from pfnmap.contract.recording import RecordingGroup
from pfnmap.errors import BadInput, NotInstalled, PfnmapError, PluginError, Unknown, nearest
from pfnmap.hookspecs import PROJECT
from pfnmap.offers import how_to_install
from pfnmap.records import dataclass

__all__ = [
    "KINDS",
    "Kind",
    "Offer",
    "Plugin",
    "Registry",
    "calling",
    "implemented_hooks",
    "offer",
    "why_not_linked",
    "why_unusable",
]

Kind = Literal["arch", "driver", "vmm", "changes", "command", "recording"]
Status = Literal["ok", "broken", "disabled", "ambiguous"]
KINDS: tuple[Kind, ...] = ("arch", "driver", "vmm", "changes", "command", "recording")
_NO_ARCHITECTURE = "no architecture plugin is installed; pip install 'pfnmap[all]' installs all of them"
_CLASSES: dict[Kind, type[Any]] = {"arch": Arch, "driver": Module, "recording": RecordingGroup}
_WORDS = {
    "arch": "architecture",
    "driver": "driver",
    "vmm": "VMM placement policy",
    "changes": "package of upstream changes",
    "command": "command",
    "recording": "group of recordings",
}
_OWN = "pfnmap"
"""The distribution of the core, and its package."""


@dataclass(frozen=True)
class Plugin:
    """One discovered plugin. `status` is "ok" until it was imported and found broken; `reason` says why not.

    `distribution` and `version` are read from its metadata when they are asked for.
    """

    name: str
    kind: Kind
    entry_point: EntryPoint
    status: Status = "ok"
    reason: str = ""

    @cached_property
    def distribution(self) -> str:
        """The name of the distribution that brings it."""
        return _identity(self.entry_point.dist)[0]

    @cached_property
    def version(self) -> str:
        """The version of the distribution that brings it."""
        return _identity(self.entry_point.dist)[1]

    @property
    def package(self) -> str:
        """The top-level package that it is in, where its Kconfig fragment and its changes.toml are."""
        return self.entry_point.module.partition(".")[0]


@dataclass(frozen=True)
class Offer:
    """What an architecture or a module is for: the kernel functions that it models (`provides`), those of the mm core
    that it calls (`consumes`), and its scenario actions by "plugin.action"."""

    provides: tuple[str, ...] = ()
    consumes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


@cache
def _identity(distribution: Distribution | None) -> tuple[str, str]:
    """Name and version of a distribution, whose metadata are parsed each time they are asked for."""
    if distribution is None:
        return "?", "?"
    metadata = distribution.metadata
    return metadata["Name"], metadata["Version"]


def implemented_hooks(plugin: Any) -> list[str]:
    """Return the sorted names of the hooks that a plugin class or object marks with `pfnmap.hookimpl`."""
    found = inspect.getmembers(plugin, lambda member: hasattr(member, f"{PROJECT}_impl"))
    return sorted({getattr(member, f"{PROJECT}_impl")["specname"] or name for name, member in found})


class Registry:
    """The plugins that are installed, as the environment and the user allow them.

    `allow` is the allow-list's text (None: everything); `disabled` switches every plugin off (``--no-plugins``).
    """

    def __init__(self, allow: str | None = None, *, disabled: bool = False) -> None:
        if allow is None:
            allow = os.environ.get("PFNMAP_PLUGINS")
        chosen = None if allow is None else [item.strip() for item in allow.split(",") if item.strip()]
        everything = entry_points()
        found = [Plugin(ep.name, kind, ep) for kind in KINDS for ep in everything.select(group=f"pfnmap.{kind}")]
        plugins = [_allowed(p, chosen, disabled) for p in _once(found)]
        claims = Counter((p.kind, p.name) for p in plugins if p.status == "ok")
        self._plugins = sorted(
            (
                replace(
                    p,
                    status="ambiguous",
                    reason=f"several distributions claim {p.name}; PFNMAP_PLUGINS={p.name}@{p.distribution} chooses",
                )
                if p.status == "ok" and claims[p.kind, p.name] > 1
                else p
                for p in plugins
            ),
            key=lambda p: (KINDS.index(p.kind), p.name),
        )
        self._loaded: dict[tuple[Kind, str], Any] = {}

    def plugins(self, kind: Kind | None = None) -> list[Plugin]:
        """Return every discovered plugin, those of one kind where `kind` is given; nothing is imported."""
        return [p for p in self._plugins if kind is None or p.kind == kind]

    def names(self, kind: Kind) -> list[str]:
        """Return the names of a kind that can be loaded."""
        return [p.name for p in self.plugins(kind) if p.status == "ok"]

    def packages(self) -> tuple[str, ...]:
        """Return the top-level packages of the plugins that may be used, each once; the core's is not among them."""
        return tuple(dict.fromkeys(p.package for p in self._plugins if p.status == "ok" and p.package != _OWN))

    def distribution_of(self, package: str) -> str:
        """Return the name of the distribution that brings a top-level package, "?" where no plugin is in it."""
        return next((p.distribution for p in self._plugins if p.package == package), "?")

    def with_dependencies(self, packages: Iterable[str]) -> frozenset[str]:
        """Return packages, and those of the plugins that their distributions depend on: whose changes they may ask
        for."""
        found = {p.package: p.distribution for p in self._plugins if p.package in set(packages)}
        wanted = {
            _normal_name(line)
            for distribution in found.values()
            for line in requires(distribution) or ()
            if "extra ==" not in line
        }
        needed = (p for p in self.packages() if _normal_name(self.distribution_of(p)) in wanted)
        return frozenset({*packages, *needed})

    def architectures(self) -> list[str]:
        """Return the names of the architectures that can be loaded. Raises PfnmapError where there is none."""
        names = self.names("arch")
        if not names:
            reasons = [f"{p.name} is {p.status} ({p.reason})" for p in self.plugins("arch")]
            raise PfnmapError(f"no architecture can be used: {'; '.join(reasons)}" if reasons else _NO_ARCHITECTURE)
        return names

    def load(self, kind: Kind, name: str) -> Any:
        """Import the plugin of that kind and name and return what its entry point names.

        Raises Unknown where nobody has the name, PluginError where it is disabled, ambiguous, or fails to import.
        """
        if (kind, name) in self._loaded:
            return self._loaded[kind, name]
        candidates = [p for p in self.plugins(kind) if p.name == name]
        usable = [p for p in candidates if p.status == "ok"]
        if not usable:
            if candidates:
                raise PluginError(name, f"{candidates[0].status}: {candidates[0].reason}")
            if kind == "arch" and not self.names("arch"):
                raise PfnmapError(_NO_ARCHITECTURE)
            raise _missing(kind, name, self.names(kind))
        self._loaded[kind, name] = loaded = _load(usable[0])
        return loaded

    def probe(self, plugin: Plugin) -> tuple[Plugin, list[str]]:
        """Import a plugin to see whether it works: return it with its status, and the hooks it implements."""
        if plugin.status != "ok":
            return plugin, []
        try:
            loaded = self.load(plugin.kind, plugin.name)
        except PluginError as error:
            return replace(plugin, status="broken", reason=str(error).partition(": ")[2]), []
        hooks = implemented_hooks(loaded)
        if missing := sorted(getattr(loaded, "__abstractmethods__", ())):
            return replace(plugin, status="broken", reason=f"does not define {', '.join(missing)}"), hooks
        return plugin, hooks


@contextmanager
def calling(plugin: str, what: str) -> Iterator[None]:
    """Turn what a plugin raises, but for what it may, into a PluginError with the plugin's name."""
    try:
        yield
    except PfnmapError:
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(plugin, f"{what} raised {said}") from error


def why_not_linked(name: str, arch: str) -> str:
    """Say why a kernel of architecture `arch` has no plugin of that name: a clause such as "which is not installed"."""
    installed = [p for p in Registry().plugins() if p.kind in ("arch", "driver")]
    found = [p for p in installed if p.name == name]
    if not found:
        hint = f"; {hint}" if (hint := how_to_install(name, "driver", "arch")) else ""
        return f"which is not installed{hint or nearest(name, (p.name for p in installed))}"
    if found[0].status != "ok":
        return f"which is {found[0].status}: {found[0].reason}"
    if found[0].kind == "arch":
        return f"which is another architecture than {arch}"
    return "which is not linked"


def why_unusable(registry: Registry, kind: Kind, name: str) -> str:
    """Say in a sentence why a plugin cannot be used, and which distribution brings it; empty where it can."""
    found = [p for p in registry.plugins(kind) if p.name == name]
    if not found:
        return str(_missing(kind, name, registry.names(kind)))
    usable = [p for p in found if p.status == "ok"]
    whose = f"{_WORDS[kind]} {name} of {' and '.join(p.distribution for p in usable or found)}"
    if not usable:
        return f"{whose} is {found[0].status}: {found[0].reason}"
    try:
        registry.load(kind, name)
    except PluginError as error:
        return f"{whose} is broken: {str(error).partition(': ')[2]}"
    return ""


def _missing(kind: Kind, name: str, known: Iterable[str]) -> Unknown:
    """Say of a plugin that is not installed which distribution brings it, if one of this project does."""
    hint = how_to_install(name, kind)
    return NotInstalled(_WORDS[kind], name, hint) if hint else Unknown(_WORDS[kind], name, known)


def offer(loaded: Any) -> Offer:
    """Return what a plugin offers (the class of an architecture or a module; of other kinds nothing is known).

    Raises PluginError where its `actions` fail.
    """
    module = loaded.module if inspect.isclass(loaded) and issubclass(loaded, Arch) else loaded
    if not (inspect.isclass(module) and issubclass(module, Module)):
        return Offer()
    try:
        actions = tuple(f"{loaded.name}.{action}" for action in module().actions())
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(loaded.name, f"actions() raised {said}") from error
    return Offer(module.provides, module.consumes, actions)


def _normal_name(requirement: str) -> str:
    """Return the name with which a requirement begins, normalized (PEP 503)."""
    name = re.match(r"[\w.-]*", requirement)
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else ""


def _once(found: Iterable[Plugin]) -> Iterator[Plugin]:
    """Yield each plugin once, though its distribution may be found on several ways; those of one name by
    distribution."""
    claims: dict[tuple[Kind, str], list[Plugin]] = {}
    for plugin in found:
        claims.setdefault((plugin.kind, plugin.name), []).append(plugin)
    for plugins in claims.values():
        if len(plugins) == 1:
            yield plugins[0]
        else:
            unique = {p.distribution: p for p in plugins}
            yield from (unique[name] for name in sorted(unique))


def _allowed(plugin: Plugin, chosen: list[str] | None, disabled: bool) -> Plugin:
    if not disabled and chosen is None:
        return plugin
    if plugin.kind == "command" and plugin.distribution == _OWN:  # unless another's of that name was chosen
        names = [item for item in chosen or () if item.partition("@")[0] == plugin.name]
        if disabled or not names or any(item in (plugin.name, f"{plugin.name}@{_OWN}") for item in names):
            return plugin
    if disabled or chosen is None:
        return replace(plugin, status="disabled", reason="--no-plugins")
    if plugin.name in chosen or f"{plugin.name}@{plugin.distribution}" in chosen:
        return plugin
    return replace(plugin, status="disabled", reason="not in PFNMAP_PLUGINS")


def _class(kind: Kind) -> type[Any] | None:
    """Return the class that plugins of a kind are subclasses of, None where they are no classes."""
    if kind == "vmm":
        from pfnmap.contract.placement import Vmm  # which few commands ask for

        return Vmm
    return _CLASSES.get(kind)


def _load(plugin: Plugin) -> Any:
    try:
        brought(plugin.package)
    except BadInput as error:
        raise PluginError(plugin.name, str(error)) from error
    try:
        loaded = plugin.entry_point.load()
    except (Exception, SystemExit) as error:  # whatever a plugin raises at import, the rest of pfnmap keeps working
        text = " ".join(str(error).split())
        raise PluginError(plugin.name, f"{type(error).__name__} at import: {text}") from error
    wanted = _class(plugin.kind)
    if wanted is not None and not (isinstance(loaded, type) and issubclass(loaded, wanted)):
        raise PluginError(plugin.name, f"{plugin.entry_point.value} is no subclass of pfnmap.{wanted.__name__}")
    if plugin.kind == "command" and not callable(loaded):
        raise PluginError(plugin.name, f"{plugin.entry_point.value} is neither a function nor a typer application")
    return loaded
