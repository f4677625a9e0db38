"""The rules by which the facts about a change answer for a release.

The first of these that says something decides:

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
"""

from __future__ import annotations

from typing import Literal

from pfnmap.changes import Change
from pfnmap.release.facts import Version, version

__all__ = [
    "STATUSES",
    "Status",
    "status",
    "status_line",
    "status_patched",
    "status_patched_line",
    "status_patched_rc",
    "status_rc",
]

Status = Literal["yes", "no", "unknown"]
STATUSES: tuple[Status, ...] = ("yes", "no", "unknown")


def status(change: Change, release: Version, newest: Version) -> Status:
    """Return the status in a release; `newest` is the newest one that was looked at."""
    present = [version(r) for r in change.present]
    absent = [version(r) for r in change.absent]
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
            return "yes" if release >= version(backport) else "no"
    if change.first == "-":
        return "no" if release.line <= newest.line else "unknown"
    if change.first == "?":
        return _status_unnarrowed(release, present, absent)
    first = version(change.first).line
    if release.line >= first:
        return "yes"
    taken_by_stable = bool(change.backports) or any(v.line < first for v in present)
    return "unknown" if here_absent and taken_by_stable else "no"


def _status_unnarrowed(release: Version, present: list[Version], absent: list[Version]) -> Status:
    lacking = max((v.line for v in absent), default=(0, 0))
    if release.line < lacking:
        taken_by_stable = any(v.line < lacking for v in present)
        return "unknown" if taken_by_stable and release.patch else "no"
    return "yes" if any(lacking < v.line < release.line for v in present) else "unknown"


def status_rc(change: Change, release: Version, newest: Version) -> Status:
    """Return the status in a release candidate: that of the release, where the release before it agrees."""
    if release.patch == 0:
        return "unknown" if change.first == str(release) else status(change, release, newest)
    before, after = status(change, Version(*release.line, release.patch - 1), newest), status(change, release, newest)
    return after if before == after else "unknown"


def status_line(change: Change, release: Version, newest: Version) -> Status:
    """Return the status that all releases of a release's line share, else unknown."""
    line = release.line
    marks = {
        version(r).patch
        for r in (*change.present, *change.absent, *change.backports)
        if not r.endswith(".y") and version(r).line == line
    }
    patches = {0, 1, *marks, *(patch + 1 for patch in marks)}
    statuses = {status(change, Version(*line, patch), newest) for patch in patches}
    return statuses.pop() if len(statuses) == 1 else "unknown"


def status_patched(change: Change, release: Version, newest: Version) -> Status:
    """Return the status in a kernel that started from a release and may have taken anything that was merged."""
    return _patched(change, status(change, release, newest))


def status_patched_line(change: Change, release: Version, newest: Version) -> Status:
    """Return the status in such a kernel that started from some release of a release's line."""
    return _patched(change, status_line(change, release, newest))


def status_patched_rc(change: Change, release: Version, newest: Version) -> Status:
    """Return the status in such a kernel that started from a release candidate."""
    return _patched(change, status_rc(change, release, newest))


def _patched(change: Change, base: Status) -> Status:
    return base if change.first == "-" or base == "yes" else "unknown"
