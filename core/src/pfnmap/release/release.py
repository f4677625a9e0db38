"""A release as a set of changes: parsing what names one, settling what is not known, comparing two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path

from pfnmap.changes import Change
from pfnmap.errors import BadInput, LinkError, Unknown
from pfnmap.records import dataclass
from pfnmap.release.facts import Facts, facts
from pfnmap.release.names import named
from pfnmap.release.profile import read_profile
from pfnmap.release.rules import Status

__all__ = [
    "Difference",
    "MissingFix",
    "Release",
    "difference",
    "missing_fixes",
    "parse_release",
    "picks",
    "unknown_as_absent",
]


@dataclass(frozen=True, slots=True)
class Release:
    """What one kernel has of the upstream changes.

    `name` is how answers call it; `changes` maps every known change to its status, the core's first; `assumed` says in
    sentences what was not known and how it was taken; `settled` are the changes that were asked for with ``--with`` and
    ``--without``; `known` is what is known of each change.
    """

    name: str
    changes: Mapping[str, Status]
    assumed: tuple[str, ...] = ()
    settled: frozenset[str] = frozenset()
    known: Mapping[str, Change] = field(default_factory=dict, compare=False, repr=False)

    def has(self, change: str) -> bool:
        """Tell whether this release has a change; an unknown one counts as absent.

        Raises Unknown for an id that neither the core nor a plugin that may be used brings: code asks only for those of
        the core, of its own package, and of distributions that its own depends on.
        """
        try:
            return self.changes[change] == "yes"
        except KeyError:
            raise Unknown("change", change, self.changes) from None


@dataclass(frozen=True, slots=True)
class Difference:
    """A change in which two releases differ."""

    change: str
    before: Status
    after: Status


@dataclass(frozen=True, slots=True)
class MissingFix:
    """A known fix that a release lacks while it has what the fix repairs."""

    fix: str
    fixes: str


def parse_release(
    text: str, with_: Iterable[str] = (), without: Iterable[str] = (), known: Facts | None = None
) -> Release:
    """Return the release that a text names, with and without some changes.

    `text`: ``6.12.117``, ``7.3``, ``v6.12``, ``6.13-rc3``, ``posted-v2``, a ``uname -r`` or Ubuntu's signature
    (`pfnmap.release.names` says how they are read), or the path of a profile (it ends in ``.toml``). `known`: the
    facts; those of this environment where nothing is given. A change may be named by its commit's id as well.

    Raises Unknown for a release or a change that there is not, BadInput for a profile that cannot be read and
    for a change that is asked for both ways, LinkError for a change without one that it requires.
    """
    known = known or facts()
    text = text.strip()
    if text.endswith(".toml"):
        name, changes, assumed = read_profile(Path(text), known)
    else:
        name, changes, assumed = named(text, known)
    settled = _settle(changes, map(known.id_of, with_), map(known.id_of, without))
    _check_requires(name, changes, known.changes)
    return Release(name, changes, assumed + unknown_as_absent(name, changes, known.changes), settled, known.changes)


def unknown_as_absent(name: str, changes: Mapping[str, Status], known: Mapping[str, Change]) -> tuple[str, ...]:
    """Return the sentence of `Release.assumed` about unknown changes, if there are any that alter an answer."""
    unknown = [change for change, status in changes.items() if status == "unknown" and known[change].modelled]
    return (f"not known for {name}, taken as absent: {', '.join(unknown)}",) if unknown else ()


def _settle(changes: dict[str, Status], with_: Iterable[str], without: Iterable[str]) -> frozenset[str]:
    wanted, unwanted = set(with_), set(without)
    if both := sorted(wanted & unwanted):
        raise BadInput("", f"change {both[0]!r} is asked for both with and without")
    changes.update(dict.fromkeys(wanted, "yes"))
    changes.update(dict.fromkeys(unwanted, "no"))
    return frozenset(wanted | unwanted)


def _check_requires(name: str, changes: dict[str, Status], known: Mapping[str, Change]) -> None:
    """Refuse a change without what it requires; drop an unknown one that thereby cannot be there."""
    dropped = True
    while dropped:
        dropped = False
        for id, status in changes.items():
            for required in known[id].requires:
                if status == "yes" and changes[required] != "yes":
                    state = "lacks" if changes[required] == "no" else "is not known to have"
                    raise LinkError(f"change {id!r} requires {required!r}, which {name} {state}")
                if status == "unknown" and changes[required] == "no":
                    changes[id] = "no"
                    dropped = True


def difference(before: Release, after: Release) -> tuple[Difference, ...]:
    """Return the changes in which two releases differ, in the order of the facts."""
    return tuple(
        Difference(id, status, after.changes[id])
        for id, status in before.changes.items()
        if status != after.changes[id]
    )


def picks(before: Release, after: Release) -> tuple[Change, ...]:
    """Return the changes that lead from one release to the other, each behind those that it requires.

    They are those that `after` has and `before` is not known to have, and are else in the order of the facts.
    """
    wanted = {id for id, status in after.changes.items() if status == "yes" and before.changes[id] != "yes"}
    ordered: dict[str, Change] = {}

    def pick(id: str) -> None:
        for required in after.known[id].requires:
            if required in wanted and required not in ordered:
                pick(required)
        ordered[id] = after.known[id]

    for id in after.changes:
        if id in wanted and id not in ordered:
            pick(id)
    return tuple(ordered.values())


def missing_fixes(release: Release) -> tuple[MissingFix, ...]:
    """Return the known fixes that a release lacks (status no) while it has what they fix (status yes).

    Nobody misses a fix that a change which is there supersedes.
    """
    superseded = {old for id, change in release.known.items() if release.has(id) for old in change.supersedes}
    return tuple(
        MissingFix(id, change.fixes)
        for id, change in release.known.items()
        if change.fixes and release.has(change.fixes) and release.changes[id] == "no" and id not in superseded
    )
