"""Fresh environments that have pfnmap, what it depends on, wheels of plugins, and nothing else: of plugins from outside
this repository (`tests/data/outside`), and of one architecture alone. No index is asked."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfnmap.kconfig import declared

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(__file__).parent / "data"
OUTSIDE = DATA / "outside"
PORT = "outside-huge-pfnmap"

Pfnmap = Callable[..., subprocess.CompletedProcess[str]]
Answer = Callable[..., Any]


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


def environment(directory: Path, wheels: Path) -> Pfnmap:
    """Make an environment with wheels, the core's among them, and return what runs its pfnmap from an empty
    directory."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    base = {"base": str(directory), "platbase": str(directory)}
    site = Path(sysconfig.get_path("purelib", "venv", base))
    needed = [line for line in importlib.metadata.requires("pfnmap") or () if "extra ==" not in line]
    for distribution in dependencies(needed):
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (site / top).symlink_to(str(distribution.locate_file(top)))
    python = directory / "bin" / "python"
    pip = [sys._base_executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps"]  # type: ignore[attr-defined]
    subprocess.run([*pip, *sorted(wheels.glob("*.whl"))], check=True, capture_output=True)
    empty = directory / "empty"
    empty.mkdir()
    return lambda *arguments: subprocess.run(
        [directory / "bin" / "pfnmap", *map(str, arguments)],
        cwd=empty,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def core_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wheels = tmp_path_factory.mktemp("core")
    build(ROOT / "core", wheels)
    (wheel,) = wheels.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def fresh(core_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Pfnmap:
    """Return what runs pfnmap where the plugins from outside are installed."""
    directory = tmp_path_factory.mktemp("outside")
    wheels = directory / "wheels"
    wheels.mkdir()
    shutil.copy(core_wheel, wheels)
    for kind, name in (("arch", "outside"), ("driver", "outside_bar")):
        package = directory / name
        code = "from pfnmap.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, "new", kind, name, str(package)], check=True, capture_output=True)
        source = package / "src" / f"pfnmap_{name}"
        shutil.copytree(OUTSIDE / kind, source, dirs_exist_ok=True)
        if kind == "arch":
            kconfig = source / "Kconfig"
            kconfig.write_text(kconfig.read_text().replace("since huge-pfnmap", f"since {PORT}"))
        build(package, wheels)
    for whole in ("vmm", "command"):
        build(shutil.copytree(OUTSIDE / whole, directory / whole), wheels)
    return environment(directory / "environment", wheels)


@pytest.fixture(scope="module")
def answer(fresh: Pfnmap) -> Answer:
    """Return what gives the document of a command."""

    def run(*arguments: object) -> Any:
        done = fresh(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_they_are_discovered_and_nothing_else_is(answer):
    plugins = [p for p in answer("plugins")["plugins"] if p["distribution"] != "pfnmap"]
    assert [(p["name"], p["kind"], p["distribution"], p["status"]) for p in plugins] == [
        ("outside", "arch", "pfnmap-outside", "ok"),
        ("outside_bar", "driver", "pfnmap-outside-bar", "ok"),
        ("outside_vmm", "vmm", "outside-vmm", "ok"),
        ("levels", "command", "outside-command", "ok"),
    ]


@pytest.mark.parametrize("name", ["outside", "outside_bar"])
def test_they_pass_the_kit(answer, name):
    results = answer("check", name)["results"]
    assert {result["status"] for result in results} <= {"passed", "not_claimed"}
    assert sum(result["status"] == "passed" for result in results) > 50


def test_its_kconfig_fragment_came_with_the_wheel(answer):
    assert answer("kconfig", "outside", "OUTSIDE")["values"] == {"OUTSIDE": "y"}


def test_the_command_is_called_with_the_architecture_and_its_change(answer):
    asked = ("levels", "--arch", "outside", "--release", "6.12.117")
    document = answer(*asked, "--with", PORT)
    assert (document["schema"], document["arch"]) == ("pfnmap-levels/1", "outside")
    assert document["levels"] == ["pte", "pmd", "pud"]
    assert answer(*asked)["levels"] == ["pte"]


def test_the_change_is_listed_with_who_brings_it(answer):
    (change,) = (c for c in answer("changes")["changes"] if c["id"] == PORT)
    assert (change["by"], change["requires"], change["arch"]) == ("pfnmap-outside", ["huge-pfnmap"], ["outside"])
    assert [answer("changes", name)["changes"][PORT] for name in ("6.12.117", "outside-port")] == ["no", "yes"]


def test_the_change_decides_what_the_architecture_can(answer):
    def owners(*said: str) -> dict[str, tuple[str, bool]]:
        levels = answer("caps", "outside", "--release", "6.12.117", *said)["archs"]["outside"]["levels"]
        return {level: (row["special"], row["pfnmap"]) for level, row in levels.items()}

    assert owners() == {"pte": ("arch", True), "pmd": ("generic", False), "pud": ("generic", False)}
    assert owners("--with", PORT) == {"pte": ("arch", True), "pmd": ("arch", True), "pud": ("arch", True)}


def test_the_change_is_refused_where_what_it_requires_is_not(fresh):
    done = fresh("caps", "outside", "--release", "6.11.1", "--with", PORT)
    assert done.returncode == 2
    assert f"change '{PORT}' requires 'huge-pfnmap', which 6.11.1 lacks" in done.stderr


def test_a_scenario_is_run_and_planned_alike(answer):
    ran = answer("run", OUTSIDE / "scenario.toml")
    assert ran["failed"] == []
    (mapping,) = answer("plan", OUTSIDE / "scenario.toml")["mappings"]
    assert mapping["counts"] == {"pud": 2, "pmd": 0, "pte": 0}
    assert mapping["driver_calls"] == 2


def test_a_plan_says_that_the_change_is_missing(answer):
    lspci = OUTSIDE / "lspci.txt"
    asked = ("plan", lspci, "--arch", "outside", "--release", "6.12.117", "--vmm", "aligned")
    (mapping,) = answer(*asked)["mappings"]
    assert mapping["counts"] == {"pud": 0, "pmd": 0, "pte": 524288}
    assert {(row["level"], row["reason"]) for row in mapping["blocked"]} == {("pmd", "release"), ("pud", "release")}
    assert all(PORT in row["detail"] for row in mapping["blocked"])
    (mapping,) = answer(*asked, "--with", PORT)["mappings"]
    assert mapping["counts"] == {"pud": 2, "pmd": 0, "pte": 0}


def test_the_vmm_places_the_bar(answer):
    (mapping,) = answer("plan", OUTSIDE / "scenario.toml", "--vmm", "outside-vmm-2.0")["mappings"]
    assert mapping["policy"] == "outside-vmm-2.0"
    assert mapping["area"] == {"offset": 0, "length": (2 << 30) - 4096}
    assert mapping["counts"] == {"pud": 0, "pmd": 1023, "pte": 511}
    assert mapping["unmapped"] == [{"offset": (2 << 30) - 4096, "length": 4096, "reason": "the doorbell"}]


# An architecture alone


@pytest.fixture(scope="module")
def alone(core_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Pfnmap:
    """Return what runs pfnmap where x86_64 alone is installed."""
    directory = tmp_path_factory.mktemp("alone")
    wheels = directory / "wheels"
    wheels.mkdir()
    shutil.copy(core_wheel, wheels)
    build(ROOT / "plugins" / "x86_64", wheels)
    return environment(directory / "environment", wheels)


BAR = ("--bar", "8G@0x800000000")
RECORDINGS = DATA / "recordings"
NOT_INSTALLED = {
    ("plan", *BAR): "driver vfio_pci is not installed; pip install pfnmap-vfio-pci",
    ("plan", *BAR, "--kvm"): "driver kvm is not installed; pip install pfnmap-kvm",
    ("plan", *BAR, "--gpa", "0x8000000000"): "driver kvm is not installed; pip install pfnmap-kvm",
    ("plan", *BAR, "--dma", "type1"): "driver vfio_pci is not installed; pip install pfnmap-vfio-pci",
    ("plan", *BAR, "--vmm", "qemu-8.2"): "placement policy qemu is not installed; pip install pfnmap-vmms",
    ("plan", OUTSIDE / "lspci.txt"): "driver vfio_pci is not installed; pip install pfnmap-vfio-pci",
    ("plan", OUTSIDE / "maps.txt"): "driver vfio_pci is not installed; pip install pfnmap-vfio-pci",
    ("vmm", "cloud-hypervisor"): "placement policy cloud-hypervisor is not installed; pip install pfnmap-vmms",
    ("caps", "arm64"): "architecture arm64 is not installed; pip install pfnmap-arm64",
    ("check", "vfio_pci"): "plugin vfio_pci is not installed; pip install pfnmap-vfio-pci",
    ("vmm",): "no VMM is installed; pip install pfnmap-vmms",
    ("log", OUTSIDE / "lspci.txt"): "driver vfio_pci is not installed; pip install pfnmap-vfio-pci",
    ("caps", "--with", "vfio-pci"): "unknown change 'vfio-pci'; pfnmap-vfio-pci brings it",
    ("caps", "--release", "posted-v2"): "unknown release 'posted-v2'; pfnmap-vfio-pci brings it",
    ("caps", "--set", "VFIO_PCI=y"): "unknown config symbol 'VFIO_PCI'; pfnmap-vfio-pci brings it",
    ("verify",): "command verify is not installed; pip install pfnmap-verify",
    ("run", ROOT / "examples/scenarios/decode-off-on.toml"): "driver vfio_pci is not installed; pip install "
    "pfnmap-vfio-pci",
    ("replay", RECORDINGS / "x86_64-4k-6.12.117.json.gz"): "driver vfio_pci is not installed; pip install "
    "pfnmap-vfio-pci",
    ("replay", RECORDINGS / "arm64-4k-6.12.117-n1.json.gz"): "architecture arm64 is not installed; pip install "
    "pfnmap-arm64",
    ("replay", RECORDINGS / "kvm-x86_64-4k-6.12.117.json.gz"): "group of recordings kvm is not installed; pip install "
    "pfnmap-kvm",
}


@pytest.mark.parametrize("arguments", NOT_INSTALLED, ids=lambda arguments: " ".join(map(str, arguments))[-60:])
def test_what_an_architecture_alone_cannot_do_says_what_to_install(alone, arguments):
    done = alone(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith(NOT_INSTALLED[arguments])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("caps",), "x86_64"),
        (("kconfig", "x86_64"), "ARCH_SUPPORTS_PUD_PFNMAP"),
        (("plugins",), "x86_64"),
        (("changes", "6.12.117"), "huge-pfnmap"),
    ],
)
def test_what_an_architecture_alone_can_do_it_does(alone, arguments, said):
    done = alone(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout


def test_what_is_said_to_bring_a_plugin_is_what_brings_it():
    offers = tomllib.loads((ROOT / "core/src/pfnmap/offers.toml").read_text())
    brought: dict[str, dict[str, str]] = {}
    for file in [*ROOT.glob("plugins/*/pyproject.toml"), ROOT / "verify/pyproject.toml"]:
        project = tomllib.loads(file.read_text())["project"]
        for group, points in project.get("entry-points", {}).items():
            kind = group.removeprefix("pfnmap.")
            if kind != "changes":  # nobody asks for one by name
                brought.setdefault(kind, {}).update(dict.fromkeys(points, project["name"]))
            if kind == "driver":
                symbols = declared(*{point.partition(":")[0] for point in points.values()})
                brought.setdefault("symbol", {}).update(dict.fromkeys(symbols, project["name"]))
        for changes in file.parent.glob("src/*/changes.toml"):
            its = tomllib.loads(changes.read_text())
            brought.setdefault("change", {}).update({one["id"]: project["name"] for one in its.get("change", ())})
            brought.setdefault("tree", {}).update({one["name"]: project["name"] for one in its.get("tree", ())})
    extras = tomllib.loads((ROOT / "core/pyproject.toml").read_text())["project"]["optional-dependencies"]
    plugins = (tomllib.loads(file.read_text())["project"]["name"] for file in ROOT.glob("plugins/*/pyproject.toml"))
    assert {line.partition(">")[0] for line in extras["all"]} == set(plugins)
    options, actions = offers.pop("plan_option"), offers.pop("action")
    assert offers == brought
    assert {*options.values(), *actions.values()} <= set(brought["driver"])
