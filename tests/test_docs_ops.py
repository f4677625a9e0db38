"""docs/ops.md has a section for every op, with every argument named and an example that does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pfnmap.ops import OPS
from pfnmap.plugins import Registry

ROOT = Path(__file__).resolve().parents[1]
_TEXT = (ROOT / "docs" / "ops.md").read_text()
_BLOCK = re.compile(r"```toml\n(.*?)```", re.DOTALL)
_MACHINE, *_ = _BLOCK.findall(_TEXT)
_SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^##? |\Z)", _TEXT, re.DOTALL | re.MULTILINE))


def _arguments() -> dict[str, set[str]]:
    """Arguments by op, of the core and of the architectures and drivers of this repository."""
    found = {name: {*op.required, *op.optional} for name, op in OPS.items()}
    registry = Registry()
    for kind in ("arch", "driver"):
        for name in registry.names(kind):
            loaded = registry.load(kind, name)
            module = loaded.module if kind == "arch" else loaded
            if (ROOT / "plugins" / name).is_dir() and module is not None:
                found |= {action: set(a.arguments) for action, a in module().actions().items()}
    return found


def test_every_op_has_a_section_and_every_section_is_an_op():
    assert set(_SECTIONS) == set(_arguments())


@pytest.mark.parametrize(("op", "arguments"), _arguments().items())
def test_a_section_names_every_argument(op, arguments):
    text, _, _ = _SECTIONS[op].partition("```")
    assert {name for name in arguments if f"`{name}" not in text} == set()


@pytest.mark.parametrize("op", _SECTIONS)
def test_an_example_gives_what_it_expects(pfnmap, tmp_path, op):
    (example,) = _BLOCK.findall(_SECTIONS[op])
    assert re.search(rf'^op = "(\w+\.)?{op}"$', example, re.MULTILINE), "an example uses its op"
    assert "expect" in example
    scenario = tmp_path / f"{op}.toml"
    scenario.write_text(example if example.startswith("[kernel]") else f"{_MACHINE}\n{example}")
    result = pfnmap("run", scenario)
    assert result.exit_code == 0, result.output
