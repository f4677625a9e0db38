"""A package for a new plugin: what ``pfnmap new`` writes.

The templates are package data: a tree for each kind, file names ending in ``.in``, with NAME in paths and @NAME@,
@CLASS@, @DIST@, @ID@ and @SYMBOL@ in texts.
"""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, Literal

from pfnmap.errors import BadInput
from pfnmap.kconfig import declared
from pfnmap.plugins import Registry

__all__ = ["KINDS", "Kind", "distribution", "write_package"]

Kind = Literal["arch", "driver"]
KINDS: Final[tuple[Kind, ...]] = ("arch", "driver")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST = 40
_TAKEN: Final = frozenset({"MMU", "SMP"})
"""Symbols that every architecture declares; the mm core has its own."""

_SUFFIX = ".in"


def write_package(kind: Kind, name: str, folder: Path | None = None, registry: Registry | None = None) -> list[Path]:
    """Write a plugin package into a folder (default: ``pfnmap-NAME`` here) and return its files.

    Nothing is ever overwritten. Raises BadInput for a name that cannot be a plugin's or that a plugin of `registry`
    (default: those that are installed) has, and for a folder that is not empty.
    """
    _check(name, registry or Registry())
    folder = folder if folder is not None else Path(distribution(name))
    words = {
        "@NAME@": name,
        "@CLASS@": "".join(part.capitalize() for part in name.split("_")) + kind.capitalize(),
        "@DIST@": distribution(name),
        "@ID@": name.replace("_", "-"),
        "@SYMBOL@": name.upper(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BadInput(str(folder), "is not empty, and nothing is overwritten")
        return [_write(folder, path, text, words) for path, text in sorted(_templates(files(__name__) / kind))]
    except OSError as error:
        raise BadInput(error.filename or str(folder), error.strerror or str(error)) from None


def _check(name: str, registry: Registry) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or len(name) > _LONGEST:
        what = f"is no name for a plugin: small letters, digits and single _ between them, at most {_LONGEST}"
        raise BadInput(f"{name!r:.60}", what)
    for plugin in registry.plugins():
        if plugin.name == name:
            raise BadInput(repr(name), f"is the name of a plugin already, of {plugin.distribution}")
    if name.upper() in declared("pfnmap") | _TAKEN:
        raise BadInput(repr(name), f"is no name for a plugin: the symbol {name.upper()} is the kernel's")


def distribution(name: str) -> str:
    """Return the name of the distribution of a new plugin, and of the folder where nobody names one."""
    return f"pfnmap-{name.replace('_', '-')}"


def _templates(folder: Traversable, path: str = "") -> list[tuple[str, str]]:
    """Return (path, text) of the templates below a folder."""
    found = []
    for item in folder.iterdir():
        here = f"{path}{item.name}"
        if item.is_dir():
            found += _templates(item, f"{here}/")
        elif here.endswith(_SUFFIX):
            found.append((here.removesuffix(_SUFFIX), item.read_text(encoding="utf-8")))
    return found


def _write(folder: Path, path: str, text: str, words: dict[str, str]) -> Path:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    target = folder / path.replace("NAME", words["@NAME@"])
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("x", encoding="utf-8") as file:
        file.write(text)
    return target
