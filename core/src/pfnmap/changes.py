"""changes.toml: the upstream changes that a package knows of, and what is known about which release has them.

The core and any plugin's package may carry one beside their code (package data), as they carry a Kconfig fragment; a
distribution that brings nothing else names its package in entry-point group ``pfnmap.changes``. The head of the core's
file explains the fields. The files are read without importing the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, replace
from functools import cache
from typing import Any

import tomli

from pfnmap.errors import BadInput, Unknown
from pfnmap.packages import file_text, source_texts
from pfnmap.records import dataclass

__all__ = ["FILE", "Brought", "Change", "Flavour", "Tree", "asks", "brought"]

FILE = "changes.toml"

_NOT_WRITTEN = frozenset({"package", "not_known"})
_RELEASE = r"\d{1,2}\.\d{1,2}\.\d{1,4}"
_FORMS = {
    "id": r"[\w.-]+",
    "base": r"\d{1,2}\.\d{1,2}(\.\d{1,4})?",
    "first": r"\d{1,2}\.\d{1,2}|-|\?",
    "sure": "source|recorded|commit list|inferred|memory",
    "commit": r"[0-9a-f]{12}",
    "since": r"\d+(\.\d+)*",
    "backports": r"\d{1,2}\.\d{1,2}\.(\d{1,4}|y)",
    "present": _RELEASE,
    "absent": _RELEASE,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One upstream change; the fields are those that the head of the core's changes.toml explains.

    `package` is the top-level package whose file has it, and `not_known` the changes that it names and nobody here
    brings.
    """

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
    arch: tuple[str, ...] = ()
    modelled: bool = True
    note: str = ""
    package: str = ""
    not_known: tuple[str, ...] = ()

    def among(self, known: Mapping[str, object]) -> Change:
        """Return this change as far as it goes where only some changes are known.

        What it says of others (`requires`, `fixes`, `supersedes`) is left out; `not_known` names them.
        """
        named = dict.fromkeys((*self.requires, *filter(None, [self.fixes]), *self.supersedes))
        not_known = tuple(id for id in named if id not in known)
        if not not_known:
            return self
        return replace(
            self,
            requires=tuple(id for id in self.requires if id in known),
            fixes=self.fixes if self.fixes in known else "",
            supersedes=tuple(id for id in self.supersedes if id in known),
            not_known=not_known,
        )


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree that is no release and has a name: a base release, with and without some changes."""

    name: str
    title: str
    base: str
    with_: tuple[str, ...]
    without: tuple[str, ...]
    package: str = ""

    def among(self, known: Mapping[str, object]) -> Tree:
        """Return this tree with the changes that nobody here knows left out."""
        with_, without = ((id for id in ids if id in known) for ids in (self.with_, self.without))
        return replace(self, with_=tuple(with_), without=tuple(without))


@dataclass(frozen=True, slots=True)
class Flavour:
    """A distribution's kernels, told by their ``uname -r``, and what they have beside their stable release.

    `match` is a regular expression for the whole name. Where there is a `since`, the numbers that its groups find are
    compared with that, one by one, and earlier kernels are not meant. `unpatched` says that the distribution adds none
    of the known changes to the stable release; else nothing is known but `with_`.
    """

    name: str
    match: str
    source: str
    since: str = ""
    unpatched: bool = False
    with_: tuple[str, ...] = ()
    package: str = ""

    def is_of(self, release: str) -> bool:
        """Tell whether a ``uname -r`` is that of such a kernel."""
        found = re.fullmatch(self.match, release)
        since = [int(number) for number in self.since.split(".") if number]
        return found is not None and (not since or [int(number) for number in found.groups()] >= since)

    @property
    def said(self) -> str:
        """What these kernels have, in a sentence without its full stop."""
        return f"{self.name} has {', '.join(self.with_)} ({self.source})"

    def among(self, known: Mapping[str, object]) -> Flavour:
        """Return this flavour with the changes that nobody here knows left out."""
        return replace(self, with_=tuple(id for id in self.with_ if id in known))


@dataclass(frozen=True, slots=True)
class Brought:
    """What one package's file says."""

    changes: tuple[Change, ...] = ()
    trees: tuple[Tree, ...] = ()
    flavours: tuple[Flavour, ...] = ()


