"""Private anonymous memory beside pfnmaps: whose a page is decides what fork, mprotect and pins make of it.

By the sources of Linux 6.12 and 6.1 (mm/memory.c, mm/mprotect.c, include/linux/mm.h gup_must_unshare, mm/vma.c); the
recordings have few such sequences.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from pfnmap import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run

A = 0x1000_0000_0000
PAGE = 4096


@cache
def kernel(release: str = "6.12.117") -> Kernel:
    config = {"TRANSPARENT_HUGEPAGE": "y", "MEM_SOFT_DIRTY": "y"}
    return Kernel.link("x86_64", ["vfio_pci"], config=config, release=release)


class Process:
    def __init__(self, release: str = "6.12.117") -> None:
        self.run = Run(kernel(release), [Device("d", "0000:00:01.0", {2: DeviceBar(2, 8 << 30, 0x8_0000_0000)})])

    def __call__(self, op: str, by: str = "parent", **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, by=by, where="step")).as_json()

    def anon(self, addr: int = A, length: int = PAGE, prot: str = "rw", **more: Any) -> None:
        self("mmap", length=length, prot=prot, shared=False, addr=addr, fixed=True, **more)

    def write(self, va: int = A, by: str = "parent") -> int:
        return int(self("touch", by, va=va, access="write")["handle_mm_fault"])

    def protect(self, prot: str, length: int = PAGE) -> None:
        self("mprotect", addr=A, length=length, prot=prot)

    def flags(self) -> int:
        return int(self("walk", va=A)["entry"]["flags"], 16)


def test_a_page_that_was_shared_is_not_made_writable_by_mprotect_until_it_was_written_again() -> None:
    process = Process()
    process.anon()
    process.write()
    process("fork")
    process("exit", "child")
    process.protect("r")
    process.protect("rw")
    assert not process.flags() & 0x2
    assert process.write() == 1
    process.protect("r")
    process.protect("rw")
    assert process.flags() & 0x2
    assert process.write() == 0


def test_a_pin_for_reading_unshares_a_page_that_fork_shared() -> None:
    process = Process()
    process.anon()
    process.write()
    process("fork")
    read = process("access", via="process_vm_readv", va=A, length=16)
    assert (read["result"], read["handle_mm_fault"]) == ("ok", 1)
    assert not process.flags() & 0x2


def test_a_long_term_pin_for_reading_takes_the_zero_page_away_from_6_2_on() -> None:
    process = Process()
    process.anon()
    mapped = process("dma_map", iova=0, length=PAGE, va=A, prot="r")
    assert (mapped["result"], mapped["handle_mm_fault"]) == ("ok", 2)
    old = Process("6.1.192")
    old.anon()
    assert old("dma_map", iova=0, length=PAGE, va=A, prot="r")["handle_mm_fault"] == 1


def test_a_pinned_page_stays_the_parents_own_over_fork() -> None:
    process = Process()
    process.anon()
    process.write()
    process("dma_map", iova=0, length=PAGE, va=A, prot="rw")
    process("fork")
    assert process.write() == 0
    process.protect("r")
    process.protect("rw")
    assert process.write() == 0


def test_a_pin_does_not_count_as_a_mapping_in_pagemap() -> None:
    process = Process()
    process.anon()
    process.write()
    before = int(process("pagemap", va=A, count=1)["entries"][0], 16)
    process("dma_map", iova=0, length=PAGE, va=A, prot="rw")
    assert int(process("pagemap", va=A, count=1)["entries"][0], 16) == before
    assert before >> 56 & 1


def test_soft_dirty_tracking_keeps_mprotect_from_making_a_page_writable() -> None:
    process = Process()
    process.anon()
    process.write()
    process("clear_refs", value=4)
    process.protect("r")
    process.protect("rw")
    assert process.write() == 1
    assert process.flags() & 0x800


def test_a_vma_that_fork_cloned_takes_no_neighbour() -> None:
    process = Process()
    process.anon()
    process.write()
    process("fork")
    for by in ("parent", "child"):
        process("mmap", by, length=PAGE, prot="rw", shared=False, addr=A + PAGE, fixed=True)
    assert len(process("vmas", start=A, end=A + 2 * PAGE)["vmas"]) == 1
    assert len(process("vmas", "child", start=A, end=A + 2 * PAGE)["vmas"]) == 2


@pytest.mark.parametrize("argument", ["populate", "locked"])
def test_mmap_faults_in_what_it_is_asked_to(argument: str) -> None:
    process = Process()
    mapped = process("mmap", length=PAGE, prot="rw", shared=False, addr=A, fixed=True, **{argument: True})
    assert mapped["handle_mm_fault"] == 1
    assert process.write() == 0


def test_anonymous_memory_has_base_pages_where_huge_ones_are_forbidden() -> None:
    process = Process()
    process("set_thp_enabled", value="never")
    process.anon(length=4 << 20)
    assert process("touch", va=A, access="write")["entry"]["level"] == "pte"


def test_munmap_up_to_a_sealed_vma_leaves_its_cut() -> None:
    process = Process()
    process("mmap", device="d", bar=2, length=4 << 20, prot="rw", shared=True, addr=A, fixed=True)
    process.anon(A + (4 << 20))
    process("mseal", addr=A + (4 << 20), length=PAGE)
    assert process("munmap", addr=A + (2 << 20), length=(2 << 20) + PAGE)["result"] == "EPERM"
    assert len(process("vmas", start=A, end=A + (8 << 20))["vmas"]) == 3


@pytest.mark.parametrize(("op", "error"), [("mseal", "ENOMEM"), ("mbind", "EFAULT")])
@pytest.mark.parametrize("hole", ["before", "between", "behind"])
def test_nothing_of_a_range_with_a_hole_is_sealed_or_gets_a_policy(op: str, error: str, hole: str) -> None:
    """mm/mseal.c and mm/mempolicy.c look for holes before they change any vma."""
    process = Process()
    pages = {"before": (1, 2, 3), "between": (0, 1, 3), "behind": (0, 1, 2)}[hole]
    for page in pages:
        process.anon(A + page * PAGE)
    before = process("vmas", start=A, end=A + 4 * PAGE)["vmas"]
    assert process(op, addr=A, length=4 * PAGE)["result"] == error
    assert process("vmas", start=A, end=A + 4 * PAGE)["vmas"] == before
    assert process(op, addr=A + pages[0] * PAGE, length=PAGE)["result"] == "ok"
    assert process("munmap", addr=A, length=4 * PAGE)["result"] == ("EPERM" if op == "mseal" else "ok")


def test_what_mremap_dontunmap_leaves_behind_has_no_pages_to_copy() -> None:
    process = Process()
    process.anon()
    process.write()
    process(
        "mremap", addr=A, old_len=PAGE, new_len=PAGE, new_addr=A + (1 << 30), flags=["MAYMOVE", "FIXED", "DONTUNMAP"]
    )
    process("fork")
    assert not process("note_tables", "child", va=A)["present"]["pte_table"]


def test_lengths_next_to_the_end_of_64_bits_wrap() -> None:
    process = Process()
    process("mmap", device="d", bar=2, length=4 << 20, prot="r", shared=True, addr=A, fixed=True)
    assert process("mprotect", addr=A, length=2**64 - PAGE, prot="rw")["result"] == "ENOMEM"
    assert process("vmas", start=A, end=A + PAGE)["vmas"][0]["perms"] == "r--s"
    assert process("madvise", addr=A, length=2**64 - 1, advice="NORMAL")["result"] == "EINVAL"


def test_madv_remove_asks_what_may_be_written() -> None:
    process = Process()
    process("mmap", device="d", bar=2, length=4 << 20, prot="r", shared=True, addr=A, fixed=True)
    assert process("madvise", addr=A, length=PAGE, advice="REMOVE")["result"] == "ENODEV"
