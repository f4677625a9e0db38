"""The planner's guest level: known cases, and agreement with the kvm plugin fault by fault on random machines."""

from __future__ import annotations

from functools import cache
from itertools import groupby
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pfnmap import BadInput, Device, DeviceBar, Refused
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.plan import MappingPlan, Request, plan
from pfnmap.run import Run
from pfnmap_kvm.plan import GUEST_BASE

MIB, GIB = 1 << 20, 1 << 30
PHYS = 0x80_0000_0000
VA = 0x40_0000_0000
THP = {"TRANSPARENT_HUGEPAGE": "y", "VFIO_PCI": "y"}
BUILDS: dict[str, tuple[str, str]] = {
    "x86_64": ("x86_64", "4K"),
    "arm64 4K": ("arm64", "4K"),
    "arm64 16K": ("arm64", "16K"),
    "arm64 64K": ("arm64", "64K"),
    "riscv64": ("riscv64", "4K"),
    "powerpc64 4K": ("powerpc64", "4K"),
    "powerpc64 64K": ("powerpc64", "64K"),
    "s390": ("s390", "4K"),
}
RELEASES = ("6.1.150", "6.1.192", "6.10.5", "6.12.94", "6.12.117", "6.18.15", "7.2.9", "7.3.4", "posted-v2")
MOST_LEAVES = 2500


@cache
def linked(build: str, release: str) -> Kernel:
    arch, page_size = BUILDS[build]
    return Kernel.link(arch, ["vfio_pci", "kvm"], release=release, defaults=THP, page_size=page_size)


def planned(build: str, release: str, request: Request) -> MappingPlan:
    (mapping,) = plan(linked(build, release), [request], hypervisor="kvm").mappings
    return mapping


@st.composite
def requests(draw: st.DrawFn, kernel: Kernel) -> Request:
    """A part of a BAR, and a guest address; ends and distances lie a few pages from a multiple of a leaf."""
    page, pmd, pud = (kernel.geometry.size(level) for level in ("pte", "pmd", "pud"))
    few = st.sampled_from([0, 0, 0, 1, 3]).map(lambda n: n * page)
    bar_size = draw(st.sampled_from([16 * page, 4 * pmd, 4 * pud]))
    offset = draw(st.sampled_from([0, 0, pmd, 2 * pmd])) + draw(few)
    assume(offset < bar_size)
    length = bar_size - offset
    length -= min(draw(st.sampled_from([0, 0, pmd])) + draw(few), length - page)
    step = draw(st.sampled_from([pud, pud, pmd, page]))
    va = VA + (PHYS + offset - VA) % pud + draw(st.sampled_from([0, 0, 0, 1])) * step
    gpa = (
        GUEST_BASE
        + (va - GUEST_BASE) % pud
        + draw(st.sampled_from([0, 0, 0, 1, 3])) * draw(st.sampled_from([pmd, page]))
    )
    return Request(2, PHYS, bar_size, "0000:00:01.0", offset, length, va, gpa=gpa)


def guested(kernel: Kernel, request: Request) -> dict[str, Any]:
    """Let a guest touch every page of a mapping that its process has not touched."""
    run = Run(kernel, [Device("d", "0000:00:01.0", {2: DeviceBar(2, request.bar_size, request.phys)})])
    where = {"addr": request.va, "length": request.length, "fixed": True, "offset": request.offset}
    assert (
        run.step(Step("mmap", {"device": "d", "bar": 2, "prot": "rw", "shared": True, **where})).as_json()["result"]
        == "ok"
    )
    slot = {"slot": 0, "gpa": request.gpa, "va": request.va, "length": request.length}
    assert run.step(Step("kvm.memslot", slot)).result == "ok"
    return run.step(Step("kvm.map", {"gpa": request.gpa, "length": request.length, "access": "write"})).as_json()


