"""What is known of upstream changes: every changes.toml together, the core's first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, cached_property, lru_cache
from typing import NamedTuple

from pfnmap.changes import Brought, Change, Flavour, Tree
from pfnmap.errors import BadInput, LinkError, Unknown
from pfnmap.offers import brought_by
from pfnmap.plugins import Registry, environment
from pfnmap.records import dataclass

__all__ = ["Facts", "Version", "facts", "upstream_changes", "upstream_trees", "version"]

_CORE = "pfnmap"
_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")


class Version(NamedTuple):
    """A release number; `patch` 0 is the mainline release."""

    major: int
    minor: int
    patch: int = 0

    @property
    def line(self) -> tuple[int, int]:
        """The stable line that it is of."""
        return self.major, self.minor

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}" + (f".{self.patch}" if self.patch else "")


@cache
def version(release: str) -> Version:
    """Return the version that a release number such as 6.12.117 is."""
    return Version(*map(int, release.split(".")))


@dataclass(frozen=True)
class Facts:
    """Every known upstream change by its id, every named tree by its name, and what is known of distributions' kernels.

    The core's are first, then those of plugins.
    """

    changes: Mapping[str, Change]
    trees: Mapping[str, Tree]
    flavours: tuple[Flavour, ...] = ()

    @cached_property
    def seen(self) -> frozenset[Version]:
        """The releases that were looked at."""
        return _seen(self.changes.values())

    @cached_property
    def newest(self) -> Version:
        """The newest release that was looked at for the core's changes; which plugins are installed alters nothing."""
        return max(_seen(change for change in self.changes.values() if change.package == _CORE))

    @cached_property
    def oldest(self) -> Version:
        """The oldest release that was looked at."""
        return min(self.seen)

    @cached_property
    def has_by_sentence(self) -> Mapping[str, frozenset[str]]:
        """The changes that a distribution's kernels have, by the sentence that says so."""
        return {flavour.said: frozenset(flavour.with_) for flavour in self.flavours}

    @cached_property
    def releases(self) -> tuple[str, ...]:
        """The releases that something is known about, oldest first, then the named trees."""
        named = {r for change in self.changes.values() for r in (change.first, *change.backports) if r[-1].isdigit()}
        return (*(str(v) for v in sorted({*map(version, named), *self.seen})), *self.trees)

    def id_of(self, text: str) -> str:
        """Return the id of the change that a text names by its id or by its commit's (7 digits or more).

        Raises Unknown for what names none.
        """
        if text in self.changes:
            return text
        if _COMMIT.fullmatch(text):
            for change in self.changes.values():
                if change.commit and (change.commit.startswith(text.lower()) or text.lower().startswith(change.commit)):
                    return change.id
        raise Unknown("change", text, self.changes, by=brought_by(text, "change"))


def _seen(changes: Iterable[Change]) -> frozenset[Version]:
    return frozenset(version(release) for change in changes for release in (*change.present, *change.absent))


def facts(registry: Registry | None = None) -> Facts:
    """Return what the core and the plugins that may be used (default: as the environment allows) know.

    What they say of changes that nobody of them brings is left out. A plugin whose file is malformed brings nothing
    here, and is broken where it is loaded. Raises LinkError for an id or a name that two packages claim.
    """
    return _read(registry or environment())


def upstream_changes() -> Mapping[str, Change]:
    """Return every upstream change that is known in this environment by its id."""
    return facts().changes


def upstream_trees() -> Mapping[str, Tree]:
    """Return the named trees that are known in this environment by name."""
    return facts().trees


@lru_cache(maxsize=2)  # a command has one registry, and links with it as often as there are architectures
def _read(registry: Registry) -> Facts:
    return _together((registry.brought(_CORE), *(_readable(registry, package) for package in registry.packages())))


@cache
def _together(files: tuple[Brought, ...]) -> Facts:
    changes: dict[str, Change] = {}
    trees: dict[str, Tree] = {}
    for found in files:
        for change in found.changes:
            if change.id in changes:
                raise _clash("change", change.id, changes[change.id], change)
            changes[change.id] = change
        for tree in found.trees:
            if tree.name in trees:
                raise _clash("tree", tree.name, trees[tree.name], tree)
            trees[tree.name] = tree
    return Facts(
        {id: change.among(changes) for id, change in changes.items()},
        {name: tree.among(changes) for name, tree in trees.items()},
        tuple(flavour.among(changes) for found in files for flavour in found.flavours),
    )


def _readable(registry: Registry, package: str) -> Brought:
    try:
        return registry.brought(package)
    except BadInput:
        return Brought()


def _clash(what: str, name: str, one: Change | Tree, other: Change | Tree) -> LinkError:
    both = f"{one.package} and {other.package}"
    return LinkError(f"{what} {name!r} is brought by two packages, {both}; PFNMAP_PLUGINS can leave one out")
