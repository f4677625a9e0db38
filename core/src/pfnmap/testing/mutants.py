"""Mutants of an architecture's own source: one thing changed at a time, in what its entries, tables and symbols are.

What is changed is what the contract asks for (ops, `setup_arch`, `word_format`, `mmu_access`, the Kconfig fragment) and
what these use, by name, in the plugin's package: masks are dropped and swapped, ops and comparisons inverted, numbers
changed by one, protections exchanged, selects left out, marks of hooks taken away. Messages, annotations and what
tracks memory types (`track_pfn_insert` and its kind) are left alone, and so is what would change nothing: one constant
for another of the same value, the order of what is gone through, a select of a symbol that neither code of the core or
the plugin asks for nor another symbol that it asks for (only a record of the kernel's own conf tells those,
`ArchConformance.kconfig`). `pfnmap.testing.mutation` runs them.

`mutants_of` does the same to all functions of a module that is no plugin's, branches and calls included.
"""

from __future__ import annotations

import ast
import operator
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pfnmap
from pfnmap import vm_flags
from pfnmap.contract.arch import Arch
from pfnmap.contract.pgtable_ops import OPTIONAL_OPS
from pfnmap.hookspecs import ENTRY_HOOKS

__all__ = ["Mutant", "mutants", "mutants_of", "sample"]

_ROOTS: Final = frozenset(
    {*Arch.__abstractmethods__, *OPTIONAL_OPS, "empty", "word_format", "access_error", "linear_map", "undefined"}
    | {hook for hook in ENTRY_HOOKS if not hook.startswith(("track_", "untrack_", "pfnmap_", "io", "mem"))}
)
"""What of the contract is mutated, with all that it uses."""

_OPPOSITES: Final[Mapping[type[ast.AST], type[ast.AST]]] = {
    one: other
    for pair in (
        (ast.LShift, ast.RShift),
        (ast.Add, ast.Sub),
        (ast.Eq, ast.NotEq),
        (ast.Lt, ast.GtE),
        (ast.Gt, ast.LtE),
        (ast.In, ast.NotIn),
        (ast.And, ast.Or),
    )
    for one, other in (pair, pair[::-1])
}
_ARITHMETIC: Final[Mapping[type[ast.AST], Callable[[int, int], int]]] = {
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
}
_SYMBOL: Final = re.compile(r"[A-Z0-9][A-Za-z0-9_]+")
_DROPPED: Final = (ast.BitOr, ast.BitAnd, ast.BitXor, ast.Mult)


@dataclass(frozen=True)
class Mutant:
    """One change. `file`: the path within the package; `line`: from 1; `change`: in words; `source`: the whole file."""

    file: str
    line: int
    change: str
    source: str


def sample(package: Path, count: int) -> list[Mutant]:
    """Return `count` mutants of a package's directory (all where there are no more), always the same ones."""
    found = list(dict.fromkeys(mutants(package)))
    if len(found) > count:
        chosen = random.Random(package.name).sample(range(len(found)), count)
        found = [found[number] for number in sorted(chosen)]
    return found


def mutants(package: Path) -> Iterator[Mutant]:
    """Yield every mutant of a package's directory."""
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(source) for path, source in sources.items()}
    used = _used([node for tree in trees.values() for node in _definitions(tree)])
    values = _Values(definition for tree in trees.values() for definition in _definitions(tree))
    for path, tree in trees.items():
        masks = sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id.isupper() and len(n.id) > 2})
        for definition in _definitions(tree):
            if definition in used:
                for node, text in _changes(definition, masks):
                    value = values.of(node)
                    same = text == ast.unparse(node) if value is None else value == values.of(_expression(text))
                    if not same:
                        yield _mutant(path.relative_to(package).as_posix(), sources[path], node, text)
    fragments = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("Kconfig"))}
    core = Path(pfnmap.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in (*core.rglob("*.py"), core / "Kconfig")]
    asked = _asked_symbols([*sources.values(), *texts[:-1]], [*fragments.values(), texts[-1]])
    for path, text in fragments.items():
        yield from _kconfig(path.relative_to(package).as_posix(), text, asked)


