"""The planner: figures of real kernels, reasons with their numbers, placement, bad input, and its own cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pfnmap import BadInput, Unknown
from pfnmap.contract.placement import Part
from pfnmap.contract.region import Span
from pfnmap.kernel import Kernel
from pfnmap.plan import ALIGNED_BASE, MMAP_BASE, REASONS, MappingPlan, Plan, Request, plan
from pfnmap.plan.planner import Planner, Question
from pfnmap.plan.space import Space

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
PHYS = 0x80_0000_0000
WINDOW = 0x1000_0000_0000
ARM64_16K = (("ARM64_16K_PAGES", "y"),)


@cache
def linked(arch: str, release: str, symbols: tuple[tuple[str, str], ...] = (), thp: str = "always") -> Kernel:
    defaults = {"TRANSPARENT_HUGEPAGE": "y", "VFIO_PCI": "y"}
    return Kernel.link(arch, ["vfio_pci"], given=dict(symbols), defaults=defaults, release=release, thp=thp)


X86 = linked("x86_64", "6.12.117")


def one(kernel: Kernel, request: Request) -> MappingPlan:
    return plan(kernel, [request]).mappings[0]


def natural(size: int) -> Request:
    return Request(2, PHYS, size, va=WINDOW)


def blocked(mapping: MappingPlan, level: str) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(row.reason, row.detail, row.also) for row in mapping.blocked if row.level == level]


# Figures that REAL kernels gave, one touch per block or per page


@pytest.mark.parametrize(
    ("size", "level", "count", "calls", "table_bytes"),
    [
        (2 * MIB, "pmd", 1, 2, 8192),
        (4 * MIB, "pmd", 2, 3, 8192),
        (128 * MIB, "pmd", 64, 65, 8192),
        (512 * MIB, "pmd", 256, 257, 8192),
        (GIB, "pud", 1, 1, 4096),
        (8 * GIB, "pud", 8, 8, 4096),
        (16 * GIB, "pud", 16, 16, 4096),
    ],
)
def test_natural_mappings_on_x86_64(size: int, level: str, count: int, calls: int, table_bytes: int) -> None:
    mapping = one(X86, natural(size))
    assert [(run.va, run.length, run.level, run.count) for run in mapping.runs] == [(WINDOW, size, level, count)]
    assert (mapping.costs.driver_calls, mapping.costs.table_bytes) == (calls, table_bytes)


@pytest.mark.parametrize(
    ("symbols", "size", "counts"),
    [
        ((), 2 * MIB, (1, 0)),
        ((), 512 * MIB, (256, 0)),
        ((), GIB, (512, 0)),
        (ARM64_16K, 2 * MIB, (0, 128)),
        (ARM64_16K, 4 * MIB, (0, 256)),
        (ARM64_16K, 128 * MIB, (4, 0)),
        (ARM64_16K, GIB, (32, 0)),
        (ARM64_16K, 8 * GIB, (256, 0)),
        (ARM64_16K, 16 * GIB, (512, 0)),
    ],
)
def test_natural_mappings_on_arm64(symbols: Any, size: int, counts: tuple[int, int]) -> None:
    mapping = one(linked("arm64", "6.12.117", symbols), natural(size))
    found = mapping.costs.counts
    assert (found["pmd"], found["pte"], found["pud"]) == (*counts, 0)
    assert blocked(mapping, "pud")[0][0] == "arch_no_level"


def test_s390_has_a_table_more_where_a_mapping_ends_beyond_4_tib() -> None:
    """A new process has three levels; a region-third table is 16 KiB."""
    ends = (16 * GIB, 4 * TIB, 4 * TIB + GIB)
    tables = [one(linked("s390", "7.3.4"), Request(0, 1 << 62, GIB, va=end - GIB)).costs.table_bytes for end in ends]
    assert tables == [2_113_536, 2_113_536, 2_113_536 + 16 * KIB]


@pytest.mark.parametrize(
    ("size", "table_bytes"),
    [
        (4 * KIB, 12_288),
        (2 * MIB, 12_288),
        (4 * MIB, 16_384),
        (128 * MIB, 270_336),
        (512 * MIB, 1_056_768),
        (GIB, 2_105_344),
        (8 * GIB, 16_814_080),
        (16 * GIB, 33_624_064),
    ],
)
def test_before_huge_pfnmaps_one_fault_fills_the_vma(size: int, table_bytes: int) -> None:
    mapping = one(linked("x86_64", "6.1.192"), natural(size))
    assert mapping.costs.counts == {"pte": size // 4096, "pmd": 0, "pud": 0}
    assert (mapping.costs.driver_calls, mapping.costs.table_bytes) == (1, table_bytes)
    assert one(X86, natural(size)).before == mapping.costs


def test_small_faults_of_a_page_shifted_mapping() -> None:
    costs = one(X86, Request(2, PHYS, 4 * MIB, va=WINDOW + 4096)).costs
    # 18, 9, 9, 0 for the first page, 9, 9, 0 for the first of each further 2M of VA, 0 for the others
    assert costs.counts["pte"] == 1024
    assert costs.driver_calls == 1 + 2 * 3 + 1024
    assert costs.table_bytes == 4096 * (1 + 1 + 3)


def test_type1_walks_of_a_gigabyte() -> None:
    """REAL-KERNEL figures of 1G: natural, as 2M leaves, and 8M page-shifted, before and after the batching."""
    before, after = X86, linked("x86_64", "6.16.12")
    as_2m = Request(2, PHYS, GIB, va=WINDOW + 2 * MIB)
    shifted = Request(2, PHYS, 8 * MIB, va=WINDOW + 4096)
    for kernel, walks in ((before, (262_144, 262_144, 2048)), (after, (1, 512, 2048))):
        for request, warm, fixups in zip((natural(GIB), as_2m, shifted), walks, (1, 512, 2048), strict=True):
            dma = one(kernel, request).costs.dma_map
            assert (dma.warm_walks, dma.cold_fixups, dma.cold_walks) == (warm, fixups, warm + fixups)


# Why not larger


def test_head_and_tail_of_a_congruent_part() -> None:
    mapping = one(X86, Request(2, PHYS, 8 * GIB, offset=4096, va=WINDOW + 4096))
    assert [(run.level, run.count) for run in mapping.runs] == [("pte", 511), ("pmd", 511), ("pud", 7)]
    assert [(row.level, row.reason, row.va, row.length) for row in mapping.blocked] == [
        ("pmd", "vma_edge", WINDOW + 4096, 2 * MIB - 4096),
        ("pud", "vma_edge", WINDOW + 4096, 2 * MIB - 4096),
        ("pud", "vma_edge", WINDOW + 2 * MIB, GIB - 2 * MIB),
    ]
    assert blocked(mapping, "pmd")[0][1].startswith(
        "the 2M-aligned block 0x100000000000-0x100000200000 does not fit in the mapping 0x100000001000-"
    )


def test_not_congruent_tells_how_far_off() -> None:
    mapping = one(X86, Request(2, PHYS, 8 * GIB, va=WINDOW + 2 * MIB))
    assert blocked(mapping, "pud") == [("not_congruent", "VA is 0x200000 off the BAR's address modulo 1G", ())]
    assert not blocked(mapping, "pmd")


def test_an_address_that_is_not_congruent_stands_in_no_way_where_nobody_checks_it() -> None:
    """posted-v2 maps leaves at any VA that is aligned (and maps the wrong memory); before the series none would fit."""
    request = Request(2, PHYS, GIB, va=WINDOW + 4096)
    reasons = {
        release: {name for row in one(linked("x86_64", release), request).blocked for name in (row.reason, *row.also)}
        for release in ("posted-v2", "6.1.192")
    }
    assert reasons == {"posted-v2": {"vma_edge"}, "6.1.192": {"release", "not_congruent", "vma_edge"}}


def test_what_would_still_block_stands_in_also() -> None:
    kernel = linked("x86_64", "6.12.94", (("TRANSPARENT_HUGEPAGE", "n"),), "never")
    ((reason, detail, also),) = blocked(one(kernel, Request(2, PHYS, 2 * MIB, va=WINDOW + 4096)), "pud")
    assert (reason, detail) == ("config", "TRANSPARENT_HUGEPAGE=n")
    assert also == ("thp_disabled", "too_small", "not_congruent", "vma_edge")
    assert [reason, *also] == sorted((reason, *also), key=REASONS.index)


@pytest.mark.parametrize(
    ("kernel", "level", "reason", "words"),
    [
        (("x86_64", "6.1.192"), "pud", "release", "6.1.192 lacks huge-pfnmap (first in 6.12)"),
        (("x86_64", "6.12.117", (("PREEMPT_RT", "y"),)), "pmd", "config", "PREEMPT_RT=y"),
        (("arm64", "6.12.117"), "pud", "arch_no_level", "HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"),
        (("x86_64", "6.12.94", (), "never"), "pmd", "thp_disabled", "6.12.115"),
        (("x86_64", "7.2.6", (), "madvise"), "pud", "thp_disabled", "MADV_HUGEPAGE"),
    ],
)
def test_reasons_of_the_machine(kernel: Any, level: str, reason: str, words: str) -> None:
    found = blocked(one(linked(*kernel), natural(GIB)), level)
    assert found[0][0] == reason
    assert words in found[0][1]


def forced(**symbols: str) -> Kernel:
    return Kernel.link("x86_64", ["vfio_pci"], {**X86.config, **symbols}, "6.12.117")


def test_a_hand_edited_config_is_named() -> None:
    mapping = one(forced(ARCH_SUPPORTS_PUD_PFNMAP="n"), natural(GIB))
    assert mapping.costs.counts["pmd"] == 512
    assert blocked(mapping, "pud")[0][:2] == ("config", "ARCH_SUPPORTS_PUD_PFNMAP=n")
    # The order is asked for all the same, and refused.
    assert mapping.costs.driver_calls == 513


def test_a_driver_without_huge_fault() -> None:
    mapping = one(forced(ARCH_SUPPORTS_HUGE_PFNMAP="n"), natural(2 * MIB))
    assert blocked(mapping, "pmd")[0][0] == "no_huge_fault"
    assert mapping.costs.driver_calls == mapping.costs.counts["pte"] == 512


def test_the_knob_gates_by_release() -> None:
    for release, gated in {"6.12.113": True, "6.12.115": False, "6.18.15": True, "7.2.9": False}.items():
        levels = [run.level for run in one(linked("x86_64", release, (), "never"), natural(GIB)).runs]
        assert levels == ["pte" if gated else "pud"], release


def test_small_bars() -> None:
    alone = Request(0, 0xFE00_0000, 256, "0000:01:00.0", va=WINDOW)
    assert [run.count for run in one(X86, alone).runs] == [1]
    into = one(X86, replace(alone, phys=0xFE00_0100))
    assert (into.runs, into.costs.table_bytes, into.costs.driver_calls) == ((), 0, 0)
    assert (into.before.counts["pte"], into.before.table_bytes, into.before.driver_calls) == (0, 0, 0)
    assert blocked(into, "pte")[0][:2] == ("not_mmapable", "the BAR has 256 bytes and starts 0x100 into its 4K page")
    neighbour = replace(alone, bar=1, phys=0xFE00_0800)
    found = plan(X86, [alone, neighbour]).mappings[0]
    assert "shares its 4K page with BAR 1 at 0xfe000800" in blocked(found, "pmd")[0][1]
    assert all(row.reason == "not_mmapable" for row in found.blocked)
    other = plan(X86, [alone, replace(neighbour, device="0000:02:00.0")]).mappings[0]
    assert other.runs


def test_posted_v2_maps_wrong_memory_and_says_so() -> None:
    mapping = one(linked("x86_64", "posted-v2"), Request(2, PHYS, 4 * MIB, va=WINDOW + 4096))
    assert [run.level for run in mapping.runs] == ["pte", "pmd", "pte"]
    (warning,) = mapping.warnings
    assert "WRONG MEMORY: the 2M leaf at VA 0x100000200000 maps 0x8000000000 instead of 0x80001ff000" in warning
    assert not one(linked("x86_64", "posted-v2"), natural(4 * MIB)).warnings
    # Physical addresses jump where the leaf begins and where it ends: two walks more.
    assert mapping.costs.dma_map.warm_walks == 1024 + 2


def test_a_release_that_does_not_align_faults_says_so() -> None:
    posted, fixed = (one(linked("x86_64", release), natural(GIB)).notes for release in ("posted-v2", "6.12.117"))
    assert "not at the start of a block" in posted[0]
    assert not fixed
    # Unknown is not the same as absent.
    assert (
        "is not known to have vfio-align-fault-to-order"
        in one(linked("x86_64", "6.12.0-1-amd64"), natural(GIB)).notes[0]
    )


# Placement


def test_policy_aligned_is_the_lowest_congruent_address() -> None:
    high = Request(2, PHYS + 256 * MIB, 256 * MIB, policy="aligned")
    assert one(X86, high).va == ALIGNED_BASE + 256 * MIB
    assert one(linked("arm64", "6.12.117"), high).va == ALIGNED_BASE
    assert one(linked("x86_64", "6.1.192"), high).va == ALIGNED_BASE
    small = linked("arm64", "6.12.117", (("ARM64_VA_BITS_39", "y"),))
    assert one(small, high).va == 1 << 36


def test_policy_kernel_by_release() -> None:
    whole = Request(2, PHYS, 8 * GIB, policy="kernel")
    before = one(X86, whole)
    assert before.va % (2 * MIB) == 0
    assert [run.level for run in before.runs] == ["pmd"]
    after = one(linked("x86_64", "7.3.4"), whole)
    assert after.va == MMAP_BASE - 8 * GIB
    assert [run.level for run in after.runs] == ["pte"]
    assert "no larger leaf fits" in after.notes[0]
    # A length that is no multiple of 2M is not aligned in 6.12.y either: small pages, or luck.
    unlucky, lucky = (one(X86, replace(whole, length=8 * GIB - pages * 4096)) for pages in (2, 1))
    assert [run.level for run in unlucky.runs] == ["pte"]
    assert "aligns such mappings to pages only" in unlucky.notes[0]
    assert [run.level for run in lucky.runs] == ["pmd", "pte"]
    assert "luck" in lucky.notes[0]
    (lucky,) = plan(linked("x86_64", "7.3.4"), [whole], mmap_base=0x7FFF_F000_0000).mappings
    assert [run.level for run in lucky.runs] == ["pmd"]
    assert "luck" in lucky.notes[0]


PAGE = 4096


def placed(*parts: tuple[Span, int], grain: int, top: int) -> list[tuple[int, float]]:
    """Where parts of a BAR go below `top`, and with how much luck."""
    request = Request(2, PHYS, GIB, policy="kernel")
    planner = Planner(X86, Question.of([request]))
    space = Space(X86, planner.paging, {(None, 2): planner.levels[0]})
    areas = space.place([Part(request, span, at) for span, at in parts], grain, top)
    return [(area.va, area.luck) for area in areas]


def test_a_base_at_which_a_part_is_lucky_is_left_for_the_next_below() -> None:
    whole = Span(0, 4 * MIB)
    base = 1 << 40
    assert placed((whole, 0), grain=PAGE, top=base + 4 * MIB) == [(base - PAGE, 1 / 512)]
    assert placed((whole, 0), grain=PAGE, top=base - PAGE + 4 * MIB) == [(base - PAGE, 1 / 512)]
    # at the first base the lower part is lucky, at the next one the upper, at the third none
    parts = (whole, 0), (Span(4 * MIB, 4 * MIB), 4 * MIB + PAGE)
    below = base - 2 * PAGE
    assert placed(*parts, grain=PAGE, top=base + 8 * MIB + PAGE) == [
        (below, 1 / 512),
        (below + 4 * MIB + PAGE, 1 / 512),
    ]


def test_where_every_base_makes_a_part_lucky_the_highest_with_the_fewest_is_taken() -> None:
    base, odd = 1 << 40, MIB
    even, uneven = ((Span(n * 4 * MIB, 4 * MIB), n * 4 * MIB + off) for n, off in ((0, 0), (1, odd)))
    another = Span(8 * MIB, 4 * MIB), 8 * MIB
    top = base + odd + 12 * MIB  # from there down, one part is lucky, then two, then one
    found = placed(even, uneven, another, grain=MIB, top=top)
    assert [va for va, _ in found] == [base + odd, base + odd + 5 * MIB, base + odd + 8 * MIB]


def test_luck_is_reckoned_with_the_address_at_the_offset_that_is_mapped() -> None:
    """mmap(NULL) aligns to the offset in 6.12.y: of the 2M blocks of a 1G leaf one is congruent to the BAR's."""
    part = Request(2, PHYS, 8 * GIB, offset=4096, length=4 * GIB, policy="kernel")
    assert one(X86, part).area.luck == 1 / 512
    (lucky,) = plan(linked("x86_64", "7.3.4"), [part], mmap_base=0x7FFF_F000_1000).mappings
    assert [run.level for run in lucky.runs] == ["pte", "pmd", "pte"]
    assert "congruent modulo 2M by luck" in lucky.notes[0]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(0, PHYS, 0, va=WINDOW), "not positive"),
        (Request(0, PHYS, 4096, va=WINDOW + 1), "not a multiple of the 4K page"),
        (Request(0, PHYS, 4096, va=(1 << 47) - 4096), "address space"),
        (Request(0, PHYS, 4096, va=1 << 70), "address space"),
        (Request(0, 1 << 50, 1 << 50, policy="kernel"), "address space"),
        (Request(0, 1 << 50, 1 << 50, policy="aligned"), "address space"),
        (Request(0, PHYS, 8192, offset=100, va=WINDOW), "offset 0x64"),
        (Request(0, PHYS, 8192, offset=8192, va=WINDOW), "nothing to map"),
        (Request(0, PHYS, 8192, offset=4096, length=8192, va=WINDOW), "beyond the BAR's end"),
        (Request(0, PHYS, 8192, length=0, va=WINDOW), "nothing to map"),
        (Request(0, 0, 4 * TIB, offset=2 * TIB, va=WINDOW), "not below 1T"),
        (Request(0, 1 << 52, 4096, va=WINDOW), "ends at 0x10000000001000, beyond the 0x10000000000000 that an entry"),
        (Request(0, (1 << 64) - 4096, 4096, va=WINDOW), "ends at 0x10000000000000000, beyond the 0x10000000000000"),
        (Request(0, -4096, 4096, va=WINDOW), "beyond"),
    ],
)
def test_bad_input_is_named(request_: Request, words: str) -> None:
    with pytest.raises(BadInput, match=words) as error:
        plan(X86, [replace(request_, device="0000:3b:00.0")])
    assert "BAR 0 of 0000:3b:00.0" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_policy_has_a_nearest_name() -> None:
    with pytest.raises(Unknown, match="did you mean 'aligned'"):
        plan(X86, [Request(0, PHYS, 4096, policy="alinged")])
    with pytest.raises(BadInput, match=r"^BAR 0: neither an address nor a placement policy is given$"):
        plan(X86, [Request(0, PHYS, 4096)])


