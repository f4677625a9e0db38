"""The Kconfig engine: fragments of Kconfig language, evaluated by kconfiglib, and what follows from them.

The core and every plugin carry a file ``Kconfig`` beside their code (package data). All of them together, the
core's first, are one Kconfig: names, types, defaults, selects and dependencies are the kernel's. There is no
``source``, no ``option`` and no ``$`` in them: `pfnmap.kconfig_parser` has none of it.

**What a release has** is settled by directive lines, each on a line of its own::

    #: since CHANGE      the lines up to the matching `#: end` count where the release has the change
    #: until CHANGE      they count where it has not
    #: end

CHANGE is an id of changes.toml. Blocks nest, and may hold whole symbols or a few lines of one. Any other ``#:``
line, an ``#: end`` too many or one too few is an error. Lines that do not count become comments (``#- ...``): line
numbers stay true, and it is still known what other releases declare.

**Where a value comes from**, the strongest first (`resolve`):

* ``force``: taken as it is, whatever it depends on (the machine of a golden vector or a recording); * ``given``: what
somebody asks for, subject to Kconfig's rules: THP asked for on PREEMPT_RT comes out ``n``; * ``file``: a real kernel's
``.config``: its prompts are asked for, all else is derived anew and compared. Of one that is not whole only what stands
in it counts, and presumes what it needs; * ``defaults``: asked for where nobody says otherwise, and dropped in silence
where it cannot be had; * *presumed*: what is asked for presumes what its prompt depends on, as far as nobody said
otherwise: PREEMPT_RT presumes EXPERT, VFIO_PCI presumes PCI and VFIO, ``m`` presumes MODULES; * the fragments' own
defaults.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import cache
from typing import Any, NamedTuple

from pfnmap.contract.entry import Has
from pfnmap.errors import BadInput, LinkError, Refused, Unknown
from pfnmap.packages import file_text
from pfnmap.records import dataclass

__all__ = [
    "DEFAULTS",
    "Config",
    "Conflict",
    "Fragment",
    "Reason",
    "declared",
    "fragment",
    "page_size_symbols",
    "resolve",
    "settle",
]

Fragment = tuple[str, str]
"""Who brings it (a plugin's name) and its text, settled for a release."""

DEFAULTS: Mapping[str, str] = {"TRANSPARENT_HUGEPAGE": "y", "VFIO_PCI": "y"}
"""What the command line asks for where nobody says otherwise, on top of the fragments' own defaults."""

_DIRECTIVE = re.compile(r"\s*#:(.*)")
_BLOCK = re.compile(r"(since|until)\s+([\w.-]+)")
_LEFT_OUT = "#- "
_CONFIG = re.compile(r"\s*(?:menu)?config\s+(\w+)\s*$")
_CONFIGS = re.compile(rf"^(?:{_LEFT_OUT})?[ \t]*(?:menu)?config[ \t]+(\w+)[ \t]*$", re.MULTILINE)
_PAGE_SIZE = re.compile(r"\s*select\s+(?:HAVE_)?PAGE_SIZE_(\d+)KB\b")


def fragment(package: str, has: Has) -> str:
    """Return the Kconfig fragment of a top-level package (its file ``Kconfig``), settled for a release.

    This is what a plugin's `kconfig` hook returns. Raises LinkError for a package without a fragment and for a
    malformed directive, Unknown for a change that changes.toml does not name.
    """
    text = file_text(package, "Kconfig")
    if text is None:
        raise LinkError(f"package {package} has no file Kconfig")
    return settle(text, has, f"Kconfig of {package}")


def settle(text: str, has: Has, where: str = "Kconfig") -> str:
    """Return a fragment with the parts that a release does not have turned into comments."""
    lines: list[str] = []
    counts: list[bool] = []
    opened: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        directive = _DIRECTIVE.fullmatch(line) if "#:" in line else None
        if directive is None:
            lines.append(line if all(counts) else _LEFT_OUT + line)
            continue
        lines.append(line)
        words = directive[1].strip()
        if block := _BLOCK.fullmatch(words):
            counts.append(has(block[2]) == (block[1] == "since"))
            opened.append(number)
        elif words != "end":
            raise LinkError(f"{where}, line {number}: {line.strip()!r} is none of since CHANGE, until CHANGE, end")
        elif not counts:
            raise LinkError(f"{where}, line {number}: an end without a since or until")
        else:
            counts.pop()
            opened.pop()
    if opened:
        raise LinkError(f"{where}, line {opened[-1]}: a block without an end")
    return "\n".join(lines) + "\n"


def declared(*packages: str) -> frozenset[str]:
    """Return the symbols that the fragments of packages declare in any release; nothing is imported.

    A package without a fragment declares none.
    """
    return frozenset(name for package in packages for name in _names(file_text(package, "Kconfig") or ""))


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a fragment, those of other releases as well."""
    for line in text.splitlines():
        yield line.removeprefix(_LEFT_OUT)


def _names(text: str) -> list[str]:
    """Return the symbols that a fragment declares, those of other releases as well."""
    return _CONFIGS.findall(text)


def page_size_symbols(fragments: Iterable[Fragment], size: str) -> dict[str, str]:
    """Return what has to be asked for to get a page size (``"4K"``, ``"16K"``, ``"64K"``): symbol -> value.

    Found by the kernel's convention: what gives a page size selects HAVE_PAGE_SIZE_16KB (or PAGE_SIZE_16KB). A
    member of a choice that does so has to be asked for, the choice's default where several do (else the first); an
    architecture that always does so needs nothing. Lines of other releases count: 6.1 has page sizes and no such
    symbols. Raises BadInput for a size that these fragments do not give.
    """
    fragments = list(fragments)
    sizes: dict[str, list[str]] = {}
    for _, text in fragments:
        symbol, in_choice = "", False
        for line in _lines(text):
            if line.strip() in ("choice", "endchoice"):
                in_choice = line.strip() == "choice"
            elif match := _CONFIG.match(line):
                symbol = match[1]
            elif match := _PAGE_SIZE.match(line):
                sizes.setdefault(f"{match[1]}K", []).extend([symbol] if in_choice else [])
    if size not in sizes:
        raise BadInput("page size", f"{size!r} is none of {', '.join(sizes) or 'any: no fragment gives one'}")
    members = sizes[size]
    return {_default_member(fragments, members) if len(members) > 1 else members[0]: "y"} if members else {}


def _default_member(fragments: Sequence[Fragment], members: Sequence[str]) -> str:
    """Return which of several members of a choice is the default of that choice, or the first where none is."""
    from pfnmap.kconfig_parser import LIB, parse

    choice = parse(fragments).syms[members[0]].choice
    defaults = [symbol.name for symbol, condition in choice.defaults if LIB.expr_value(condition)]
    return next((name for name in defaults if name in members), members[0])


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


def _no_levers(symbols: Iterable[str]) -> dict[str, str]:
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
    levers: Callable[[Iterable[str]], Mapping[str, str]] = field(default=_no_levers)
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


def resolve(
    fragments: Sequence[Fragment],
    given: Mapping[str, str] | None = None,
    *,
    file: Mapping[str, str] | None = None,
    whole: bool = True,
    otherwise: Sequence[Fragment] = (),
    defaults: Mapping[str, str] | None = None,
    force: Mapping[str, str] | None = None,
    known: Collection[str] = (),
    source: str = "",
) -> Config:
    """Resolve a configuration; the top of this module says what `given`, `file`, `defaults` and `force` mean.

    `known`: symbols of plugins that are not linked. One of those, or one that only another release declares, is unused
    here and only warned about; a name that nobody declares is Unknown. `file` may hold anything: what no fragment
    declares is ignored. A promptless symbol whose value a choice decides (ARM64_VA_BITS) may be given: it stands for
    the member of that choice. `whole`: whether a symbol that is not in `file` is known to be unset. `otherwise`: the
    fragments as they would be if what is unknown of the release were the other way round; the file is in conflict with
    what follows where it is with both. `source` is the configuration's `source`, and names `file` in errors.

    Raises Unknown, BadInput for a value that its symbol cannot have, LinkError for fragments that cannot be parsed.
    """
    given = dict(given or {})
    engine = _Engine(fragments)

    @cache
    def elsewhere() -> set[str]:
        return {name for _, text in fragments for name in _names(text)}.union(known)

    warnings: list[str] = []
    for symbol in list(given):
        if symbol not in engine:
            if symbol not in elsewhere():
                raise Unknown("config symbol", symbol, elsewhere())
            warnings.append(f"{symbol}={given[symbol]}: unused here, no such symbol in this kernel")

    conflicts: tuple[Conflict, ...] = ()
    if file is not None:
        conflicts = engine.load(file, source or ".config", whole)
        if conflicts and otherwise:
            with_both = _Engine(otherwise).load(file, source or ".config", whole)
            symbols_in_both = {conflict.symbol for conflict in with_both}
            conflicts = tuple(conflict for conflict in conflicts if conflict.symbol in symbols_in_both)
    for symbol, value in given.items():
        if symbol in engine:
            engine.ask(symbol, value, "asked for")
    for symbol, value in (defaults or {}).items():
        if symbol in engine and symbol not in given and (file is None or not (whole or symbol in file)):
            engine.ask(symbol, value, "asked for by default")
    engine.presume()
    if force:
        engine.force(force)

    symbols = {**engine.values(), **(force or {})}

    def explain(symbol: str) -> Reason:
        if symbol in engine:
            return engine.explain(symbol)
        if symbol in symbols:
            return Reason(symbol, symbols[symbol], (Reason("taken as it is, not declared here", symbols[symbol]),))
        if symbol not in elsewhere():
            raise Unknown("config symbol", symbol, elsewhere())
        return Reason(symbol, "undefined", (Reason("not declared in this kernel", "undefined"),))

    return Config(
        symbols,
        source,
        given,
        engine.presumed,
        conflicts,
        (*warnings, *engine.refused(given)),
        () if force else tuple(engine.bad_selects()),
        explain,
        _no_levers if force else engine.levers,
    )


class _Engine:
    """kconfiglib on a set of fragments, and where each value that was set comes from."""

    def __init__(self, fragments: Sequence[Fragment]) -> None:
        from pfnmap.kconfig_parser import LIB, parse  # here, so that importing pfnmap stays light

        self._lib = LIB
        self._tree = parse(fragments)
        self._symbols: dict[str, Any] = {symbol.name: symbol for symbol in self._tree.unique_defined_syms}
        self._asked: dict[str, str] = {}
        self._origin: dict[str, str] = {}
        self._forced: frozenset[str] = frozenset()
        self.presumed: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._symbols

    def values(self) -> dict[str, str]:
        found = {name: symbol.str_value for name, symbol in self._symbols.items()}
        return {name: value for name, value in found.items() if value != ""}

    def bad_selects(self) -> Iterator[str]:
        """Yield what is wrong with the selects of this configuration."""
        lib = self._lib
        for symbol in self._symbols.values():
            wanted, allowed = lib.expr_value(symbol.rev_dep), lib.expr_value(symbol.direct_dep)
            if wanted > allowed:
                who = sorted(item.name for item in lib.expr_items(symbol.rev_dep) if lib.expr_value(item))
                yield (
                    f"{symbol.name} is selected by {', '.join(who)}, but depends on {self._show(symbol.direct_dep)}, "
                    f"which is {lib.TRI_TO_STR[allowed]}"
                )
            for target, _ in symbol.selects:
                if target.name not in self._symbols:
                    yield f"{symbol.name} selects {target.name}, which nobody declares"

    # setting

    def ask(self, name: str, value: str, origin: str) -> None:
        """Ask for a value; a promptless symbol that a choice decides stands for the member of that choice."""
        symbol = self._symbols[name]
        self._check(symbol, value, "")
        member = self._stands_for(symbol, value)
        if member is not None:
            symbol, value, origin = member, "y", f"{origin} as {name}={value}"
        self._asked[symbol.name] = value
        self._origin[symbol.name] = origin
        symbol.set_value(value)

    def _check(self, symbol: Any, value: str, where: str) -> None:
        lib = self._lib
        fits, allowed = {
            lib.BOOL: (value in ("y", "n"), "y or n"),
            lib.TRISTATE: (value in ("y", "m", "n"), "y, m or n"),
            lib.INT: (re.fullmatch(r"-?[0-9]+", value) is not None, "a decimal number"),
            lib.HEX: (re.fullmatch(r"0[xX][0-9a-fA-F]+", value) is not None, "a number such as 0x10"),
        }.get(symbol.orig_type, (True, ""))
        if not fits:
            what = f"{where}: {symbol.name}" if where else symbol.name
            raise BadInput(f"{what}={value if len(value) <= 40 else f'{value[:40]}...'}", f"{allowed} was expected")

    def _stands_for(self, symbol: Any, value: str) -> Any:
        """Return the member of a choice that gives a promptless symbol this value, None where no choice decides it."""
        lib = self._lib
        members = {
            default.str_value: condition
            for default, condition in symbol.orig_defaults
            if isinstance(default, lib.Symbol) and isinstance(condition, lib.Symbol) and condition.choice
        }
        if not members or len(members) < len(symbol.orig_defaults) or _prompts(symbol):
            return None
        if value not in members:
            raise BadInput(f"{symbol.name}={value}", f"one of {', '.join(members)} was expected")
        return members[value]

    def load(self, file: Mapping[str, str], where: str, whole: bool) -> tuple[Conflict, ...]:
        """Ask for every prompt that a ``.config`` answers, and compare all else with what follows.

        Of one that is not whole, prompts are not compared: conf drops what cannot be had, and such files hold much of
        it.
        """
        lib = self._lib
        said = {
            name: file.get(name, "n" if symbol.orig_type in (lib.BOOL, lib.TRISTATE) else "")
            for name, symbol in self._symbols.items()
            if whole or name in file
        }
        for name, value in said.items():
            if value:
                self._check(self._symbols[name], value, where)
                if _prompts(self._symbols[name]):
                    self._symbols[name].set_value(value)
                    self._origin[name] = f"from {where}"
                    if not whole:
                        self._asked[name] = value
        self.presume()
        return tuple(
            Conflict(name, value, self._symbols[name].str_value)
            for name, value in said.items()
            if self._symbols[name].str_value != value and (whole or not _prompts(self._symbols[name]))
        )

    def force(self, values: Mapping[str, str]) -> None:
        """Pin values, whatever they depend on; what nobody forces follows from them."""
        here = {name: value for name, value in values.items() if name in self._symbols}
        for name, value in here.items():
            self.ask(name, value, "taken as it is")
        # kconfiglib has no way to overrule a dependency, so the values are put where it keeps those it worked out.
        self._tree._invalidate_all()
        for name, value in here.items():
            symbol = self._symbols[name]
            symbol._cached_str_val = value
            if symbol.orig_type in (self._lib.BOOL, self._lib.TRISTATE):
                symbol._cached_tri_val = self._lib.STR_TO_TRI[value]
        self._forced = frozenset(here)

    # presuming

    def presume(self) -> None:
        """Set what has to be set for what is asked for, as far as nobody said otherwise."""
        for name, value in list(self._asked.items()):
            symbol = self._symbols[name]
            if symbol.str_value == value or not _prompts(symbol):
                continue
            needed = self._needed(_visibility(self._lib, symbol), True, frozenset({name}))
            if needed is not None and value == "m":
                modules = self._needed(self._tree.modules, True, frozenset({name}))
                needed = None if modules is None else {**needed, **modules}
            for other, other_value in (needed or {}).items():
                self._symbols[other].set_value(other_value)
            if symbol.str_value != value:
                for other in needed or ():
                    self._symbols[other].unset_value()
                continue
            self.presumed.update(needed or {})
            self._origin.update(dict.fromkeys(needed or (), f"presumed, {name}={value} needs it"))

    def _needed(self, expr: Any, want: bool, seen: frozenset[str]) -> dict[str, str] | None:
        """Return what to set for an expression to hold (or not, as `want`ed); None where nothing free does it."""
        lib = self._lib
        if (lib.expr_value(expr) > 0) == want:
            return {}
        if isinstance(expr, tuple):
            if expr[0] is lib.NOT:
                return self._needed(expr[1], not want, seen)
            if expr[0] not in (lib.AND, lib.OR):
                return None
            left, right = (self._needed(operand, want, seen) for operand in expr[1:])
            if (expr[0] is lib.AND) == want:
                return None if left is None or right is None else {**left, **right}
            return right if left is None else left
        if not self._free(expr) or expr.name in seen:
            return None
        below = self._needed(_visibility(lib, expr), True, seen | {expr.name})
        return None if below is None else {**below, expr.name: "y" if want else "n"}

    def _free(self, item: Any) -> bool:
        """Tell whether an item of an expression is a symbol that somebody could set and nobody did.

        What an architecture supports (ARCH_SUPPORTS_RT, where patches decide it) is never presumed.
        """
        return (
            isinstance(item, self._lib.Symbol)
            and item.orig_type in (self._lib.BOOL, self._lib.TRISTATE)
            and item.choice is None
            and bool(_prompts(item))
            and item.name not in self._origin
            and not item.name.startswith("ARCH_")
        )

    def refused(self, given: Mapping[str, str]) -> Iterator[str]:
        """Yield a warning for each value that was asked for and not taken."""
        for name, value in given.items():
            symbol = self._symbols.get(name)
            if symbol is not None and symbol.str_value != value:
                why = self._why_not(symbol, value)
                yield f"{name}={value} is not taken, it is {symbol.str_value or 'undefined'}: {why}"

    def _why_not(self, symbol: Any, value: str) -> str:
        lib = self._lib
        symbol = self._stands_for(symbol, value) or symbol
        if not _prompts(symbol):
            return "it has no prompt, so it follows from other symbols"
        if lib.expr_value(symbol.rev_dep) > lib.STR_TO_TRI.get(value, 0):
            return f"selected by {self._show(symbol.rev_dep)}"
        if symbol.choice is not None and symbol.visibility:
            return f"its choice is {symbol.choice.selection.name}"
        return f"{symbol.name} depends on {self._show(symbol.direct_dep)}"

    # what could be otherwise

    def levers(self, names: Iterable[str]) -> dict[str, str]:
        settable = [
            symbol
            for symbol in sorted(self._below(names), key=lambda symbol: symbol.name)
            if symbol.orig_type in (self._lib.BOOL, self._lib.TRISTATE) and _prompts(symbol)
        ]
        found = {symbol.name: "n" if symbol.tri_value else "y" for symbol in settable}
        return {
            symbol.name: found[symbol.name]
            for symbol in settable
            if found[symbol.name] == "y" or (symbol.choice is None and not self._turns_off(symbol, settable))
        }

    def _below(self, names: Iterable[str]) -> set[Any]:
        """Return the symbols that some follow from, at any remove, and those themselves."""
        lib = self._lib
        todo: list[Any] = [self._symbols[name] for name in names if name in self]
        found: set[Any] = set()
        while todo:
            item = todo.pop()
            if item in found or getattr(item, "is_constant", False):
                continue
            found.add(item)
            expressions = [item.direct_dep, *(part for default in item.orig_defaults for part in default)]
            if isinstance(item, lib.Symbol):
                expressions += [item.rev_dep, *([item.choice] if item.choice else [])]
            else:
                todo += item.syms
            todo += [other for expression in expressions for other in lib.expr_items(expression)]
        return {item for item in found if isinstance(item, lib.Symbol) and item.nodes}

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

    # explaining

    def explain(self, name: str) -> Reason:
        return self._reason(self._symbols[name], set())

    def _reason(self, symbol: Any, seen: set[str]) -> Reason:
        """Explain a symbol; one that stands in the tree already is not explained a second time."""
        if not symbol.nodes:
            return Reason(symbol.name, "undefined", (Reason("not declared in this kernel", "undefined"),))
        value = symbol.str_value
        if symbol.name in seen:
            return Reason(symbol.name, value)
        seen.add(symbol.name)
        if symbol.name in self._forced:
            return Reason(symbol.name, value, (Reason(self._origin[symbol.name], value),))
        children: list[Reason] = []
        asked, origin = self._asked.get(symbol.name, value), self._origin.get(symbol.name)
        if asked != value:
            children.append(Reason(f"{asked} was asked for and is not taken", value))
        selects = [
            (other, condition)
            for other in self._symbols.values()
            for target, condition in other.orig_selects
            if target is symbol
        ]
        active = [pair for pair in selects if min(map(self._lib.expr_value, pair)) > 0]
        possible = self._lib.expr_value(symbol.direct_dep) > 0
        if active:
            if origin and symbol.visibility and asked == value:
                children.append(Reason(origin, value))
            children += [self._select("selected by", *pair, seen) for pair in active]
        elif possible:
            children.append(self._decided(symbol, seen))
            if value == "n":
                children += [self._select("not selected by", *pair, seen) for pair in selects]
        rest = self._because(f"depends on {self._show(symbol.direct_dep)}", symbol.direct_dep, seen)
        return Reason(symbol.name, value, (*children, *([rest] if rest.children else [])))

    def _because(self, text: str, expr: Any, seen: set[str]) -> Reason:
        """Return a node for an expression, with the symbols that make it what it is."""
        value: str = self._lib.TRI_TO_STR[self._lib.expr_value(expr)]
        return Reason(text, value, tuple(self._reason(symbol, seen) for symbol in self._deciding(expr)))

    def _select(self, text: str, symbol: Any, condition: Any, seen: set[str]) -> Reason:
        whole = (self._lib.AND, symbol, condition)
        return self._because(f"{text} {symbol.name}{self._if(condition)}", whole, seen)

    def _decided(self, symbol: Any, seen: set[str]) -> Reason:
        """Return what decided a symbol that could have any value and that nobody selects."""
        value = symbol.str_value
        origin = self._origin.get(symbol.name)
        if symbol.choice is not None and symbol.visibility:
            what, chosen = f"choice {_prompts(symbol.choice)[0]!r}", symbol.choice.selection
            if chosen is not symbol:
                return Reason(f"{what}: {chosen.name} is set", value)
            return Reason(f"{what}: {origin or 'its default, or the only one that is possible'}", value)
        if origin and symbol.visibility:
            return Reason(origin, value)
        for default, condition in symbol.orig_defaults:
            if self._lib.expr_value(condition) > 0:
                what = f"default {self._show(default)}{self._if(condition)}"
                tristate = symbol.orig_type in (self._lib.BOOL, self._lib.TRISTATE)
                decides = (self._lib.AND, default, condition) if tristate else condition
                return Reason(what, value, self._because(what, decides, seen).children)
        return Reason("no default", value)

    def _deciding(self, expr: Any) -> list[Any]:
        """Return the symbols that make an expression what it is: of an && that fails those that fail, and so on."""
        lib = self._lib
        if isinstance(expr, lib.Choice):
            return self._deciding(_visibility(lib, expr))
        if not isinstance(expr, tuple):
            return [] if expr.is_constant else [expr]
        parts = expr[1:]
        holds = lib.expr_value(expr) > 0
        if expr[0] in (lib.AND, lib.OR) and holds == (expr[0] is lib.OR):
            parts = tuple(part for part in parts if (lib.expr_value(part) > 0) == holds)
        return list(dict.fromkeys(symbol for part in parts for symbol in self._deciding(part)))

    def _if(self, condition: Any) -> str:
        return "" if condition is self._tree.y else f" if {self._show(condition)}"

    def _show(self, expr: Any) -> str:
        def item(symbol: Any) -> str:
            if isinstance(symbol, self._lib.Choice):
                return f"choice {_prompts(symbol)[0]!r}"
            return str(self._lib.standard_sc_expr_str(symbol))

        return str(self._lib.expr_str(expr, item))


def _prompts(item: Any) -> list[str]:
    return [node.prompt[0] for node in item.nodes if node.prompt]


def _visibility(lib: Any, symbol: Any) -> Any:
    """Return the expression under which somebody can set a symbol."""
    first, *others = (node.prompt[1] for node in symbol.nodes if node.prompt)
    for other in others:
        first = (lib.OR, first, other)
    return first
