"""What was proposed and is not merged: mmap(NULL) aligned by the driver's order, PUD leaves on arm64.

Nothing pins these but the letters of the series; both engines of the model must agree on them all the same.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfnmap import Device, DeviceBar
from pfnmap.kernel import Kernel
from pfnmap.plan import Request, plan
from pfnmap.release import parse_release
from pfnmap.run import Run, Step

G, M, K = 1 << 30, 1 << 20, 1 << 10
ORDERED = ("get-mapping-order",)


@cache
def linked(arch: str, release: str, changes: tuple[str, ...], thp: str = "always", config: str = "") -> Kernel:
    given = {"TRANSPARENT_HUGEPAGE": "y", **({config: "y"} if config else {})}
    return Kernel.link(arch, ["vfio_pci"], given=given, release=parse_release(release, changes), thp=thp)


def mapped(kernel: Kernel, request: Request) -> tuple[Run, dict[str, Any]]:
    run = Run(kernel, [Device("d", "0000:00:01.0", {2: DeviceBar(2, request.bar_size, request.phys)})])
    arguments = {"device": "d", "bar": 2, "offset": request.offset, "length": request.length, "prot": "rw"}
    if request.va is not None:
        arguments |= {"addr": request.va, "fixed": True}
    return run, run.step(Step("mmap", {**arguments, "shared": True})).as_json()


def planned(kernel: Kernel, request: Request) -> Any:
    return plan(kernel, [request]).mappings[0]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(
        [
            ("x86_64", "6.12.117", ORDERED, "always"),
            ("x86_64", "7.3.4", ORDERED, "always"),
            ("x86_64", "7.3.4", ORDERED, "never"),
            ("x86_64", "6.12.94", ORDERED, "never"),
            ("arm64", "7.3.4", ORDERED, "always"),
            ("arm64", "7.3.4", (*ORDERED, "arm64-pud-pfnmap"), "always"),
            ("arm64", "7.3.4", ORDERED, "always", "ARM64_64K_PAGES"),
            ("s390", "7.3.4", ORDERED, "always"),
        ]
    ),
    st.data(),
)
def test_mmap_and_the_planner_choose_the_same_address(machine: Any, data: st.DataObject):
    kernel = linked(*machine)
    page, pmd, pud = (kernel.geometry.size(level) for level in ("pte", "pmd", "pud"))
    grain = st.sampled_from([page, pmd, min(pud, 1 << 34)])
    bar_size = 1 << data.draw(st.integers(16, 36))
    offset = min(data.draw(st.integers(0, 3)) * data.draw(grain), bar_size - page)
    length = min(data.draw(st.integers(1, 5)) * data.draw(grain), bar_size - offset)
    request = Request(2, 3 * bar_size, bar_size, offset=offset, length=length, policy="kernel")
    answer, (_, result) = planned(kernel, request), mapped(kernel, request)
    assert int(result["addr"], 16) == answer.va
    leaves = [size for level, size in (("pmd", pmd), ("pud", pud)) if kernel.pfnmap(level)]
    fitting = [size for size in leaves if -(-offset // size) * size + size <= offset + length]
    assert (answer.va - request.phys - offset) % max(fitting, default=page) == 0


@pytest.mark.parametrize(
    ("arch", "release", "changes", "size", "counts"),
    [
        ("x86_64", "7.3.4", (), 8 * G, {"pte": 2 * M, "pmd": 0, "pud": 0}),
        ("x86_64", "7.3.4", ORDERED, 8 * G, {"pte": 0, "pmd": 0, "pud": 8}),
        ("x86_64", "6.12.117", ORDERED, 8 * G, {"pte": 0, "pmd": 0, "pud": 8}),
        ("x86_64", "7.3.4", ORDERED, 256 * M, {"pte": 0, "pmd": 128, "pud": 0}),
        ("x86_64", "7.3.4", ORDERED, 64 * K, {"pte": 16, "pmd": 0, "pud": 0}),
        ("arm64", "7.3.4", ORDERED, 8 * G, {"pte": 0, "pmd": 4 * K, "pud": 0}),
        ("arm64", "7.3.4", (*ORDERED, "arm64-pud-pfnmap"), 8 * G, {"pte": 0, "pmd": 0, "pud": 8}),
    ],
)
def test_mmap_null_of_a_bar_has_the_largest_leaves(arch, release, changes, size, counts):
    kernel = linked(arch, release, changes)
    assert planned(kernel, Request(2, 16 * G, size, length=size, policy="kernel")).costs.counts == counts


@pytest.mark.parametrize("release", ["6.12.117", "7.3.4"])
def test_arm64_maps_1g_leaves_with_the_draft(release: str):
    kernel = linked("arm64", release, ("arm64-pud-pfnmap",))
    request = Request(2, 16 * G, 4 * G, length=4 * G, va=1 << 40)
    assert planned(kernel, request).costs.counts == {"pte": 0, "pmd": 0, "pud": 4}
    run, result = mapped(kernel, request)
    assert result["result"] == "ok"
    va = 1 << 40
    scan = run.step(Step("scan", {"start": va, "end": va + 4 * G, "step": G, "access": "read"})).as_json()
    assert scan["faults_total"] == planned(kernel, request).costs.driver_calls == 4
    run.machine.trace.drain()
    assert run.step(Step("mprotect", {"addr": va, "length": G, "prot": "r"})).as_json()["result"] == "ok"
    assert run.step(Step("touch", {"va": va, "access": "read"})).as_json()["result"] == "ok"
    assert run.step(Step("munmap", {"addr": va, "length": 4 * G})).as_json()["result"] == "ok"
    assert run.parent.pgtables_bytes == 0


@pytest.mark.parametrize("config", ["ARM64_16K_PAGES", "ARM64_64K_PAGES"])
def test_the_draft_is_for_4k_pages(config: str):
    kernel = linked("arm64", "7.3.4", ("arm64-pud-pfnmap",), "always", config)
    assert (kernel.pfnmap("pmd"), kernel.pfnmap("pud")) == (True, False)


def test_caps_say_that_arm64_has_pud_leaves_with_the_draft(answer):
    for with_, has in ((), False), (("--with", "arm64-pud-pfnmap"), True):
        pud = answer("caps", "arm64", *with_)["archs"]["arm64"]["levels"]["pud"]
        assert pud["pfnmap"] == has


def test_caps_of_all_leave_out_what_a_change_is_not_about(pfnmap):
    result = pfnmap("caps", "--with", "arm64-pud-pfnmap")
    assert result.exit_code == 0
    assert "x86_64 is left out: change 'arm64-pud-pfnmap'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--with", "arm64-pud-pfnmap"], "brought by pfnmap-arm64"),
        (["--without", "riscv-pgprot"], "brought by pfnmap-riscv64"),
        (["--with", "vfio-fdinfo-syspath"], "not modelled"),
        (["--with", "arm64-kvm-pfnmap-block", "--kvm"], "it is about arm64"),
    ],
)
def test_a_change_that_would_do_nothing_is_refused_by_name(refused, arguments, message):
    line = refused("plan", "--bar", "8G@0x4000000000", *arguments, exit_code=3)
    assert arguments[1] in line
    assert message in line


def test_a_scenario_that_sets_a_change_for_nothing_is_refused(refused, tmp_path):
    scenario = tmp_path / "s.toml"
    scenario.write_text('[kernel]\nwith = ["riscv-wrprotect-sets-read"]\n[[step]]\nop = "fork"\n')
    assert "'riscv-wrprotect-sets-read'" in refused("run", scenario, exit_code=3)
