"""Which upstream changes a kernel tree has, read off its log, newest first (`pfnmap.host.logforms`: in which forms).

What its commits say of a change is told by `pfnmap.host.logevents`; the newest word counts.

For a change that the log does not mention:

* *present* where the log holds the commit of a release ("Linux 6.12.117") that is known to have it: that
  release is part of the tree. So is a base that the caller names.
* *absent* only in a complete log, and only where the change could have been told: its commit or subject is
  known. A log is complete where it goes down to a known ground: the first commit of the kernel's history, the
  base that the caller says it starts from (``git log v6.12..``), or a release's commit as its very last one in
  a history without merges (``git log v6.12.94^..`` of a stable tree); and the ground must be known not to have
  the change. Where there are merges no release proves absence: git lists commits by date, so what was merged
  after the release may stand below it, where the log was cut.
* *undecidable* in all other cases: a truncated log never proves absence, and where one version of a changelog
  lists a change and its revert, it does not say which came first.

What a present change requires is present too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

from pfnmap.errors import BadInput, Unknown
from pfnmap.host.bounded import MIB, opened, source_name, uncompressed
from pfnmap.host.logevents import Event, Marks, State, events_of, resolve
from pfnmap.host.logforms import FORMAT, Commit, Log, read_log
from pfnmap.release import (
    Change,
    Facts,
    MissingFix,
    Release,
    Status,
    facts,
    missing_fixes,
    parse_release,
    unknown_as_absent,
)

__all__ = ["Finding", "LogReport", "Verdict", "read_gitlog", "read_gitlog_file"]

Verdict = Literal["present", "reverted", "absent", "undecidable"]

_STATUS: Final[Mapping[Verdict, Status]] = {
    "present": "yes",
    "reverted": "no",
    "absent": "no",
    "undecidable": "unknown",
}

_ROOT: Final = "Linux-2.6.12-rc2"
_RELEASE: Final = re.compile(r"Linux v?([0-9]{1,4}\.[0-9]{1,4}(?:\.[0-9]{1,4})?(?:-rc[0-9]{1,4})?)")
_MAX_PACKED: Final = 16 * MIB
"""Bytes of a compressed log, once decompressed: what is read in seconds. One that is not packed is read as it comes."""
_MAX_EVENTS: Final = 200_000
"""Commits that are known changes or revert something; the whole history of Linux has some ten thousands."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the log says about one change.

    `line` (from 1) and `commit` point at the commit that decided, None where none did; `detail` says it in words.
    """

    change: str
    verdict: Verdict
    line: int | None
    commit: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class LogReport:
    """What a whole log says.

    `findings` are in the order of changes.toml; `commits` counts the log's commits; `newest_release` is the
    newest release whose commit the log holds; `ground` is the release that the log starts from; `complete` tells
    whether the log goes down to a known ground, or may be cut. `release` is the tree as a Release;
    `missing_fixes` are known fixes that are absent or reverted while what they fix is present.
    """

    findings: tuple[Finding, ...]
    commits: int
    newest_release: str | None
    ground: str | None
    complete: bool
    release: Release
    missing_fixes: tuple[MissingFix, ...]

    @property
    def base(self) -> str | None:
        """The newest release known to be in the tree: the base of a profile."""
        return self.newest_release or self.ground


def read_gitlog(stream: BinaryIO, where: str, base: str | None = None, known: Facts | None = None) -> LogReport:
    """Read a log from a binary stream and return what it says of every known change.

    `where` names the log in messages. `base` is the release that the log starts from (``git log v6.12..`` has base
    "6.12"): it says that every commit after that release is in the log. `known`: the facts (default: this
    environment's).

    Raises BadInput for what is no such log: binary data, another format, oldest commit first, no commit at all
    (unless there is a base), a message or a log beyond all measure. Raises Unknown for an unknown base.
    """
    known = known or facts()
    changes = known.changes
    ground = _base(base, known) if base is not None else None
    marks = Marks(changes)
    events: list[Event] = []
    newest_commit: Commit | None = None
    newest_key: tuple[int, ...] = ()
    commits, last, merges = 0, None, False
    log = read_log(stream, where)
    for commit in log.commits:
        commits, last = commits + 1, commit
        merges = merges or commit.merge
        if marks.may_be_told(commit):
            events.extend(events_of(commit, marks))
            if len(events) > _MAX_EVENTS:
                raise BadInput(where, f"more than {_MAX_EVENTS} commits that are known changes or reverts")
        if (match := _RELEASE.fullmatch(commit.subject)) and commit.whole and (key := _sort_key(match[1])) > newest_key:
            newest_key, newest_commit = key, commit
    if last is None and ground is None:
        raise BadInput(where, f"no commit in it; the output of {FORMAT} was expected")

    newest = _released(newest_commit, known) if newest_commit else None
    rooted = last is not None and last.subject == _ROOT
    if ground is None and log.whole and last is not None and last.whole and not merges:
        ground = _released(last, known)

    states = resolve(events, marks, where)
    findings = {}
    for change in changes.values():
        if change.id in states:
            findings[change.id] = _told(change, states[change.id])
        elif newest and newest_commit and newest.has(change.id):
            findings[change.id] = Finding(
                change.id,
                "present",
                newest_commit.line,
                newest_commit.id or None,
                f"{newest.name}, {'whose commit is in the log' if newest_commit.id else 'the newest in it'}, has it",
            )
        else:
            findings[change.id] = _untold(change, ground, rooted, log)
    _imply_requires(findings, changes)
    name = f"the tree of {where}"
    statuses = {id: _STATUS[finding.verdict] for id, finding in findings.items()}
    tree = Release(name, statuses, unknown_as_absent(name, statuses, changes), known=changes)
    return LogReport(
        tuple(findings.values()),
        commits,
        newest.name if newest else None,
        ground.name if ground else None,
        log.whole and (ground is not None or rooted),
        tree,
        missing_fixes(tree),
    )


def read_gitlog_file(path: str | Path, base: str | None = None, known: Facts | None = None) -> LogReport:
    """Read a log from a file, plain or compressed, or from standard input for ``-``: `read_gitlog`, with BadInput for a
    file's trouble."""
    where = source_name(path)
    with opened(path) as stream:
        return read_gitlog(uncompressed(stream, _MAX_PACKED, where), where, base, known)


def _released(commit: Commit, known: Facts) -> Release | None:
    """Return the release that a commit made, None for one that made none or one of a far future."""
    match = _RELEASE.fullmatch(commit.subject)
    try:
        return parse_release(match[1], known=known) if match else None
    except Unknown:
        return None


def _base(text: str, known: Facts) -> Release:
    if text.endswith(".toml"):  # a profile names its own base: two steps would hide what the log starts from
        raise Unknown("release", text, known.releases)
    return parse_release(text, known=known)


def _sort_key(release: str) -> tuple[int, ...]:
    """Sort 6.13-rc3 before 6.13 before 6.13.1."""
    version, _, rc = release.partition("-rc")
    numbers = [int(part) for part in version.split(".")]
    return (*numbers, *[0] * (3 - len(numbers)), int(rc) if rc else 1 << 30)


def _told(change: Change, state: State) -> Finding:
    event = state.event

    def finding(verdict: Verdict, detail: str) -> Finding:
        return Finding(change.id, verdict, event.line, event.own, detail)

    if state.torn:
        return finding("undecidable", f"{event.where} lists it and its revert, and does not say which came first")
    if event.change is not None:
        return finding("present", f"{event.where}: {event.says}")
    if state.applied:
        return finding("present", f"put back by {event.where}: {event.says}")
    return finding("reverted", f"reverted by {event.where}: {event.says}")


def _untold(change: Change, ground: Release | None, rooted: bool, log: Log) -> Finding:
    """Return what holds for a change that no commit of the log mentions."""

    def finding(verdict: Verdict, detail: str) -> Finding:
        return Finding(change.id, verdict, None, None, detail)

    status = ground.changes[change.id] if ground else "no"
    if ground and status == "yes":
        return finding("present", f"{ground.name}, which the log starts from, has it")
    if not (change.commit or change.subject):
        return finding("undecidable", "neither its commit nor its subject is known, so no log can tell")
    if not log.whole:
        return finding("undecidable", "not in the changelog, which need not name every commit")
    if not (log.bodies or change.subject):
        return finding("undecidable", "its subject is not known, and the log has nothing but subjects")
    if ground is None and not rooted:
        return finding("undecidable", "not in the log, which may be cut: it does not go down to a known ground")
    if ground and status == "unknown":
        return finding("undecidable", f"not in the log, and not known for {ground.name}, which the log starts from")
    return finding(
        "absent",
        f"not in the log, and not in {ground.name}, which the log starts from"
        if ground
        else "not in the log, which goes down to the kernel's first commit",
    )


def _imply_requires(findings: dict[str, Finding], changes: Mapping[str, Change]) -> None:
    pending = [id for id, finding in findings.items() if finding.verdict == "present"]
    while pending:
        id = pending.pop()
        for required in changes[id].requires:
            if findings[required].verdict == "undecidable":
                of = findings[id]
                findings[required] = Finding(
                    required, "present", of.line, of.commit, f"{id} requires it, and that is present: {of.detail}"
                )
                pending.append(required)
