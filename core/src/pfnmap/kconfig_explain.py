"""Why a symbol has its value: the select, default or dependency that decided, down to what somebody set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pfnmap.config import Reason
from pfnmap.kconfig_parser import LIB, prompts, shown, visibility

if TYPE_CHECKING:
    from pfnmap.kconfig_engine import Engine

__all__ = ["explain"]


def explain(engine: Engine, name: str) -> Reason:
    """Return why a declared symbol has its value, as a tree."""
    return _Explanation(engine).reason(engine.symbols[name])


class _Explanation:
    """A tree in the making: what stands in it already is not explained a second time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen: set[str] = set()

    def reason(self, symbol: Any) -> Reason:
        """Explain a symbol."""
        if not symbol.nodes:
            return Reason(symbol.name, "undefined", (Reason("not declared in this kernel", "undefined"),))
        value = symbol.str_value
        if symbol.name in self._seen:
            return Reason(symbol.name, value)
        self._seen.add(symbol.name)
        if symbol.name in self._engine.forced:
            return Reason(symbol.name, value, (Reason(self._engine.origin[symbol.name], value),))
        children: list[Reason] = []
        asked, origin = self._engine.asked.get(symbol.name, value), self._engine.origin.get(symbol.name)
        if asked != value:
            children.append(Reason(f"{asked} was asked for and is not taken", value))
        selects = [
            (other, condition)
            for other in self._engine.symbols.values()
            for target, condition in other.orig_selects
            if target is symbol
        ]
        active = [pair for pair in selects if min(map(LIB.expr_value, pair)) > 0]
        possible = LIB.expr_value(symbol.direct_dep) > 0
        if active:
            if origin and symbol.visibility and asked == value:
                children.append(Reason(origin, value))
            children += [self._select("selected by", *pair) for pair in active]
        elif possible:
            children.append(self._decided(symbol))
            if value == "n":
                children += [self._select("not selected by", *pair) for pair in selects]
        rest = self._because(f"depends on {shown(symbol.direct_dep)}", symbol.direct_dep)
        return Reason(symbol.name, value, (*children, *([rest] if rest.children else [])))

    def _because(self, text: str, expr: Any) -> Reason:
        """Return a node for an expression, with the symbols that make it what it is."""
        value: str = LIB.TRI_TO_STR[LIB.expr_value(expr)]
        return Reason(text, value, tuple(self.reason(symbol) for symbol in self._deciding(expr)))

    def _select(self, text: str, symbol: Any, condition: Any) -> Reason:
        whole = (LIB.AND, symbol, condition)
        return self._because(f"{text} {symbol.name}{self._if(condition)}", whole)

    def _decided(self, symbol: Any) -> Reason:
        """Return what decided a symbol that could have any value and that nobody selects."""
        value = symbol.str_value
        origin = self._engine.origin.get(symbol.name)
        if symbol.choice is not None and symbol.visibility:
            what, chosen = f"choice {prompts(symbol.choice)[0]!r}", symbol.choice.selection
            if chosen is not symbol:
                return Reason(f"{what}: {chosen.name} is set", value)
            return Reason(f"{what}: {origin or 'its default, or the only one that is possible'}", value)
        if origin and symbol.visibility:
            return Reason(origin, value)
        for default, condition in symbol.orig_defaults:
            if LIB.expr_value(condition) > 0:
                what = f"default {shown(default)}{self._if(condition)}"
                tristate = symbol.orig_type in (LIB.BOOL, LIB.TRISTATE)
                decides = (LIB.AND, default, condition) if tristate else condition
                return Reason(what, value, self._because(what, decides).children)
        return Reason("no default", value)

    def _deciding(self, expr: Any) -> list[Any]:
        """Return the symbols that make an expression what it is: of an && that fails those that fail, and so on."""
        if isinstance(expr, LIB.Choice):
            return self._deciding(visibility(expr))
        if not isinstance(expr, tuple):
            return [] if expr.is_constant else [expr]
        parts = expr[1:]
        holds = LIB.expr_value(expr) > 0
        if expr[0] in (LIB.AND, LIB.OR) and holds == (expr[0] is LIB.OR):
            parts = tuple(part for part in parts if (LIB.expr_value(part) > 0) == holds)
        return list(dict.fromkeys(symbol for part in parts for symbol in self._deciding(part)))

    def _if(self, condition: Any) -> str:
        return "" if condition is self._engine.tree.y else f" if {shown(condition)}"
