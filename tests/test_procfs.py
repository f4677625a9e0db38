"""The files of /proc and mincore: what they tell of a pfnmap, and what reading them does to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfnmap import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.replay import replay_record
from pfnmap.run import Run
from pfnmap.scenario import read_recording

RECORDINGS = Path(__file__).parent / "data" / "recordings"
FILES = sorted(RECORDINGS.glob("procfs-*.json.gz"))

GIB = 1 << 30
MIB = 1 << 20
BASE = 0x1000_0000_0000
PHYS = 0x8_0000_0000
CONFIG = {"TRANSPARENT_HUGEPAGE": "y", "MEM_SOFT_DIRTY": "y"}
SOFT_DIRTY = hex(1 << 55)


# what real kernels were seen to do


def _records() -> Iterator[Any]:
    for path in FILES:
        recording = read_recording(path)
        name = path.name.removeprefix("procfs-").removesuffix(".json.gz")
        for record in recording.records:
            yield pytest.param(recording, record, id=f"{name}:{record.id}")


@pytest.fixture(scope="module")
def linked() -> dict[str, Kernel]:
    return {}


@pytest.mark.parametrize(("recording", "record"), [*_records()])
def test_records_of_the_files_of_proc_replay(recording: Any, record: Any, linked: dict[str, Kernel]):
    if recording.source not in linked:
        linked[recording.source] = recording.link()
    assert replay_record(linked[recording.source], recording, record, set()) == []


# what follows from the sources


class Machine:
    """A run with one 8 GiB BAR, and short forms of its steps."""

    def __init__(self, release: str, arch: str = "x86_64", thp: str = "always") -> None:
        self.kernel = Kernel.link(arch, ["vfio_pci"], release=release, thp=thp, config=CONFIG)
        bars = {0: DeviceBar(0, 8 * GIB, PHYS)}
        self.run = Run(self.kernel, [Device("dev", "0000:00:01.0", bars)])

    def __call__(self, op: str, **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, where=f"step {op}")).as_json()

    def map(self, va: int = BASE, length: int = 8 * GIB, offset: int = 0, **arguments: Any) -> None:
        where = {"device": "dev", "bar": 0, "addr": va, "length": length, "offset": offset, "fixed": True}
        assert self("mmap", prot="rw", shared=True, **where, **arguments)["result"] == "ok"

    def map_anonymous(self, va: int, length: int) -> None:
        got = self("mmap", device=None, addr=va, length=length, fixed=True, prot="rw", shared=False)
        assert got["result"] == "ok"

    def touch(self, *places: int, access: str = "read") -> None:
        for va in places:
            assert self("touch", va=va, access=access)["result"] == "ok"

    def level(self, va: int) -> str:
        """The level of the leaf at an address; empty where there is none."""
        entry = self("walk", va=va)["entry"]
        return "" if entry["value"] == "0x0" else entry["level"]


WALKERS = {"smaps": {"va": BASE}, "smaps_rollup": {}, "numa_maps": {"va": BASE}}


@pytest.mark.parametrize("op", WALKERS)
def test_reading_drops_every_1g_leaf_of_every_vma(op: str):
    machine = Machine("6.12.117")
    machine.map(length=2 * GIB)
    machine.map(BASE + 64 * GIB, 2 * GIB, 4 * GIB)
    places = (BASE, BASE + GIB, BASE + 64 * GIB)
    machine.touch(*places)
    got = machine(op, **WALKERS[op])
    assert got["calls"] == {"__split_huge_pud": 3}
    assert got["vmstat"] == {"thp_split_pud": 3}
    assert [machine.level(va) for va in places] == ["", "", ""]


@pytest.mark.parametrize("op", WALKERS)
def test_reading_leaves_2m_leaves_and_pages_alone(op: str):
    machine = Machine("6.12.117")
    machine.map(length=4 * MIB)
    machine.map(BASE + GIB, 4096, offset=4 * MIB)
    machine.touch(BASE, BASE + GIB)
    got = machine(op, **WALKERS[op])
    assert got["calls"] == {}
    assert (machine.level(BASE), machine.level(BASE + GIB)) == ("pmd", "pte")


LOOKERS = {
    "pagemap": {"va": BASE, "count": 4},
    "pagemap_scan": {"start": BASE, "end": BASE + GIB, "any_of": 0, "return_mask": 0x7F},
    "mincore": {"addr": BASE, "length": GIB},
    "clear_refs": {"value": 4},
}


@pytest.mark.parametrize("release", ["6.12.117", "7.3.4"])
@pytest.mark.parametrize("op", LOOKERS)
def test_looking_otherwise_keeps_1g_leaves_bit_for_bit(op: str, release: str):
    machine = Machine(release)
    machine.map()
    machine.touch(BASE, access="write")
    before = machine("walk", va=BASE)["entry"]
    got = machine(op, **LOOKERS[op])
    assert (got["result"], got["calls"]) == ("ok", {})
    assert machine("walk", va=BASE)["entry"] == before


def test_a_leaf_that_spans_vmas_is_split_once():
    machine = Machine("6.12.117")
    machine.map()
    machine.touch(BASE)
    machine("madvise", addr=BASE + 4 * MIB, length=2 * MIB, advice="DONTFORK")
    assert machine("smaps_rollup")["calls"] == {"__split_huge_pud": 1}


def test_the_walk_of_anonymous_memory_in_the_hole_of_a_leaked_leaf_drops_it():
    # A pfnmap is a hole to pagemap, anonymous memory is not: it goes down to the leaf that the parent left (F3, F23).
    machine = Machine("6.12.117")
    machine.map()
    machine.touch(BASE)
    machine("madvise", addr=BASE + 4 * MIB, length=2 * MIB, advice="DONTFORK")
    machine("fork")
    child = machine.run.child
    assert child is not None
    step = {"device": None, "addr": BASE + 4 * MIB, "length": 2 * MIB, "fixed": True, "prot": "rw", "shared": False}
    machine.run.step(Step("mmap", step, by="child"))
    got = machine.run.step(Step("pagemap", {"va": BASE + 4 * MIB, "count": 1}, by="child")).as_json()
    assert got["calls"] == {"__split_huge_pud": 1}
    assert machine.level(BASE) == "pud"


# mincore


@pytest.mark.parametrize(
    ("va", "length", "offset", "resident"),
    [
        pytest.param(BASE, GIB, 0, 2048, id="1G leaf"),
        pytest.param(BASE, 8 * MIB, 0, 512, id="2M leaf"),
        pytest.param(BASE + 4096, 16 * MIB, 0, 1, id="page"),
    ],
)
def test_mincore_of_a_touched_pfnmap_counts_what_the_leaf_maps(va: int, length: int, offset: int, resident: int):
    # The numbers of REAL-KERNEL.md: 2048 pages asked, one byte touched.
    seen = {}
    for release in ("7.2.13", "7.3.4"):
        machine = Machine(release)
        machine.map(va, length, offset)
        assert machine("mincore", addr=va, length=8 * MIB)["resident"] == 0
        machine.touch(va)
        seen[release] = machine("mincore", addr=va, length=8 * MIB)
        machine("pci_memory", device="dev", enabled=False)
        assert machine("mincore", addr=va, length=8 * MIB)["resident"] == 0
    assert (seen["7.2.13"]["pages"], seen["7.2.13"]["resident"]) == (2048, 0)
    assert (seen["7.3.4"]["pages"], seen["7.3.4"]["resident"]) == (2048, resident)


def test_mincore_stops_at_a_hole():
    machine = Machine("7.3.4")
    machine.map(length=4 * MIB)
    machine.touch(BASE)
    got = machine("mincore", addr=BASE, length=8 * MIB)
    assert (got["result"], got["pages"], got["resident"]) == ("ENOMEM", 2048, 0)
    assert machine("mincore", addr=BASE + 1, length=4096)["result"] == "EINVAL"
    assert machine("mincore", addr=BASE + 64 * GIB, length=4096)["result"] == "ENOMEM"


def test_mincore_counts_anonymous_pages():
    machine = Machine("6.12.117")
    machine.map_anonymous(BASE, 4 * 4096)
    machine.touch(BASE, BASE + 2 * 4096, access="write")
    assert machine("mincore", addr=BASE, length=4 * 4096)["resident"] == 2


# pagemap


def test_pagemap_shows_the_soft_dirty_flag_of_the_vma_and_nothing_of_the_leaf():
    machine = Machine("6.12.117")
    machine.map(length=4 * MIB)
    machine.touch(BASE, access="write")
    ask = {"va": BASE - 4096, "count": 3}
    assert machine("pagemap", **ask)["entries"] == ["0x0", SOFT_DIRTY, SOFT_DIRTY]
    machine("clear_refs", value=4)
    assert machine("pagemap", **ask)["entries"] == ["0x0"] * 3


def test_pagemap_of_anonymous_memory_shows_page_and_owner():
    machine = Machine("6.12.117")
    machine.map_anonymous(BASE, 2 * 4096)
    machine.touch(BASE, access="write")
    machine("clear_refs", value=4)
    page, empty = (int(entry, 16) for entry in machine("pagemap", va=BASE, count=2)["entries"])
    assert (page >> 63 & 1, page >> 61 & 1, page >> 56 & 1, page >> 55 & 1, empty) == (1, 0, 1, 0, 0)
    assert (page & (1 << 55) - 1) << 12 in machine.run.machine.phys.ram


def test_pagemap_ends_with_the_address_space():
    machine = Machine("6.12.117")
    end = machine.kernel.geometry.task_size
    assert machine("pagemap", va=end - 2 * 4096, count=4)["bytes"] == 16
    assert machine("pagemap", va=end, count=4)["bytes"] == 0


def test_pagemap_scan_refuses_what_the_kernel_refuses():
    machine = Machine("6.12.117")
    machine.map()
    ask = LOOKERS["pagemap_scan"]
    assert machine("pagemap_scan", **ask | {"any_of": 0x200})["result"] == "EINVAL"
    assert machine("pagemap_scan", **ask | {"start": BASE + 1})["result"] == "EINVAL"
    assert machine("pagemap_scan", **ask | {"end": 1 << 60})["result"] == "EFAULT"


@pytest.mark.parametrize(("release", "result"), [("6.12.117", "EINVAL"), ("7.3.4", "ok")])
def test_pagemap_scan_knows_guard_pages_since_6_16(release, result):
    # Run on Debian's two kernels: mask 0x1ff.
    machine = Machine(release)
    machine.map()
    assert machine("pagemap_scan", **LOOKERS["pagemap_scan"] | {"any_of": 0x1FF})["result"] == result


# smaps and numa_maps


@pytest.mark.parametrize(
    ("release", "knob", "eligible"),
    [
        # FINDINGS F6 and F16: what real kernels of these releases showed.
        *(("6.1.192", knob, 0) for knob in ("always", "madvise", "never")),
        *(("6.12.94", knob, int(knob == "always")) for knob in ("always", "madvise", "never")),
        *(("6.12.117", knob, 1) for knob in ("always", "madvise", "never")),
        *(("6.18.15", knob, int(knob == "always")) for knob in ("always", "madvise", "never")),
        *(("7.2.6", knob, int(knob == "always")) for knob in ("always", "madvise", "never")),
        *(("7.3.4", knob, 1) for knob in ("always", "madvise", "never")),
    ],
)
def test_thp_eligible_follows_the_knob_in_some_releases(release: str, knob: str, eligible: int):
    machine = Machine(release, thp=knob)
    machine.map()
    assert machine("smaps", va=BASE)["fields"]["THPeligible"] == eligible


@pytest.mark.parametrize(
    ("va", "length", "offset", "eligible"),
    [
        pytest.param(BASE, 2 * MIB, 0, 1, id="just one 2M block"),
        pytest.param(BASE, 2 * MIB - 4096, 0, 0, id="no whole block"),
        pytest.param(BASE + 4096, 8 * MIB, 0, 0, id="not congruent"),
        pytest.param(BASE + 4096, 8 * MIB, 4096, 1, id="congruent from within a block"),
        pytest.param(BASE + 4096, 4 * MIB - 8192, 4096, 0, id="congruent, but no whole block"),
        pytest.param(BASE + 2 * MIB, GIB, 0, 1, id="congruent for 2M only"),
    ],
)
def test_thp_eligible_asks_whether_a_2m_block_fits(va: int, length: int, offset: int, eligible: int):
    machine = Machine("6.12.117")
    machine.map(va, length, offset)
    assert machine("smaps", va=va)["fields"]["THPeligible"] == eligible


def test_thp_eligible_obeys_nohugepage_and_prctl():
    machine = Machine("6.12.117")
    machine.map()
    machine("madvise", addr=BASE, length=8 * GIB, advice="NOHUGEPAGE")
    assert machine("smaps", va=BASE)["fields"]["THPeligible"] == 0
    machine("madvise", addr=BASE, length=8 * GIB, advice="HUGEPAGE")
    assert machine("smaps", va=BASE)["fields"]["THPeligible"] == 1
    machine("prctl_thp_disable", disabled=True)
    assert machine("smaps", va=BASE)["fields"]["THPeligible"] == 0


@pytest.mark.parametrize(
    ("release", "flags"),
    [
        # The lists of REAL-KERNEL.md, before any fault.
        ("6.1.192", "rd wr sh mr mw me ms pf io de dd sd"),
        ("6.12.94", "rd wr sh mr mw me ms pf io de dd sd ??"),
        ("6.16.12", "rd wr sh mr mw ms pf io de dd sd ??"),
        ("7.3.4", "rd wr sh mr mw ms pf io de dd sd ??"),
    ],
)
def test_vm_flags_by_release(release: str, flags: str):
    machine = Machine(release)
    machine.map()
    assert machine("smaps", va=BASE)["fields"]["VmFlags"] == flags.split()


def test_vm_flags_show_what_was_advised_and_cleared():
    machine = Machine("6.12.117")
    machine.map()
    machine("madvise", addr=BASE, length=8 * GIB, advice="DONTFORK")
    machine("madvise", addr=BASE, length=8 * GIB, advice="NOHUGEPAGE")
    machine("clear_refs", value=4)
    machine("mprotect", addr=BASE, length=8 * GIB, prot="r")
    flags = machine("smaps", va=BASE)["fields"]["VmFlags"]
    assert flags == ["rd", "sh", "mr", "mw", "me", "ms", "pf", "io", "dc", "de", "dd", "nh", "??"]


def test_numa_maps_shows_the_policy():
    machine = Machine("6.12.117")
    machine.map()
    assert machine("numa_maps", va=BASE)["tokens"] == ["default", "file=anon_inode:[vfio-device]"]
    machine("mbind", addr=BASE, length=8 * GIB)
    assert machine("numa_maps", va=BASE)["tokens"] == ["bind:0", "file=anon_inode:[vfio-device]"]


@pytest.mark.parametrize("op", ["smaps", "numa_maps"])
@pytest.mark.parametrize("va", [BASE - 4096, BASE + 4096])
def test_nothing_is_told_of_an_address_at_which_no_mapping_starts(op: str, va: int):
    machine = Machine("6.12.117")
    machine.map()
    got = machine(op, va=va)
    assert got["result"] == "ok"
    assert not {"fields", "tokens"} & got.keys()


def test_smaps_counts_the_pages_of_anonymous_memory():
    machine = Machine("6.12.117", thp="never")
    machine.map_anonymous(BASE, 4 * 4096)
    machine.touch(BASE)  # the zero page, which is nobody's
    machine.touch(BASE + 4096, BASE + 8192, access="write")
    fields = machine("smaps", va=BASE)["fields"]
    told = {name: kib for name, kib in fields.items() if isinstance(kib, int) and kib}
    assert told == {
        **dict.fromkeys(("Rss", "Pss", "Pss_Dirty", "Private_Dirty", "Referenced", "Anonymous"), 8),
        "Size": 16,
        "KernelPageSize": 4,
        "MMUPageSize": 4,
    }
    assert fields["VmFlags"] == ["rd", "wr", "mr", "mw", "me", "ac", "sd"]


def test_numa_maps_counts_the_pages_of_anonymous_memory_and_who_shares_them():
    machine = Machine("6.12.117", thp="never")
    machine.map_anonymous(BASE, 4 * 4096)
    assert machine("numa_maps", va=BASE)["tokens"] == ["default"]
    machine.touch(BASE, BASE + 4096, access="write")
    machine("fork")
    tokens = ["default", "anon=2", "dirty=2", "mapmax=2", "N0=2", "kernelpagesize_kB=4"]
    assert machine("numa_maps", va=BASE)["tokens"] == tokens


def test_pagemap_scan_reports_regions_of_equal_pages_and_no_pfnmap():
    machine = Machine("6.12.117", thp="never")
    machine.map_anonymous(BASE, 4 * 4096)
    machine.map(BASE + 4 * 4096, 4096)
    machine.touch(BASE)
    machine.touch(BASE + 4096, BASE + 8192, access="write")
    asked = {"start": BASE, "end": BASE + 5 * 4096, "any_of": 0x28, "return_mask": 0x28}  # PRESENT, PFNZERO
    got = machine("pagemap_scan", **asked)
    regions = [(int(r["start"], 16) - BASE, int(r["end"], 16) - BASE, r["categories"]) for r in got["regions"]]
    assert regions == [(0, 4096, "0x28"), (4096, 12288, "0x8")]
    assert (got["ret"], got["walk_end"]) == (2, hex(BASE + 5 * 4096))


# clear_refs


@pytest.mark.parametrize(("length", "level"), [(GIB, "pud"), (2 * MIB, "pmd"), (4096, "pte")])
def test_after_clear_refs_4_leaves_are_made_read_only_and_writes_to_huge_ones_never_complete(length: int, level: str):
    machine = Machine("6.12.117")
    machine.map(length=length)
    machine("clear_refs", value=4)
    machine.touch(BASE)
    made = machine("walk", va=BASE)["entry"]
    assert (made["level"], int(made["value"], 16) >> 1 & 1) == (level, 0)
    # FINDINGS F21: the handler of a huge leaf answers NOPAGE and changes nothing; a page is made writable by the core.
    written = machine("touch", va=BASE, access="write")
    assert written["result"] == ("ok" if level == "pte" else "LOOP")
    assert written["handle_mm_fault"] == 1  # of the first round: the leaf is not split, and nothing asks again
    assert {(f["order"], f["ret"]) for f in written["faults"]} == {
        "pud": {(18, "NOPAGE")},
        "pmd": {(9, "NOPAGE")},
        "pte": set(),
    }[level]


def test_clear_refs_of_anonymous_memory_has_the_next_write_fault():
    machine = Machine("6.12.117")
    machine.map_anonymous(BASE, 4096)
    machine.touch(BASE, access="write")
    assert machine("touch", va=BASE, access="write")["handle_mm_fault"] == 0
    machine("clear_refs", value=4)
    assert machine("touch", va=BASE, access="write")["handle_mm_fault"] == 1


@pytest.mark.parametrize(("value", "accessed"), [(1, 0), (2, 0), (3, 1), (5, 1)])
def test_clear_refs_clears_accessed_of_the_anonymous_memory_it_is_for(value: int, accessed: int):
    machine = Machine("6.12.117")
    machine.map_anonymous(BASE, 4096)
    machine.touch(BASE, access="write")
    machine("clear_refs", value=value)
    assert int(machine("walk", va=BASE)["entry"]["flags"], 16) >> 5 & 1 == accessed


@pytest.mark.parametrize("value", [0, 6])
def test_clear_refs_knows_five_values(value: int):
    assert Machine("6.12.117")("clear_refs", value=value)["result"] == "EINVAL"
