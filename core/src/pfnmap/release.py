"""Releases as sets of changes: which of the upstream changes in changes.toml a kernel release has.

Code asks `Release.has("follow-addr-mask")` and never compares version numbers. For each change a release
answers ``yes``, ``no`` or ``unknown``. The first of these rules that says something decides:

1. *Seen in this very line* (`present`, `absent`; 6.12.94 and 6.12.117 are of the line 6.12). Within a line
   changes come and stay: from the earliest release that was seen to have it on, yes; up to the latest that
   was seen not to have it, no; between the two the next rules.
2. *Backports to this line*, for x.y.1 and later. "6.12.115": from there on yes, before it no. "6.12.y": some
   release of the line, unknown which.
3. *Seen absent earlier in this line*, and stable lines are known to take this change: a later release of this
   line may have taken it, unknown.
4. *First mainline release* X.Y: every line from X.Y on has it, older lines have not. "-" (not merged): no,
   but unknown for lines that are newer than the newest one looked at. "?" (not narrowed): what was seen in
   other lines decides. A stable line is a branch of mainline and takes only what mainline has, so: lines older
   than one seen without it have it not (unknown for x.y.1 and later where stable lines take it); lines newer
   than every one seen without it and than one seen with it have it; else unknown.

Names that do not say one release:

* ``X.Y`` is X.Y.0; ``-rcN`` of it is unknown for what first came in X.Y.
* A distribution's ``uname -r`` that names the stable release (``6.12.117+deb12-amd64``) is that release. One
  with an ABI number (``6.1.0-56-amd64``, ``6.8.0-40-generic``) does not: it has what all releases of the line
  have, lacks what none has, and is unknown in the rest.
* An enterprise kernel (``5.14.0-503.el9.x86_64``) has what the release it started from has; of the rest
  anything may have been backported, unknown; what was never merged it has not.
* A tree of changes.toml (``posted-v2``): its base release, with and without what stands there.
* A file that `write_profile` wrote (``PROFILE.toml``).

``--with`` and ``--without`` settle what they name. An unknown change that requires one which is not there is
not there either; every other unknown one counts as absent (the older behaviour) and stands in
`Release.assumed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import tomli
import tomli_w

from pfnmap.errors import BadInput, LinkError, Unknown
from pfnmap.host.bounded import MIB, read_text

__all__ = [
    "Change",
    "Difference",
    "MissingFix",
    "Release",
    "Status",
    "Tree",
    "difference",
    "known_releases",
    "missing_fixes",
    "newest",
    "parse_release",
    "unknown_as_absent",
    "upstream_changes",
    "upstream_trees",
    "write_profile",
]

Status = Literal["yes", "no", "unknown"]
STATUSES: tuple[Status, ...] = ("yes", "no", "unknown")
PROFILE_SCHEMA = "pfnmap-profile/1"

_Line = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Change:
    """One upstream change; the fields are those that the head of changes.toml explains."""

    id: str
    title: str
    first: str
    sure: str
    subject: str = ""
    commit: str = ""
    backports: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    fixes: str = ""
    supersedes: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree that is no release and has a name: a base release, with and without some changes."""

    name: str
    title: str
    base: str
    with_: tuple[str, ...]
    without: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """What one kernel has of the upstream changes.

    `name` is how answers call it; `changes` maps every known change to its status, in the order of
    changes.toml; `assumed` says in sentences what was not known and how it was taken.
    """

    name: str
    changes: Mapping[str, Status]
    assumed: tuple[str, ...] = ()

    def has(self, change: str) -> bool:
        """Tell whether this release has a change; an unknown one counts as absent. Unknown for a wrong id."""
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


@dataclass(frozen=True, slots=True, order=True)
class _Version:
    major: int
    minor: int
    patch: int = 0

    @property
    def line(self) -> _Line:
        return self.major, self.minor

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}" + (f".{self.patch}" if self.patch else "")


# --- the facts


