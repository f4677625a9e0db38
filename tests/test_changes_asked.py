"""Which changes code asks for: those of the core, of its own package, and of distributions that its own depends on.

Read from the sources: whatever string is a change's id counts as asked for, and every directive of a Kconfig fragment.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pfnmap.plugins import Registry
from pfnmap.release import Change, upstream_changes

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for path in ROOT.glob("*/**/src/*") if path.is_dir() and (path / "__init__.py").is_file())
CHANGES = upstream_changes()
DIRECTIVE = re.compile(r"\s*#:\s*(?:since|until)\s+(\S+)")


@cache
def asked(package: Path) -> tuple[tuple[str, str], ...]:
    """Return (file and line, id) for every id that a package's code or fragment has."""
    return tuple(_asked(package))


def _asked(package: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in CHANGES:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
    if (package / "Kconfig").is_file():
        for number, line in enumerate((package / "Kconfig").read_text().splitlines(), 1):
            if directive := DIRECTIVE.fullmatch(line):
                yield f"{(package / 'Kconfig').relative_to(ROOT)}:{number}", directive[1]


def literals(package: Path) -> Iterator[tuple[str, str]]:
    """Yield (file and line, id) for every literal that is passed to a function called has."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name == "has":
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.args[0].value


def test_the_sources_are_those_of_the_core_and_every_plugin():
    assert {"pfnmap", "pfnmap_x86_64", "pfnmap_vfio_pci", "pfnmap_nvgrace_gpu"} <= {path.name for path in SOURCES}


@pytest.mark.parametrize("package", SOURCES, ids=lambda path: path.name)
def test_code_asks_only_for_changes_that_there_are(package: Path):
    assert [at for at, id in literals(package) if id not in CHANGES] == []


@pytest.mark.parametrize("package", SOURCES, ids=lambda path: path.name)
def test_code_asks_only_for_changes_of_the_core_its_own_and_what_it_depends_on(package: Path):
    allowed = {"pfnmap", *Registry().with_dependencies([package.name])}
    others = [(at, id) for at, id in asked(package) if CHANGES[id].package not in allowed]
    assert others == []


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_modelled_where_code_asks_for_it(change: Change):
    asking = [at for package in SOURCES for at, id in asked(package) if id == change.id]
    assert change.modelled == bool(asking), asking