def test_mmap_base_outside_the_address_space() -> None:
    with pytest.raises(BadInput, match="mmap base"):
        plan(X86, [Request(0, PHYS, 4096, policy="kernel")], mmap_base=1 << 50)


# Changes of unknown state


def undetermined(planned: Plan) -> dict[str, Mapping[str, Any]]:
    return {row.change: row.as_json() for row in planned.undetermined}


def test_an_unknown_change_is_planned_both_ways() -> None:
    kernel = linked("x86_64", "6.18.20", (), "never")
    rows = undetermined(plan(kernel, [natural(GIB)]))
    assert list(rows) == ["thp-bypass-pfnmap"]
    yes, no = (rows["thp-bypass-pfnmap"][side]["mappings"][0] for side in ("if_yes", "if_no"))
    assert (yes["counts"]["pud"], no["counts"]["pte"]) == (1, 262_144)
    # With the knob at always it alters nothing.
    assert not undetermined(plan(linked("x86_64", "6.18.20"), [natural(GIB)]))


def test_what_an_unknown_change_requires_is_taken_as_there_on_both_sides() -> None:
    rows = undetermined(plan(linked("x86_64", "5.14.0-503.el9.x86_64"), [natural(GIB)]))
    assert rows["huge-pfnmap"]["if_yes"]["mappings"][0]["counts"]["pud"] == 1
    batch = rows["type1-pfnmap-batch"]
    assert batch["given"] == ["follow-addr-mask", "huge-pfnmap", "vfio-unmap-mapping-range"]
    walks = [batch[side]["mappings"][0]["dma_map"]["warm"]["walks"] for side in ("if_yes", "if_no")]
    assert walks == [1, 262_144]


