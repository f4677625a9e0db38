"""What can go wrong that is not a kernel outcome.

Kernel outcomes (an errno, a VM_FAULT code, a signal, an oops) are results, never exceptions of this module. Each class
carries the exit code of the command line: 2 for bad input, 3 for a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

__all__ = [
    "BadInput",
    "LinkError",
    "Misuse",
    "NotInstalled",
    "PfnmapError",
    "PluginError",
    "Refused",
    "Unknown",
    "Unwritten",
    "nearest",
]

_FEW = 10


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``"; did you mean 'x86_64'?"`` for a misspelt name; of a few names all if none is near."""
    names = list(known)
    import difflib  # few errors suggest a name

    close = difflib.get_close_matches(name, names, n=2, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(repr(c) for c in close)}?"
    return f"; known: {', '.join(names)}" if 0 < len(names) <= _FEW else ""


class PfnmapError(Exception):
    """Base of every error of pfnmap: one line that says what and where."""

    exit_code = 2

    plugin = ""
    """The plugin that it is about, if it is about one."""

    def of(self, plugin: str) -> Self:
        """Return this error as one that is about a plugin, unless it is about one already."""
        self.plugin = self.plugin or plugin
        return self

    def placed(self, where: str) -> Self:
        """Return this error with where it stands (file, step) said first; the last word of `where`, an op's name, is
        not said twice."""
        self.args = (f"{where}: {str(self).removeprefix(where.rpartition(' ')[2] + ': ')}",)
        return self


class BadInput(PfnmapError):
    """Input that cannot be read: `where` is the file, key or line, `what` says what was expected."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}" if where else what)
        self.where = where
        self.what = what


class Unknown(PfnmapError):
    """A name that nobody has: `kind` ("architecture", "change", ...), `name`, and the names there are; the nearest are
    told, or with `every` all. `by`: the distribution that brings it, which is told instead, "" where none does."""

    def __init__(self, kind: str, name: str, known: Iterable[str] = (), *, every: bool = False, by: str = "") -> None:
        names = list(known)
        hint = (
            f"; known: {', '.join(names)}" if every and names else f"; {by} brings it" if by else nearest(name, names)
        )
        super().__init__(f"unknown {kind} {name!r}{hint}")
        self.kind = kind
        self.name = name


class NotInstalled(Unknown):
    """A plugin that this project has and that is not installed; `how` says how to get it."""

    def __init__(self, kind: str, name: str, how: str) -> None:
        super().__init__(kind, name)
        self.args = (f"{kind} {name} is not installed; {how}",)


class PluginError(PfnmapError):
    """A plugin failed; the rest of pfnmap keeps working. `plugin` is its name, `what` what it did."""

    def __init__(self, plugin: str, what: str) -> None:
        super().__init__(f"plugin {plugin}: {what}")
        self.plugin = plugin
        self.what = what


class LinkError(PfnmapError):
    """A kernel cannot be linked from these parts; the text names the part."""


class Misuse(PfnmapError):
    """A plugin broke a rule of a kernel function: `who` (module and function) did `what`. In C it would be a bug that
    lockdep or a crash tells of."""

    def __init__(self, who: str, what: str) -> None:
        super().__init__(f"{who}: {what}")
        self.who = who


class Refused(PfnmapError):
    """The model does not cover this. `what` names the op, the helper or the part of it."""

    exit_code = 3

    def __init__(self, what: str, reason: str = "") -> None:
        super().__init__(f"{what}: {reason}" if reason else what)
        self.what = what
        self.reason = reason


class Unwritten(PfnmapError):
    """A method or hook that a new plugin's author has still to write (`pfnmap new` puts it there); `name` is its
    name."""

    exit_code = 3

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is still to be written (docs/hooks.md#{name.lower()})")
        self.name = name