@cache
def upstream_changes() -> Mapping[str, Change]:
    """Return every known upstream change by its id, in the order of changes.toml."""
    return {table["id"]: _change(table) for table in _facts()["change"]}


@cache
def upstream_trees() -> Mapping[str, Tree]:
    """Return the named trees of changes.toml by name."""
    return {
        t["name"]: Tree(t["name"], t["title"], t["base"], tuple(t["with"]), tuple(t["without"]))
        for t in _facts()["tree"]
    }


def known_releases() -> tuple[str, ...]:
    """Return the releases that changes.toml knows something about, oldest first, then the named trees."""
    every = upstream_changes().values()
    named = {r for change in every for r in (change.first, *change.backports) if r[-1].isdigit()}
    return (*(str(v) for v in sorted({*map(_version, named), *_seen()})), *upstream_trees())


def newest() -> str:
    """Return the newest release that was looked at: the default of ``--release``."""
    return str(max(_seen()))


@cache
def _facts() -> dict[str, Any]:
    return tomli.loads(resources.files("pfnmap").joinpath("changes.toml").read_text("utf-8"))


def _change(table: Mapping[str, Any]) -> Change:
    fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}
    return Change(**fields)


@cache
def _seen() -> frozenset[_Version]:
    return frozenset(
        _version(release) for change in upstream_changes().values() for release in (*change.present, *change.absent)
    )


@cache
def _version(release: str) -> _Version:
    return _Version(*map(int, release.split(".")))


# --- the rules


def _status(change: Change, release: _Version) -> Status:
    present = [_version(r) for r in change.present]
    absent = [_version(r) for r in change.absent]
    here_present = [v for v in present if v.line == release.line]
    here_absent = [v for v in absent if v.line == release.line]
    if here_present and release >= min(here_present):
        return "yes"
    if here_absent and release <= max(here_absent):
        return "no"
    line = f"{release.major}.{release.minor}."
    for backport in change.backports if release.patch else ():
        if backport == line + "y":
            return "unknown"
        if backport.startswith(line):
            return "yes" if release >= _version(backport) else "no"
    if change.first == "-":
        return "no" if release.line <= max(_seen()).line else "unknown"
    if change.first == "?":
        return _status_unnarrowed(release, present, absent)
    first = _version(change.first).line
    if release.line >= first:
        return "yes"
    taken_by_stable = bool(change.backports) or any(v.line < first for v in present)
    return "unknown" if here_absent and taken_by_stable else "no"


def _status_unnarrowed(release: _Version, present: list[_Version], absent: list[_Version]) -> Status:
    lacking = max((v.line for v in absent), default=(0, 0))
    if release.line < lacking:
        taken_by_stable = any(v.line < lacking for v in present)
        return "unknown" if taken_by_stable and release.patch else "no"
    return "yes" if any(lacking < v.line < release.line for v in present) else "unknown"


def _status_rc(change: Change, release: _Version) -> Status:
    """Return the status in a release candidate: that of the release, where the release before it agrees."""
    if release.patch == 0:
        return "unknown" if change.first == str(release) else _status(change, release)
    before, after = _status(change, _Version(*release.line, release.patch - 1)), _status(change, release)
    return after if before == after else "unknown"


def _status_line(change: Change, release: _Version) -> Status:
    """Return the status that all releases of a release's line share, else unknown."""
    line = release.line
    marks = {
        _version(r).patch
        for r in (*change.present, *change.absent, *change.backports)
        if not r.endswith(".y") and _version(r).line == line
    }
    patches = {0, 1, *marks, *(patch + 1 for patch in marks)}
    statuses = {_status(change, _Version(*line, patch)) for patch in patches}
    return statuses.pop() if len(statuses) == 1 else "unknown"


def _status_enterprise(change: Change, release: _Version) -> Status:
    if change.first == "-":
        return "no"
    return "yes" if _status(change, release) == "yes" else "unknown"


# --- names of releases