def levels(runs: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Runs as (address, leaves, level), neighbours of a level put together."""
    found = []
    for level, same in groupby(runs, key=lambda run: run[2]):
        together = list(same)
        found.append((together[0][0], sum(count for _, count, _ in together), level))
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from([build for build in BUILDS if build != "s390"]), st.sampled_from(RELEASES))
def test_planner_and_kvm_agree(data: st.DataObject, build: str, release: str):
    kernel = linked(build, release)
    request = data.draw(requests(kernel))
    mapping = planned(build, release, request)
    guest = mapping.guest
    assert guest is not None
    assume(sum(guest.counts.values()) <= MOST_LEAVES and sum(mapping.costs.counts.values()) <= MOST_LEAVES)
    got = guested(kernel, request)
    assert got["result"] == "ok"
    assert got["leaves"] == {level: count for level, count in guest.counts.items() if count}
    assert got["guest_faults"] == guest.faults
    assert got.get("faults_total", len(got["faults"])) == guest.driver_calls
    assert got["calls"].get("fixup_user_fault", 0) == guest.fixups
    assert sum(got.get("follow_returns", {}).values()) == guest.as_json()["cold"]["walks"]
    expected = [(run.gpa, run.count, run.level) for run in guest.runs]
    assert levels([(int(run["gpa"], 16), run["count"], run["level"]) for run in got["stage2"]]) == expected
    wrong = {int(run["hpa"], 16) - int(run["gpa"], 16) for run in got["stage2"]} != {
        request.phys + request.offset - guest.gpa
    }
    assert wrong == bool(guest.warnings or mapping.warnings)


@pytest.mark.parametrize(
    ("build", "release", "off", "counts", "note"),
    [
        ("x86_64", "7.3.4", 0, {"pud": 8}, ""),
        (
            "x86_64",
            "7.3.4",
            2 * MIB,
            {"pmd": 4096},
            "guest not 1G: the guest's address is 0x200000 off the VA modulo 1G",
        ),
        ("x86_64", "7.3.4", 4096, {"pte": 1 << 21}, "guest not 1G: the guest's address is 0x1000 off the VA modulo 1G"),
        ("x86_64", "6.1.192", 0, {"pte": 1 << 21}, ""),
        ("arm64 4K", "6.12.117", 0, {"pmd": 4096}, ""),
        (
            "arm64 4K",
            "6.12.117",
            2 * MIB,
            {"pmd": 4096},
            "",
        ),
        ("arm64 4K", "6.12.94", 0, {"pud": 8}, ""),
        (
            "arm64 4K",
            "6.12.94",
            2 * MIB,
            {"pmd": 4096},
            "guest not 1G: the guest's address is 0x200000 off the VA modulo 1G",
        ),
        ("arm64 4K", "6.12.112", 0, {"pud": 8}, ""),
        ("arm64 4K", "6.12.113", 0, {"pmd": 4096}, ""),
        ("arm64 4K", "7.2.9", 0, {"pud": 8}, ""),
        ("arm64 4K", "6.1.192", 0, {"pte": 1 << 21}, ""),
        ("arm64 64K", "7.3.4", 0, {"pmd": 16}, ""),
        ("riscv64", "6.19", 0, {"pte": 1 << 21}, "guest not 1G: riscv64's KVM maps a pfnmap with 4K leaves at most"),
        ("riscv64", "7.3.4", 0, {"pmd": 4096}, "guest not 1G: riscv64's KVM maps a pfnmap with 2M leaves at most"),
        ("s390", "7.3.4", 0, {"pte": 1 << 21}, ""),
        ("powerpc64 64K", "7.3.4", 0, {"pud": 8}, ""),
        (
            "powerpc64 64K",
            "7.3.4",
            2 * MIB,
            {"pte": 1 << 17},
            "guest not 1G: the guest's address is 0x200000 off the VA",
        ),
    ],
)
def test_a_guest_s_leaves_of_8g(build: str, release: str, off: int, counts: dict[str, int], note: str):
    guest = planned(build, release, Request(0, PHYS, 8 * GIB, va=VA, gpa=GUEST_BASE + off)).guest
    assert guest is not None
    assert {level: count for level, count in guest.counts.items() if count} == counts
    assert [text[: len(note)] for text in guest.notes] == ([note] if note else [])


def test_a_guest_has_a_bar_at_a_multiple_of_its_size_unless_it_is_said():
    part = Request(0, 1 << 44, 1 << 42, offset=GIB, va=VA)
    assert planned("x86_64", "7.3.4", part).guest.gpa == (1 << 42) + GIB
    assert planned("x86_64", "7.3.4", Request(0, PHYS, GIB, va=VA)).guest.gpa == GUEST_BASE


def test_riscv_maps_wrong_memory_at_once_from_6_10_to_6_17():
    request = Request(0, PHYS, GIB, va=VA)
    seen = {}
    for release in ("6.1.192", "6.12.117", "6.18.15"):
        guest = planned("riscv64", release, request).guest
        assert guest is not None
        seen[release] = (guest.faults, bool(guest.warnings))
    assert seen == {"6.1.192": (0, False), "6.12.117": (0, True), "6.18.15": (1 << 18, False)}


def test_an_unknown_change_is_planned_both_ways():
    kernel = linked("arm64 4K", "7.3-rc6")  # the change came with some -rc
    request = Request(0, PHYS, GIB, va=VA)
    rows = {row.change: row for row in plan(kernel, [request], hypervisor="kvm").undetermined}
    sides = (rows["arm64-kvm-pfnmap-block"].if_yes, rows["arm64-kvm-pfnmap-block"].if_no)
    assert [side["mappings"][0]["guest"]["faults"] for side in sides] == [512, 1]
    assert "arm64-kvm-pfnmap-block" not in {row.change for row in plan(kernel, [request]).undetermined}


def test_a_guest_faults_nothing_in_of_a_bar_that_is_not_mapped():
    guest = planned("x86_64", "7.3.4", Request(0, 0xFE00_0100, 256, policy="aligned")).guest
    assert (guest.runs, guest.faults, guest.fixups, guest.driver_calls) == ((), 0, 0, 0)


def test_the_document_has_a_guest_only_where_it_is_asked_for():
    kernel = linked("x86_64", "7.3.4")
    request = Request(0, PHYS, 3 * MIB, va=VA, gpa=GUEST_BASE)
    assert "guest" not in plan(kernel, [request]).as_json()["mappings"][0]
    assert plan(kernel, [request], hypervisor="kvm").as_json()["mappings"][0]["guest"] == {
        "hypervisor": "kvm",
        "gpa": hex(GUEST_BASE),
        "runs": [
            {"gpa": hex(GUEST_BASE), "length": 2 * MIB, "level": "pmd", "count": 1},
            {"gpa": hex(GUEST_BASE + 2 * MIB), "length": MIB, "level": "pte", "count": 256},
        ],
        "counts": {"pud": 0, "pmd": 1, "pte": 256},
        "faults": 257,
        "cold": {"walks": 514, "fixups": 257, "driver_calls": 259},
        "warm": {"walks": 257},
        "notes": [],
        "warnings": [],
    }


@pytest.mark.parametrize(
    ("arch", "cpu", "why"),
    [
        ("s390", {}, "s390's guests share the page tables of the process: 6.12.117 lacks s390-kvm-new-gmap"),
        ("powerpc64", {"mmu": "hash"}, "powerpc64's KVM is not modelled in this boot"),
    ],
)
def test_a_kvm_that_is_not_modelled_is_refused(arch: str, cpu: dict[str, str], why: str):
    kernel = Kernel.link(arch, ["vfio_pci", "kvm"], release="6.12.117", defaults=THP, cpu=cpu)
    with pytest.raises(Refused, match=f"plan --kvm: {why}"):
        plan(kernel, [Request(0, PHYS, GIB, policy="aligned")], hypervisor="kvm")


@pytest.mark.parametrize(
    ("gpa", "text"),
    [(GUEST_BASE + 1, "0x8000000001 is not a multiple of the 4K page"), ((1 << 64) - MIB, "does not fit in 64 bits")],
)
def test_a_guest_address_that_cannot_be(gpa: int, text: str):
    with pytest.raises(BadInput, match=f"--gpa: .*{text}"):
        planned("x86_64", "7.3.4", Request(0, PHYS, GIB, va=VA, gpa=gpa))


def test_the_command_line_plans_a_guest(answer: Any, refused: Any, pfnmap: Any):
    asked = ("plan", "--bar", "8G@0x8000000000", "--va", "0x4000000000")
    (mapping,) = answer(*asked, "--kvm", "--gpa", "0x8000200000")["mappings"]
    assert mapping["guest"]["counts"] == {"pud": 0, "pmd": 4096, "pte": 0}
    assert "4,096x2M" in pfnmap(*asked, "--kvm", "--gpa", "0x8000200000", env={"COLUMNS": "120"}).stdout
    assert refused(*asked, "--gpa", "0x0").endswith("--gpa goes with --kvm")
    both = ("plan", "--bar", "8G@0x8000000000", "--bar", "8G@0x9000000000", "--kvm", "--gpa", "0")
    assert refused(*both).endswith("one guest address for several mappings; give one BAR")
