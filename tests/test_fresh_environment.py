"""Plugins from outside this repository: written by ``pfnmap new``, built as wheels, and installed into a fresh
environment that has pfnmap and what it depends on, and nothing else. No index is asked."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What an author wrote, in short: the kit's own architecture and driver under another name.
ARCH = '''\
"""The architecture."""

from pfnmap import Has, hookimpl
from pfnmap.kconfig import fragment
from pfnmap.testing.plain import Plain


class OutsideArch(Plain):
    """Every bit where the kit's own architecture has it; the symbols are this package's."""

    name = "outside"

    @hookimpl
    def kconfig(self, has: Has) -> str:
        return fragment(__package__, has)
'''
DRIVER = '''\
"""The driver."""

from pfnmap import Device, DeviceBar
from pfnmap.testing.bar_driver import BarDriver


class OutsideBarDriver(BarDriver):
    """Maps BAR 0."""

    name = "outside_bar"
    sample = Device("card", "0000:00:01.0", {0: DeviceBar(0, 2 << 30, 1 << 40)}, driver="outside_bar")
'''

COMMAND = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "outside-command"
version = "2.0"
dependencies = ["pfnmap>=0.1,<1"]

[project.entry-points."pfnmap.command"]
levels = "outside_command:command"

[tool.hatch.build.targets.wheel]
packages = ["outside_command"]
""",
    "outside_command/__init__.py": '''\
import typer

from pfnmap.cli.options import JsonOption, KernelOptions, kernel_options, linked
from pfnmap.cli.terminal import print_json


@kernel_options()
def command(context: typer.Context, kernel: KernelOptions, json: JsonOption = False) -> int:
    """Tell at which levels a pfnmap can have leaves."""
    image = linked(kernel.over(), context.obj.registry)
    print_json("levels", {"arch": image.arch.name, "levels": [x for x in ("pte", "pmd", "pud") if image.pfnmap(x)]})
    return 0
''',
}


def dependencies(names: Iterable[str]) -> Iterator[importlib.metadata.Distribution]:
    """Yield distributions and all that they need, extras left out."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = list(names)
    while waiting:
        requirement = waiting.pop()
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r";.*\bextra\b", requirement)  # type: ignore[union-attr]
        assert name
        if extra or name[0].lower() in found:
            continue
        try:
            found[name[0].lower()] = distribution = importlib.metadata.distribution(name[0])
        except importlib.metadata.PackageNotFoundError:
            assert ";" in requirement, f"{requirement}: not installed"  # for another Python or platform
            continue
        waiting += distribution.requires or []
    yield from found.values()


def build(source: Path, wheels: Path) -> None:
    """Build the wheel of a package with the backend that its pyproject.toml names."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheels; the extra pfnmap[test] installs it")
    code = f"from hatchling.build import build_wheel; build_wheel({str(wheels)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return what runs pfnmap in the fresh environment, from an empty directory."""
    directory = tmp_path_factory.mktemp("outside")
    wheels = directory / "wheels"
    wheels.mkdir()
    for kind, name, module, text in (("arch", "outside", "arch", ARCH), ("driver", "outside_bar", "driver", DRIVER)):
        package = directory / name
        code = "from pfnmap.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, "new", kind, name, str(package)], check=True, capture_output=True)
        (package / "src" / f"pfnmap_{name}" / f"{module}.py").write_text(text)
        build(package, wheels)
    for path, text in COMMAND.items():
        (directory / "command" / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / "command" / path).write_text(text)
    build(directory / "command", wheels)
    build(ROOT / "core", wheels)

    environment = directory / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    base = {"base": str(environment), "platbase": str(environment)}
    site = Path(sysconfig.get_path("purelib", "venv", base))
    (core,) = wheels.glob("pfnmap-[0-9]*.whl")
    needed = [line for line in importlib.metadata.requires("pfnmap") or () if "extra ==" not in line]
    for distribution in dependencies(needed):
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (site / top).symlink_to(str(distribution.locate_file(top)))
    python = environment / "bin" / "python"
    pip = [sys._base_executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps"]  # type: ignore[attr-defined]
    subprocess.run([*pip, core, *sorted({*wheels.glob("*.whl")} - {core})], check=True, capture_output=True)

    def run(*arguments: str) -> Any:
        done = subprocess.run(
            [environment / "bin" / "pfnmap", *arguments, "--json"],
            cwd=wheels,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_they_are_discovered_and_nothing_else_is(fresh):
    plugins = [p for p in fresh("plugins")["plugins"] if p["distribution"] != "pfnmap"]
    assert [(p["name"], p["kind"], p["distribution"], p["status"]) for p in plugins] == [
        ("outside", "arch", "pfnmap-outside", "ok"),
        ("outside_bar", "driver", "pfnmap-outside-bar", "ok"),
        ("levels", "command", "outside-command", "ok"),
    ]


@pytest.mark.parametrize("name", ["outside", "outside_bar"])
def test_they_pass_the_kit(fresh, name):
    results = fresh("check", name)["results"]
    assert {result["status"] for result in results} <= {"passed", "not_claimed"}
    assert sum(result["status"] == "passed" for result in results) > 50


def test_the_architecture_has_its_capabilities(fresh):
    document = fresh("caps", "outside", "--release", "6.12.117")
    levels = document["archs"]["outside"]["levels"]
    assert {level: row["pfnmap"] for level, row in levels.items()} == {"pte": True, "pmd": True, "pud": True}


def test_its_kconfig_fragment_came_with_the_wheel(fresh):
    assert fresh("kconfig", "outside", "OUTSIDE")["values"] == {"OUTSIDE": "y"}


def test_the_command_is_called_with_the_architecture(fresh):
    document = fresh("levels", "--arch", "outside", "--release", "6.12.117")
    assert (document["schema"], document["arch"]) == ("pfnmap-levels/1", "outside")
    assert document["levels"] == ["pte", "pmd", "pud"]
