"""What commits of a log say of the known changes: which they put in, and which they take out.

A commit is a known change (changes.toml) where its id is the change's, where its message names the change's id as the
one it was taken from (`_PICKED`; "commit <id> upstream." and "[ Upstream commit <id> ]" are the forms of
Documentation/process/stable-kernel-rules.rst), or where its subject is the change's. Reverts take a change out and
reverts of reverts put it back, whichever id they name: the upstream one or that of the backport. The newest word
counts.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from pfnmap.errors import BadInput
from pfnmap.host.logforms import Commit
from pfnmap.release import Change

__all__ = ["Event", "Marks", "State", "events_of", "resolve"]

_T = TypeVar("_T")

_MAX_ALIKE: Final = 100
"""Ids with the same first digits: of the million commits of Linux a handful."""
_MAX_QUOTED: Final = 16
"""Reverts of reverts; more are not told apart."""
_SHORTEST: Final = 7

_ID: Final = rf"[0-9a-f]{{{_SHORTEST},64}}"
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
class Event:
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
class State:
    applied: bool
    event: Event
    torn: bool = False  # one version of a changelog says both


def _same(a: str, b: str) -> bool:
    """Tell whether two ids, full or abbreviated, can be of one commit."""
    return a.startswith(b) or b.startswith(a)


class Marks:
    """What changes are told by: `commits` by the first digits of their id, `subjects` folded to one case."""

    def __init__(self, changes: Mapping[str, Change]) -> None:
        self.commits = {change.commit[:_SHORTEST]: change for change in changes.values() if change.commit}
        self.subjects = {change.subject.casefold(): change.id for change in changes.values() if change.subject}
        words = {"revert", "reapply", *(subject.split()[0] for subject in self.subjects)}
        self._words = re.compile("|".join(map(re.escape, sorted(words))))

    def by_id(self, id: str) -> str | None:
        """Return the change whose commit an id, full or abbreviated, is."""
        change = self.commits.get(id[:_SHORTEST])
        return change.id if change and _same(id, change.commit) else None

    def may_be_told(self, commit: Commit) -> bool:
        """Tell whether a commit can be an event at all, at little cost: most can not."""
        return (
            commit.id[:_SHORTEST] in self.commits
            or self._words.search(commit.subject.casefold()) is not None
            or (bool(commit.body) and b"commit" in b"\n".join(commit.body).lower())
        )


def events_of(commit: Commit, marks: Marks) -> Iterator[Event]:
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

    def event(line: int, says: str, change: str | None = None, targets: tuple[str, ...] = ()) -> Event:
        return Event(commit.where, commit.id or None, ids, line, subject, says, change, targets)

    if reverted or _QUOTED.fullmatch(subject):
        targets = [id.lower() for match in reverted for id in re.findall(_ID, match["targets"], re.IGNORECASE)]
        targets += [match["upstream"].lower() for match in reverted if match["upstream"]]
        yield event(commit.line, commit.subject, targets=tuple(targets))

    told: dict[str, Event] = {}
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


def resolve(events: Sequence[Event], marks: Marks, where: str) -> dict[str, State]:
    """Return the last word on each change that the log mentions, going through the events oldest first."""
    known: _ById[tuple[str, bool]] = _ById(where)
    for change_known in marks.commits.values():
        known[change_known.commit] = change_known.id, True
    states: dict[str, State] = {}
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
        states[change] = State(applied, event, torn)
        for id in event.ids:
            known[id] = change, applied
    return states


def _reverts(event: Event, known: _ById[tuple[str, bool]], by_subject: Mapping[str, str]) -> tuple[str, bool] | None:
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
