"""kconfiglib for texts of other people: nothing is run, no file is opened, no environment seen.

What Kconfig has to reach out is gone from the parser itself, on whatever lines a text spells it: macros
(``$(shell,...)`` runs a shell), preprocessor variables, ``$NAME`` in strings, ``source`` in all its forms, ``option``
(``env=`` takes a value of the environment). `LIB` is kconfiglib, imported for this module alone; that takes a while,
so who needs this module imports it late.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final

from pfnmap.errors import LinkError

__all__ = ["LIB", "parse", "prompts", "shown", "visibility"]


def _no_module(name: str) -> None:
    raise ImportError(name)


def _kconfiglib() -> Any:
    """Return kconfiglib that sees no environment, and imports no functions by a name that the environment gives."""
    spec = importlib.util.find_spec("kconfiglib")
    assert spec is not None  # the core depends on it
    assert spec.loader is not None
    lib: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lib)
    lib.os = SimpleNamespace(environ={}, getenv=lambda name, default=None: default, sep=os.sep)
    lib.importlib = SimpleNamespace(import_module=_no_module)
    return lib


LIB: Final = _kconfiglib()
_REACHING_OUT: Final = (LIB._T_SOURCE, LIB._T_RSOURCE, LIB._T_OSOURCE, LIB._T_ORSOURCE, LIB._T_OPTION)


class _Tree(LIB.Kconfig):  # type: ignore[misc, name-defined]
    """A text as kconfiglib parses it. It asks these methods for whole lines, those that it joined too."""

    def __init__(self, text: str) -> None:
        self._text = text
        super().__init__("Kconfig", warn=False)

    def _open(self, filename: str, mode: str) -> io.StringIO:
        return io.StringIO(self._text)

    def _tokenize(self, line: str) -> Any:
        tokens = super()._tokenize(line)
        if tokens[0] in _REACHING_OUT:
            self._parse_error(f"{line.split()[0]!r} is not allowed")
        return tokens

    def _set_type(self, item: Any, kind: Any) -> None:
        if item.orig_type and item.orig_type is not kind:
            self._parse_error(f"{item.name} is of another type elsewhere")
        super()._set_type(item, kind)

    def _expand_str(self, line: str, start: int) -> tuple[str, int]:
        line, end = super()._expand_str(line, start)
        if "$" in line[start:end]:  # the caller would take it from the environment
            self._no_macro()
        return line, end

    def _no_macro(self, *_: Any) -> Any:
        self._parse_error("'$' and assignments are not allowed, there are no macros here")

    _expand_macro = _expand_name = _parse_assignment = _no_macro


def parse(fragments: Sequence[tuple[str, str]]) -> Any:
    """Parse fragments (`pfnmap.kconfig.Fragment`) as one Kconfig. Raises LinkError that names fragment and line; its
    `plugin` is whose fragment that is, if it is not the core's."""
    lines = [(name, number, line) for name, text in fragments for number, line in _lines(text)]

    def place(match: re.Match[str]) -> str:
        name, number, _ = lines[int(match[1]) - 1]
        return f"Kconfig of {name}, line {number}"

    try:
        return _Tree("\n".join(line for _, _, line in lines) + "\n")
    except LIB.KconfigError as error:
        text = re.sub(r"\bKconfig:(\d+)", place, " ".join(str(error).split()))
        named = (name for name in re.findall(r"Kconfig of (.+?), line \d", text) if name != fragments[0][0])
        raise LinkError(text).of(next(named, "")) from None
    except RecursionError:
        name = next((name for name, text in fragments if _too_deep(text)), fragments[0][0])
        raise LinkError(f"Kconfig of {name}: nested too deeply").of(name) from None


@lru_cache(maxsize=32)  # an architecture differs from the next by one of them
def _lines(text: str) -> tuple[tuple[int, str], ...]:
    """Return the lines of a fragment with their numbers, but for comments and empty ones: a third, which take as long
    to parse as the others."""
    found, joined = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if joined or line.lstrip()[:1] not in ("", "#"):
            found.append((number, line))
        joined = line.endswith("\\")
    if joined:  # its last line goes on in no other fragment
        found.append((number, ""))
    return tuple(found)


def _too_deep(text: str) -> bool:
    try:
        _Tree(text)
    except RecursionError:
        return True
    except LIB.KconfigError:  # what it needs is in another
        return False
    return False


def prompts(item: Any) -> list[str]:
    """Return the prompts of a symbol or a choice: none where nobody can set it."""
    return [node.prompt[0] for node in item.nodes if node.prompt]


def visibility(item: Any) -> Any:
    """Return the expression under which somebody can set a symbol or a choice that has a prompt."""
    first, *others = (node.prompt[1] for node in item.nodes if node.prompt)
    for other in others:
        first = (LIB.OR, first, other)
    return first


def shown(expr: Any) -> str:
    """Return an expression in Kconfig's words, a choice by its prompt."""

    def item(symbol: Any) -> str:
        if isinstance(symbol, LIB.Choice):
            return f"choice {prompts(symbol)[0]!r}"
        return str(LIB.standard_sc_expr_str(symbol))

    return str(LIB.expr_str(expr, item))