_NAME = re.compile(
    r"v?(?P<major>\d{1,2})\.(?P<minor>\d{1,2})(?:\.(?P<patch>\d{1,4}))?"
    r"(?P<suffix>(?:\.\d+)?[-+~_]\S*)?"
)
_RC = re.compile(r"[-~](?:\d+\.?)?rc(\d+)")  # -rc3, ~rc3, Fedora's -0.rc3.<date>, Ubuntu's -061200rc3
_ENTERPRISE = re.compile(
    r"\.el\d"  # Red Hat and rebuilds, Oracle's uek
    r"|^-1[56]0\d00\."  # SUSE 15 and 16
    r"|\.(?:oe\d|an\d|al\d|ky\d)"  # openEuler, Anolis, Alibaba, Kylin
)
_ABI = re.compile(r"-\d(?!.*\.fc\d)")  # 6.1.0-56-amd64, 6.8.0-40-generic; Fedora names the release


def parse_release(text: str, with_: Iterable[str] = (), without: Iterable[str] = ()) -> Release:
    """Return the release that a text names, with and without some changes; the module's text says how.

    `text`: ``6.12.117``, ``7.3``, ``v6.12``, ``6.13-rc3``, ``posted-v2``, a ``uname -r``, or the path of a
    profile (it ends in ``.toml``).

    Raises Unknown for a release or a change that there is not, BadInput for a profile that cannot be read and
    for a change that is asked for both ways, LinkError for a change without one that it requires.
    """
    text = text.strip()
    if text.endswith(".toml"):
        name, changes, assumed = _read_profile(Path(text))
    else:
        name, changes, assumed = _named(text)
    _settle(changes, with_, without)
    _check_requires(name, changes)
    return Release(name, changes, assumed + unknown_as_absent(name, changes))


def unknown_as_absent(name: str, changes: Mapping[str, Status]) -> tuple[str, ...]:
    """Return the sentence of `Release.assumed` about unknown changes, if there are any."""
    unknown = [change for change, status in changes.items() if status == "unknown"]
    return (f"not known for {name}, taken as absent: {', '.join(unknown)}",) if unknown else ()


def _named(text: str) -> tuple[str, dict[str, Status], tuple[str, ...]]:
    """Return name, changes and what is assumed of a tree, a release number or a uname -r."""
    if tree := upstream_trees().get(text):
        _, changes, of_base = _named(tree.base)
        _settle(changes, tree.with_, tree.without)
        return tree.name, changes, of_base
    match = _NAME.fullmatch(text)
    if not match:
        raise Unknown("release", text, known_releases())
    release = _Version(int(match["major"]), int(match["minor"]), int(match["patch"] or 0))
    suffix = match["suffix"] or ""
    latest = max(_seen())
    # No line went past x.20 since 3.0: a typo of two digits should not pass for a kernel of the far future.
    if not 2 <= release.major <= latest.major + 1 or (release.major > 2 and release.minor > 20):
        raise Unknown("release", text, known_releases())
    name, rule, assumed = str(release), _status, ""
    if rc := _RC.match(suffix):
        name, rule = f"{release}-rc{rc[1]}", _status_rc
    elif _ENTERPRISE.search(suffix):
        name, rule = text, _status_enterprise
        assumed = f"{text} is an enterprise kernel: it may have anything newer than {release}"
    elif match["patch"] and release.patch == 0 and _ABI.match(suffix):
        name, rule = text, _status_line
        assumed = f"{text} does not tell which stable release of {release}.y it is"
    elif suffix:
        assumed = f"{text} is taken as {release}, without further patches of the distribution"
    newer = f"{release} is newer than {latest}, the newest release looked at" if release > latest else ""
    changes = {id: rule(change, release) for id, change in upstream_changes().items()}
    return name, changes, tuple(filter(None, (newer, assumed)))


