"""What plugins say to the planner: where a VMM puts BARs, how a driver maps them, what a guest gets, their options."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any

import pytest

from pfnmap import BadInput, PluginError, Refused, Unknown
from pfnmap.kernel import Kernel
from pfnmap.plan import POLICIES, Plan, Request, plan
from pfnmap.plugins import Registry
from pfnmap.spec import KernelSpec

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PHYS = 0x80_0000_0000
THP = {"TRANSPARENT_HUGEPAGE": "y", "VFIO_PCI": "y"}
DRIVERS = ("vfio_pci", "nvgrace_gpu", "pci_sysfs", "kvm")

Install = Callable[..., None]

VMM = '''
"""A VMM that packs BARs one after another, cuts the page of a table out of BAR 0, and leaves BAR 5 alone."""

from pfnmap.contract.placement import Area, Placed, Unmapped, Vmm
from pfnmap.contract.region import Span


class Toy(Vmm):
    name = "toy_vmm"
    versions = ("1.0", "2.0")

    def place(self, space, requests):
        free, placed = 0x1000_0000_0000, []
        for request in requests:
            size = request.length
            if request.bar == 5:
                placed.append(Placed((), unmapped=(Unmapped(0, size, "toy leaves it to traps"),)))
                continue
            parts = [(0, size)]
            unmapped = ()
            if request.bar == 0 and self.version == "2.0":
                parts = [(0, 8 * space.page), (9 * space.page, size - 9 * space.page)]
                unmapped = (Unmapped(8 * space.page, space.page, "the MSI-X table"),)
            areas = tuple(
                Area(at, length, free + at, space.page, False, space.page / space.leaf(request, Span(at, length)))
                for at, length in parts
            )
            dma = () if request.bar == 4 else None
            placed.append(Placed(areas, (Span(0, size - space.page),), dma, unmapped, ("toy packs",)))
            free += size
        return placed
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution of one module that has one entry point, as pip lays it out."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PFNMAP_PLUGINS", raising=False)

    def _install(distribution: str, kind: str, name: str, source: str) -> None:
        module = f"{distribution.replace('-', '_')}_module"
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[pfnmap.{kind}]\n{name} = {module}:Toy\n")

    return _install


@cache
def linked(release: str = "7.3.4", arch: str = "x86_64") -> Kernel:
    return Kernel.link(arch, DRIVERS, defaults=THP, release=release)


def reasons(planned: Plan) -> list[tuple[str, str, str]]:
    return [(row.level, row.reason, row.detail) for mapping in planned.mappings for row in mapping.blocked]


# VMMs


def of(*bars: tuple[int, int], policy: str) -> list[Request]:
    """Requests for BARs as (index, size), each at a multiple of its size."""
    return [Request(n, PHYS * (n + 1), size, "0000:3b:00.0", policy=policy) for n, size in bars]


def test_a_vmm_says_which_areas_go_where(install: Install) -> None:
    install("toy-vmm", "vmm", "toy_vmm", VMM)
    bars = of((0, 16 * MIB), (2, GIB), (4, 32 * MIB), (5, MIB), policy="toy-vmm-2.0")
    document = plan(linked(), bars).as_json()["mappings"]
    assert {row["policy"] for row in document} == {"toy-vmm-2.0"}
    assert [(row["bar"], row["area"]) for row in document] == [
        (0, {"offset": 0, "length": 32 * KIB}),
        (0, {"offset": 36 * KIB, "length": 16 * MIB - 36 * KIB}),
        (2, {"offset": 0, "length": GIB}),
        (4, {"offset": 0, "length": 32 * MIB}),
        (5, None),
    ]
    first, second, whole, last, trapped = document
    assert (second["phys"], second["va"]) == (hex(PHYS + 36 * KIB), hex(0x1000_0000_0000 + 36 * KIB))
    assert second["counts"] == {"pud": 0, "pmd": 7, "pte": 512 - 9}
    assert (second["alignment"], second["congruent"], second["luck"]) == (4096, False, 1 / 512)
    assert (
        first["unmapped"]
        == second["unmapped"]
        == [{"offset": 32 * KIB, "length": 4 * KIB, "reason": "the MSI-X table"}]
    )
    assert first["slots"] == [{"gpa_offset": 0, "length": 16 * MIB - 4 * KIB}]
    assert whole["va"] == hex(0x1000_0000_0000 + 16 * MIB)
    assert whole["counts"] == {"pud": 0, "pmd": 512, "pte": 0}
    assert whole["dma"] == [{"offset": 0, "length": GIB}]
    assert (last["dma"], last["dma_map"]) == ([], None)
    assert (trapped["va"], trapped["length"], trapped["runs"]) == (None, 0, [])
    assert trapped["unmapped"] == [{"offset": 0, "length": MIB, "reason": "toy leaves it to traps"}]


def test_a_vmm_is_asked_for_by_name_and_version(install: Install) -> None:
    install("toy-vmm", "vmm", "toy_vmm", VMM)
    bar = (0, 16 * MIB)
    assert [len(plan(linked(), of(bar, policy=p)).mappings) for p in ("toy_vmm", "toy-vmm-1.0", "toy_vmm-2.0")] == [
        1,
        1,
        2,
    ]
    with pytest.raises(Unknown, match=r"unknown version of toy_vmm '3\.0'; known: 1\.0, 2\.0"):
        plan(linked(), of(bar, policy="toy-vmm-3.0"))
    with pytest.raises(Unknown, match="unknown placement policy 'toy'; did you mean 'toy_vmm'"):
        plan(linked(), of(bar, policy="toy"))
    with pytest.raises(Unknown, match=r"unknown version of kernel '6\.12'"):
        plan(linked(), of(bar, policy="kernel-6.12"))


def test_a_vmm_that_does_not_answer_is_named(install: Install) -> None:
    install("toy-vmm", "vmm", "toy_vmm", VMM.replace("return placed", "return placed[1:]"))
    with pytest.raises(PluginError, match=r"plugin toy_vmm: place\(\) gave 0 answers for 1 requests"):
        plan(linked(), of((0, MIB), policy="toy_vmm"))


def test_what_is_no_vmm_is_broken(install: Install) -> None:
    install("toy-vmm", "vmm", "toy_vmm", "class Toy: pass")
    with pytest.raises(PluginError, match=r"toy_vmm_module:Toy is no subclass of pfnmap.Vmm"):
        plan(linked(), of((0, MIB), policy="toy_vmm"))


def test_vmms_stand_side_by_side_on_the_command_line(install: Install, answer: Any, refused: Any, pfnmap: Any) -> None:
    install("toy-vmm", "vmm", "toy_vmm", VMM)
    asked = ("plan", "--bar", "16M@0x8000000000", "--vmm", "toy-vmm-2.0", "--vmm", "aligned")
    assert [row["policy"] for row in answer(*asked)["mappings"]] == ["toy-vmm-2.0", "toy-vmm-2.0", "aligned"]
    text = pfnmap(*asked, env={"COLUMNS": "120"}).stdout
    assert "not mapped: 4K from offset 0x8000: the MSI-X table" in " ".join(text.split())
    assert refused(*asked, "--vmm", "aligned").endswith("--vmm: aligned is asked for twice")
    assert "unknown version of toy_vmm '9'" in refused("plan", "--bar", "16M", "--vmm", "toy-vmm-9")
    assert "known: aligned, " in refused("plan", "--bar", "16M", "--vmm", "xen")


def test_core_policies_say_what_they_guarantee() -> None:
    def said(policy: str, size: int, release: str) -> tuple[int, bool, float]:
        row = plan(linked(release), [Request(0, PHYS, size, policy=policy)]).as_json()["mappings"][0]
        return row["alignment"], row["congruent"], row["luck"]

    assert said("aligned", 4 * GIB, "7.3.4") == (GIB, True, 0)
    assert said("kernel", 4 * GIB, "7.3.4") == (4096, False, 4096 / (2 * MIB))
    assert said("kernel", 4 * GIB, "6.12.117") == (2 * MIB, False, 1 / 512)
    assert said("kernel", 4 * MIB, "6.12.117") == (2 * MIB, True, 0)
    assert said("kernel", 64 * KIB, "7.3.4") == (4096, True, 0)
    assert said("kernel", 4 * GIB, "6.1.192") == (4096, True, 0)


# Drivers


def test_what_nvgrace_maps_ends_with_its_memory() -> None:
    """Its BAR is the next power of two; mmap gives the memory."""
    bar = Request(4, PHYS, 256 * GIB, "0000:01:00.0", policy="aligned", driver="nvgrace_gpu", memory=188 * GIB)
    for release, counts, calls in (
        ("7.3.4", {"pud": 188, "pmd": 0, "pte": 0}, 188),
        ("6.12.117", {"pte": 188 << 18}, 0),
    ):
        (mapping,) = plan(linked(release), [bar]).mappings
        assert {level: n for level, n in mapping.costs.counts.items() if n or release == "7.3.4"} == counts
        assert (mapping.length, mapping.costs.driver_calls) == (188 * GIB, calls)
    beyond = Request(4, PHYS, 256 * GIB, va=1 << 44, length=189 * GIB, driver="nvgrace_gpu", memory=188 * GIB)
    with pytest.raises(BadInput, match=r"0x2f40000000 is beyond the GPU's memory, whose end is 0x2f00000000"):
        plan(linked(), [beyond])


def test_nvgrace_without_faults_says_what_it_lacks() -> None:
    request = Request(4, PHYS, GIB, va=PHYS, driver="nvgrace_gpu")
    planned = plan(linked("6.12.117"), [request])
    assert [(level, reason) for level, reason, _ in reasons(planned)] == [("pmd", "release"), ("pud", "release")]
    assert "6.12.117 lacks nvgrace-huge-fault (first in 6.19)" in reasons(planned)[0][2]
    # All is there from the start: a walk over it needs no fault.
    dma = planned.mappings[0].costs.dma_map
    assert dma is not None
    assert (dma.cold_walks, dma.cold_fixups, dma.warm_walks) == (1 << 18, 0, 1 << 18)


def test_sysfs_maps_base_pages_at_once_and_nobody_maps_it_for_dma() -> None:
    (mapping,) = plan(linked(), [Request(0, PHYS, GIB, policy="aligned", driver="pci_sysfs")]).mappings
    assert mapping.costs.counts == {"pte": 1 << 18, "pmd": 0, "pud": 0}
    assert (mapping.costs.driver_calls, mapping.costs.table_bytes, mapping.costs.dma_map) == (0, 514 * 4096, None)
    assert mapping.before == mapping.costs
    assert {row.reason for row in mapping.blocked} == {"no_huge_fault"}
    (asked,) = plan(linked(), [mapping.request], dma="type1").mappings
    assert asked.costs.dma_map is not None


def test_s390_had_no_resource_files() -> None:
    bar = Request(0, 1 << 62, GIB, va=1 << 33, driver="pci_sysfs")
    assert not plan(linked("6.12.117", "s390"), [bar]).mappings[0].runs
    assert plan(linked("7.3.4", "s390"), [bar]).mappings[0].runs


def test_a_driver_that_does_not_say_how_it_maps_is_refused() -> None:
    from pfnmap.testing.bar_driver import BarDriver

    kernel = Kernel.link("x86_64", [BarDriver], defaults=THP)
    with pytest.raises(Refused, match=f"plan of BAR 0: driver {BarDriver.name} does not say how it maps a region"):
        plan(kernel, [Request(0, PHYS, GIB, policy="aligned", driver=BarDriver.name)])


def test_a_driver_that_binds_nothing_is_no_driver() -> None:
    with pytest.raises(BadInput, match="kvm is no driver: it binds no device"):
        plan(linked(), [Request(0, PHYS, GIB, policy="aligned", driver="kvm")])


def test_a_mapping_too_small_for_a_leaf_says_so_first() -> None:
    ((level, reason, detail), (_, larger, _)) = reasons(plan(linked(), [Request(0, PHYS, MIB, policy="kernel")]))
    assert (level, reason, larger) == ("pmd", "too_small", "too_small")
    assert detail == "the mapping has 1M, less than one 2M leaf"
    part = Request(0, PHYS, GIB, length=4 * MIB, va=PHYS)
    assert [(level, reason) for level, reason, _ in reasons(plan(linked(), [part]))] == [("pud", "too_small")]


# Architectures and hypervisors


def test_an_architecture_says_what_a_hypervisor_does_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from pfnmap.contract.guest import SecondStage

    kernel = Kernel.link("sparc64", ["vfio_pci", "kvm"], defaults=THP, release="7.3.4")
    bar = [Request(0, PHYS, GIB, va=1 << 33, gpa=0)]
    with pytest.raises(Refused, match="sparc64's KVM is not modelled"):
        plan(kernel, bar, hypervisor="kvm")
    asked = []

    def second_stage(self: Any, kernel: Any, hypervisor: str) -> SecondStage:
        asked.append(hypervisor)
        return SecondStage(lambda level, off: ("pte", "limit"), "sparc64 maps pages")

    monkeypatch.setattr(type(kernel.arch), "second_stage", second_stage)
    (mapping,) = plan(kernel, bar, hypervisor="kvm").mappings
    assert mapping.guest is not None
    assert mapping.guest.counts == {"pud": 0, "pmd": 0, "pte": GIB >> 13}
    assert set(asked) == {"kvm"}


def test_a_hypervisor_that_there_is_not() -> None:
    with pytest.raises(Unknown, match="unknown hypervisor 'xen'; known: kvm"):
        plan(linked(), [Request(0, PHYS, GIB, policy="aligned")], hypervisor="xen")


def test_what_a_driver_that_was_left_out_may_have_brought_is_unknown_and_says_why() -> None:
    kernel = replace(linked(), left_out={"xen": "plugin xen: broken"})
    with pytest.raises(Unknown, match="unknown hypervisor 'xen'; known: kvm; left out: plugin xen: broken"):
        plan(kernel, [Request(0, PHYS, GIB, policy="aligned")], hypervisor="xen")


def test_an_architecture_s_changes_gate_its_levels() -> None:
    planned = plan(linked("6.12.117", "riscv64"), [Request(0, PHYS, GIB, va=1 << 36)])
    details = {detail for _, reason, detail in reasons(planned) if reason == "release"}
    assert details == {"6.12.117 lacks riscv-huge-pfnmap (first in 6.15)"}


# The command line


def test_an_option_of_a_plugin_that_cannot_be_used_names_its_distribution(
    refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PFNMAP_PLUGINS", "x86_64")
    for option, distribution in (
        ("--kvm", "pfnmap-kvm"),
        ("--gpa=0", "pfnmap-kvm"),
        ("--dma=type1", "pfnmap-vfio-pci"),
    ):
        said = refused("plan", option, "--bar", "8G")
        assert said.startswith(f"pfnmap: {option.partition('=')[0]}: ")
        assert f"of {distribution} is disabled: not in PFNMAP_PLUGINS" in said
    assert refused("plan", "--bar", "8G").endswith(
        "driver vfio_pci of pfnmap-vfio-pci is disabled: not in PFNMAP_PLUGINS"
    )


def test_an_option_is_there_with_its_plugin_alone(pfnmap: Any, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--gpa" in pfnmap("plan", "--help").stdout
    monkeypatch.setenv("PFNMAP_PLUGINS", "x86_64,vfio_pci")
    assert "--gpa" not in pfnmap("plan", "--help").stdout
    (mapping,) = answer("plan", "--bar", "8G@0x8000000000", "--va", "0x4000000000", "--dma", "iommufd")["mappings"]
    assert mapping["dma_map"]["backend"] == "iommufd"


def test_a_driver_that_is_ambiguous_broken_or_missing_is_one_line(
    install: Install, refused: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install("other-vfio", "driver", "vfio_pci", "raise OSError('no luck')")
    said = refused("plan", "--bar", "8G")
    assert "driver vfio_pci of other-vfio and pfnmap-vfio-pci is ambiguous" in said
    assert "PFNMAP_PLUGINS=vfio_pci@" in said
    monkeypatch.setenv("PFNMAP_PLUGINS", "x86_64,vfio_pci@other-vfio")
    assert refused("plan", "--bar", "8G").endswith(
        "driver vfio_pci of other-vfio is broken: OSError at import: no luck"
    )
    scenario = tmp_path / "s.toml"
    bar = '[[device.bar]]\nindex = 0\nsize = "1G"\nphys = "0x8000000000"\n'
    scenario.write_text(f'[[device]]\nname = "d"\ndriver = "mlx5"\n{bar}')
    assert "unknown driver 'mlx5'" in refused("plan", scenario)
    groups = [entry_points(group=f"pfnmap.{kind}") for kind in ("arch", "driver", "command")]
    others = EntryPoints(entry for group in groups for entry in group if entry.name != "vfio_pci")
    monkeypatch.setattr("pfnmap.plugins.discovery.entry_points", lambda: others)
    assert refused("plan", "--bar", "8G").endswith("driver vfio_pci is not installed; pip install pfnmap-vfio-pci")


def test_a_scenario_of_any_driver_is_planned(answer: Any, tmp_path: Path) -> None:
    scenario = tmp_path / "s.toml"
    device = '[[device]]\nname = "{0}"\ndriver = "{0}"\nbdf = "0000:00:0{1}.0"\n'
    bar = '[[device.bar]]\nindex = {}\nsize = "2G"\nphys = "{}"\n'
    parts = [
        device.format("vfio_pci", 1) + bar.format(2, "0x8000000000"),
        device.format("nvgrace_gpu", 2) + bar.format(4, "0x9000000000") + 'memory = "1G"\n',
        device.format("pci_sysfs", 3) + bar.format(0, "0xa000000000"),
    ]
    scenario.write_text("\n".join(parts))
    rows = answer("plan", scenario, "--vmm", "aligned", "--release", "7.3.4")["mappings"]
    assert [(row["driver"], row["counts"]["pud"], row["counts"]["pte"]) for row in rows] == [
        ("vfio_pci", 2, 0),
        ("nvgrace_gpu", 1, 0),
        ("pci_sysfs", 0, 1 << 19),
    ]


def test_a_bar_without_an_address_is_given_one(answer: Any, refused: Any) -> None:
    document = answer("plan", "--bar", "256G", "--bar", "16M", "--bar", "1G@0x10000000000", "--vmm", "aligned")
    phys = [int(row["phys"], 0) for row in document["mappings"]]
    assert phys[2] == 0x100_0000_0000
    assert (phys[0] % (256 * GIB), phys[1] % (16 * MIB)) == (0, 0)
    assert phys[0] + 256 * GIB <= phys[1]
    sentences = [text for text in document["kernel"]["assumed"] if text.startswith("address of")]
    assert sentences == [f"address of BAR {n}: {phys[n]:#x}, a multiple of its size" for n in (0, 1)]
    assert "BAR size 3G (3221225472 bytes) is not a power of two" in refused("plan", "--bar", "3G")


def test_a_bar_beyond_what_an_entry_can_hold_is_refused_as_run_does(refused: Any) -> None:
    assert refused("plan", "--bar", "8G@0x8000000000000000").endswith(
        "BAR 0: it ends at 0x8000000200000000, beyond the 0x10000000000000 that an entry of x86_64 can hold"
    )


def test_only_what_alters_the_answer_is_assumed_of_changes() -> None:
    kernel = linked("6.18.20")
    assert any("thp-bypass-pfnmap" in text for text in kernel.assumed)
    natural = Request(2, PHYS, GIB, va=PHYS)
    assert not any("taken as absent" in text for text in plan(kernel, [natural]).kernel["assumed"])
    ubuntu = KernelSpec(arch="x86_64", release="6.8.0-90-generic").link()
    said = [
        any("has pat-fork-failure" in text for text in assumed)
        for assumed in (ubuntu.assumed, plan(ubuntu, [natural]).kernel["assumed"])
    ]
    assert said == [True, False]
    gated = Kernel.link("x86_64", ["vfio_pci"], defaults=THP, release="6.18.20", thp="never")
    (sentence,) = (text for text in plan(gated, [natural]).kernel["assumed"] if "taken as absent" in text)
    assert sentence == "not known for 6.18.20, taken as absent: thp-bypass-pfnmap"


def test_a_registry_without_plugins_leaves_the_core_policies() -> None:
    nothing = Registry("")
    assert plan(linked(), [Request(0, PHYS, GIB, policy="aligned")], registry=nothing).mappings[0].runs
    with pytest.raises(Unknown, match="placement policy"):
        plan(linked(), [Request(0, PHYS, GIB, policy="xen")], registry=nothing)
    with pytest.raises(PluginError, match="qemu: disabled"):
        plan(linked(), [Request(0, PHYS, GIB, policy="qemu")], registry=nothing)


def test_a_bar_is_mapped_by_the_driver_that_is_named(answer, refused):
    def counts(*said: str) -> Any:
        return answer("plan", "--bar", "4M@0x100000000", "--vmm", "aligned", *said)["mappings"][0]["counts"]

    assert counts() == {"pud": 0, "pmd": 2, "pte": 0}
    assert counts("--driver", "pci_sysfs") == {"pud": 0, "pmd": 0, "pte": 1024}
    assert "unknown driver 'pci_sysf'; did you mean 'pci_sysfs'?" in refused(
        "plan", "--bar", "4M@0x100000000", "--driver", "pci_sysf"
    )
    assert "it goes with --bar" in refused("plan", "nowhere.txt", "--driver", "pci_sysfs")


def test_the_policies_of_the_core_are_listed_as_plugins(answer):
    rows = {(p["name"], p["kind"]): p for p in answer("plugins")["plugins"]}
    for policy in POLICIES:
        row = rows[policy, "vmm"]
        assert (row["distribution"], row["status"]) == ("pfnmap", "ok")
