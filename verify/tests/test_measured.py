"""What a guest says of a step becomes what a recording says of it."""

from __future__ import annotations

import pytest

from pfnmap_verify.measured import expect_of, message
from pfnmap_verify.qemu import GuestLost
from pfnmap_verify.recorder import oops, settled

FUNCTIONS = {
    "hmf": "handle_mm_fault",
    "ins_pud": "vmf_insert_pfn_pud",
    "follow": "follow_pfnmap_start",
    "follow_r": "follow_pfnmap_start",
}
QUIET = ["faults 0", "tables 0", "split 0 0"]


def test_a_touch_has_its_faults_calls_and_tables() -> None:
    lines = [
        "result ok",
        "fault 18 0x100 0x100000003000 0x1255",
        "faults 1",
        "call hmf 1",
        "call ins_pud 1",
        "tables 4096",
        "split 0 0",
    ]
    assert expect_of("touch", lines, FUNCTIONS, 4096) == {
        "result": "ok",
        "faults": [{"order": 18, "ret": "NOPAGE", "va": "0x100000003000", "write": True, "vma_lock": True}],
        "handle_mm_fault": 1,
        "calls": {"vmf_insert_pfn_pud": 1},
        "table_bytes": 4096,
    }


def test_a_signal_says_where() -> None:
    lines = ["result signal=SIGBUS si_code=2 si_addr=0x100000000005", *QUIET]
    expect = expect_of("touch", lines, FUNCTIONS, 4096)
    assert (expect["result"], expect["si_code"], expect["si_addr"]) == ("SIGBUS", 2, "0x100000000005")


def test_follows_are_told_by_what_they_returned() -> None:
    lines = [
        "result errno=14",
        "faults 0",
        "call follow 3",
        "return follow_r 0xffffffea 1",
        "return follow_r 0x0 2",
        *QUIET[1:],
    ]
    expect = expect_of("dma_map", lines, FUNCTIONS, 4096)
    assert expect["result"] == "EFAULT"
    assert expect["calls"] == {"follow_pfnmap_start": 3}
    assert expect["follow_returns"] == {"ok": 2, "EINVAL": 1}


@pytest.mark.parametrize("op", ["smaps", "numa_maps"])
def test_where_no_vma_starts_nothing_is_told_of_one(op: str) -> None:
    assert expect_of(op, ["result ok", *QUIET], FUNCTIONS, 4096).keys() == {
        *("result", "faults", "handle_mm_fault", "table_bytes")
    }


def test_what_a_later_touch_may_have_built_is_no_entry_of_a_refused_one() -> None:
    runs = [{"result": result, "n": n} for n, result in enumerate(("SIGSEGV", "ok", "SIGBUS", "ok", "SIGBUS"))]
    assert [run["n"] for run in settled(runs)] == [1, 3, 4]
    assert settled([]) == []


def test_a_scan_is_folded_into_runs() -> None:
    lines = ["run 0x0 1 1 ok 18:0x800 9:0x100", "run 0x200000 63 1 ok 9:0x100", "scanned 64 65", *QUIET]
    assert expect_of("scan", lines, FUNCTIONS, 4096) == {
        "runs": [
            {
                "off": 0,
                "touches": 1,
                "per_touch": [[18, "FALLBACK"], [9, "NOPAGE"]],
                "handle_mm_fault": 1,
                "result": "ok",
            },
            {"off": 0x200000, "touches": 63, "per_touch": [[9, "NOPAGE"]], "handle_mm_fault": 1, "result": "ok"},
        ],
        "touches": 64,
        "faults_total": 65,
        "table_bytes": 0,
    }


