"""Mutants: what is changed in a package and what is not, and that a copy is checked in place of the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pfnmap.cli.app import app
from pfnmap.errors import PluginError
from pfnmap.testing.mutants import mutants, mutants_of, sample
from pfnmap.testing.mutation import run

ARCH = '''\
"""A package with one of each."""

from pfnmap import hookimpl
from pfnmap.testing.plain import ACCESSED, Plain
from pfnmap_tiny.bits import DIRTY

__all__ = ["Tiny"]


class Tiny(Plain):
    name = "tiny"

    @hookimpl
    def pte_special(self, pte):
        return super().pte_special(pte)

    def pte_mkdirty(self, pte):
        return pte | DIRTY

    def pte_mkold(self, pte):
        return pte & ((1 << 64) - 1 ^ ACCESSED)

    def access_error(self, vm_flags, write):
        if vm_flags == 99 and not write:
            raise ValueError(f"{99 + 1}")
        return super().access_error(vm_flags, write)

    def track_pfn_copy(self, dst, src):
        return 7 + 8

    def helper_of_nobody(self, pte):
        return pte | 2
'''
BITS = """\
DIRTY = 1 << 5
ORDER = (DIRTY, 9)
UNUSED = 1 << 60
"""
KCONFIG = """\
config TINY
	def_bool y
	select HAVE_PCI if TINY
	select TINY_ON_THE_WAY
	select TINY_OF_NOBODY

config TINY_ON_THE_WAY
	bool
	select ARCH_HAS_PTE_SPECIAL
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "pfnmap_tiny"
    folder.mkdir()
    for name, text in {"__init__.py": "", "arch.py": ARCH, "bits.py": BITS, "Kconfig": KCONFIG}.items():
        (folder / name).write_text(text)
    return folder


def changes(package: Path, file: str) -> set[str]:
    return {mutant.change for mutant in mutants(package) if mutant.file == file}


def test_ops_are_broken_one_expression_at_a_time(package):
    found = changes(package, "arch.py")
    assert {
        "hookimpl -> staticmethod",
        "super().pte_special(pte) -> pte",
        "pte | DIRTY -> pte",
        "pte | DIRTY -> DIRTY",
        "ACCESSED -> DIRTY",
        "1 << 64 -> 1 >> 64",
        "(1 << 64) - 1 -> (1 << 64) + 1",
        "vm_flags == 99 -> vm_flags != 99",
        "vm_flags == 99 and (not write) -> vm_flags == 99 or not write",
        "not write -> bool(write)",
        "99 -> 0xc6",
    } <= found


def test_messages_and_what_the_contract_does_not_ask_for_are_left_alone(package):
    found = changes(package, "arch.py")
    assert not [change for change in found if "7 + 8" in change or "99 + 1" in change or "pte | 2" in change]


def test_constants_are_broken_where_an_op_uses_them(package):
    assert changes(package, "bits.py") == {"1 << 5 -> 1 >> 5", "1 -> 2", "5 -> 6"}


def test_what_would_change_nothing_is_not_tried(package):
    (package / "bits.py").write_text("FIRST = 1 << 0\nDIRTY = FIRST << 5\nALSO = 32\n")
    (package / "arch.py").write_text(
        "from pfnmap.vm_flags import VM_EXEC\nfrom pfnmap_tiny.bits import ALSO, DIRTY, FIRST\nUSER = 4\n"
        "def pte_dirty(pte):\n    for bit in (DIRTY, FIRST):\n        pte |= bit\n    return pte & USER\n"
        "def pte_young(pte):\n    return pte & VM_EXEC & (ALSO | DIRTY)\n"
        "def pmd_populate(pa):\n    return pa if pa in (1, 2) else pa\n"
        "def empty(level):\n    return level in ('pte', 'pmd')\n"
    )
    assert "1 << 0 -> 1 >> 0" not in changes(package, "bits.py")
    assert "FIRST << 5 -> FIRST >> 5" in changes(package, "bits.py")
    found = changes(package, "arch.py")
    assert not found & {"ALSO -> DIRTY", "ALSO | DIRTY -> ALSO", "USER -> VM_EXEC", "(DIRTY, FIRST) -> (FIRST, DIRTY)"}
    assert not found & {"(1, 2) -> (2, 1)", "pa -> pa", "('pte', 'pmd') -> ('pmd', 'pte')"}
    assert {"DIRTY -> FIRST", "VM_EXEC -> ALSO"} <= found


