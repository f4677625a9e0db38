"""Which plugins are installed: entry points, and what the metadata of the distributions behind them say.

Kind and name of a plugin are known without importing it: the kind is the entry-point group (``pfnmap.arch``,
``pfnmap.driver``, ``pfnmap.vmm``, ``pfnmap.changes``, ``pfnmap.command``, ``pfnmap.recording``), the name the entry
point's. A distribution whose metadata cannot be read is listed, and keeps nobody else from working.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Final, Literal, cast

from pfnmap.records import dataclass

__all__ = ["KINDS", "Kind", "Plugin", "installed", "normal_name"]

Kind = Literal["arch", "driver", "vmm", "changes", "command", "recording"]
Status = Literal["ok", "broken", "disabled", "ambiguous"]
_GROUP = "pfnmap."
_FILE = "entry_points.txt"
POLICIES: Final = {name: f"pfnmap.plan.policies:{name.capitalize()}Policy" for name in ("kernel", "aligned")}
"""The placement policies of the core."""
KINDS: tuple[Kind, ...] = ("arch", "driver", "vmm", "changes", "command", "recording")


@dataclass(frozen=True)
class Plugin:
    """One discovered plugin. `status` is "ok" until it was imported and found broken; `reason` says why not.

    `distribution`, `version` and `requirements` are read from its metadata when they are asked for.
    """

    name: str
    kind: Kind
    entry_point: EntryPoint
    source: Distribution | None = None
    status: Status = "ok"
    reason: str = ""

    @cached_property
    def distribution(self) -> str:
        """The name of the distribution that brings it, "?" where its metadata do not tell."""
        return _metadata(self.source)[0]

    @cached_property
    def version(self) -> str:
        """The version of the distribution that brings it, "?" where its metadata do not tell."""
        return _metadata(self.source)[1]

    @cached_property
    def requirements(self) -> frozenset[str]:
        """The distributions that its own depends on, extras left out, by their normalized names (PEP 503)."""
        return frozenset(normal_name(line) for line in _metadata(self.source)[2] if "extra ==" not in line)

    @property
    def package(self) -> str:
        """The top-level package that it is in, where its Kconfig fragment and its changes.toml are."""
        return re.split(r"[.:\s]", self.entry_point.value.strip())[0]

    @property
    def of_core(self) -> bool:
        """Whether the core itself brings it, as it does its commands and policies."""
        return self.package == "pfnmap"


@cache
def _metadata(distribution: Distribution | None) -> tuple[str, str, tuple[str, ...]]:
    """Name, version and requirements of a distribution. `Distribution.metadata` parses anew each time, and the whole
    description with it."""
    try:
        assert distribution is not None
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        fields: dict[str, list[str]] = {}
        for line in text.partition("\n\n")[0].splitlines():
            field, _, value = line.partition(":")
            fields.setdefault(field, []).append(value.strip())
        return fields.get("Name", ["?"])[0], fields.get("Version", ["?"])[0], tuple(fields.get("Requires-Dist", ()))
    except Exception:  # not UTF-8, no such field, or whatever a finder of its own raises
        return "?", "?", ()


def normal_name(requirement: str) -> str:
    """Return the name with which a requirement begins, normalized (PEP 503)."""
    name = re.match(r"[\w.-]*", requirement)
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else ""


def installed() -> list[Plugin]:
    """Return every plugin once, though its distribution may be found on several ways; those of one name by
    distribution."""
    claims: dict[tuple[Kind, str], list[Plugin]] = {}
    for plugin in _with_policies(_found()):
        claims.setdefault((plugin.kind, plugin.name), []).append(plugin)
    return [plugin for plugins in claims.values() for plugin in _once(plugins)]


def _once(plugins: list[Plugin]) -> list[Plugin]:
    if len(plugins) == 1:
        return plugins
    unique = {plugin.distribution: plugin for plugin in plugins}
    return [unique[name] for name in sorted(unique)]


def _found() -> Iterator[Plugin]:
    try:
        everything = entry_points()
    except Exception:  # one malformed file keeps all of them from being read together
        yield from (plugin for distribution in distributions() for plugin in _of_distribution(distribution))
        return
    for kind in KINDS:
        yield from (_plugin(point, point.dist) for point in everything.select(group=f"{_GROUP}{kind}"))


def _with_policies(found: Iterable[Plugin]) -> Iterator[Plugin]:
    """Yield plugins, and the placement policies of the core, which brings them as it brings its commands."""
    own = None
    for plugin in found:
        own = own or (plugin.source if plugin.of_core else None)
        yield plugin
    for name, value in POLICIES.items():
        yield Plugin(name, "vmm", EntryPoint(name, value, f"{_GROUP}vmm"), own)


def _of_distribution(distribution: Distribution) -> Iterator[Plugin]:
    """Yield the plugins of one distribution; all of them are broken where its entry points cannot be read."""
    try:
        points, why = list(distribution.entry_points), ""
    except Exception as error:
        text = error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else None
        points = list(_as_far_as_read(distribution.read_text(_FILE) if text is None else text))
        why = f"{_FILE} is malformed: {'not UTF-8' if text else 'a line is not name = module:object'}"
    groups = [f"{_GROUP}{kind}" for kind in KINDS]
    yield from (_plugin(point, distribution, why) for point in points if point.group in groups)


def _as_far_as_read(text: str | None) -> Iterator[EntryPoint]:
    """Yield what a malformed file seems to name."""
    group = ""
    for line in (text or "").splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if name.startswith("[") and name.endswith("]"):
            group = name[1:-1]
        elif name and not name.startswith("#"):
            yield EntryPoint(name, value, group)


def _plugin(point: EntryPoint, source: Distribution | None, why: str = "") -> Plugin:
    kind = cast("Kind", point.group.removeprefix(_GROUP))
    if not why and not point.pattern.fullmatch(point.value):
        why = f"its entry point {point.value!r} is not module:object"
    return Plugin(point.name, kind, point, source, "broken" if why else "ok", why)
