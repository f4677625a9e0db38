"""What plugins say that they provide and call, and what becomes of one that raises."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pfnmap import Action, BadInput, Device, Module, PluginError, Unknown
from pfnmap.contract.machine import MmFunctions
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.mm import in_release
from pfnmap.plugins import Offer, Registry, offer
from pfnmap.run import Run


class Toy(Module):
    name = "toy"
    provides = ("toy_open",)
    consumes = ("follow_pte", "follow_pfnmap")

    def actions(self) -> Mapping[str, Action]:
        return {"spin": Action(self._spin, {}), "fork": Action(lambda run: {}, {})}

    def _spin(self, run: object) -> Mapping[str, object]:
        raise ZeroDivisionError("round\nand round")


def run() -> Run:
    return Run(Kernel.link("x86_64", [Toy], release="6.12.117"), [])


def test_a_module_offers_its_functions_and_actions():
    assert offer(Toy) == Offer(("toy_open",), ("follow_pte", "follow_pfnmap"), ("toy.spin", "toy.fork"))


def test_a_module_whose_actions_cannot_be_listed_is_named():
    class Broken(Toy):
        def actions(self) -> Mapping[str, Action]:
            raise KeyError("x")

    with pytest.raises(PluginError, match=r"^plugin toy: actions\(\) raised KeyError: 'x'$"):
        offer(Broken)


@pytest.mark.parametrize("name", Registry().names("arch") + Registry().names("driver"))
def test_what_an_installed_plugin_calls_is_there_to_be_called(name: str):
    registry = Registry()
    kind = "arch" if name in registry.names("arch") else "driver"
    assert [
        call for call in offer(registry.load(kind, name)).consumes if call not in MmFunctions.__dataclass_fields__
    ] == []


def test_a_function_is_in_the_releases_that_have_it():
    old, new = Kernel.link("x86_64", release="6.1.192"), Kernel.link("x86_64", release="7.3.4")
    assert [in_release("follow_pte", kernel.has) for kernel in (old, new)] == [True, False]
    assert [in_release("follow_pfnmap", kernel.has) for kernel in (old, new)] == [False, True]
    assert [in_release("register_pfn_address_space", kernel.has) for kernel in (old, new)] == [False, True]
    assert [in_release("fixup_user_fault", kernel.has) for kernel in (old, new)] == [True, True]


def test_an_action_that_raises_ends_the_run_with_its_plugins_name_in_one_line():
    with pytest.raises(PluginError, match=r"^plugin toy: toy.spin raised ZeroDivisionError: round and round$") as error:
        run().step(Step("toy.spin", {}, where="step 0"))
    assert error.value.plugin == "toy"


def test_a_mistake_of_the_core_is_not_blamed_on_a_plugin(monkeypatch: pytest.MonkeyPatch):
    started = run()
    monkeypatch.setattr(started, "_perform", "".index)  # raises without a frame of this module
    with pytest.raises(TypeError):
        started.step(Step("vmas", {}, where="step 0"))


@pytest.mark.parametrize(
    ("op", "error", "text"),
    [
        ("toy.spni", Unknown, "unknown action of toy at step 0 'spni'; did you mean 'spin'?"),
        ("spni", Unknown, "unknown op at step 0 'spni'; did you mean 'spin'?"),
        ("toyy.spin", BadInput, "step 0: op 'toyy.spin' is an action of plugin 'toyy', which is not installed"),
        (
            "s390.x",
            BadInput,
            "step 0: op 's390.x' is an action of plugin 's390', which is another architecture than x86_64",
        ),
    ],
)
def test_an_op_that_nobody_has_is_told_with_the_nearest(op: str, error: type[Exception], text: str):
    with pytest.raises(error) as got:
        run().step(Step(op, {}, where="step 0"))
    assert str(got.value).startswith(text)


def test_a_plugin_that_is_switched_off_is_told_apart_from_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    started = run()
    monkeypatch.setenv("PFNMAP_PLUGINS", "x86_64")
    with pytest.raises(BadInput, match="'vfio_pci', which is disabled: not in PFNMAP_PLUGINS"):
        started.step(Step("vfio_pci.dma_map", {}, where="step 0"))


def test_an_op_of_the_core_is_not_taken_away_by_an_action_of_that_name():
    assert run().step(Step("fork", {}, where="step 0")).result == "ok"


@pytest.mark.parametrize(
    ("driver", "text"),
    [
        ("toy", "device d: toy is no driver: it binds no device"),
        ("vfio_pcy", "device d: its driver vfio_pcy is not linked; did you mean 'vfio_pci'?"),
    ],
)
def test_a_device_names_a_driver_that_is_linked(driver: str, text: str):
    kernel = Kernel.link("x86_64", ["vfio_pci", Toy], release="6.12.117")
    with pytest.raises(BadInput) as error:
        Run(kernel, [Device("d", "0000:00:01.0", driver=driver)])
    assert str(error.value) == text
