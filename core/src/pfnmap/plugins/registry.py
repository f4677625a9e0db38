"""The plugins that may be used, each imported when it is asked for.

The variable ``PFNMAP_PLUGINS`` is an allow-list: names separated by commas, each optionally ``name@distribution`` to
choose between two distributions that claim one name. Everything else is listed as disabled, and the upstream changes
that it brings are not known, but for pfnmap's own commands and policies. A plugin of kind ``changes`` is a package that
brings a changes.toml and nothing else.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pfnmap.boundary import calling, importing
from pfnmap.changes import Brought, brought
from pfnmap.contract.arch import Arch
from pfnmap.contract.module import Driver, Module
from pfnmap.contract.recording import RecordingGroup
from pfnmap.contract.step import Action
from pfnmap.errors import BadInput, NotInstalled, PfnmapError, PluginError, Unknown
from pfnmap.fits import undeclared
from pfnmap.hookspecs import PROJECT
from pfnmap.offers import how_to_install
from pfnmap.plugins.discovery import KINDS, Kind, Plugin, installed, normal_name
from pfnmap.records import dataclass

__all__ = ["WORDS", "Offer", "Registry", "environment", "implemented_hooks", "missing", "offer"]

_NO_ARCHITECTURE = "no architecture plugin is installed; pip install 'pfnmap[all]' installs all of them"
_CLASSES: dict[Kind, type[Any]] = {"arch": Arch, "driver": Module, "recording": RecordingGroup}
WORDS = {
    "arch": "architecture",
    "driver": "driver",
    "vmm": "VMM placement policy",
    "changes": "package of upstream changes",
    "command": "command",
    "recording": "group of recordings",
}
"""What errors call the kinds."""
_OWN = "pfnmap"
"""The distribution of the core, and its package."""


@dataclass(frozen=True)
class Offer:
    """What an architecture or a module is for: the kernel functions that it models (`provides`), those of the mm core
    that it calls (`consumes`), and its scenario actions by "plugin.action"."""

    provides: tuple[str, ...] = ()
    consumes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


def implemented_hooks(plugin: Any) -> list[str]:
    """Return the sorted names of the hooks that a plugin class or object marks with `pfnmap.hookimpl`."""
    members = ((name, getattr(plugin, name, None)) for name in dir(plugin))
    marked = ((name, getattr(member, f"{PROJECT}_impl", None)) for name, member in members)
    return sorted({options["specname"] or name for name, options in marked if options})


class Registry:
    """The plugins that are installed, as the environment and the user allow them.

    `allow` is the allow-list's text (None: everything); `disabled` switches every plugin off (``--no-plugins``).
    """

    def __init__(self, allow: str | None = None, *, disabled: bool = False) -> None:
        if allow is None:
            allow = os.environ.get("PFNMAP_PLUGINS")
        chosen = None if allow is None else [item.strip() for item in allow.split(",") if item.strip()]
        plugins = [_allowed(p, chosen, disabled) for p in installed()]
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
        self._brought: dict[str, Brought] = {}
        self._loaded: dict[tuple[Kind, str], Any] = {}
        self._failed: dict[tuple[Kind, str], PluginError] = {}

    def plugins(self, kind: Kind | None = None) -> list[Plugin]:
        """Return every discovered plugin, those of one kind where `kind` is given; nothing is imported."""
        return [p for p in self._plugins if kind is None or p.kind == kind]

    def names(self, kind: Kind) -> list[str]:
        """Return the names of a kind that can be loaded."""
        return [p.name for p in self.plugins(kind) if p.status == "ok"]

    def packages(self) -> tuple[str, ...]:
        """Return the top-level packages of the plugins that may be used, each once; the core's is not among them."""
        return tuple(dict.fromkeys(p.package for p in self._plugins if p.status == "ok" and not p.of_core))

    def brought(self, package: str) -> Brought:
        """Return what the changes.toml of a package says, which is read once. Raises BadInput for a malformed one."""
        if package not in self._brought:
            self._brought[package] = brought(package)
        return self._brought[package]

    def distribution_of(self, package: str) -> str:
        """Return the name of the distribution that brings a top-level package, "?" where no plugin is in it."""
        return next((p.distribution for p in self._plugins if p.package == package), "?")

    def with_dependencies(self, packages: Iterable[str]) -> frozenset[str]:
        """Return packages, and those of the plugins that their distributions depend on: whose changes they may ask
        for."""
        packages = frozenset(packages)
        wanted = {name for p in self._plugins if p.package in packages for name in p.requirements}
        needed = (p for p in self.packages() if normal_name(self.distribution_of(p)) in wanted)
        return frozenset({*packages, *needed})

    def architectures(self) -> list[str]:
        """Return the names of the architectures that can be loaded. Raises PfnmapError where there is none."""
        names = self.names("arch")
        if not names:
            why: dict[str, list[str]] = {}
            for plugin in self.plugins("arch"):
                why.setdefault(f"{plugin.status} ({plugin.reason})", []).append(plugin.name)
            reasons = (f"{', '.join(each)} {'is' if len(each) == 1 else 'are'} {what}" for what, each in why.items())
            raise PfnmapError(f"no architecture can be used: {'; '.join(reasons)}" if why else _NO_ARCHITECTURE)
        return names

    def load(self, kind: Kind, name: str) -> Any:
        """Import the plugin of that kind and name and return what its entry point names.

        Raises Unknown where nobody has the name, PluginError where it is disabled, ambiguous, or fails to import.
        """
        if (kind, name) in self._loaded:
            return self._loaded[kind, name]
        if (kind, name) in self._failed:
            raise self._failed[kind, name]
        candidates = [p for p in self.plugins(kind) if p.name == name]
        usable = [p for p in candidates if p.status == "ok"]
        if not usable:
            if candidates:
                raise PluginError(name, f"{candidates[0].status}: {candidates[0].reason}")
            if kind == "arch" and not self.names("arch"):
                raise PfnmapError(_NO_ARCHITECTURE)
            raise missing(kind, name, self.names(kind))
        try:
            self._loaded[kind, name] = loaded = self._load(usable[0])
        except PluginError as error:
            self._failed[kind, name] = error
            raise
        return loaded

    def _load(self, plugin: Plugin) -> Any:
        try:
            if not plugin.of_core:
                self.brought(plugin.package)
        except BadInput as error:
            raise PluginError(plugin.name, str(error)) from error
        with importing(plugin.name):
            loaded = plugin.entry_point.load()
        wanted = _class(plugin.kind)
        if wanted is not None:
            if not (isinstance(loaded, type) and issubclass(loaded, wanted)):
                raise PluginError(plugin.name, f"{plugin.entry_point.value} is no subclass of pfnmap.{wanted.__name__}")
            _check(plugin, loaded, wanted)
        if plugin.kind == "command" and not callable(loaded):
            raise PluginError(plugin.name, f"{plugin.entry_point.value} is neither a function nor a typer application")
        return loaded

    def probe(self, plugin: Plugin) -> tuple[Plugin, list[str]]:
        """Import a plugin to see whether it works: return it with its status, and the hooks it implements."""
        if plugin.status != "ok":
            return plugin, []
        try:
            loaded = self.load(plugin.kind, plugin.name)
            with calling(plugin.name, "class"):
                hooks = implemented_hooks(loaded)
        except PluginError as error:
            return replace(plugin, status="broken", reason=error.what), []
        if missing := sorted(getattr(loaded, "__abstractmethods__", ())):
            return replace(plugin, status="broken", reason=f"does not define {', '.join(missing)}"), hooks
        return plugin, hooks