# The document, and the planner's own cost


def test_the_document_has_the_fixed_keys() -> None:
    document = plan(X86, [Request(2, PHYS, 8 * GIB, "0000:3b:00.0", policy="aligned")]).as_json()
    assert {"kernel", "mappings", "undetermined"} <= set(document)
    mapping = document["mappings"][0]
    assert mapping["device"] == "0000:3b:00.0"
    assert (mapping["bar"], mapping["policy"]) == (2, "aligned")
    assert (mapping["phys"], mapping["va"], mapping["length"]) == (hex(PHYS), hex(WINDOW), 8 * GIB)
    assert mapping["runs"] == [{"va": hex(WINDOW), "length": 8 * GIB, "level": "pud", "count": 8}]
    assert mapping["counts"] == {"pud": 8, "pmd": 0, "pte": 0}
    assert mapping["dma_map"] == {
        "backend": "type1",
        "cold": {"walks": 2_097_160, "fixups": 8, "driver_calls": 8},
        "warm": {"walks": 2_097_152},
        "reasons": [{"change": "type1-pfnmap-batch", "walks": 2_097_144}],
    }
    shifted = plan(X86, [Request(2, PHYS, 8 * GIB, va=WINDOW + 2 * MIB)]).as_json()["mappings"][0]
    assert set(shifted["blocked"][0]) == {"va", "length", "level", "reason", "detail", "also"}


