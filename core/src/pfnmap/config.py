"""A resolved configuration: what symbols are, where that comes from, and what was not as it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from typing import NamedTuple

from pfnmap.errors import Refused
from pfnmap.records import dataclass

__all__ = ["Config", "Conflict", "Reason", "no_levers"]


class Conflict(NamedTuple):
    """A ``.config`` that says otherwise than what follows from it: a hand-edited one, or one of another kernel."""

    symbol: str
    file: str
    derived: str


@dataclass(frozen=True)
class Reason:
    """A node of an explanation: what decided (`text`), the value there, and what that rests on (`children`)."""

    text: str
    value: str
    children: tuple[Reason, ...] = ()


def no_levers(symbols: Iterable[str]) -> dict[str, str]:
    return {}


def _unexplained(symbol: str) -> Reason:
    raise Refused(f"why {symbol} has its value", "this configuration was not resolved from fragments")


@dataclass(frozen=True, eq=False)
class Config(Mapping[str, str]):
    """A resolved configuration: an immutable mapping of symbols (without CONFIG_) to values.

    Values are "y", "m", "n", or a number or string as text. A symbol that this release does not declare is not in it.

    `source`: where it came from. `given`: what was asked for. `presumed`: what that presumed. `conflicts`: where a
    ``.config`` says otherwise than what follows from it. `warnings`: what was asked for and is unused or not taken.
    `bad_selects`: selects that push a symbol past its dependencies (the kernel's conf warns of them) or that name one
    that nobody declares; none is looked for where values were forced.
    """

    symbols: Mapping[str, str]
    source: str = ""
    given: Mapping[str, str] = field(default_factory=dict)
    presumed: Mapping[str, str] = field(default_factory=dict)
    conflicts: tuple[Conflict, ...] = ()
    warnings: tuple[str, ...] = ()
    bad_selects: tuple[str, ...] = ()
    explain: Callable[[str], Reason] = field(default=_unexplained)
    """Return why a symbol has its value, down to the select, default or dependency that decided. Raises Unknown for a
    symbol that nobody declares."""
    levers: Callable[[Iterable[str]], Mapping[str, str]] = field(default=no_levers)
    """Return what somebody could set to another value of what some symbols follow from: symbol -> that value. One that
    would turn another of them off is left out: the other is the smaller step."""

    def __getitem__(self, symbol: str) -> str:
        return self.symbols[symbol]

    def __iter__(self) -> Iterator[str]:
        return iter(self.symbols)

    def __len__(self) -> int:
        return len(self.symbols)

    def __repr__(self) -> str:
        return f"Config({len(self)} symbols, source={self.source!r})"

    def enabled(self, symbol: str) -> bool:
        """Tell whether a symbol is y or m."""
        return self.symbols.get(symbol) in ("y", "m")

    def value(self, symbol: str) -> str:
        """Return the value of a symbol, "undefined" for one that this release does not declare."""
        return self.symbols.get(symbol, "undefined")
