"""kconfiglib on a set of fragments: setting symbols, presuming what they need, and what could be otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pfnmap.config import Conflict
from pfnmap.errors import BadInput
from pfnmap.kconfig_parser import LIB, parse, prompts, shown, visibility

__all__ = ["Engine"]


class Engine:
    """kconfiglib on a set of fragments, and where each value that was set comes from."""

    def __init__(self, fragments: Sequence[tuple[str, str]]) -> None:
        self.tree = parse(fragments)
        self.symbols: dict[str, Any] = {symbol.name: symbol for symbol in self.tree.unique_defined_syms}
        self.asked: dict[str, str] = {}
        self.origin: dict[str, str] = {}
        self.forced: frozenset[str] = frozenset()
        self.presumed: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.symbols

    def values(self) -> dict[str, str]:
        found = {name: symbol.str_value for name, symbol in self.symbols.items()}
        return {name: value for name, value in found.items() if value != ""}

    def bad_selects(self) -> Iterator[str]:
        """Yield what is wrong with the selects of this configuration."""
        for symbol in self.symbols.values():
            wanted, allowed = LIB.expr_value(symbol.rev_dep), LIB.expr_value(symbol.direct_dep)
            if wanted > allowed:
                who = sorted(item.name for item in LIB.expr_items(symbol.rev_dep) if LIB.expr_value(item))
                yield (
                    f"{symbol.name} is selected by {', '.join(who)}, but depends on {shown(symbol.direct_dep)}, "
                    f"which is {LIB.TRI_TO_STR[allowed]}"
                )
            for target, _ in symbol.selects:
                if target.name not in self.symbols:
                    yield f"{symbol.name} selects {target.name}, which nobody declares"

    # setting

    def ask(self, name: str, value: str, origin: str) -> None:
        """Ask for a value; a promptless symbol that a choice decides stands for the member of that choice."""
        symbol = self.symbols[name]
        self._check(symbol, value, "")
        member = self._stands_for(symbol, value)
        if member is not None:
            symbol, value, origin = member, "y", f"{origin} as {name}={value}"
        self.asked[symbol.name] = value
        self.origin[symbol.name] = origin
        symbol.set_value(value)

    def _check(self, symbol: Any, value: str, where: str) -> None:
        fits, allowed = {
            LIB.BOOL: (value in ("y", "n"), "y or n"),
            LIB.TRISTATE: (value in ("y", "m", "n"), "y, m or n"),
            LIB.INT: (re.fullmatch(r"-?[0-9]+", value) is not None, "a decimal number"),
            LIB.HEX: (re.fullmatch(r"0[xX][0-9a-fA-F]+", value) is not None, "a number such as 0x10"),
        }.get(symbol.orig_type, (True, ""))
        if not fits:
            what = f"{where}: {symbol.name}" if where else symbol.name
            raise BadInput(f"{what}={value if len(value) <= 40 else f'{value[:40]}...'}", f"{allowed} was expected")

    def _stands_for(self, symbol: Any, value: str) -> Any:
        """Return the member of a choice that gives a promptless symbol this value, None where no choice decides it."""
        members = {
            default.str_value: condition
            for default, condition in symbol.orig_defaults
            if isinstance(default, LIB.Symbol) and isinstance(condition, LIB.Symbol) and condition.choice
        }
        if not members or len(members) < len(symbol.orig_defaults) or prompts(symbol):
            return None
        if value not in members:
            raise BadInput(f"{symbol.name}={value}", f"one of {', '.join(members)} was expected")
        return members[value]

    def load(self, file: Mapping[str, str], where: str, whole: bool) -> tuple[Conflict, ...]:
        """Ask for every prompt that a ``.config`` answers, and compare all else with what follows.

        Of one that is not whole, prompts are not compared: conf drops what cannot be had, and such files hold much of
        it.
        """
        said = {
            name: file.get(name, "n" if symbol.orig_type in (LIB.BOOL, LIB.TRISTATE) else "")
            for name, symbol in self.symbols.items()
            if whole or name in file
        }
        for name, value in said.items():
            if value:
                self._check(self.symbols[name], value, where)
                if prompts(self.symbols[name]):
                    self.symbols[name].set_value(value)
                    self.origin[name] = f"from {where}"
                    if not whole:
                        self.asked[name] = value
        self.presume()
        return tuple(
            Conflict(name, value, self.symbols[name].str_value)
            for name, value in said.items()
            if self.symbols[name].str_value != value and (whole or not prompts(self.symbols[name]))
        )

    def force(self, values: Mapping[str, str]) -> None:
        """Pin values, whatever they depend on; what nobody forces follows from them."""
        here = {name: value for name, value in values.items() if name in self.symbols}
        for name, value in here.items():
            self.ask(name, value, "taken as it is")
        # kconfiglib has no way to overrule a dependency, so the values are put where it keeps those it worked out.
        self.tree._invalidate_all()
        for name, value in here.items():
            symbol = self.symbols[name]
            symbol._cached_str_val = value
            if symbol.orig_type in (LIB.BOOL, LIB.TRISTATE):
                symbol._cached_tri_val = LIB.STR_TO_TRI[value]
        self.forced = frozenset(here)

    # presuming

    def presume(self) -> None:
        """Set what has to be set for what is asked for, as far as nobody said otherwise."""
        for name, value in list(self.asked.items()):
            symbol = self.symbols[name]
            if symbol.str_value == value or not prompts(symbol):
                continue
            needed = self._needed(visibility(symbol), True, frozenset({name}))
            if needed is not None and value == "m":
                modules = self._needed(self.tree.modules, True, frozenset({name}))
                needed = None if modules is None else {**needed, **modules}
            for other, other_value in (needed or {}).items():
                self.symbols[other].set_value(other_value)
            if symbol.str_value != value:
                for other in needed or ():
                    self.symbols[other].unset_value()
                continue
            self.presumed.update(needed or {})
            self.origin.update(dict.fromkeys(needed or (), f"presumed, {name}={value} needs it"))

    def _needed(self, expr: Any, want: bool, seen: frozenset[str]) -> dict[str, str] | None:
        """Return what to set for an expression to hold (or not, as `want`ed); None where nothing free does it."""
        if (LIB.expr_value(expr) > 0) == want:
            return {}
        if isinstance(expr, tuple):
            if expr[0] is LIB.NOT:
                return self._needed(expr[1], not want, seen)
            if expr[0] not in (LIB.AND, LIB.OR):
                return None
            left, right = (self._needed(operand, want, seen) for operand in expr[1:])
            if (expr[0] is LIB.AND) == want:
                return None if left is None or right is None else {**left, **right}
            return right if left is None else left
        if not self._free(expr) or expr.name in seen:
            return None
        below = self._needed(visibility(expr), True, seen | {expr.name})
        return None if below is None else {**below, expr.name: "y" if want else "n"}

    def _free(self, item: Any) -> bool:
        """Tell whether an item of an expression is a symbol that somebody could set and nobody did.

        What an architecture supports (ARCH_SUPPORTS_RT, where patches decide it) is never presumed.
        """
        return (
            isinstance(item, LIB.Symbol)
            and item.orig_type in (LIB.BOOL, LIB.TRISTATE)
            and item.choice is None
            and bool(prompts(item))
            and item.name not in self.origin
            and not item.name.startswith("ARCH_")
        )

    def refused(self, given: Mapping[str, str]) -> Iterator[str]:
        """Yield a warning for each value that was asked for and not taken."""
        for name, value in given.items():
            symbol = self.symbols.get(name)
            if symbol is not None and symbol.str_value != value:
                why = self._why_not(symbol, value)
                yield f"{name}={value} is not taken, it is {symbol.str_value or 'undefined'}: {why}"

    def _why_not(self, symbol: Any, value: str) -> str:
        symbol = self._stands_for(symbol, value) or symbol
        if not prompts(symbol):
            return "it has no prompt, so it follows from other symbols"
        if LIB.expr_value(symbol.rev_dep) > LIB.STR_TO_TRI.get(value, 0):
            return f"selected by {shown(symbol.rev_dep)}"
        if symbol.choice is not None and symbol.visibility:
            return f"its choice is {symbol.choice.selection.name}"
        return f"{symbol.name} depends on {shown(symbol.direct_dep)}"

    # what could be otherwise

    def levers(self, names: Iterable[str]) -> dict[str, str]:
        settable = [
            symbol
            for symbol in sorted(self._below(names), key=lambda symbol: symbol.name)
            if symbol.orig_type in (LIB.BOOL, LIB.TRISTATE) and prompts(symbol)
        ]
        found = {symbol.name: "n" if symbol.tri_value else "y" for symbol in settable}
        return {
            symbol.name: found[symbol.name]
            for symbol in settable
            if found[symbol.name] == "y" or (symbol.choice is None and not self._turns_off(symbol, settable))
        }

    def _below(self, names: Iterable[str]) -> set[Any]:
        """Return the symbols that some follow from, at any remove, and those themselves."""
        todo: list[Any] = [self.symbols[name] for name in names if name in self]
        found: set[Any] = set()
        while todo:
            item = todo.pop()
            if item in found or getattr(item, "is_constant", False):
                continue
            found.add(item)
            expressions = [item.direct_dep, *(part for default in item.orig_defaults for part in default)]
            if isinstance(item, LIB.Symbol):
                expressions += [item.rev_dep, *([item.choice] if item.choice else [])]
            else:
                todo += item.syms
            todo += [other for expression in expressions for other in LIB.expr_items(expression)]
        return {item for item in found if isinstance(item, LIB.Symbol) and item.nodes}

    def _turns_off(self, symbol: Any, others: Iterable[Any]) -> bool:
        """Tell whether another symbol that is set goes with this one."""
        on = [other for other in others if other is not symbol and other.tri_value]
        before = symbol.user_value
        symbol.set_value("n")
        gone = any(not other.tri_value for other in on)
        if before is None:
            symbol.unset_value()
        else:
            symbol.set_value(before)
        return gone