def test_selects_of_kconfig_are_left_out_where_somebody_asks_for_the_symbol(package):
    assert changes(package, "Kconfig") == {
        "without 'select HAVE_PCI if TINY'",
        "without 'select TINY_ON_THE_WAY'",
        "without 'select ARCH_HAS_PTE_SPECIAL'",
    }


def test_each_mutant_is_the_file_with_one_line_changed(package):
    for mutant in mutants(package):
        if mutant.file == "arch.py":
            compile(mutant.source, mutant.file, "exec")
            pairs = zip(ARCH.splitlines(), mutant.source.splitlines(), strict=True)
            assert [number for number, (old, new) in enumerate(pairs, 1) if old != new] == [mutant.line]


def test_a_sample_is_always_the_same(package):
    assert sample(package, 5) == sample(package, 5)
    assert len(sample(package, 5)) == 5
    everything = sample(package, 1000)
    assert len(everything) == len(set(everything)) > 20


FUNCTION = """\
def zap(vma, ops):
    if ops.locked:
        vma.notify(1)
    return vma.start + 4096
"""


def test_of_any_module_branches_are_inverted_and_calls_left_out_too():
    assert {mutant.change for mutant in mutants_of("zap.py", FUNCTION)} == {
        "ops.locked -> not ops.locked",
        "vma.notify(1) -> None",
        "1 -> 2",
        "vma.start + 4096 -> vma",
        "vma.start + 4096 -> vma.start - 4096",
        "4096 -> 0x2000",
    }


# Running them: an installed distribution that only the processes of this test see

TINY = """\
from pfnmap.testing.plain import Plain


class Tiny(Plain):
    name = "tiny"

    def pte_mkdirty(self, pte):
        return pte | 32
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pfnmap_tiny").mkdir()
    (tmp_path / "pfnmap_tiny" / "__init__.py").write_text(TINY)
    info = tmp_path / "pfnmap_tiny-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pfnmap-tiny\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pfnmap.arch]\ntiny = pfnmap_tiny:Tiny\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PFNMAP_PLUGINS", "tiny")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pfnmap_tiny", raising=False)
    return tmp_path / "pfnmap_tiny" / "__init__.py"


def test_the_kit_catches_what_its_laws_see_in_copies_and_says_what_it_does_not(installed):
    from pfnmap_tiny import Tiny  # type: ignore[import-not-found]

    outcomes = {outcome.mutant.change: outcome.caught for outcome in run(Tiny, 100)}
    assert installed.read_text() == TINY
    assert outcomes["pte | 32 -> pte"].startswith("mkdirty-mkclean:pte on 6.12.117: pte_dirty(")
    assert outcomes["pte | 32 -> 32"]
    # Every leaf has bit 0 anyhow.
    assert [change for change, caught in outcomes.items() if not caught] == ["32 -> 33"]


def test_the_command_line_counts_and_lists_survivors(installed):
    done = CliRunner().invoke(app, ["check", "tiny", "--mutants", "1", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    survivors = document.pop("survivors")
    assert document == {"schema": "pfnmap-check/1", "plugin": "tiny", "mutants": 1, "caught": 1 - len(survivors)}
    for survivor in survivors:
        assert survivor.keys() == {"file", "line", "change"}


def test_a_plugin_that_the_kit_fails_already_is_no_ground_for_mutants(installed):
    installed.write_text(TINY.replace("| 32", "| 16"))
    from pfnmap_tiny import Tiny

    with pytest.raises(PluginError, match="fails without a mutant: mkdirty-mkclean:pte"):
        next(run(Tiny, 1))