def _settle(changes: dict[str, Status], with_: Iterable[str], without: Iterable[str]) -> None:
    wanted, unwanted = set(with_), set(without)
    for change in sorted(wanted | unwanted):
        if change not in changes:
            raise Unknown("change", change, changes)
    if both := sorted(wanted & unwanted):
        raise BadInput("", f"change {both[0]!r} is asked for both with and without")
    changes.update(dict.fromkeys(wanted, "yes"))
    changes.update(dict.fromkeys(unwanted, "no"))


def _check_requires(name: str, changes: dict[str, Status]) -> None:
    """Refuse a change without what it requires; drop an unknown one that thereby cannot be there."""
    every = upstream_changes()
    dropped = True
    while dropped:
        dropped = False
        for id, status in changes.items():
            for required in every[id].requires:
                if status == "yes" and changes[required] != "yes":
                    state = "lacks" if changes[required] == "no" else "is not known to have"
                    raise LinkError(f"change {id!r} requires {required!r}, which {name} {state}")
                if status == "unknown" and changes[required] == "no":
                    changes[id] = "no"
                    dropped = True


# --- what releases lack


def difference(before: Release, after: Release) -> tuple[Difference, ...]:
    """Return the changes in which two releases differ, in the order of changes.toml."""
    return tuple(
        Difference(id, status, after.changes[id])
        for id, status in before.changes.items()
        if status != after.changes[id]
    )


def missing_fixes(release: Release) -> tuple[MissingFix, ...]:
    """Return the known fixes that a release lacks (status no) while it has what they fix (status yes).

    Nobody misses a fix that a change which is there supersedes.
    """
    every = upstream_changes()
    superseded = {old for id in every if release.has(id) for old in every[id].supersedes}
    return tuple(
        MissingFix(id, change.fixes)
        for id, change in every.items()
        if change.fixes and release.has(change.fixes) and release.changes[id] == "no" and id not in superseded
    )


# --- profiles


def write_profile(path: Path, changes: Mapping[str, Status], base: str | None = None) -> None:
    """Write a profile, which `parse_release` reads: what a tree has, and the release it is based on if known.

    Raises BadInput where the file cannot be written.
    """
    profile: dict[str, Any] = {"schema": PROFILE_SCHEMA}
    if base is not None:
        profile["base"] = base
    profile["changes"] = dict(changes)
    try:
        path.write_text(tomli_w.dumps(profile), "utf-8")
    except OSError as error:
        raise BadInput(str(path), f"cannot be written: {error.strerror}") from None


def _read_profile(path: Path) -> tuple[str, dict[str, Status], tuple[str, ...]]:
    """Return name, changes and what is assumed of a profile.

    A change that it does not name is as in its base, or unknown.
    """
    where = str(path)
    try:
        profile = tomli.loads(read_text(path, MIB))
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise BadInput(where, f"not TOML: {error}") from None
    for key in profile:
        if key not in ("schema", "base", "changes"):
            raise BadInput(where, str(Unknown("key", key, ("schema", "base", "changes"))))
    if profile.get("schema") != PROFILE_SCHEMA:
        raise BadInput(where, f"not a profile: schema = {PROFILE_SCHEMA!r} was expected")
    base, given = profile.get("base"), profile.get("changes")
    if not isinstance(given, dict):
        raise BadInput(where, "a table [changes] was expected")
    name = path.name
    assumed: tuple[str, ...] = ()
    changes: dict[str, Status] = dict.fromkeys(upstream_changes(), "unknown")
    if base is not None:
        try:
            on, changes, assumed = _named(base if isinstance(base, str) else "")
        except Unknown:
            raise BadInput(where, f"base = {base!r} is not a release such as '6.12.117'") from None
        name = f"{path.name} on {on}"
    for id, status in given.items():
        if id not in changes:
            raise BadInput(where, str(Unknown("change", id, changes)))
        if status not in STATUSES:
            raise BadInput(where, f"changes.{id} = {status!r}: yes, no or unknown was expected")
        changes[id] = status
    return name, changes, assumed
