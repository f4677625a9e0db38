"""Requests that are alike are planned once: what is shared is what would be planned anew, whoever takes part."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfnmap.errors import PfnmapError
from pfnmap.kernel import Kernel
from pfnmap.plan import Plan, Request, plan
from pfnmap.plan.placement import vmm_class
from pfnmap.plugins import Registry
from pfnmap.spec import KernelSpec

REGISTRY = Registry()
KERNELS = (
    KernelSpec(release="6.12.117"),
    KernelSpec(release="posted-v2"),
    KernelSpec(release="6.1.0-56-amd64"),
    KernelSpec(release="6.8"),
    KernelSpec(arch="arm64", release="7.3.4", page_size="64K"),
    KernelSpec(arch="s390", release="6.12.117"),
)
POLICIES = [
    f"{name}-{text.rpartition(' ')[2]}" if text else name
    for name in sorted(REGISTRY.names("vmm"))
    for text in (vmm_class(name, REGISTRY).versions or ("",))
]
DRIVERS = sorted(set(REGISTRY.names("driver")) - {"kvm"})
GIB = 1 << 30


@cache
def linked(number: int) -> Kernel:
    return KERNELS[number].link(REGISTRY, lambda _: None)


def text(kernel: Kernel, requests: list[Request]) -> str:
    """The answer, or why there is none."""
    try:
        found = plan(kernel, requests, registry=REGISTRY, newest_vmm=True)
    except PfnmapError as error:
        return str(error)
    assert f"{{{found.dumped()}}}" == json.dumps(found.as_json())
    return repr(found) + found.dumped()


@st.composite
def hosts(draw: st.DrawFn) -> tuple[list[Request], list[Request]]:
    """The BARs of two hosts that may be alike."""
    both: tuple[list[Request], list[Request]] = [], []
    policies = draw(
        st.lists(
            st.sampled_from(["aligned", "kernel"]) | st.sampled_from(POLICIES), min_size=1, max_size=2, unique=True
        )
    )
    driver = draw(st.sampled_from(DRIVERS))
    device = draw(st.sampled_from([None, "0000:3b:00.0"]))
    for bar in range(draw(st.integers(1, 3))):
        size = 1 << draw(st.one_of(st.integers(8, 38), st.sampled_from([12, 16, 21, 24, 25, 30, 37])))
        for requests in both:
            within = draw(st.sampled_from([0, 0, 0, 4096, 1 << 21, size // 2]))
            phys = size * draw(st.integers(1, max((1 << 40) // size, 64))) + within
            for policy in policies:
                requests.append(Request(bar, phys, size, device=device, policy=policy, driver=driver))
    return both


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=max(100, settings.default.max_examples))
@given(st.integers(0, len(KERNELS) - 1), hosts())
def test_what_is_shared_is_what_would_be_planned_anew(number: int, both: tuple[list[Request], ...]) -> None:
    kernel = linked(number)
    for requests in both:
        assert text(kernel, requests) == text(replace(kernel), requests)


@pytest.mark.parametrize("policy", ["qemu-8.2", "qemu-9.2", "aligned", "kernel"])
def test_bars_of_the_same_size_at_multiples_of_it_are_planned_once(policy: str) -> None:
    first, second = (shared(policy, phys, 16 * GIB) for phys in (16 * GIB, 48 * GIB))
    assert first.texts is second.texts
    assert [one.phys for one in first.mappings + second.mappings] == [16 * GIB, 48 * GIB]


def test_an_address_that_would_be_lucky_for_a_bar_is_not_shared() -> None:
    """Policies leave an address at which a BAR would be congruent by luck, and `aligned` seeks one."""
    for policy, size in (("qemu-8.2", 2 * GIB), ("aligned", 1 << 24)):
        first = shared(policy, 16 * GIB, size).mappings[0].va
        assert first is not None
        elsewhere = 16 * GIB + (first % GIB or size)
        assert shared(policy, elsewhere, size).mappings[0].va != first


def test_whether_a_leaf_larger_than_the_bar_would_be_congruent_is_looked_at_for_each() -> None:
    plans = [shared("qemu-9.2", phys, 1 << 24) for phys in (5 << 24, GIB + (5 << 24), 0x3_F600_0000)]
    assert plans[0].texts is plans[1].texts is plans[2].texts
    assert [one.mappings[0].blocked[0].also for one in plans] == [("not_congruent", "vma_edge")] * 2 + [("vma_edge",)]


def test_bars_that_share_a_page_are_planned_by_themselves() -> None:
    asked = [
        [Request(bar, at + 256 * bar, 256, device="3b:00.0", policy="kernel") for bar in (0, 1)] for at in (GIB, 0)
    ]
    details = [plan(linked(0), two, registry=REGISTRY).mappings[0].blocked[0].detail for two in asked]
    assert [detail.rpartition(" ")[2] for detail in details] == [hex(GIB + 256), hex(256)]


def test_where_leaves_map_the_wrong_memory_each_is_planned_by_itself() -> None:
    posted = linked([spec.release for spec in KERNELS].index("posted-v2"))
    asked = [Request(0, phys + (1 << 20), GIB, policy="firecracker") for phys in (4 * GIB, 8 * GIB)]
    first, second = (plan(posted, [one], registry=REGISTRY) for one in asked)
    assert first.texts is not second.texts
    assert first.mappings[0].warnings != second.mappings[0].warnings


def shared(policy: str, phys: int, size: int) -> Plan:
    return plan(linked(0), [Request(0, phys, size, policy=policy)], registry=REGISTRY)
