"""Kconfig against what the kernel's own conf derived, and against configurations that were shipped.

Each architecture's plugin has its records in ``tests/data/kconfig``; they hold symbols of the core, of the architecture
and of VFIO, so they are resolved here, where all of them are.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pfnmap.config import Config, Reason
from pfnmap.host.dotconfig import DotConfig, read_dotconfig
from pfnmap.kconfig import DEFAULTS, Fragment, declared, fragment, resolve
from pfnmap.release import parse_release, upstream_changes

ROOT = Path(__file__).parent.parent
ALWAYS = ("pfnmap", "pfnmap_vfio_pci")
FILES = sorted((ROOT / "examples" / "configs").glob("config-*.gz"))
assert FILES


def _records() -> list[tuple[str, dict[str, Any]]]:
    documents = [
        json.loads(gzip.decompress(path.read_bytes()))
        for path in sorted(ROOT.glob("plugins/*/tests/data/kconfig/resolved.json.gz"))
    ]
    return [(document["arch"], record) for document in documents for record in document["records"]]


RECORDS = _records()
ARCHS = sorted({arch for arch, _ in RECORDS})


def fragments(arch: str, release: str) -> list[Fragment]:
    has = parse_release(release).has
    return [(package, fragment(package, has)) for package in (*ALWAYS, f"pfnmap_{arch}")]


def derive(file: DotConfig, given: dict[str, str] | None = None) -> Config:
    arch = next(name for name in file.arch_names if name in ARCHS)
    return resolve(fragments(arch, file.release), given, file=file.values, source="the file")


def test_there_are_records_of_each_architecture():
    counts = {arch: sum(a == arch for a, _ in RECORDS) for arch in ARCHS}
    known = {"arm64": 51, "loongarch64": 17, "powerpc64": 25, "riscv64": 25, "s390": 19, "sparc64": 13, "x86_64": 51}
    assert known.items() <= counts.items()


@pytest.mark.parametrize("defaults", [None, DEFAULTS], ids=["alone", "over the defaults"])
@pytest.mark.parametrize(("arch", "record"), RECORDS, ids=[record["id"] for _, record in RECORDS])
def test_given_derives_what_conf_derived(arch: str, record: dict[str, Any], defaults: dict[str, str] | None):
    parts = fragments(arch, record["release"])
    config = resolve(parts, record["given"], defaults=defaults, known=declared("pfnmap", "pfnmap_vfio_pci"))
    assert {symbol: config.value(symbol) for symbol in record["derived"]} == record["derived"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_shipped_configuration_follows_from_its_prompts(path: Path):
    file = read_dotconfig(path)
    config = derive(file)
    assert config.conflicts == ()
    assert config.warnings == ()
    for symbol in ("TRANSPARENT_HUGEPAGE", "ARCH_SUPPORTS_PMD_PFNMAP", "ARCH_SUPPORTS_PUD_PFNMAP", "PGTABLE_LEVELS"):
        if symbol in config:
            assert config[symbol] == file.values.get(symbol, "n"), symbol
        else:
            assert symbol not in file.values


@pytest.mark.parametrize("path", [p for p in FILES if "6.1.0" not in p.name], ids=lambda path: path.name)
@pytest.mark.parametrize("symbol", ["ARCH_SUPPORTS_PMD_PFNMAP", "ARCH_SUPPORTS_PUD_PFNMAP", "PGTABLE_HAS_HUGE_LEAVES"])
def test_flipped_derived_symbol_is_a_conflict(path: Path, symbol: str):
    file = read_dotconfig(path)
    derived = file.values.get(symbol, "n")
    flipped = "n" if derived == "y" else "y"
    config = derive(DotConfig({**file.values, symbol: flipped}, file.arch, file.release))
    assert config.conflicts == ((symbol, flipped, derived),)


def test_huge_pages_on_a_real_time_kernel_are_a_conflict():
    file = read_dotconfig(ROOT / "examples/configs/config-6.12.117+deb12-rt-amd64.gz")
    config = derive(DotConfig({**file.values, "TRANSPARENT_HUGEPAGE": "y"}, file.arch, file.release))
    assert config.conflicts == (("TRANSPARENT_HUGEPAGE", "y", "n"),)


def test_what_is_set_over_a_file_is_no_conflict_of_the_file():
    file = read_dotconfig(ROOT / "examples/configs/config-6.12.117+deb12-amd64.gz")
    config = derive(file, {"PREEMPT_RT": "y"})
    assert (config["TRANSPARENT_HUGEPAGE"], config["ARCH_SUPPORTS_PUD_PFNMAP"], config.conflicts) == ("n", "n", ())


# what the machines of vectors and recordings name


@pytest.mark.parametrize("arch", ARCHS)
def test_machines_of_vectors_name_only_declared_symbols_and_win(arch: str):
    for path in sorted((ROOT / "plugins" / arch / "tests" / "data").glob("*.json.gz")):
        document = json.loads(gzip.decompress(path.read_bytes()))
        machine, parts = document["machine"]["config"], fragments(arch, document["kernel"])
        assert set(machine) <= set(resolve(parts)), path.name
        config = resolve(parts, force=machine)
        assert {symbol: config[symbol] for symbol in machine} == machine, path.name


@pytest.mark.parametrize("release", ["6.1.192", "6.12.117", "7.3.4"])
@pytest.mark.parametrize("size", ["4K", "16K", "64K"])
def test_page_size_of_a_machine_settles_what_follows_from_it(release: str, size: str):
    config = resolve(fragments("arm64", release), force={f"ARM64_{size}_PAGES": "y", "TRANSPARENT_HUGEPAGE": "y"})
    shift = {"4K": "12", "16K": "14", "64K": "16"}[size]
    assert config["ARM64_PAGE_SHIFT" if release == "6.1.192" else "PAGE_SHIFT"] == shift
    levels = {"4K": ("3", "5"), "16K": ("3", "4"), "64K": ("2", "3")}[size]
    assert config["PGTABLE_LEVELS"] == levels[release != "6.1.192"]


# fragments and releases


@pytest.mark.parametrize("package", [*ALWAYS, *(f"pfnmap_{arch}" for arch in ARCHS)])
def test_fragments_ask_only_for_changes_that_there_are(package: str):
    asked: set[str] = set()
    fragment(package, lambda change: bool(asked.add(change)))  # type: ignore[func-returns-value]
    assert asked <= set(upstream_changes())


@pytest.mark.parametrize("arch", ["arm64", "x86_64"])
def test_posted_series_has_huge_pfnmaps_and_no_real_time_kernel(arch: str):
    config = resolve(fragments(arch, "posted-v2"), {"PREEMPT_RT": "y"}, defaults=DEFAULTS)
    assert (config["PREEMPT_RT"], config["ARCH_SUPPORTS_PMD_PFNMAP"]) == ("n", "y")
    assert config["PGTABLE_LEVELS"] == "5"


def _leaves(reason: Reason) -> list[Reason]:
    return [leaf for child in reason.children for leaf in _leaves(child)] or [reason]


@pytest.mark.parametrize(
    ("arch", "given", "value", "decisive"),
    [
        ("x86_64", {"TRANSPARENT_HUGEPAGE": "y"}, "y", "asked for"),
        ("x86_64", {}, "n", "no default"),
        ("arm64", {"TRANSPARENT_HUGEPAGE": "y"}, "n", "no default"),
    ],
)
def test_pud_pfnmap_is_explained(arch: str, given: dict[str, str], value: str, decisive: str):
    reason = resolve(fragments(arch, "6.12.117"), given).explain("ARCH_SUPPORTS_PUD_PFNMAP")
    assert reason.value == value
    assert decisive in [leaf.text for leaf in _leaves(reason)]


@pytest.mark.parametrize("arch", ARCHS)
def test_every_symbol_of_an_architecture_can_be_explained(arch: str):
    config = resolve(fragments(arch, "6.12.117"), {"VFIO_PCI": "m"}, defaults=DEFAULTS)
    assert all(config.explain(symbol).children for symbol in config)


def test_real_time_patches_of_older_kernels_are_what_a_configuration_says():
    given = {"ARCH_SUPPORTS_RT": "y", "PREEMPT_RT": "y"}
    patched = resolve(fragments("x86_64", "6.1.192"), given, defaults=DEFAULTS)
    assert (patched["PREEMPT_RT"], patched.get("TRANSPARENT_HUGEPAGE")) == ("y", "n")
    file = {**patched, "CC_VERSION_TEXT": "gcc"}
    assert derive(DotConfig(file, "x86", "6.1.192")).conflicts == ()


def test_configurations_between_the_releases_that_were_looked_at_raise_no_conflict():
    """ARCH_SUPPORTS_HUGETLBFS, ARCH_ENABLE_MEMORY_HOTREMOVE and, on arm64, ARCH_HAS_NONLEAF_PMD_YOUNG changed at
    releases that nobody looked at: either value is right there."""
    for arch in ("x86_64", "arm64"):
        older, newer = (fragments(arch, release) for release in ("6.12.117", "7.3.4"))
        for parts in (older, newer):
            file = resolve(parts, {"HUGETLBFS": "y", "MEMORY_HOTPLUG": "y"}, defaults=DEFAULTS)
            assert resolve(older, file=file, otherwise=newer).conflicts == ()