def mutants_of(file: str, source: str) -> Iterator[Mutant]:
    """Yield every mutant of the functions of one module: those of an op, branches inverted, calls for their effect
    left out."""
    for definition in _definitions(ast.parse(source)):
        if isinstance(definition, ast.FunctionDef):
            for node, text in _changes(definition, []):
                yield _mutant(file, source, node, text)
            for node, text in _of_statements(definition):
                yield _mutant(file, source, node, text)


def _of_statements(definition: ast.FunctionDef) -> Iterator[tuple[ast.expr, str]]:
    for node in ast.walk(definition):
        match node:
            case ast.If(test) | ast.While(test) if isinstance(test, ast.Name | ast.Attribute | ast.Call):
                yield test, f"not {ast.unparse(test)}"
            case ast.Expr(ast.Call() as call):
                yield call, "None"


_Definition = ast.FunctionDef | ast.Assign | ast.AnnAssign


def _definitions(tree: ast.AST) -> Iterator[_Definition]:
    """Yield functions and assignments of modules and classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node)
        elif isinstance(node, _Definition):
            yield node


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


class _Values:
    """What the numbers of a package's modules are, by their names; a name of two meanings has none."""

    def __init__(self, definitions: Iterable[_Definition]) -> None:
        self._numbers: dict[str, int | None] = {k: v for k, v in vars(vm_flags).items() if k.isupper()}
        for definition in definitions:
            if isinstance(definition, ast.FunctionDef):
                continue
            for name in _names(definition):
                number = self.of(definition.value) if definition.value is not None else None
                self._numbers[name] = number if self._numbers.get(name, number) == number else None

    def of(self, node: ast.AST) -> int | None:
        """Return the number that an expression of constants is, or None."""
        match node:
            case ast.Constant(int(value)):
                return value
            case ast.Name(name) | ast.Attribute(ast.Name(), name):
                return self._numbers.get(name)
            case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
                one, other = self.of(left), self.of(right)
                shifts = isinstance(op, ast.LShift | ast.RShift)
                if one is not None and other is not None and (not shifts or 0 <= other <= 64):
                    return _ARITHMETIC[type(op)](one, other)
        return None


def _names(node: _Definition) -> set[str]:
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def _used(definitions: list[_Definition]) -> set[_Definition]:
    """Return the definitions of the contract's names, and of the names that these mention."""
    found: set[_Definition] = set()
    names, of_others = set(_ROOTS), set[str]()
    while more := [
        d for d in definitions if d not in found and (_names(d) & names or (_is_plain(d) and _names(d) & of_others))
    ]:
        found.update(more)
        for definition in more:
            nodes = list(ast.walk(definition))
            local = {n.arg for n in nodes if isinstance(n, ast.arg)}
            local |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            names |= {n.id for n in nodes if isinstance(n, ast.Name)} - local
            for node in nodes:
                if isinstance(node, ast.Attribute):
                    own = isinstance(node.value, ast.Name) and (node.value.id == "self" or node.value.id[0].isupper())
                    (names if own else of_others).add(node.attr)
    return found


def _is_plain(definition: _Definition) -> bool:
    """Tell whether a definition can be meant by a mere attribute of some object: a field, a method of no arguments."""
    return not isinstance(definition, ast.FunctionDef) or len(definition.args.args) == 1