@pytest.mark.parametrize(("release", "by"), [("6.12.117", None), ("7.3.4", "IOMMU_IOAS_MAP_FILE")])
def test_iommufd_walks_nothing_and_says_how_it_maps_a_bar(release: str, by: str | None) -> None:
    planned = plan(linked("x86_64", release), [natural(GIB)], dma="iommufd")
    assert planned.as_json()["mappings"][0]["dma_map"] == {
        "backend": "iommufd",
        "cold": {"walks": 0, "fixups": 0, "driver_calls": 0},
        "warm": {"walks": 0},
        "reasons": [],
        "error": "EFAULT",
        "by": by,
    }


def test_iommufd_s_other_way_is_planned_both_ways_where_it_is_not_known() -> None:
    kernel = linked("x86_64", "5.14.0-503.el9.x86_64")
    rows = undetermined(plan(kernel, [natural(GIB)], dma="iommufd"))
    by = [rows["iommufd-dmabuf-bar"][side]["mappings"][0]["dma_map"]["by"] for side in ("if_yes", "if_no")]
    assert by == ["IOMMU_IOAS_MAP_FILE", None]
    assert "iommufd-dmabuf-bar" not in undetermined(plan(kernel, [natural(GIB)]))


def test_a_backend_that_there_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(Unknown, match="DMA backend 'iommu'; did you mean 'iommufd'"):
        plan(X86, [natural(GIB)], dma="iommu")


