"""Which upstream changes a kernel tree has, read off its log, newest first (`pfnmap.host.logforms`: in which forms).

A commit of the log is a known change (changes.toml) where its id is the change's, where its message names the
change's id as the one it was taken from (`_PICKED`; "commit <id> upstream." and "[ Upstream commit <id> ]" are
the forms of Documentation/process/stable-kernel-rules.rst), or where its subject is the change's. Reverts take
a change out and reverts of reverts put it back, whichever id they name: the upstream one or that of the
backport. The newest word counts.

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
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Generic, Literal, TypeVar

from pfnmap.errors import BadInput, Unknown
from pfnmap.host.bounded import opened, source_name
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

_T = TypeVar("_T")

Verdict = Literal["present", "reverted", "absent", "undecidable"]

_STATUS: Final[Mapping[Verdict, Status]] = {
    "present": "yes",
    "reverted": "no",
    "absent": "no",
    "undecidable": "unknown",
}

_MAX_EVENTS: Final = 200_000
"""Commits that are known changes or revert something; the whole history of Linux has some ten thousands."""
_MAX_ALIKE: Final = 100
"""Ids with the same first digits: of the million commits of Linux a handful."""
_MAX_QUOTED: Final = 16
"""Reverts of reverts; more are not told apart."""
_SHORTEST: Final = 7

_ROOT: Final = "Linux-2.6.12-rc2"
_ID: Final = rf"[0-9a-f]{{{_SHORTEST},64}}"
_RELEASE: Final = re.compile(r"Linux v?([0-9]{1,4}\.[0-9]{1,4}(?:\.[0-9]{1,4})?(?:-rc[0-9]{1,4})?)")
_BRANCH_TAGS: Final = re.compile(  # Android's, Ubuntu's
    r"(?:(?:UPSTREAM|BACKPORT|FROMGIT|FROMLIST|UBUNTU|NVIDIA|SAUCE):\s*)+"
)
_QUOTED: Final = re.compile(r'(Revert|Reapply) "(.*)"')
_PICKED: Final = re.compile(
    rf"""^[ \t]*(?:
        commit[ ](?P<stable>{_ID})[ ]upstream\b\.?               # stable kernels
      | \[[ ]*upstream[ ]commit[ ](?P<bracket>{_ID})[ ]*\]       # stable kernels
      | \((?:cherry[ -]picked|backported)[ ]from[ ]commit[ ](?P<cherry>{_ID})[^)\n]*\)  # git cherry-pick -x; Ubuntu
      | commit[ ](?P<redhat>[0-9a-f]{{40}})                      # Red Hat
      | git-commit:[ ]*(?P<suse>{_ID})                           # SUSE
    )[ \t]*$""",
    re.MULTILINE | re.IGNORECASE | re.VERBOSE,
)
_REVERTS: Final = re.compile(
    rf"(?:\bThis\s+reverts|^Reverts?)\s+commits?\s+"
    rf"(?P<targets>{_ID}(?:(?:,\s*and|,|\s+and)\s+{_ID})*)"
    rf"(?:,?\s+which\s+is\s+commit\s+(?P<upstream>{_ID})\s+upstream)?",
    re.MULTILINE | re.IGNORECASE,
)


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


@dataclass(frozen=True, slots=True)
class _Event:
    """A commit that may put a change in or take one out; `ids` are its own id and those it was picked from.

    `where` names the commit or the version of a changelog, `own` the commit's id.
    """

    where: str
    own: str | None
    ids: tuple[str, ...]
    line: int
    subject: str
    says: str
    change: str | None = None  # what it applies; None for a revert
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _State:
    applied: bool
    event: _Event
    torn: bool = False  # one version of a changelog says both


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
    marks = _Marks(changes)
    events: list[_Event] = []
    releases: dict[tuple[int, ...], Commit] = {}
    commits, last, merges = 0, None, False
    log = read_log(stream, where)
    for commit in log.commits:
        commits, last = commits + 1, commit
        merges = merges or commit.merge
        events.extend(_events(commit, marks))
        if len(events) > _MAX_EVENTS:
            raise BadInput(where, f"more than {_MAX_EVENTS} commits that are known changes or reverts")
        if (match := _RELEASE.fullmatch(commit.subject)) and commit.whole:
            releases.setdefault(_sort_key(match[1]), commit)
    if last is None and ground is None:
        raise BadInput(where, f"no commit in it; the output of {FORMAT} was expected")

    newest_commit = releases[max(releases)] if releases else None
    newest = _released(newest_commit, known) if newest_commit else None
    rooted = last is not None and last.subject == _ROOT
    if ground is None and log.whole and last is not None and last.whole and not merges:
        ground = _released(last, known)

    states = _resolve(events, marks, where)
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
    """Read a log from a file, or from standard input for ``-``: `read_gitlog`, with BadInput for a file's trouble."""
    with opened(path) as stream:
        return read_gitlog(stream, source_name(path), base, known)


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


# --- what a commit says


def _same(a: str, b: str) -> bool:
    """Tell whether two ids, full or abbreviated, can be of one commit."""
    return a.startswith(b) or b.startswith(a)


