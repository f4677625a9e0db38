"""No module of the core imports itself in a circle, imports for types and inside functions counted."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pfnmap

CORE = Path(pfnmap.__file__).parent


def modules(root: Path) -> dict[str, Path]:
    """The modules below a package, by name."""
    found = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, known: dict[str, Path]) -> set[str]:
    """The modules of `known` that a source imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known.keys() or {node.module}
    return found & known.keys()


def in_order(root: Path) -> list[str]:
    """The modules below a package, each after those that it imports."""
    known = modules(root)
    return list(
        TopologicalSorter({name: imports(path.read_text(), known) for name, path in known.items()}).static_order()
    )


def test_the_core_has_no_import_circle():
    order = in_order(CORE)
    assert order.index("pfnmap.contract.vma") < order.index("pfnmap.mm.memory") < order.index("pfnmap.run")


def test_a_circle_through_an_import_for_types_is_seen(tmp_path: Path):
    package = tmp_path / "ring"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text("from ring.two import f\n")
    (package / "two.py").write_text("if TYPE_CHECKING:\n    from ring import one\n")
    with pytest.raises(CycleError):
        in_order(package)