def calls_made(request: Request) -> int:
    """Python function calls that a plan makes."""
    made = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal made
        made += event == "call"

    sys.setprofile(count)
    try:
        plan(X86, [request])
    finally:
        sys.setprofile(None)
    return made


@pytest.mark.parametrize("shift", [0, 4096, 2 * MIB])
def test_as_many_steps_for_16_tib_as_for_2_mib(shift: int) -> None:
    small, large = (Request(0, 16 * TIB, size, va=16 * TIB + shift) for size in (2 * MIB, 16 * TIB))
    assert one(X86, small).steps == one(X86, large).steps
    assert calls_made(large) <= calls_made(small) * 1.05


def test_planning_leaves_numpy_and_the_mm_out() -> None:
    code = f"""
import sys
from pfnmap.spec import KernelSpec
from pfnmap.plan import Request, plan
plan(KernelSpec().link(), [Request(0, {PHYS}, {GIB}, policy=name) for name in ("kernel", "aligned")])
assert "numpy" not in sys.modules
assert not [name for name in sys.modules if name.startswith("pfnmap.mm")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


ROOT = Path(__file__).resolve().parents[1]
PLANNER = sorted((ROOT / "core" / "src" / "pfnmap" / "plan").glob("*.py"))
ANSWERS = sorted(ROOT.glob("plugins/*/src/*/plan.py"))


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it; those of its own package begin with a dot."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", PLANNER + ANSWERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_planner_and_who_answers_it_share_no_code_with_the_mm(path: Path) -> None:
    executing = ("pfnmap.mm", "pfnmap.run", "pfnmap.ops", "pfnmap.replay")
    assert not {name for name in imported(path) if name.startswith(executing)}


def test_every_plugin_that_answers_the_planner_is_looked_at() -> None:
    assert {path.parts[-4] for path in ANSWERS} == {"kvm", "nvgrace_gpu", "pci_sysfs", "vfio_pci"}
    assert "ask.py" in {path.name for path in PLANNER}


def own_modules(path: Path) -> set[str]:
    """The modules of its own package that a file imports, by their last names."""
    names = {name.removeprefix(path.parent.name) for name in imported(path)}
    return {name.strip(".").partition(".")[0] for name in names if name.startswith(".")} - {""}


@pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.parts[-4])
def test_what_a_plugin_answers_shares_no_code_with_what_it_does(path: Path) -> None:
    answering = {"plan"}
    while more := {name for part in answering for name in own_modules(path.with_name(f"{part}.py"))} - answering:
        answering |= more
    does = [other for other in path.parent.glob("*.py") if other.stem not in answering]
    assert len(does) > 1
    assert not {name for other in does for name in own_modules(other)} & (answering - {"plan"})
