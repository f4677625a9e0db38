"""Every scenario in examples/scenarios holds, expects something, and is listed where readers look for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).resolve().parents[1]
SCENARIOS = sorted((ROOT / "examples" / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_gives_what_it_expects(pfnmap, path):
    result = pfnmap("run", path)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_expects_something_of_its_last_step(path):
    last = tomli.loads(path.read_text())["step"][-1]
    assert last.get("expect"), "what a scenario is for is what its last step gives"


def test_every_scenario_is_listed_and_every_listed_one_is_there():
    text = (ROOT / "examples" / "README.md").read_text().partition("## scenarios/")[2].partition("\n## ")[0]
    listed = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(listed) == [path.name for path in SCENARIOS]