class _Marks:
    """What changes are told by: `commits` by the first digits of their id, `subjects` folded to one case."""

    def __init__(self, changes: Mapping[str, Change]) -> None:
        self.commits = {change.commit[:_SHORTEST]: change for change in changes.values() if change.commit}
        self.subjects = {change.subject.casefold(): change.id for change in changes.values() if change.subject}

    def by_id(self, id: str) -> str | None:
        """Return the change whose commit an id, full or abbreviated, is."""
        change = self.commits.get(id[:_SHORTEST])
        return change.id if change and _same(id, change.commit) else None


def _events(commit: Commit, marks: _Marks) -> Iterator[_Event]:
    raw = b"\n".join(commit.body)
    folded = raw.lower()  # most messages say neither word: the patterns are for those that do
    message = raw.decode("utf-8", "replace") if b"commit" in folded else ""
    reverted = list(_REVERTS.finditer(message)) if b"revert" in folded else []
    spans = [match.span() for match in reverted]
    picked = (match for match in _PICKED.finditer(message) if not _within(match, spans))
    origins = {match[match.lastgroup or 0].lower(): match for match in picked}
    ids = tuple(filter(None, (commit.id, *origins)))
    subjects = [_BRANCH_TAGS.sub("", text, count=1) for text in commit.subjects]
    subject = next((text for text in subjects if _QUOTED.fullmatch(text) or text.casefold() in marks.subjects), "")

    def event(line: int, says: str, change: str | None = None, targets: tuple[str, ...] = ()) -> _Event:
        return _Event(commit.where, commit.id or None, ids, line, subject, says, change, targets)

    if reverted or _QUOTED.fullmatch(subject):
        targets = [id.lower() for match in reverted for id in re.findall(_ID, match["targets"], re.IGNORECASE)]
        targets += [match["upstream"].lower() for match in reverted if match["upstream"]]
        yield event(commit.line, commit.subject, targets=tuple(targets))

    told: dict[str, _Event] = {}
    if (change := marks.subjects.get(subject.casefold())) is not None:
        its = "its subject is" if commit.id else "an item is"
        told[change] = event(commit.subject_line, f"{its} {subject!r}", change)
    for id, match in origins.items():
        if (change := marks.by_id(id)) is not None:
            line = commit.body_line + message.count("\n", 0, match.start())
            told[change] = event(line, f"it says {match[0].strip()!r}", change)
    if commit.id and (change := marks.by_id(commit.id)) is not None:
        told[change] = event(commit.line, "it is the upstream commit", change)
    yield from told.values()


def _within(match: re.Match[str], spans: Sequence[tuple[int, int]]) -> bool:
    """Tell whether a match overlaps with one of the spans, which are in order and apart."""
    after = bisect_left(spans, (match.end(), 0))
    return after > 0 and spans[after - 1][1] > match.start()


class _ById(Generic[_T]):
    """What ids, full or abbreviated, stand for. Of several that can be of one commit the newest counts."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._alike: dict[str, dict[str, _T]] = {}

    def __setitem__(self, id: str, value: _T) -> None:
        alike = self._alike.setdefault(id[:_SHORTEST], {})
        alike.pop(id, None)
        alike[id] = value
        if len(alike) > _MAX_ALIKE:
            raise BadInput(self._where, f"more than {_MAX_ALIKE} commits whose ids begin with {id[:_SHORTEST]}")

    def get(self, id: str) -> _T | None:
        alike = self._alike.get(id[:_SHORTEST], {})
        return next((value for other, value in reversed(alike.items()) if _same(id, other)), None)


def _resolve(events: Sequence[_Event], marks: _Marks, where: str) -> dict[str, _State]:
    """Return the last word on each change that the log mentions, going through the events oldest first."""
    known: _ById[tuple[str, bool]] = _ById(where)
    for change_known in marks.commits.values():
        known[change_known.commit] = change_known.id, True
    states: dict[str, _State] = {}
    reverted_ids: _ById[bool] = _ById(where)
    for event in reversed(events):
        if event.change is not None:
            if event.own and reverted_ids.get(event.own):
                raise BadInput(
                    where,
                    f"{event.where} stands above its revert: newest commit first was "
                    "expected, git log without --reverse",
                )
            change, applied = event.change, True
        else:
            found = _reverts(event, known, marks.subjects)
            if found is None:
                continue
            change, applied = found
            for target in event.targets:
                reverted_ids[target] = True
        before = states.get(change)
        torn = (
            before is not None
            and not event.own
            and before.event.where == event.where
            and (before.torn or before.applied != applied)
        )
        states[change] = _State(applied, event, torn)
        for id in event.ids:
            known[id] = change, applied
    return states


def _reverts(event: _Event, known: _ById[tuple[str, bool]], by_subject: Mapping[str, str]) -> tuple[str, bool] | None:
    """Return the change that a revert is about and whether it is there afterwards; None for one about other things."""
    for target in event.targets:
        if found := known.get(target):
            return found[0], not found[1]
    subject, applied = event.subject, True
    for _ in range(_MAX_QUOTED):
        if (quoted := _QUOTED.fullmatch(subject)) is None:
            break
        applied = applied if quoted[1] == "Reapply" else not applied
        subject = quoted[2]
    change_id = by_subject.get(subject.casefold())
    return (change_id, applied) if change_id is not None else None


# --- what follows for a change


def _told(change: Change, state: _State) -> Finding:
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
