"""What each rule makes of real devices' BARs: the counts of docs/evidence/VMM.md, its section Consequences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from asking import ask

from pfnmap.contract.region import Msix, Span
from pfnmap.plan import MappingPlan

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
NVIDIA = Msix(0, 0xB90000, 6, 0, 0xBA0000)
"""BAR 0 of 16M."""
MELLANOX = Msix(0, 0x2000, 64, 0, 0x3000)
"""BAR 0 of 32M."""
GB200 = (Span(0, 0x2F_00F0_0000),)
"""The memory of a region of 256G."""


def counts(mappings: Sequence[MappingPlan]) -> str:
    total = {level: sum(m.costs.counts[level] for m in mappings) for level in ("pud", "pmd", "pte")}
    return "/".join(map(str, total.values()))


def guest_counts(mappings: Sequence[MappingPlan]) -> str:
    guests = [m.guest.counts for m in mappings if m.guest]
    return "/".join(str(sum(guest[level] for guest in guests)) for level in ("pud", "pmd", "pte"))


@pytest.mark.parametrize(
    ("policy", "mappable", "nvidia", "mellanox"),
    [
        ("qemu-8.2", True, "0/0/4096", "0/0/8192"),
        ("qemu-9.2", True, "0/8/0", "0/16/0"),
        ("qemu-11.0", True, "0/8/0", "0/16/0"),
        ("qemu-9.2", False, "0/0/4095", "0/0/8191"),
        ("qemu-10.2", False, "0/0/4095", "0/0/8191"),
        ("qemu-11.0", False, "0/7/511", "0/15/511"),
        ("cloud_hypervisor-52", True, "0/0/4094", "0/0/8190"),
        ("cloud_hypervisor-53", True, "0/5/1534", "0/0/8190"),
        ("cloud_hypervisor-53", False, "0/0/0", "0/0/0"),
        ("firecracker", True, "0/0/4094", "0/0/8190"),
        ("crosvm-2025-07-29", True, "0/0/4094", "0/0/8190"),
        ("crosvm", True, "0/0/4096", "0/0/8192"),
        ("crosvm", False, "0/0/4094", "0/0/8190"),
        ("openvmm", True, "0/7/510", "0/15/510"),
        ("openvmm-2026-04-20", True, "0/0/0", "0/0/0"),
        ("kvmtool", True, "0/0/0", "0/0/0"),
        ("dragonball", True, "0/0/4095", "0/0/8191"),
        ("stratovirt", True, "0/0/4095", "0/0/8191"),
        ("dpdk", True, "0/8/0", "0/16/0"),
        ("dpdk", False, "0/7/511", "0/15/511"),
        ("vpp", True, "0/0/4096", "0/0/8192"),
        ("vfio_selftest", True, "0/8/0", "0/16/0"),
    ],
)
def test_bars_with_an_msix_table(policy: str, mappable: bool, nvidia: str, mellanox: str) -> None:
    assert counts(ask(policy, 16 * MIB, msix=NVIDIA, msix_mappable=mappable)) == nvidia
    assert counts(ask(policy, 32 * MIB, msix=MELLANOX, msix_mappable=mappable)) == mellanox


def test_a_guest_s_leaves_follow_the_slots() -> None:
    for policy in ("qemu-9.2", "qemu-11.0"):
        assert guest_counts(ask(policy, 16 * MIB, msix=NVIDIA, hypervisor="kvm")) == "0/7/511"
        assert guest_counts(ask(policy, 32 * MIB, msix=MELLANOX, hypervisor="kvm")) == "0/15/511"
    split = ask("cloud_hypervisor-53", 32 * MIB, msix=MELLANOX, hypervisor="kvm")
    best = ask("openvmm", 32 * MIB, msix=MELLANOX, hypervisor="kvm")
    assert [m.guest.faults for m in (split[1], best[1]) if m.guest] == [8188, 523]


def test_the_area_behind_a_hole_is_aligned_and_never_congruent() -> None:
    first, second = ask("cloud_hypervisor-53", 32 * MIB, msix=MELLANOX)
    assert first.area
    assert second.area
    assert (second.area.offset, second.area.alignment) == (0x4000, 32 * MIB)
    assert (second.area.congruent, second.area.luck) == (False, 0)
    assert first.costs.table_bytes + second.costs.table_bytes == 84 * KIB
    assert sum(m.costs.dma_map.warm_walks for m in (first, second) if m.costs.dma_map) == 8190
    best = ask("qemu-11.0", 32 * MIB, msix=MELLANOX, msix_mappable=False)
    assert sum(m.costs.table_bytes for m in best) == 24 * KIB


def test_what_qemu_9_2_guarantees_of_split_areas() -> None:
    areas = [m.area for m in ask("qemu-9.2", 16 * MIB, msix=NVIDIA, msix_mappable=False)]
    assert [(a.offset, a.alignment, a.luck) for a in areas if a] == [(0, 64 * KIB, 1 / 32), (0xB91000, 4096, 1 / 512)]
    (gb200,) = ask("qemu-10.2", 256 * GIB, sparse=GB200)
    assert gb200.area
    assert (counts([gb200]), gb200.area.alignment, gb200.area.luck) == ("0/0/49286912", MIB, 1 / 2)
    assert counts(ask("qemu-11.0", 256 * GIB, sparse=GB200)) == "188/7/256"


@pytest.mark.parametrize("policy", ["qemu-9.2", "cloud_hypervisor-53", "qemu-11.0", "openvmm", "vfio_selftest"])
def test_a_large_bar_of_whoever_aligns_it(policy: str) -> None:
    (mapping,) = ask(policy, 128 * GIB)
    assert (counts([mapping]), mapping.costs.table_bytes) == ("128/0/0", 4096)
    assert counts(ask(policy, 256 * GIB)) == "256/0/0"


@pytest.mark.parametrize("policy", ["qemu-9.1", "cloud_hypervisor-52", "crosvm", "kvmtool", "dragonball", "stratovirt"])
def test_a_large_bar_of_whoever_leaves_it_to_mmap(policy: str) -> None:
    (mapping,) = ask(policy, 128 * GIB, release="6.12.117")
    assert counts([mapping]) == "0/65536/0"
    for release in ("6.13", "7.3.4"):
        (mapping,) = ask(policy, 128 * GIB, release=release)
        assert (counts([mapping]), mapping.costs.table_bytes) == ("0/0/33554432", 268_972_032)
    (mapping,) = ask(policy, 256 * GIB)
    assert (counts([mapping]), mapping.costs.table_bytes) == ("0/0/67108864", 537_931_776)


def test_dpdk_packs_the_bars_of_a_process() -> None:
    h100 = (16 * MIB, 128 * GIB, 32 * MIB)
    assert [counts([m]) for m in ask("dpdk", *h100)] == ["0/8/0", "0/65536/0", "0/16/0"]
    # Behind one controller's 16K nothing is congruent again.
    behind = ask("dpdk", 16 * KIB, *h100)
    assert [counts([m]) for m in behind] == ["0/0/4", "0/0/4096", "0/0/33554432", "0/0/8192"]
    assert counts(ask("dpdk", 16 * KIB, 32 * MIB)[1:]) == "0/0/8192"
    assert counts(ask("dpdk", 32 * MIB, 64 * KIB, 32 * MIB)[2:]) == "0/0/8192"
    addresses = [(m.va, m.length) for m in behind]
    assert [a[0] + a[1] - (b[0] or 0) for a, b in pairwise(addresses) if a[0]] == [0, 0, 0]


@pytest.mark.parametrize("policy", ["qemu-9.1", "qemu-10.2", "cloud_hypervisor-53", "vpp", "openvmm", "dpdk"])
def test_a_bar_that_has_no_large_leaf_loses_nothing(policy: str) -> None:
    nvme = ask(policy, 16 * KIB, msix=Msix(0, 0x2000, 32, 0, 0x3000))
    e810 = ask(policy, (3, 64 * KIB), msix=Msix(3, 0, 129, 3, 0x8000))
    assert all(m.area and m.area.congruent for m in (*nvme, *e810))


def test_unaligned_areas_on_a_kernel_that_does_not_look_at_the_pfn() -> None:
    """6.12.0 maps wrong memory there (09dfc8a5f2ce): 2M leaves in an area that is not congruent."""
    mappings: list[Any] = ask("cloud_hypervisor-53", 32 * MIB, msix=MELLANOX, release="6.12")
    assert counts(mappings[1:]).startswith("0/15/")
    assert "WRONG MEMORY" in mappings[1].warnings[0]
