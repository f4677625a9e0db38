"""A process on s390: tables that grow at the top, entries that are never zero, access and dirty state by faults.

Worked out by hand from arch/s390/mm/pgalloc.c, mmap.c and fault.c and asm/pgtable.h; there is no recording.
"""

from typing import Any

import pytest
from uar import LazyUar, Uar

from pfnmap import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run
from pfnmap_s390 import S390

MIB, TIB = 1 << 20, 1 << 40
LOW, HIGH, HIGHEST = 0x1000_0000, 4 * TIB, 1 << 53
PTE, CRST = 2048, 16384
PHYS = 0x4000_0000_0000_0000


class Process:
    """Steps by name, for a device with one BAR."""

    def __init__(self, driver: type[Uar] = LazyUar, release: str = "6.12.117") -> None:
        device = Device("nic", "0000:00:00.0", {0: DeviceBar(0, 4 * MIB, PHYS)})
        self.run = Run(Kernel.link(S390, [driver], release=release), [device], driver.name)

    def do(self, op: str, by: str = "parent", **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, by=by)).as_json()

    def mmap(self, addr: int, length: int = 4 * MIB, prot: str = "rw") -> dict[str, Any]:
        result = self.do(
            "mmap", device="nic", bar=0, length=length, prot=prot, shared=True, addr=addr, fixed=True
        )  # fmt: skip
        assert result["result"] == "ok"
        return result

    def entry(self, va: int, by: str = "parent") -> tuple[str, str, list[str]]:
        found = self.do("walk", by, va=va)
        return found["entry"]["level"], found["entry"]["value"], [upper["level"] for upper in found["upper"]]


def test_a_mapping_below_4t_needs_a_segment_table_and_page_tables():
    process = Process()
    assert process.mmap(LOW)["table_bytes"] == 0
    assert process.entry(LOW) == ("pgd", "0x24", [])
    assert process.do("touch", va=LOW, access="read")["table_bytes"] == CRST + PTE
    assert process.entry(LOW + MIB) == ("pmd", "0x20", ["pgd"])
    assert process.entry(LOW + 4096) == ("pte", "0x400", ["pgd", "pmd"])
    assert process.do("touch", va=LOW + MIB, access="read")["table_bytes"] == PTE
    process.do("munmap", addr=LOW, length=4 * MIB)
    assert process.run.parent.pgtables_bytes == 0


@pytest.mark.parametrize(
    ("addr", "by_mmap", "empty", "levels"),
    [
        # The old top counts as a PUD table from then on; a P4D table never counts.
        (HIGH, CRST, "0x28", ["pgd", "pud", "pmd"]),
        (HIGHEST, CRST, "0x2c", ["pgd", "p4d", "pud", "pmd"]),
    ],
)
def test_a_mapping_beyond_puts_tables_on_top_of_those_that_are_there(addr, by_mmap, empty, levels):
    process = Process()
    process.mmap(LOW)
    process.do("touch", va=LOW, access="read")
    before = process.entry(LOW)
    assert process.mmap(addr)["table_bytes"] == by_mmap
    assert process.entry(addr) == ("pgd", empty, [])
    assert process.do("touch", va=addr, access="read")["table_bytes"] == 2 * CRST + PTE
    assert process.entry(addr)[2] == levels
    assert process.entry(LOW) == (*before[:2], levels)
    for va in (addr, LOW):
        process.do("munmap", addr=va, length=4 * MIB)
    assert process.run.parent.pgtables_bytes == 0


def test_the_tables_grow_from_four_levels_to_five():
    process = Process()
    for addr, by_mmap in ((LOW, 0), (HIGH, CRST), (HIGHEST, 0)):
        assert process.mmap(addr)["table_bytes"] == by_mmap
        process.do("touch", va=addr, access="read")
    assert [process.entry(addr)[2] for addr in (LOW, HIGH, HIGHEST)] == [["pgd", "p4d", "pud", "pmd"]] * 3


def test_a_mapping_over_the_edge_of_4t_is_one_beyond():
    process = Process()
    process.mmap(4 * TIB - 2 * MIB)
    assert process.do("scan", start=4 * TIB - 2 * MIB, end=4 * TIB + 2 * MIB, step=4096, access="read")[
        "table_bytes"
    ] == (2 * CRST + 2 * CRST + 4 * PTE)


