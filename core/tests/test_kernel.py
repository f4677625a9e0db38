"""Linking: who owns which op, what does not fit together, and what a linked kernel says of itself."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from pfnmap import Arch, BadInput, Driver, Geometry, LinkError, PluginError, Refused, Unknown, WalkLevel, hookimpl
from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.kernel import Kernel
from pfnmap.mm.boot import boot
from pfnmap.release import newest

GEOMETRY = Geometry(
    PAGE_SHIFT=12,
    PMD_SHIFT=21,
    PUD_SHIFT=30,
    P4D_SHIFT=39,
    PGDIR_SHIFT=39,
    PTRS_PER_PTE=512,
    PTRS_PER_PMD=512,
    PTRS_PER_PUD=512,
    PTRS_PER_P4D=1,
    PTRS_PER_PGD=512,
    walk=tuple(WalkLevel(name, shift, 512) for name, shift in (("pgd", 39), ("pud", 30), ("pmd", 21), ("pte", 12))),
    task_size=1 << 47,
)


def _setup_arch(self: Any, config: Any, cpu: Any, has: Any) -> None:
    self.geometry = GEOMETRY


def arch(*, name: str = "toy", without: str = "", **members: Any) -> type[Arch]:
    """An architecture whose every op answers 0, less the method `without`, with `members` of its own."""
    namespace: dict[str, Any] = {op: lambda self, *_: 0 for op in Arch.__abstractmethods__}
    namespace |= {
        "setup_arch": _setup_arch,
        "protection_map": (0,) * 16,
        "name": name,
        "cpu_defaults": {"turbo": False},
    }
    namespace |= members
    namespace.pop(without, None)
    return type("Toy", (Arch,), namespace)


def driver(*, name: str = "toydrv", without: str = "", **members: Any) -> type[Driver]:
    """A driver that does nothing, less the method `without`, with `members` of its own."""
    namespace: dict[str, Any] = {op: lambda self, *_: 0 for op in Driver.__abstractmethods__}
    namespace |= {"name": name, **members}
    namespace.pop(without, None)
    return type("ToyDriver", (Driver,), namespace)


def seven(self: Any, *_: Any) -> int:
    return 7


def owned() -> Any:
    """An implementation of an entry hook that answers 7."""
    return hookimpl(lambda self, *_: 7)


SUPPORTED = {"ARCH_HAS_PTE_SPECIAL": "y", "ARCH_SUPPORTS_PMD_PFNMAP": "y", "ARCH_SUPPORTS_PUD_PFNMAP": "y"}


# what does not fit together


@pytest.mark.parametrize("method", ["pmd_pfn", "pte_mkdirty", "setup_arch", "pud_populate"])
def test_a_missing_method_of_an_architecture_fails_the_link_with_its_name(method: str):
    with pytest.raises(LinkError, match=rf"^architecture toy: Toy does not define {method}$"):
        Kernel.link(arch(without=method))


def test_a_missing_method_of_a_driver_fails_the_link_with_its_name():
    with pytest.raises(LinkError, match=r"^driver toydrv: ToyDriver does not define mmap_offset$"):
        Kernel.link(arch(), [driver(without="mmap_offset")])


def test_an_implementation_of_an_unknown_hook_names_plugin_and_hook():
    with pytest.raises(LinkError, match=r"^plugin toy: .*pmd_mkspecail"):
        Kernel.link(arch(pmd_mkspecail=owned()))


def test_an_implementation_with_an_unknown_argument_names_plugin_and_hook():
    def pmd_special(self: Any, entry: int) -> int:
        return entry

    with pytest.raises(LinkError, match=r"^plugin toy: .*pmd_special"):
        Kernel.link(arch(pmd_special=hookimpl(pmd_special)))


def test_an_implementation_that_lacks_an_argument_names_plugin_and_hook():
    def pte_mkwrite(self: Any, pte: int) -> int:
        return pte

    with pytest.raises(LinkError, match=r"^plugin toy: pte_mkwrite is called with \(pte, vm_flags\)$"):
        Kernel.link(arch(pte_mkwrite=hookimpl(pte_mkwrite)))


def test_a_second_owner_of_an_entry_hook_is_refused_and_both_are_named():
    with pytest.raises(LinkError, match=r"^entry hook pte_special has two owners: toy and toydrv$"):
        Kernel.link(arch(pte_special=owned()), [driver(pte_special=owned())])


def test_two_drivers_that_own_an_entry_hook_are_refused_too():
    pair = [driver(name=name, pgprot_device=owned()) for name in ("one", "two")]
    with pytest.raises(LinkError, match=r"^entry hook pgprot_device has two owners: one and two$"):
        Kernel.link(arch(), pair)


@pytest.mark.parametrize("style", ["wrapper", "hookwrapper"])
def test_a_wrapper_around_an_entry_hook_is_refused(style: str):
    def pte_special(self: Any, pte: int) -> Any:
        return (yield)

    with pytest.raises(LinkError, match=r"^plugin toydrv: pte_special is an entry hook and takes no wrapper$"):
        Kernel.link(arch(), [driver(pte_special=hookimpl(**{style: True})(pte_special))])


def test_a_driver_cannot_be_linked_twice():
    with pytest.raises(LinkError, match=r"^plugin toydrv: "):
        Kernel.link(arch(), [driver(), driver()])


def test_a_plugin_that_raises_when_it_is_made_is_an_error_of_that_plugin():
    def fail(self: Any) -> None:
        raise RuntimeError("no luck")

    with pytest.raises(PluginError, match=r"^plugin toy: __init__\(\) raised RuntimeError: no luck$"):
        Kernel.link(arch(__init__=fail))


def test_an_unknown_cpu_key_names_the_nearest():
    with pytest.raises(Unknown, match=r"unknown cpu key of toy 'turb'; did you mean 'turbo'\?"):
        Kernel.link(arch(), cpu={"turb": True})


def test_the_thp_knob_is_one_of_three():
    with pytest.raises(BadInput, match=r"always, madvise, never"):
        Kernel.link(arch(), thp="sometimes")


# who owns what


def test_who_marks_a_hook_owns_it_and_generic_has_the_rest():
    kernel = Kernel.link(arch(pte_special=owned()), config=SUPPORTED)
    assert kernel.ops.pte_special(0) == 7
    assert kernel.ops.owners["pte_special"] == "arch"
    assert kernel.ops.pmd_special(5) == 0
    assert {kernel.ops.owners[hook] for hook in ENTRY_HOOKS if hook != "pte_special"} == {"generic"}


def test_a_method_that_is_not_marked_owns_no_hook():
    assert Kernel.link(arch(pte_special=seven)).ops.owners["pte_special"] == "generic"


@pytest.mark.parametrize("level", ["pmd", "pud"])
def test_special_bit_of_a_level_is_dropped_where_the_architecture_does_not_support_its_pfnmaps(level: str):
    class_ = arch(**{f"{level}_special": owned(), f"{level}_mkspecial": owned()})
    symbol = f"ARCH_SUPPORTS_{level.upper()}_PFNMAP"
    without = Kernel.link(class_, config=SUPPORTED | {symbol: "n"}).ops
    assert (without.owners[f"{level}_special"], without.owners[f"{level}_mkspecial"]) == ("generic", "generic")
    assert (getattr(without, f"{level}_special")(1), getattr(without, f"{level}_mkspecial")(1)) == (0, 1)
    supported = Kernel.link(class_, config=SUPPORTED).ops
    assert getattr(supported, f"{level}_special")(1) == 7
    assert supported.owners[f"{level}_special"] == "arch"


def test_what_an_architecture_leaves_undefined_in_this_boot_falls_back_or_is_absent():
    members = {"pte_special": owned(), "pud_mkhuge": seven, "undefined": {"pte_special", "pud_mkhuge"}}
    ops = Kernel.link(arch(**members)).ops
    assert (ops.owners["pte_special"], ops.owners["pud_mkhuge"]) == ("generic", "absent")


def test_an_optional_op_that_the_architecture_lacks_is_a_refusal_that_names_it():
    ops = Kernel.link(arch()).ops
    assert ops.owners["pud_mkhuge"] == "absent"
    with pytest.raises(Refused, match=r"^pud_mkhuge: absent on toy ") as refusal:
        ops.pud_mkhuge(0)
    assert refusal.value.what == "pud_mkhuge"


def test_an_optional_op_that_the_architecture_has_is_its_own():
    ops = Kernel.link(arch(pud_mkhuge=seven)).ops
    assert (ops.pud_mkhuge(0), ops.owners["pud_mkhuge"]) == (7, "arch")


def test_the_release_decides_what_an_architecture_defines():
    def setup_arch(self: Any, config: Any, cpu: Any, has: Any) -> None:
        self.geometry = GEOMETRY
        self.undefined = frozenset() if has("huge-pfnmap") else frozenset({"pte_pgprot"})

    class_ = arch(setup_arch=setup_arch, pte_pgprot=owned())
    owner = {r: Kernel.link(class_, release=r).ops.owners["pte_pgprot"] for r in ("6.1.192", "6.12.117")}
    assert owner == {"6.1.192": "generic", "6.12.117": "arch"}


# kernels side by side


def test_two_kernels_live_side_by_side():
    own = arch(name="one", pte_special=owned())
    one = Kernel.link(own, [driver()], config=SUPPORTED, release="6.1.192", thp="never")
    two = Kernel.link(arch(name="two"), [driver()], release="7.3.4", cpu={"turbo": True})
    assert (one.ops.pte_special(0), two.ops.pte_special(0)) == (7, 0)
    assert (one.thp, two.thp) == ("never", "always")
    assert (one.cpu, two.cpu) == ({"turbo": False}, {"turbo": True})
    assert (one.has("huge-pfnmap"), two.has("huge-pfnmap")) == (False, True)
    assert one.drivers["toydrv"] is not two.drivers["toydrv"]


def test_a_boot_begins_with_the_knob_as_linked_and_shares_nothing():
    kernel = Kernel.link(arch(), [driver()], thp="madvise")
    one = boot(kernel)
    one.thp, one.clock_ms = "never", 5
    one.phys.alloc_table(512, 0)
    two = boot(kernel)
    assert (two.thp, two.clock_ms, two.phys.tables) == ("madvise", 0, {})
    assert one.modules["toydrv"] is not two.modules["toydrv"]
    assert two.modules["toydrv"] is not kernel.drivers["toydrv"]


def test_a_linked_kernel_cannot_be_changed():
    kernel = Kernel.link(arch())
    with pytest.raises(FrozenInstanceError):
        kernel.thp = "never"  # type: ignore[misc]
    with pytest.raises(TypeError):
        kernel.cpu["turbo"] = True  # type: ignore[index]
    with pytest.raises(TypeError):
        kernel.drivers["x"] = None  # type: ignore[index]
    with pytest.raises(TypeError):
        kernel.release.changes["huge-pfnmap"] = "no"  # type: ignore[index]
    with pytest.raises(AttributeError, match="pmd_special"):
        kernel.ops.pmd_special = None


# what it says of itself


def test_a_kernel_describes_itself_and_what_nobody_said():
    kernel = Kernel.link(arch(), release="6.12.117")
    said = kernel.describe()
    assert said["arch"] == "toy"
    assert said["release"] == "6.12.117"
    assert said["page_size"] == 4096
    assert said["thp"] == "always"
    assert said["cpu"] == {"turbo": False}
    assert said["config_source"] == "Kconfig defaults"
    assert said["changes"]["huge-pfnmap"] == "yes"
    assert set(said["changes"].values()) <= {"yes", "no", "unknown"}
    assert any("Kconfig defaults" in line for line in said["assumed"])
    assert any("turbo off" in line for line in said["assumed"])


def test_what_was_said_is_not_assumed():
    kernel = Kernel.link(arch(), release="6.12.117", cpu={"turbo": True}, config_source="some.config")
    assert kernel.describe()["config_source"] == "some.config"
    assert not any("cpu" in line or "configuration" in line for line in kernel.assumed)


def test_the_newest_known_release_is_linked_where_none_is_named():
    assert Kernel.link(arch()).release.name == newest()
