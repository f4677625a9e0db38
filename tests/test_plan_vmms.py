"""VMMs on the command line, and what they place, mapped bit by bit."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfnmap import Device, DeviceBar
from pfnmap.contract.region import Msix, Span
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.mm.fault import user_access
from pfnmap.plan import MappingPlan, Request, plan
from pfnmap.plan.losses import device_classes
from pfnmap.plan.placement import vmm_class
from pfnmap.plugins import Registry
from pfnmap.run import Run
from pfnmap.spec import KernelSpec

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
EXAMPLES = Path(__file__).parent.parent / "examples"
CONFIGS = (
    "config-6.1.0-56-amd64.gz",
    "config-6.12.117+deb12-amd64.gz",
    "config-6.12.117+deb12-arm64.gz",
    "config-7.3.4+deb13-amd64.gz",
)
MOST_AT_ONCE = 1 << 24
"""Bytes that are filled by the first fault where it fills all."""
LSPCI = """01:00.0 Ethernet controller [0200]: Mellanox Technologies MT2892 Family [ConnectX-6 Dx] [15b3:101d]
	Region 0: Memory at 80002000000 (64-bit, prefetchable) [size=32M]
	Region 2: Memory at 80004000000 (64-bit, prefetchable) [size=8M]
	Capabilities: [9c] MSI-X: Enable+ Count=64 Masked-
		Vector table: BAR=0 offset=00002000
		PBA: BAR=0 offset=00003000
	Kernel driver in use: vfio-pci