@pytest.mark.parametrize("addr", [LOW, HIGH, HIGHEST])
def test_a_fork_copies_the_tables_with_their_levels(addr):
    process = Process()
    process.mmap(LOW)
    process.mmap(addr)
    process.do("touch", va=addr, access="read")
    process.do("fork")
    assert process.entry(addr, "child")[2] == process.entry(addr)[2]
    process.do("exit", "child")


def test_mremap_moves_a_mapping_beyond_what_the_tables_reach():
    process = Process()
    process.mmap(LOW)
    process.do("touch", va=LOW, access="write")
    value = process.entry(LOW)[1]
    moved = process.do(
        "mremap", addr=LOW, old_len=4 * MIB, new_len=4 * MIB, flags=["MAYMOVE", "FIXED"], new_addr=HIGH
    )  # fmt: skip
    assert (moved["result"], process.entry(HIGH)[1]) == ("ok", value)


def test_mmap_chooses_addresses_below_4t():
    process = Process()
    result = process.do("mmap", device="nic", bar=0, length=4 * MIB, prot="rw", shared=True)
    assert int(result["addr"], 16) + 4 * MIB <= 4 * TIB


def test_a_page_is_born_young_and_clean_and_a_store_faults_once_more():
    process = Process()
    process.mmap(LOW)
    assert process.do("touch", va=LOW, access="read")["handle_mm_fault"] == 2  # the per-VMA lock, then mmap_lock
    assert process.entry(LOW)[1] == "0x4000000000000375"
    assert process.do("touch", va=LOW, access="read")["handle_mm_fault"] == 0
    assert process.do("touch", va=LOW, access="write")["handle_mm_fault"] == 1
    assert process.entry(LOW)[1] == "0x400000000000017d"
    assert process.do("touch", va=LOW, access="write")["handle_mm_fault"] == 0


def test_a_forked_page_is_old_and_clean_in_the_child_alone():
    process = Process()
    process.mmap(LOW)
    process.do("touch", va=LOW, access="write")
    process.do("fork")
    assert (process.entry(LOW)[1], process.entry(LOW, "child")[1]) == ("0x400000000000017d", "0x4000000000000771")
    assert process.do("touch", "child", va=LOW, access="read")["handle_mm_fault"] == 1
    assert process.entry(LOW, "child")[1] == "0x4000000000000375"


def test_mprotect_keeps_what_a_page_has_become():
    process = Process()
    process.mmap(LOW)
    process.do("touch", va=LOW, access="write")
    process.do("mprotect", addr=LOW, length=4096, prot="r")
    assert process.entry(LOW)[1] == "0x400000000000035d"
    assert process.do("touch", va=LOW, access="write")["result"] == "SIGSEGV"
    process.do("mprotect", addr=LOW, length=4096, prot="none")
    assert process.entry(LOW)[1] == "0x400000000000064d"
    assert process.do("touch", va=LOW, access="read")["result"] == "SIGSEGV"


def test_a_zap_leaves_empty_entries():
    process = Process(Uar)
    process.mmap(LOW)
    file = process.run.files["nic"]
    assert process.entry(LOW)[1] == "0x4000000000000375"
    process.run.machine.mm.unmap_mapping_range(file.f_mapping, 0, 0)
    assert process.entry(LOW) == ("pte", "0x400", ["pgd", "pmd"])
    assert process.do("touch", va=LOW, access="read")["result"] == "SIGBUS"


def test_a_signal_tells_the_page_only():
    process = Process()
    process.mmap(LOW, prot="r")
    refused = process.do("touch", va=LOW + 0x123, access="write")
    assert (refused["result"], refused["si_code"], refused["si_addr"]) == ("SIGSEGV", 2, hex(LOW))
    missing = process.do("touch", va=LOW - 0x10, access="read")
    assert (missing["si_code"], missing["si_addr"]) == (1, hex(LOW - 0x1000))


def test_no_level_but_the_pte_maps_a_bar():
    kernel = Process().run.kernel
    assert [kernel.pfnmap(level) for level in ("pte", "pmd", "pud")] == [True, False, False]
