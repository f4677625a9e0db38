"""KVM's second-stage tables, read from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pfnmap_verify.stage2 import second_stage

ROOT, PUDS, PMDS, PTES = 0x1000, 0x2000, 0x3000, 0x4000
TABLE, LEAF, PAGE = 0x907, 0xEE7, 0xE67
GPA = 0x40_0000_0000
GIB, MIB = 1 << 30, 1 << 20


def read(memory: Mapping[int, Mapping[int, int]]) -> dict[str, Any]:
    """Return what is in tables: physical address -> index -> entry."""

    async def words(address: int, count: int) -> list[int]:
        return [memory[address].get(n, 1 << 63) for n in range(count)]

    return asyncio.run(second_stage(words, ROOT | 1))


def runs(found: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [(r["gpa"], r["level"], r["count"], r["hpa"], r["writable"], r["x"]) for r in found["stage2"]]


def test_leaves_that_continue_each_other_are_a_run() -> None:
    puds = {256: 0x8_0000_0000 | LEAF, 257: 0x8_4000_0000 | LEAF, 258: 0x9_0000_0000 | LEAF}
    found = read({ROOT: {0: PUDS | TABLE}, PUDS: puds})
    assert runs(found) == [
        (hex(GPA), "pud", 2, "0x800000000", True, True),
        (hex(GPA + 2 * GIB), "pud", 1, "0x900000000", True, True),
    ]
    assert found["stage2"][0]["spte"] == found["stage2"][0]["read_back"] == hex(0x8_0000_0000 | LEAF)


def test_a_page_that_may_not_be_written_ends_a_run() -> None:
    ptes = {n: 0x8_0000_0000 + n * 4096 | PAGE & (~2 if n == 1 else ~0) for n in range(3)}
    found = read({ROOT: {0: PUDS | TABLE}, PUDS: {256: PMDS | TABLE}, PMDS: {1: PTES | TABLE}, PTES: ptes})
    assert [(r[0], r[1], r[2], r[4]) for r in runs(found)] == [
        (hex(GPA + 2 * MIB + n * 4096), "pte", 1, n != 1) for n in range(3)
    ]


def test_the_guests_own_memory_is_left_out_and_mmio_is_no_leaf() -> None:
    """0x8004180003027 is what 6.12.117 had at 0x4180003000 (edge.slot_4K_into_block of kvm-6.12.117)."""
    low = {ROOT: {0: PUDS | TABLE}, PUDS: {0: PMDS | TABLE}, PMDS: {0: PTES | TABLE}}
    assert read({**low, PTES: {0: 0x8F15000 | PAGE, 15: 0x8F16000 | PAGE}}) == {"stage2": []}
    found = read({**low, PTES: {16: 0x8004180003027}})
    assert found == {"stage2": [], "mmio_sptes": [{"gpa": "0x10000", "count": 1, "spte": "0x8004180003027"}]}


def test_a_leaf_that_nobody_may_execute_is_said_so() -> None:
    found = read({ROOT: {0: PUDS | TABLE}, PUDS: {256: 1 << 63 | 0x8_4000_0000 | LEAF}})
    assert runs(found) == [(hex(GPA), "pud", 1, "0x840000000", True, False)]