def _changes(definition: _Definition, masks: list[str]) -> Iterator[tuple[ast.expr, str]]:
    """Yield (expression, the text that takes its place) of one definition."""
    if isinstance(definition, ast.FunctionDef):
        yield from ((mark, "staticmethod") for mark in definition.decorator_list if _is(mark, "hookimpl"))
        arguments = [argument.arg for argument in definition.args.args if argument.arg not in ("self", "cls")]
        for node in (node for statement in definition.body for node in _code(statement)):
            if isinstance(node, ast.Return) and node.value is not None and arguments:
                yield node.value, arguments[0]
            yield from _of_node(node, masks)
    elif definition.value is not None:
        if _names(definition) & {"__all__", "name", "machines", "expected_failures"}:
            return
        for node in _code(definition.value):
            yield from _of_node(node, masks)


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and what is in it, less messages and annotations."""
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    inside = _code(child)
                    if isinstance(child, ast.Tuple) and (name == "iter" or _is_membership(node)):
                        next(inside)  # its order
                    yield from inside


def _is_membership(node: ast.AST) -> bool:
    return isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn)


def _of_node(node: ast.AST, masks: list[str]) -> Iterator[tuple[ast.expr, str]]:
    match node:
        case ast.BinOp(left, op, right):
            if isinstance(op, _DROPPED):
                yield node, ast.unparse(left)
                yield node, ast.unparse(right)
            if type(op) in _OPPOSITES:
                yield node, ast.unparse(ast.BinOp(left, _opposite(op), right))
        case ast.Compare(left, [op], rest) if type(op) in _OPPOSITES:
            yield node, ast.unparse(ast.Compare(left, [_opposite(op)], rest))
        case ast.BoolOp(op, values):
            yield node, ast.unparse(ast.BoolOp(_opposite(op), values))
        case ast.UnaryOp(ast.Not(), operand):
            yield node, f"bool({ast.unparse(operand)})"
        case ast.IfExp(test, body, orelse):
            yield node, ast.unparse(ast.IfExp(test, orelse, body))
        case ast.Constant(int(value)) if not isinstance(value, bool):
            yield node, str(value + 1) if value < 64 else hex(value << 1 & (1 << 64) - 1)
        case ast.Name(name, ast.Load()) if name in masks:
            other = masks[(masks.index(name) + 1) % len(masks)]
            yield from [(node, other)] if other != name else []
        case ast.Tuple(elements, ast.Load()):
            for number, (one, after) in enumerate(pairwise(elements)):
                if ast.dump(one) != ast.dump(after) and not (_is_text(one) and _is_text(after)):
                    swapped = [*elements[:number], after, one, *elements[number + 2 :]]
                    yield node, ast.unparse(ast.Tuple(swapped, ast.Load()))


def _is_text(node: ast.expr) -> bool:
    """Tell names of ops and symbols, which are gone through in any order."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _opposite(operator: ast.AST) -> Any:
    return _OPPOSITES[type(operator)]()


def _mutant(file: str, source: str, node: ast.expr, text: str) -> Mutant:
    """Put a text in the place of an expression; columns of the syntax tree count bytes."""
    lines = source.encode().splitlines(keepends=True)
    assert node.end_lineno is not None
    first, last = node.lineno - 1, node.end_lineno - 1
    before, after = b"".join(lines[:first]), b"".join(lines[last + 1 :])
    head, tail = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
    written = text if text == "staticmethod" else f"({text})"
    mutated = before + head + written.encode() + tail + after
    return Mutant(file, node.lineno, f"{ast.unparse(node)} -> {text}", mutated.decode())


def _asked_symbols(code: Iterable[str], fragments: Iterable[str]) -> set[str]:
    """Return the Kconfig symbols that code names, those that these depend on, and those that select one of them."""
    decide: dict[str, set[str]] = {}  # symbol -> those that its value hangs on
    for fragment in fragments:
        symbol = ""
        for line in fragment.splitlines():
            keyword, _, rest = line.strip().partition(" ")
            words = set(_SYMBOL.findall(rest))
            if keyword == "config":
                symbol = rest.strip()
            elif keyword in ("select", "imply"):
                decide.setdefault(rest.split()[0], set()).update({symbol, *words} - {rest.split()[0]})
            else:
                decide.setdefault(symbol, set()).update(words)
    found: set[str] = set()
    more = {word for text in code for word in _SYMBOL.findall(text)}
    while more:
        found |= more
        more = {other for symbol in more for other in decide.get(symbol, ())} - found
    return found


def _kconfig(file: str, text: str, asked: set[str]) -> Iterator[Mutant]:
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.strip().startswith("select ") and line.split()[1] in asked:
            without = [*lines[:number], *lines[number + 1 :]]
            yield Mutant(file, number + 1, f"without {line.strip()!r}", "".join(without))
