"""The boundary through which plugins are called: while kernels are linked, booted and planned on, and commands listed.

Whatever a plugin does there, be it a SystemExit or an answer of the wrong type, is a PluginError that names it, the
method and what it did. An op or a handler that a kernel has bound is a plain call: what comes out of one is told by
the frames that it went through (`blamed`).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import local
from traceback import walk_tb
from typing import Any, NoReturn, Protocol, TypeVar

from pfnmap.errors import PfnmapError, PluginError
from pfnmap.fits import misfit
from pfnmap.trace import Outcome

__all__ = ["Gave", "Interrupted", "blamed", "calling", "importing", "in_plugin", "interrupt", "may_pass", "said"]

T = TypeVar("T")

_LISTENING = "pfnmap.cli"
_LONGEST = 300
"""Characters of what an exception says."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, where `interrupt` is the handler: so it is told from a KeyboardInterrupt of a plugin's own."""


def interrupt(number: int, frame: object) -> NoReturn:
    """Handle SIGINT."""
    raise Interrupted


class Gave(Protocol):
    """Return what a plugin gave if it is of a kind, a class or a type with parameters. Raises PluginError if not."""

    def __call__(self, value: T, kind: Any, /) -> T: ...


class _Depth(local):
    calls = 0


_DEPTH = _Depth()


def in_plugin() -> bool:
    """Tell whether this thread is within a call into a plugin."""
    return _DEPTH.calls > 0


class calling:
    """Call into a plugin; `what` names the method. What it raises is a PluginError with both, but for an error of
    pfnmap, which says enough and whose `plugin` it is then."""

    __slots__ = ("_plugin", "_what")

    def __init__(self, plugin: str, what: str) -> None:
        self._plugin = plugin
        self._what = what

    def __enter__(self) -> Gave:
        _DEPTH.calls += 1
        return self._gave

    def _gave(self, value: T, kind: Any, /) -> T:
        if wrong := misfit(value, kind):
            raise PluginError(self._plugin, f"{self._what} gave {wrong}")
        return value

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        _DEPTH.calls -= 1
        if isinstance(error, PfnmapError):
            error.of(self._plugin)
        elif error is not None and not may_pass(error):
            raise PluginError(self._plugin, f"{self._what} raised {said(error)}") from error


@contextmanager
def importing(plugin: str) -> Iterator[None]:
    """Import a plugin. Whatever it raises is a PluginError."""
    with _within():
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and may_pass(error):
                raise
            raise PluginError(plugin, said(error, " at import")) from error


@contextmanager
def _within() -> Iterator[None]:
    _DEPTH.calls += 1
    try:
        yield
    finally:
        _DEPTH.calls -= 1


def may_pass(error: BaseException) -> bool:
    """Tell whether an exception is no failure of a plugin: an error of pfnmap, an outcome of the modelled kernel, the
    user's Ctrl-C."""
    if isinstance(error, KeyboardInterrupt):
        return isinstance(error, Interrupted) or signal.getsignal(signal.SIGINT) is not interrupt
    return isinstance(error, (PfnmapError, Outcome))


def said(error: BaseException, where: str = "") -> str:
    """Return an exception in one line: its class, `where` it was raised, and what it says if that can be had."""
    name = f"{type(error).__name__}{where}"
    try:
        text = " ".join(str(error).split())
    except BaseException:
        return name
    return f"{name}: {text[:_LONGEST]}" if text else name


def blamed(error: BaseException, packages: Mapping[str, str], what: str = "") -> PluginError | None:
    """Return the error of the plugin through whose code an exception came, the innermost one on the way there; None
    where it came through none, or from what shows a run's events as they happen.

    `packages`: the plugins by their top-level packages. `what`: what was done.
    """
    found, inner = None, ""
    for frame, _ in walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if module.startswith(_LISTENING):
            found = None
        elif plugin := packages.get(module.partition(".")[0]):
            if plugin != found:
                inner = f"{frame.f_code.co_qualname}()"
            found = plugin
    return PluginError(found, f"{f'{what}: ' if what else ''}{inner} raised {said(error)}") if found else None