def missing(kind: Kind, name: str, known: Iterable[str]) -> Unknown:
    """Say of a plugin that is not installed which distribution brings it, if one of this project does."""
    hint = how_to_install(name, kind)
    return NotInstalled(WORDS[kind], name, hint) if hint else Unknown(WORDS[kind], name, known)


def offer(loaded: Any) -> Offer:
    """Return what a plugin offers (the class of an architecture or a module; of other kinds nothing is known).

    Raises PluginError where its `actions` fail.
    """
    module = loaded.module if inspect.isclass(loaded) and issubclass(loaded, Arch) else loaded
    if not (inspect.isclass(module) and issubclass(module, Module)):
        return Offer()
    with calling(loaded.name, "actions()") as gave:
        actions = gave(module().actions(), Mapping[str, Action])
    return Offer(module.provides, module.consumes, tuple(f"{loaded.name}.{action}" for action in actions))


def _allowed(plugin: Plugin, chosen: list[str] | None, disabled: bool) -> Plugin:
    if not disabled and chosen is None:
        return plugin
    if plugin.kind in ("command", "vmm") and plugin.distribution == _OWN:  # unless another's of that name was chosen
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


def _check(plugin: Plugin, loaded: type[Any], wanted: type[Any]) -> None:
    """Refuse a class that does not say of itself what its kind does, in the types that the contract has."""
    with calling(plugin.name, "class"):
        wrong = undeclared(loaded, Driver if issubclass(loaded, Driver) else wanted)
    if wrong:
        raise PluginError(plugin.name, f"its {wrong}")


def environment() -> Registry:
    """Return the registry of what the environment allows, for whoever is given none: looking for entry points takes
    20 ms, and nothing but PFNMAP_PLUGINS and the path alters what is found."""
    return _environment(os.environ.get("PFNMAP_PLUGINS"), tuple(sys.path))


@lru_cache(maxsize=1)
def _environment(allow: str | None, path: tuple[str, ...]) -> Registry:
    return Registry(allow)
