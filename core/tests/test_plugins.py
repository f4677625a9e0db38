"""Discovery of plugins: installed distributions, broken ones among them, and what the user allows of them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from pfnmap import PfnmapError, PluginError, Unknown
from pfnmap.plugins import Plugin, Registry, implemented_hooks

Install = Callable[..., None]

ARCH = """
from pfnmap import Arch, hookimpl

class Toy(Arch):
    name = "toyarch"

    @hookimpl
    def pte_special(self, pte):
        return pte & 0

    @hookimpl
    def kconfig(self, has):
        return None
"""
DRIVER = """
from pfnmap import Driver

class Toy(Driver):
    name = "toydrv"
    made_by = "toy"

    def probe(self, device): ...
    def mmap(self, file, vma): ...
    def mmap_offset(self, bar, offset): ...
"""


def of(registry: Registry, name: str) -> list[Plugin]:
    return [plugin for plugin in registry.plugins() if plugin.name == name]


def test_kind_name_and_distribution_are_known_without_importing(install: Install):
    install("toy-pkg", "driver", "toydrv", "raise SystemExit('imported')", version="2.5")
    (plugin,) = of(Registry(), "toydrv")
    assert (plugin.kind, plugin.distribution, plugin.version, plugin.status) == ("driver", "toy-pkg", "2.5", "ok")
    assert "toydrv" in Registry().names("driver")
    assert "toydrv" not in Registry().names("arch")
    assert "toy_pkg_module" not in sys.modules


def test_only_what_is_asked_for_is_imported(install: Install):
    install("toy-one", "driver", "one", DRIVER)
    install("toy-two", "driver", "two", DRIVER)
    loaded = Registry().load("driver", "one")
    assert loaded.name == "toydrv"
    assert "toy_one_module" in sys.modules
    assert "toy_two_module" not in sys.modules


def test_a_name_is_of_its_kind_only(install: Install):
    install("toy-pkg", "driver", "toydrv", DRIVER)
    with pytest.raises(Unknown, match="unknown VMM placement policy 'toydrv'"):
        Registry().load("vmm", "toydrv")


def test_an_unknown_name_tells_the_nearest(install: Install):
    install("toy-pkg", "driver", "toydrv", DRIVER)
    with pytest.raises(Unknown, match=r"unknown driver 'toydrw'; did you mean 'toydrv'\?"):
        Registry().load("driver", "toydrw")


# broken plugins

BROKEN = {
    "it raises": ("raise ValueError('out of\\nluck')", "ValueError at import: out of luck"),
    "it exits": ("raise SystemExit('no')", "SystemExit at import: no"),
    "it imports what is not there": ("import nowhere_to_be_found", "ModuleNotFoundError at import: No module named"),
    "it is no Python": ("class Toy(:", "SyntaxError at import: invalid syntax"),
    "it lacks the object": ("", "AttributeError at import: module 'toy_pkg_module' has no attribute 'Toy'"),
}


@pytest.mark.parametrize(("source", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_plugin_that_fails_at_import_is_an_error_of_that_plugin_in_one_line(
    install: Install, source: str, reason: str
):
    install("toy-pkg", "driver", "toydrv", source)
    with pytest.raises(PluginError) as error:
        Registry().load("driver", "toydrv")
    assert str(error.value).startswith(f"plugin toydrv: {reason}")
    assert "\n" not in str(error.value)
    assert error.value.plugin == "toydrv"


def test_a_broken_plugin_is_listed_with_its_reason_and_the_others_work(install: Install):
    install("toy-bad", "driver", "bad", "raise ValueError('out of luck')")
    install("toy-good", "driver", "good", DRIVER)
    registry = Registry()
    probed = {plugin.name: registry.probe(plugin)[0] for plugin in (*of(registry, "bad"), *of(registry, "good"))}
    assert (probed["bad"].status, probed["bad"].reason) == ("broken", "ValueError at import: out of luck")
    assert (probed["good"].status, probed["good"].reason) == ("ok", "")
    assert registry.load("driver", "good").name == "toydrv"


def test_a_plugin_that_lacks_methods_is_broken_and_its_hooks_are_listed(install: Install):
    install("toy-pkg", "arch", "toyarch", ARCH)
    registry = Registry()
    plugin, hooks = registry.probe(*of(registry, "toyarch"))
    assert plugin.status == "broken"
    assert plugin.reason.startswith("does not define ")
    assert "pfn_pmd" in plugin.reason
    assert hooks == ["kconfig", "pte_special"]
    assert implemented_hooks(registry.load("arch", "toyarch")) == ["kconfig", "pte_special"]


@pytest.mark.parametrize("source", ["Toy = 3", "class Toy: pass", DRIVER], ids=["no class", "any class", "a driver"])
def test_a_plugin_that_is_no_architecture_is_not_loaded_as_one(install: Install, source: str):
    install("toy-pkg", "arch", "toyarch", source)
    with pytest.raises(PluginError, match=r"^plugin toyarch: toy_pkg_module:Toy is no subclass of pfnmap.Arch$"):
        Registry().load("arch", "toyarch")


# what the user allows


def test_the_allow_list_disables_everything_else(install: Install):
    install("toy-one", "driver", "one", DRIVER)
    install("toy-two", "driver", "two", DRIVER)
    registry = Registry("one")
    assert registry.names("driver") == ["one"]
    assert registry.names("arch") == []
    (two,) = of(registry, "two")
    assert (two.status, two.reason) == ("disabled", "not in PFNMAP_PLUGINS")
    with pytest.raises(PluginError, match="plugin two: disabled: not in PFNMAP_PLUGINS"):
        registry.load("driver", "two")


def test_the_allow_list_comes_from_the_environment(install: Install, monkeypatch: pytest.MonkeyPatch):
    install("toy-one", "driver", "one", DRIVER)
    install("toy-two", "driver", "two", DRIVER)
    monkeypatch.setenv("PFNMAP_PLUGINS", " one , two ")
    assert Registry().names("driver") == ["one", "two"]
    monkeypatch.setenv("PFNMAP_PLUGINS", "")
    assert Registry().names("driver") == []


def test_no_plugins_disables_all_of_them(install: Install):
    install("toy-pkg", "driver", "toydrv", DRIVER)
    registry = Registry(disabled=True)
    others = [plugin for plugin in registry.plugins() if plugin.distribution != "pfnmap"]
    assert {(plugin.status, plugin.reason) for plugin in others} == {("disabled", "--no-plugins")}
    with pytest.raises(PluginError, match="plugin toydrv: disabled: --no-plugins"):
        registry.load("driver", "toydrv")


def test_without_an_architecture_the_reason_of_each_is_told(install: Install):
    install("toy-pkg", "arch", "toyarch", ARCH)
    with pytest.raises(PfnmapError, match=r"no architecture can be used: .*\btoyarch\b.* disabled \(--no-plugins\)"):
        Registry(disabled=True).architectures()
    assert Registry("toyarch").architectures() == ["toyarch"]


# two distributions that claim one name


@pytest.fixture
def claimed(install: Install) -> None:
    install("toy-old", "driver", "claimed", DRIVER.replace('"toy"', '"old"'))
    install("toy-new", "driver", "claimed", DRIVER.replace('"toy"', '"new"'))
    install("toy-other", "driver", "other", DRIVER)


@pytest.mark.usefixtures("claimed")
def test_a_claimed_name_is_listed_twice_and_not_linked():
    registry = Registry()
    claims = of(registry, "claimed")
    assert [(p.distribution, p.status) for p in claims] == [("toy-new", "ambiguous"), ("toy-old", "ambiguous")]
    assert all(f"PFNMAP_PLUGINS=claimed@{p.distribution}" in p.reason for p in claims)
    assert "claimed" not in registry.names("driver")
    with pytest.raises(PluginError, match="plugin claimed: ambiguous: several distributions claim claimed"):
        registry.load("driver", "claimed")
    assert registry.load("driver", "other").name == "toydrv"


@pytest.mark.usefixtures("claimed")
@pytest.mark.parametrize("who", ["old", "new"])
def test_name_at_distribution_chooses(who: str):
    registry = Registry(f"claimed@toy-{who}")
    assert registry.load("driver", "claimed").made_by == who
    assert {p.distribution: p.status for p in of(registry, "claimed")} == {
        f"toy-{who}": "ok",
        f"toy-{'new' if who == 'old' else 'old'}": "disabled",
    }


@pytest.mark.usefixtures("claimed")
def test_the_bare_name_in_the_allow_list_leaves_it_ambiguous():
    assert {p.status for p in of(Registry("claimed"), "claimed")} == {"ambiguous"}


def test_one_name_in_two_kinds_is_no_conflict(install: Install):
    install("toy-pkg", "driver", "same", DRIVER)
    install("toy-vmm", "vmm", "same", DRIVER)
    assert {plugin.status for plugin in of(Registry(), "same")} == {"ok"}
