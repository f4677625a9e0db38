"""docs/hooks.md has every hook, method and check, and no other; nothing in it is without words."""

from __future__ import annotations

import re

import pytest

from pfnmap import Arch, Driver, VmOperations
from pfnmap.contract.pgtable_ops import OPTIONAL_OPS
from pfnmap.hookspecs import ENTRY_HOOKS, EntryHooks
from pfnmap.testing.hooks_page import page
from pfnmap.testing.kit import ARCH_CHECKS, DRIVER_CHECKS
from pfnmap.testing.reference import entries


@pytest.fixture(scope="module")
def text(root):
    return (root / "docs" / "hooks.md").read_text()


def test_the_page_is_what_the_sources_say(text):
    assert text == page(), "python -m pfnmap.testing.hooks_page > docs/hooks.md writes it anew"


def undocumented():
    return [entry.name for entry in entries() if len(entry.text.split()) < 3]


def test_everything_that_a_plugin_may_write_is_documented():
    assert undocumented() == []


def test_a_hook_without_a_docstring_would_be_noticed(monkeypatch, text):
    monkeypatch.setattr(EntryHooks.pmd_special, "__doc__", None)
    assert undocumented() == ["pmd_special"]
    assert page() != text


@pytest.mark.parametrize(
    "names",
    [
        ENTRY_HOOKS,
        Arch.__abstractmethods__,
        OPTIONAL_OPS,
        Driver.__abstractmethods__,
        VmOperations.__dataclass_fields__,
        ("kconfig", "word_format", "machines", "expected_failures", "undefined", "empty", "sample"),
    ],
    ids=["hooks", "abstract", "optional", "driver", "vm_ops", "declared"],
)
def test_the_page_has_a_section_for_every_name(text, names):
    assert set(names) <= set(re.findall(r"^### (\w+)$", text, re.MULTILINE))


def test_the_page_gives_each_check_with_its_reason(text):
    for check in (*ARCH_CHECKS, *DRIVER_CHECKS):
        assert f"| `{check.name}` |" in text
        assert len(check.reason.split()) >= 4, check.name