def brought(package: str) -> Brought:
    """Return what the changes.toml of a package says; nothing where it has no such file.

    Raises BadInput for a file that is not of the form that the core's explains.
    """
    text = file_text(package, FILE)
    return Brought() if text is None else _parsed(package, text)


@cache
def _parsed(package: str, text: str) -> Brought:
    where = f"{FILE} of {package}"
    if "\ufffd" in text:
        raise BadInput(where, "not UTF-8")
    try:
        facts = tomli.loads(text)
    except (tomli.TOMLDecodeError, RecursionError) as error:
        raise BadInput(where, f"not TOML: {error}") from None
    for key in facts:
        if key not in ("change", "tree", "flavour"):
            raise BadInput(where, str(Unknown("key", key, ("change", "tree", "flavour"))))
    changes = tuple(Change(**one, package=package) for one in _tables(where, Change, facts.get("change", [])))
    trees = tuple(Tree(**one, package=package) for one in _tables(where, Tree, facts.get("tree", [])))
    flavours = tuple(Flavour(**one, package=package) for one in _tables(where, Flavour, facts.get("flavour", [])))
    for flavour in flavours:
        _check_match(f"{where}, {flavour.name}", flavour)
    names = [*(change.id for change in changes), *(tree.name for tree in trees)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(where, f"{twice!r} stands there twice")
    return Brought(changes, trees, flavours)


def _check_match(where: str, flavour: Flavour) -> None:
    try:
        groups = re.compile(flavour.match).groups
    except re.error as error:
        raise BadInput(where, f"match = {flavour.match!r} is no regular expression: {error}") from None
    if flavour.since and groups != flavour.since.count(".") + 1:
        raise BadInput(where, f"since = {flavour.since!r}: a number for each group of match was expected")


def _tables(where: str, kind: type[Change | Tree | Flavour], tables: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise BadInput(where, f"{kind.__name__.lower()} is not written as [[{kind.__name__.lower()}]] tables")
    expected = {field.name.rstrip("_"): field for field in fields(kind) if field.name not in _NOT_WRITTEN}
    for table in tables:
        what = table.get("id") or table.get("name") or kind.__name__.lower()
        yield _checked(f"{where}, {what}", expected, table)


def _checked(where: str, expected: Mapping[str, Field[Any]], table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a table, lists as tuples, if each is of its form and none is missing."""
    for key in table:
        if key not in expected:
            raise BadInput(where, str(Unknown("key", key, expected)))
    found = {}
    for key, field in expected.items():
        if key not in table:
            if field.default is MISSING:
                raise BadInput(where, f"{key} is missing")
            continue
        value = table[key]
        listed = field.type == "tuple[str, ...]"
        if listed and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise BadInput(where, f"{key} = {value!r}: a list of strings was expected")
        if not listed and type(value).__name__ != field.type:
            raise BadInput(where, f"{key} = {value!r}: a {field.type} was expected")
        form = _FORMS.get(key)
        for item in value if listed else (value,):
            if form and not re.fullmatch(form, item):
                raise BadInput(where, f"{key} = {item!r} is not of the form that the field has")
        found[field.name] = tuple(value) if listed else value
    return found


@cache
def asks(package: str, id: str) -> bool:
    """Tell whether a package's code has a change's id as a literal, or its Kconfig fragment has it."""
    if any(f'"{id}"' in text or f"'{id}'" in text for text in source_texts(package)):
        return True
    directive = re.compile(rf"^\s*#:\s*(?:since|until)\s+{re.escape(id)}\s*$", re.MULTILINE)
    return bool(directive.search(file_text(package, "Kconfig") or ""))