def test_a_virtual_machine_tells_its_leaves_and_where_it_ended() -> None:
    functions = {**FUNCTIONS, "tdp": "kvm_tdp_page_fault"}
    lines = ["result word=MMIO", "mmio 0x4000200000 1 1", "call tdp 3", *QUIET, "leaves 1 0 12", "root 0x1234000"]
    quiet = {"faults": [], "handle_mm_fault": 0, "table_bytes": 0}
    kvm = {"guest_faults": 3, "leaves": {"pud": 1, "pte": 12}}
    mmio = {"result": "MMIO", "gpa": "0x4000200000", "is_write": True, "len": 1}
    assert expect_of("kvm.map", lines, functions, 4096) == {**mmio, **quiet, "kvm": kvm}
    lines = ["result errno=14", "rdi 0x4000300000", *QUIET, "leaves 0 0 0", "root 0x1234000"]
    stopped = {"result": "EFAULT", "guest_rdi": "0x4000300000", "kvm": {"guest_faults": 0, "leaves": {}}}
    assert expect_of("kvm.map", lines, functions, 4096) == {**stopped, **quiet}


def test_a_dirty_log_tells_how_many_pages_and_the_first() -> None:
    found = [
        expect_of("kvm.dirty_log", ["result ok", f"dirty {said}", *QUIET], FUNCTIONS, 4096) for said in ("2 7", "0 0")
    ]
    assert [(one["dirty"], one["first"]) for one in found] == [(2, 7), (0, None)]


def test_mappings_are_read_from_maps() -> None:
    line = "line 100000000000-100200000000 rw-s 20000200000 00:0e 59   anon_inode:[vfio-device]"
    anonymous = "line 100200000000-100200001000 rw-p 00000000 00:00 0 "
    assert expect_of("vmas", ["result ok", line, anonymous], FUNCTIONS, 4096)["vmas"] == [
        {"start": "0x100000000000", "end": "0x100200000000", "perms": "rw-s", "file": True, "pgoff": 0x20000200},
        {"start": "0x100200000000", "end": "0x100200001000", "perms": "rw-p", "file": False, "pgoff": 0},
    ]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            "mm/pgtable-generic.c:42: bad pud 00000000c47c61ce(80000008000002b7)",
            "mm/pgtable-generic.c:42: bad pud *(80000008000002b7)",
        ),
        ("mm/memory.c:1: bad pmd (____ptrval____)(1)", "mm/memory.c:1: bad pmd *(1)"),
        (
            "BUG: unable to handle page fault for address: ffff888800000000",
            "BUG: unable to handle page fault for address: *",
        ),
        (
            "WARNING: CPU: 0 PID: 117 at include/linux/rwsem.h:80 f+0x1/0x2",
            "WARNING: CPU: 0 PID: 1 at include/linux/rwsem.h:80 f+0x1/0x2",
        ),
    ],
)
def test_what_differs_from_boot_to_boot_is_left_out_of_messages(said: str, kept: str) -> None:
    assert message(said) == kept


def test_other_messages_are_not_kept() -> None:
    assert "messages" not in expect_of(
        "touch", ["result ok", *QUIET, "message random: crng init done"], FUNCTIONS, 4096
    )


@pytest.mark.parametrize("line", ["unknown op frobnicate", "lost 12", "died 0xb", "no child"])
def test_a_step_that_was_not_done_is_no_measurement(line: str) -> None:
    with pytest.raises(GuestLost, match=f"touch: {line}"):
        expect_of("touch", [line, "result ok", *QUIET], FUNCTIONS, 4096)


def test_an_oops_has_its_stack_without_what_the_unwinder_doubts() -> None:
    said = [
        "BUG: unable to handle page fault for address: ffff888800000000",
        "Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI",
        "RIP: 0010:_raw_spin_lock+0x17/0x30",
        "Call Trace:",
        " __split_huge_pmd+0x43/0x5d0",
        " ? __pfx_max_line+0x10/0x10",
        " vma_adjust_trans_huge+0x9a/0x180",
    ]
    expect = oops(said)
    assert expect["result"] == "OOPS"
    assert expect["stack"] == ["__split_huge_pmd", "vma_adjust_trans_huge"]
    assert expect["messages"][0] == "BUG: unable to handle page fault for address: *"
