"""Releases as sets of changes: which of the known upstream changes a kernel release has.

Code asks `Release.has("follow-addr-mask")` and never compares version numbers. For each change a release answers
``yes``, ``no`` or ``unknown``: `facts` says what is known and who brings it, `rules` what follows for a release,
`names` what a name such as a ``uname -r`` stands for, `profile` reads and writes what a tree has.

``--with`` and ``--without`` settle what they name. An unknown change that requires one which is not there is
not there either; every other unknown one counts as absent (the older behaviour) and stands in
`Release.assumed`.
"""

from pfnmap.changes import Change, Tree
from pfnmap.release.facts import Facts, facts, upstream_changes, upstream_trees
from pfnmap.release.profile import write_profile
from pfnmap.release.release import (
    Difference,
    MissingFix,
    Release,
    difference,
    missing_fixes,
    parse_release,
    picks,
    unknown_as_absent,
)
from pfnmap.release.rules import Status

__all__ = [
    "Change",
    "Difference",
    "Facts",
    "MissingFix",
    "Release",
    "Status",
    "Tree",
    "difference",
    "facts",
    "missing_fixes",
    "newest",
    "parse_release",
    "picks",
    "unknown_as_absent",
    "upstream_changes",
    "upstream_trees",
    "write_profile",
]


def newest() -> str:
    """Return the newest release that was looked at: the default of ``--release``."""
    return str(facts().newest)