"""


def policies() -> list[str]:
    """Every set of versions of every program that behaves in its own way, by its newest."""
    found = []
    for name in sorted(set(Registry().names("vmm")) - {"qemu_kvm", "pve_qemu_kvm"}):  # qemu's rules
        versions = vmm_class(name, Registry()).versions
        found += [f"{name}-{text.rpartition(' ')[2]}" for text in versions] or [name]
    return found


# Both engines


@cache
def debian(config: str) -> Kernel:
    return KernelSpec(config=str(EXAMPLES / "configs" / config)).link(Registry(), lambda _: None)


def levels(mapping: MappingPlan) -> dict[int, str]:
    """The levels planned at the first page, the last page and in the middle of each run."""
    page = mapping.sizes["pte"]
    return {
        va: run.level
        for run in mapping.runs
        for va in (run.va, run.va + run.length // 2 // page * page, run.end - page)
    }


def touched(kernel: Kernel, mapping: MappingPlan, advised: bool) -> dict[int, str]:
    """The levels at those pages once they are touched, bit by bit."""
    request, area = mapping.request, mapping.area
    assert area is not None
    bar = DeviceBar(request.bar, request.bar_size, request.phys)
    run = Run(kernel, [Device("d", "0000:00:01.0", {request.bar: bar})])
    where = {"device": "d", "bar": request.bar, "offset": area.offset, "length": area.length}
    how = {"addr": area.va, "fixed": True, "prot": "rw", "shared": True}
    assert run.step(Step("mmap", {**where, **how})).as_json()["result"] == "ok"
    if advised:
        advice = {"addr": area.va, "length": area.length, "advice": "HUGEPAGE"}
        assert run.step(Step("madvise", advice)).as_json()["result"] == "ok"
    names = {size: level for level, size in mapping.sizes.items()}
    found = {}
    for va in levels(mapping):
        assert user_access(run.parent, va, write=False).result == "ok"
        *_, (level, _) = run.parent.tables.walk(va)
        size = 1 << next(w.shift for w in kernel.geometry.walk if w.name == level)
        found[va] = names[size]
    return found


def small_enough(mapping: MappingPlan) -> bool:
    return bool(mapping.runs) and (mapping.costs.driver_calls > 1 or mapping.length <= MOST_AT_ONCE)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("policy", policies())
def test_areas_of_real_devices_are_mapped_as_planned(policy: str, config: str) -> None:
    """At the representative addresses, and at congruent ones."""
    kernel = debian(config)
    checked = 0
    seen = set()
    for one in {(d.bars, d.msix): d for d in device_classes()}.values():
        for mappable in (True, False) if one.msix else (True,):
            mappings = plan(kernel, one.requests(policy, msix_mappable=mappable)).mappings
            for mapping in filter(small_enough, mappings):
                assert mapping.area
                key = mapping.bar_size, mapping.area.offset, mapping.length
                if key in seen:
                    continue
                seen.add(key)
                advised = mapping.placed.madvise_hugepage
                assert touched(kernel, mapping, advised) == levels(mapping), one.name
                part = {"offset": mapping.area.offset, "length": mapping.length, "policy": "aligned"}
                request = Request(mapping.bar, mapping.request.phys, mapping.bar_size, **part)
                (lucky,) = plan(kernel, [request]).mappings
                assert touched(kernel, lucky, advised=False) == levels(lucky), one.name
                checked += 1
    assert (checked > 0) == (policy != "openvmm-2026-04-20")


def test_advised_areas_are_mapped_as_planned_where_thp_is_by_advice() -> None:
    defaults = {"TRANSPARENT_HUGEPAGE": "y", "VFIO_PCI": "y"}
    kernel = Kernel.link("x86_64", ["vfio_pci"], defaults=defaults, release="6.12.94", thp="madvise")
    (mapping,) = plan(kernel, [Request(0, 1 << 40, 4 * GIB, policy="vfio_selftest")]).mappings
    assert set(levels(mapping).values()) == {"pud"}
    assert touched(kernel, mapping, advised=True) == levels(mapping)
    assert set(touched(kernel, mapping, advised=False).values()) == {"pte"}


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_regions_are_mapped_as_planned(data: st.DataObject) -> None:
    kernel = debian(data.draw(st.sampled_from(CONFIGS[1:])))
    policy = data.draw(st.sampled_from(policies()))
    size = 1 << data.draw(st.integers(14, 32))
    vectors = data.draw(st.integers(1, 256))
    room = size - 16 * vectors
    msix = Msix(0, data.draw(st.integers(0, room // 8)) * 8, vectors) if room > 0 else None
    cuts = sorted(data.draw(st.sets(st.integers(0, size // 4096), max_size=4)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    sparse = tuple(Span(low * 4096, (high - low) * 4096) for low, high in pairs)
    request = Request(0, 1 << 40, size, policy=policy, msix=msix, sparse=sparse if data.draw(st.booleans()) else ())
    mappings = plan(kernel, [request]).mappings
    end = 0
    for mapping in mappings:
        if mapping.area is None:
            continue
        assert mapping.area.offset >= end
        end = mapping.area.offset + mapping.area.length
        assert end <= size
        if small_enough(mapping):
            assert touched(kernel, mapping, mapping.placed.madvise_hugepage) == levels(mapping)
        assert mapping.area.va % mapping.area.alignment == 0
    for spans in (mappings[0].placed.slots, mappings[0].placed.dma):
        for span in spans or ():
            assert any(a.offset <= span.offset and span.end <= a.offset + a.length for a in mappings[0].placed.areas)
    # Every byte is in an area or said to be in none.
    there = [*mappings[0].placed.areas, *mappings[0].placed.unmapped]
    assert sum(part.length for part in there) == size


@pytest.mark.parametrize("policy", ["qemu-10.2", "qemu-11.0", "cloud_hypervisor-53", "openvmm"])
def test_a_guest_s_faults_and_its_process_s_are_those_of_its_slots(policy: str) -> None:
    """Slot by slot, touched page by page by a guest: each leaf is faulted in once, however many slots it is under."""
    kernel = Kernel.link("x86_64", ["vfio_pci", "kvm"], defaults={"TRANSPARENT_HUGEPAGE": "y", "VFIO_PCI": "y"})
    request = Request(0, 1 << 40, 8 * MIB, policy=policy, msix=Msix(0, 0x2000, 64, 0, 0x3000))
    for mapping in plan(kernel, [request], hypervisor="kvm").mappings:
        assert mapping.guest
        assert mapping.area
        assert mapping.guest.fixups <= sum(mapping.costs.counts.values())
        slots = mapping.placed.areas if mapping.placed.slots is None else mapping.placed.slots
        mine = [s for s in slots if mapping.area.offset <= s.offset < mapping.area.offset + mapping.area.length]
        assert sum(run.length for run in mapping.guest.runs) == sum(slot.length for slot in mine)


# The command line


@pytest.fixture
def mellanox(tmp_path: Path) -> Path:
    path = tmp_path / "lspci.txt"
    path.write_text(LSPCI)
    return path


def test_lspci_brings_the_table(answer: Any, mellanox: Path) -> None:
    by_file = answer("plan", mellanox, "--vmm", "cloud-hypervisor-53")["mappings"]
    by_hand = answer(
        *("plan", "--bar", "32M@0x80002000000", "--bar", "8M@0x80004000000"),
        *("--msix", "0:0x2000:64:0x3000", "--vmm", "cloud-hypervisor-53"),
    )["mappings"]
    assert [row["counts"] for row in by_file] == [row["counts"] for row in by_hand]
    assert [(row["bar"], row["area"]) for row in by_file] == [
        (0, {"offset": 0, "length": 8192}),
        (0, {"offset": 16384, "length": 32 * MIB - 16384}),
        (2, {"offset": 0, "length": 8 * MIB}),
    ]
    row = by_file[1]
    assert (row["policy"], row["alignment"], row["congruent"], row["luck"]) == (
        "cloud-hypervisor-53",
        32 * MIB,
        False,
        0,
    )
    assert row["slots"] == [{"gpa_offset": 0, "length": 8192}, {"gpa_offset": 16384, "length": 32 * MIB - 16384}]
    assert row["dma"] == [{"offset": 0, "length": 8192}, {"offset": 16384, "length": 32 * MIB - 16384}]
    assert row["unmapped"] == [{"offset": 8192, "length": 8192, "reason": "the MSI-X table and the MSI-X PBA"}]
    assert row["redone"] == []


def test_a_table_that_cannot_be_the_device_s_is_left_out(answer: Any, mellanox: Path) -> None:
    mellanox.write_text(LSPCI.replace("offset=00002000", "offset=02000000"))
    document = answer("plan", mellanox, "--vmm", "cloud-hypervisor-53")
    assert len(document["mappings"]) == 2
    assert "lies outside the BAR" in document["skipped"][0]["reason"]


def test_capabilities_by_hand(answer: Any) -> None:
    bar = ("plan", "--bar", "32M", "--vmm", "qemu-9.2")
    table = ("--msix", "0:0x2000:64:0x3000")
    assert [row["counts"]["pmd"] for row in answer(*bar, *table)["mappings"]] == [16]
    assert [row["counts"]["pmd"] for row in answer(*bar, *table, "--no-msix-mappable")["mappings"]] == [0, 0]
    areas = [row["area"] for row in answer(*bar, "--sparse", "0:4M:8K", "--sparse", "0:0:2M")["mappings"]]
    assert areas == [{"offset": 0, "length": 2 * MIB}, {"offset": 4 * MIB, "length": 8192}]


def test_a_vmm_leaves_all_of_a_bar_that_cannot_be_mapped(answer: Any) -> None:
    (row,) = answer("plan", "--bar", "256@0xfe000100", "--vmm", "qemu-9.2")["mappings"]
    assert [(part["offset"], part["length"]) for part in row["unmapped"]] == [(0, 256)]


def test_a_newer_version_is_taken_for_the_newest_if_asked(answer: Any, refused: Any) -> None:
    said = refused("plan", "--bar", "32M", "--vmm", "qemu-12.0")
    assert said.endswith("unknown version of qemu '12.0'; known: 2.8 to 9.1, 9.2 to 10.2, 11.0")
    (row,) = answer("plan", "--bar", "32M", "--vmm", "qemu-12.0", "--vmm-assume-newest")["mappings"]
    assert (row["policy"], row["notes"][0]) == ("qemu-12.0", "qemu 12.0 is newer than what is known: taken as 11.0")
    older = ("plan", "--bar", "32M", "--vmm", "qemu-2.1", "--vmm-assume-newest")
    assert "unknown version of qemu '2.1'" in refused(*older)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--msix", "0:0x2000:64"], "--msix goes with --vmm and a VMM's name"),
        (["--vmm", "kernel", "--sparse", "0:0:4K"], "--sparse goes with --vmm and a VMM's name"),
        (["--vmm", "qemu", "--msix", "0:32M:64"], "BAR 0: the MSI-X table 0x2000000-0x2000400 lies outside the BAR"),
        (["--vmm", "qemu", "--msix", "0:0x2000:64:0x2100"], "the MSI-X table and its PBA overlap"),
        (["--vmm", "qemu", "--msix", "0:0x2000:0"], "0 MSI-X vectors; there are 1 to 2048"),
        (["--vmm", "qemu", "--msix", "0:0x2004:4"], "is not at a multiple of 8"),
        (["--vmm", "qemu", "--msix", "1:0x2000:4"], "--msix: 1:0x2000:4: there is no BAR 1; there is 0"),
        (["--vmm", "qemu", "--msix", "0:0x2000"], "'0:0x2000' is not BAR:TABLE:VECTORS[:PBA]"),
        (["--vmm", "qemu", "--msix", "0:0:4", "--msix", "0:4K:4"], "--msix: BAR 0 is given twice"),
        (["--vmm", "qemu", "--msix", "0:x:4"], "--msix 0:x:4: 'x' is not a size"),
        (["--vmm", "qemu", "--sparse", "0:31M:2M"], "is not inside the BAR"),
        (["--vmm", "qemu", "--sparse", "0:0:2M", "--sparse", "0:1M:2M"], "overlaps 0x0-0x200000"),
        (["--vmm", "qemu", "--sparse", "0:0:100"], "is not whole pages of 0x1000 bytes"),
        (["--vmm", "qemu", "--vmm-opt", "x-mmap=on"], "--vmm-opt: qemu takes no option 'x-mmap'; it takes iommufd"),
        (["--vmm", "vpp", "--vmm-opt", "x"], "--vmm-opt: vpp takes no option 'x'"),
        (["--vmm", "cloud-hypervisor-53", "--vmm", "cloud_hypervisor-53"], "is asked for twice"),
        (["--vmm", "qemu", "--length", "1M"], "qemu says itself what of a BAR it maps"),
    ],
)
def test_what_cannot_be_is_one_line(refused: Any, options: list[str], said: str) -> None:
    assert said in refused("plan", "--bar", "32M", *options)


def test_an_option_goes_to_those_that_take_it(answer: Any) -> None:
    rows = answer("plan", "--bar", "32M", "--vmm", "qemu", "--vmm", "cloud-hypervisor", "--vmm-opt", "x-no-mmap=on")
    assert [row["area"] is None for row in rows["mappings"]] == [True, False]


def test_a_vmm_maps_the_whole_bar_of_a_process_that_has_parts_of_it(answer: Any, tmp_path: Path) -> None:
    """Two areas of one BAR in /proc/PID/maps, and what another VMM would make of the BAR."""
    scenario = tmp_path / "s.toml"
    step = '[[step]]\nop = "mmap"\ndevice = "d"\nbar = 0\nprot = "rw"\nshared = true\noffset = "{}"\nlength = "{}"\n'
    scenario.write_text(
        '[[device]]\nname = "d"\nbdf = "0000:3b:00.0"\n'
        '[[device.bar]]\nindex = 0\nsize = "32M"\nphys = "0x8000000000"\n'
        + step.format("0", "8K")
        + step.format("16K", "1M")
    )
    (row,) = answer("plan", scenario, "--vmm", "qemu-11.0")["mappings"]
    assert row["area"] == {"offset": 0, "length": 32 * MIB}


# pfnmap vmm


def losses(document: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (
            row["device"].split(",")[0],
            row["bar"],
            row["area"]["offset"],
            tuple(row["counts"][level] for level in ("pud", "pmd", "pte")),
            tuple(row["possible"][level] for level in ("pud", "pmd", "pte")),
            row["msix_mappable"],
            row["after"],
        )
        for policy in document["policies"]
        for row in policy["losses"]
    ]


def test_vmm_finds_the_area_behind_the_hole(answer: Any) -> None:
    document = answer("vmm", "cloud-hypervisor-53")
    found = losses(document)
    assert ("Mellanox ConnectX-6 Dx / BlueField-2", 0, 0x4000, (0, 0, 8188), (0, 15, 508), True, None) in found
    assert ("NVIDIA H100", 0, 0xBA1000, (0, 0, 1119), (0, 2, 95), True, None) in found
    (row,) = (row for row in document["policies"][0]["losses"] if row["bar_size"] == 32 * MIB)
    assert row["bar_counts"] == {"pud": 0, "pmd": 0, "pte": 8190}
    assert row["bar_possible"] == {"pud": 0, "pmd": 15, "pte": 510}
    assert row["reason"].endswith("off the BAR's address modulo 2M: never congruent")
    assert row["rule"] == "reserve the whole BAR at a multiple of 2M, and map each area at its offset in it"
    assert all(area != (128 * GIB) for area in (row["area"]["length"] for row in document["policies"][0]["losses"]))


def test_vmm_finds_what_each_version_of_qemu_loses(answer: Any) -> None:
    policies = {p["name"]: p for p in answer("vmm", "qemu")["policies"]}
    assert {name: p["versions"] for name, p in policies.items()} == {
        "qemu-9.1": ["2.8 to 9.1"],
        "qemu-10.2": ["9.2 to 10.2"],
        "qemu-11.0": ["11.0"],
    }
    assert policies["qemu-11.0"]["losses"] == []
    split = losses({"policies": [policies["qemu-10.2"]]})
    assert {(device, mappable) for device, *_, mappable, _ in split} == {
        ("NVIDIA H100", False),
        ("NVIDIA AD102GL L20", False),
        ("Mellanox ConnectX-6 Dx / BlueField-2", False),
        ("NVIDIA GB200", True),
    }
    assert len(policies["qemu-9.1"]["losses"]) > 30


def test_vmm_finds_what_dpdk_loses_behind_a_small_bar(answer: Any) -> None:
    found = losses(answer("vmm", "dpdk-26.07"))
    assert ("NVIDIA H100", 2, 0, (0, 65536, 0), (128, 0, 0), True, None) in found
    assert ("NVIDIA H100", 2, 0, (0, 0, 33554432), (128, 0, 0), True, "a 16K BAR") in found


def test_vmm_finds_vpp_s_header_page(answer: Any, pfnmap: Any) -> None:
    rows = answer("vmm", "vpp")["policies"][0]["losses"]
    assert all("VPP puts a header page in front of every mapping" in row["notes"] for row in rows)
    text = " ".join(pfnmap("vmm", "vpp", env={"COLUMNS": "120"}).stdout.split())
    assert "VPP puts a header page in front of every mapping" in text
    assert "rule: reserve the whole BAR at a multiple of 1G" in text


def test_vmm_checks_only_if_asked(pfnmap: Any, refused: Any) -> None:
    assert pfnmap("vmm", "vpp", "--check").exit_code == 1
    assert pfnmap("vmm", "qemu-11.0", "--check").exit_code == 0
    assert "nothing stays smaller than it could be" in pfnmap("vmm", "qemu-11.0").stdout
    assert "unknown placement policy 'xen'" in refused("vmm", "xen")
    assert "unknown version of qemu '12'" in refused("vmm", "qemu-12")
    assert pfnmap("vmm", "qemu-12", "--vmm-assume-newest").exit_code == 0
    assert pfnmap("vmm", "openvmm", "--vmm-opt", "x").exit_code == 2


def test_vmm_goes_over_all_that_are_installed(answer: Any, monkeypatch: pytest.MonkeyPatch, refused: Any) -> None:
    monkeypatch.setattr("pfnmap.plan.losses.device_classes", lambda: device_classes()[-1:])
    names = {policy["name"].partition("-")[0] for policy in answer("vmm")["policies"]}
    assert names == set(Registry().names("vmm")) - {"kernel", "aligned"}  # the core's, which lose nothing by themselves
    monkeypatch.setenv("PFNMAP_PLUGINS", "x86_64,vfio_pci")
    assert "pip install pfnmap-vmms" in refused("vmm")
