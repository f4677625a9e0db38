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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from threading import Lock

from pfnmap.config import Config, Conflict, Reason, no_levers
from pfnmap.contract.entry import Has
from pfnmap.errors import BadInput, LinkError, Unknown
from pfnmap.offers import brought_by
from pfnmap.packages import file_text

__all__ = [
    "DEFAULTS",
    "Fragment",
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
    from pfnmap.kconfig_engine import Engine  # here, so that importing pfnmap stays light

    given = dict(given or {})
    engine = Engine(fragments)

    @cache
    def elsewhere() -> set[str]:
        return {name for _, text in fragments for name in _names(text)}.union(known)

    warnings: list[str] = []
    for symbol in list(given):
        if symbol not in engine:
            if symbol not in elsewhere():
                raise Unknown("config symbol", symbol, elsewhere(), by=brought_by(symbol, "symbol"))
            warnings.append(f"{symbol}={given[symbol]}: unused here, no such symbol in this kernel")

    conflicts: tuple[Conflict, ...] = ()
    if file is not None:
        conflicts = engine.load(file, source or ".config", whole)
        if conflicts and otherwise:
            with_both = Engine(otherwise).load(file, source or ".config", whole)
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

    in_use = Lock()  # threads share an image; the engine works out a value when it is asked for, and tries others

    def explained(symbol: str) -> Reason:
        if symbol in engine:
            from pfnmap.kconfig_explain import explain

            with in_use:
                return explain(engine, symbol)
        if symbol in symbols:
            return Reason(symbol, symbols[symbol], (Reason("taken as it is, not declared here", symbols[symbol]),))
        if symbol not in elsewhere():
            raise Unknown("config symbol", symbol, elsewhere(), by=brought_by(symbol, "symbol"))
        return Reason(symbol, "undefined", (Reason("not declared in this kernel", "undefined"),))

    def levers(names: Iterable[str]) -> Mapping[str, str]:
        with in_use:
            return engine.levers(names)

    return Config(
        symbols,
        source,
        given,
        engine.presumed,
        conflicts,
        (*warnings, *engine.refused(given)),
        () if force else tuple(engine.bad_selects()),
        explained,
        no_levers if force else levers,
    )
