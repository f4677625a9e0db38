"""The contract in words: every hook, method and op that a plugin may write, with its documentation.

docs/hooks.md is made from this (`pfnmap.testing.hooks_page`), and the kit takes from it what a method that is still to
be written should do.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from pfnmap.contract.arch import Arch
from pfnmap.contract.module import Driver, Module
from pfnmap.contract.pgtable_ops import OPTIONAL_OPS, PgtableOps
from pfnmap.contract.vma import FileOperations, VmOperations
from pfnmap.hookspecs import EntryHooks, LinkHooks

__all__ = ["SECTIONS", "Entry", "entries", "sentence"]


class Entry(NamedTuple):
    """One name of the contract: its section, how it is called, and its documentation."""

    section: str
    name: str
    signature: str
    text: str


SECTIONS: Final[Mapping[str, str]] = {
    "Hooks of every plugin": "Called while a kernel is linked; every answer counts. Mark them with `@hookimpl`.",
    "An architecture must have": "Abstract methods of `pfnmap.Arch`: no kernel header falls back for "
    "them, and no kernel is linked without them.",
    "An architecture may have": "Methods without a mark. Where one is missing, calling it is refused, with its name.",
    "An architecture may own": "Entry hooks, marked with `@hookimpl`: whoever has one owns the op, else the "
    "fallback of the kernel's headers is used. One owner, never None; own one only where the architecture's headers "
    "define the name.",
    "An architecture declares": "Attributes and methods with a default.",
    "A driver must have": "Abstract methods of `pfnmap.Driver`.",
    "A driver may have": "Methods and attributes of `pfnmap.Module` and `pfnmap.Driver` with a default.",
    "What an open file has": "`pfnmap.FileOperations`, which `Driver.file_operations` returns.",
    "What mmap gives a vma": "`pfnmap.VmOperations`, which a driver's `mmap` sets as `vma.vm_ops`.",
}
"""The sections, in order, with what stands at the head of each."""


def entries() -> Iterator[Entry]:
    """Yield the whole contract, section by section."""
    must, may, own, declares, driver_must, driver_may, file_ops, vm_ops = list(SECTIONS)[1:]
    yield from _functions(LinkHooks, next(iter(SECTIONS)))
    abstract = Arch.__abstractmethods__
    for part in (Arch, PgtableOps):
        yield from (entry for entry in _functions(part, must) if entry.name in abstract)
    for name, text in OPTIONAL_OPS.items():
        call, _, meaning = text.partition(": ")
        yield Entry(may, name, call.removeprefix(name), meaning[0].upper() + meaning[1:])
    yield from _functions(EntryHooks, own)
    for part in (PgtableOps, Arch):
        yield from _attributes(part, declares)
        yield from (entry for entry in _functions(part, declares) if entry.name not in abstract)
    abstract = Driver.__abstractmethods__
    yield from (entry for entry in _functions(Driver, driver_must) if entry.name in abstract)
    for kind in (Module, Driver):
        yield from _attributes(kind, driver_may)
        yield from (entry for entry in _functions(kind, driver_may) if entry.name not in abstract)
    yield from _attributes(FileOperations, file_ops)
    yield from _attributes(VmOperations, vm_ops)


def _functions(kind: type[Any], section: str) -> Iterator[Entry]:
    for name, member in vars(kind).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        signature = "" if isinstance(member, property) else _signature(function)
        yield Entry(section, name, signature, inspect.getdoc(function) or "")


def _signature(function: Any) -> str:
    names = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    return f"({', '.join(names)})"


def _attributes(kind: type[Any], section: str) -> Iterator[Entry]:
    """Yield annotated attributes with the string that follows them in the source."""
    import ast
    import textwrap

    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    for node, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            text = inspect.cleandoc(after.value.value) if documented else ""  # type: ignore[attr-defined]
            yield Entry(section, node.target.id, "", text)


def sentence(name: str) -> str:
    """Return the first sentence of the documentation of a name, or ""."""
    text = next((entry.text for entry in entries() if entry.name == name), "")
    return " ".join(text.split("\n\n")[0].split())
