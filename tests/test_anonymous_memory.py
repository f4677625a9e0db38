"""Anonymous memory beside a pfnmap: blocks of several pages, shared memory, advice, locks, and what forces a write."""

from __future__ import annotations

from typing import Any

import pytest

from pfnmap import Device, DeviceBar, Refused
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run

GIB = 1 << 30
PAGE = 4096
BASE = 0x1000_0000_0000
DIRTY = 1 << 6
CONFIG = {"TRANSPARENT_HUGEPAGE": "y", "MEM_SOFT_DIRTY": "y"}


class Machine:
    """A run with one 8 GiB BAR, and short forms of its steps."""

    def __init__(self, release: str = "6.12.117", arch: str = "x86_64", **settings: Any) -> None:
        installed = settings.pop("installed", None)
        image = settings.pop("image", False)
        kernel = Kernel.link(arch, ["vfio_pci"], release=release, config=CONFIG, **settings)
        bars = {0: DeviceBar(0, 8 * GIB, 0x8_0000_0000)}
        self.run = Run(kernel, [Device("dev", "0000:00:01.0", bars)], image=image, installed=installed)

    def __call__(self, op: str, by: str = "parent", **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, by=by, where=f"step {op}")).as_json()

    def map(self, pages: int = 4, prot: str = "rw", *, va: int = BASE, shared: bool = False) -> dict[str, Any]:
        return self("mmap", device=None, addr=va, length=pages * PAGE, fixed=True, prot=prot, shared=shared)

    def touch(self, va: int, access: str = "read", by: str = "parent") -> dict[str, Any]:
        return self("touch", by, va=va, access=access)

    def there(self, pages: int, by: str = "parent") -> list[bool]:
        """Whether each page from BASE on has an entry."""
        return [self("walk", by, va=BASE + n * PAGE)["entry"].get("ram", False) for n in range(pages)]


# several pages at once


def test_a_write_maps_the_largest_block_that_fits_and_has_no_entry():
    machine = Machine()
    machine("set_thp_sizes", value="inherit")
    machine.map(64)
    machine.touch(BASE + 4 * PAGE)  # the zero page, where a block would be
    machine.touch(BASE, "write")
    assert machine.there(6) == [True] * 5 + [False]
    machine.touch(BASE + 40 * PAGE, "write")
    assert machine.there(64)[32:] == [True] * 32


def _huge_page() -> Machine:
    machine = Machine()
    machine.map(512)
    machine.touch(BASE, "write")
    assert machine("walk", va=BASE)["entry"]["level"] == "pmd"
    return machine


@pytest.mark.parametrize(
    "step",
    [
        {"op": "fork"},
        {"op": "mremap", "addr": BASE, "old_len": 2 << 20, "new_len": 2 << 20, "new_addr": BASE + GIB},
    ],
)
def test_a_huge_page_is_neither_copied_nor_moved(step: dict[str, Any]):
    machine = _huge_page()
    flags = {"flags": ["MAYMOVE", "FIXED"]} if step["op"] == "mremap" else {}
    with pytest.raises(Refused, match="anonymous huge page"):
        machine(**step, **flags)


def test_memory_of_a_huge_page_is_given_back_whole():
    machine = _huge_page()
    ram = machine.run.machine.phys.ram
    kept = len(ram)  # the zero page's is never given back
    machine("munmap", addr=BASE, length=2 << 20)
    assert len(ram) == kept - 512


@pytest.mark.parametrize("setting", ["never", "madvise"])
def test_without_advice_or_permission_a_write_maps_one_page(setting: str):
    machine = Machine()
    machine("set_thp_sizes", value=setting)
    machine.map(64)
    machine.touch(BASE, "write")
    assert machine.there(3) == [True, False, False]


def test_changing_a_part_of_a_contiguous_block_takes_the_mark_off():
    machine = Machine(arch="arm64")
    machine("set_thp_sizes", value="always")
    machine.map(16)
    machine.touch(BASE, "write")
    cont = 1 << 52

    def marks() -> list[bool]:
        return [bool(int(machine("walk", va=BASE + n * PAGE)["entry"]["flags"], 16) & cont) for n in (0, 5, 15)]

    assert marks() == [True] * 3
    machine("mprotect", addr=BASE, length=16 * PAGE, prot="r")
    assert marks() == [True] * 3
    machine("mprotect", addr=BASE, length=PAGE, prot="rw")
    assert marks() == [False] * 3


# shared memory


def test_shared_memory_has_one_page_for_all_and_nothing_beyond_its_end():
    machine = Machine()
    machine.map(2, shared=True)
    machine.touch(BASE, "write")
    machine("fork")
    assert machine.there(1, "child") == [False]
    machine.touch(BASE, by="child")
    tables = [mm.tables.leaf(BASE) for mm in (machine.run.parent, machine.run.child) if mm is not None]
    frames = {machine.run.kernel.ops.pte_pfn(leaf[1].entry) for leaf in tables if leaf is not None}
    assert len(tables) == 2
    assert len(frames) == 1
    machine("mremap", addr=BASE, old_len=2 * PAGE, new_len=3 * PAGE, flags=["MAYMOVE"])
    assert machine.touch(BASE + 2 * PAGE)["result"] == "SIGBUS"


def test_a_read_of_shared_memory_maps_what_is_there_around_it():
    machine = Machine()
    machine.map(32, shared=True)
    for n in (0, 3, 20):
        machine.touch(BASE + n * PAGE, "write")
    machine("madvise", addr=BASE, length=32 * PAGE, advice="DONTNEED")
    machine.touch(BASE)
    assert [n for n, there in enumerate(machine.there(32)) if there] == [0, 3]


# advice


def test_free_gives_pages_up_until_they_are_written_again():
    machine = Machine(thp="never")
    machine.map()
    for n in range(3):
        machine.touch(BASE + n * PAGE, "write")
    assert machine("madvise", addr=BASE, length=4 * PAGE, advice="FREE")["result"] == "ok"
    assert not int(machine("walk", va=BASE)["entry"]["flags"], 16) & DIRTY
    machine.touch(BASE + PAGE, "write")
    machine("madvise", addr=BASE, length=4 * PAGE, advice="PAGEOUT")
    assert machine.there(3) == [False, True, False]
    assert machine.touch(BASE)["handle_mm_fault"] == 1


@pytest.mark.parametrize(("advice", "flag"), [("POPULATE_READ", 0), ("POPULATE_WRITE", DIRTY)])
def test_populate_faults_page_by_page_up_to_a_hole(advice: str, flag: int):
    machine = Machine(thp="never")
    machine.map(2)
    got = machine("madvise", addr=BASE, length=4 * PAGE, advice=advice)
    assert (got["result"], got["handle_mm_fault"]) == ("ENOMEM", 2)
    assert int(machine("walk", va=BASE + PAGE)["entry"]["flags"], 16) & DIRTY == flag


def test_populate_is_refused_where_the_access_is():
    machine = Machine(thp="never")
    machine.map(2, "r")
    assert machine("madvise", addr=BASE, length=2 * PAGE, advice="POPULATE_WRITE")["result"] == "EINVAL"


def test_collapse_wants_a_whole_block_in_the_vma_and_something_in_it():
    machine = Machine(thp="never")
    machine.map(16)
    machine.touch(BASE, "write")
    assert machine("madvise", addr=BASE, length=16 * PAGE, advice="COLLAPSE")["result"] == "EINVAL"
    machine.map(1024, va=BASE + GIB)
    assert machine("madvise", addr=BASE + GIB, length=1024 * PAGE, advice="COLLAPSE")["result"] == "EINVAL"
    machine.touch(BASE + GIB, "write")
    with pytest.raises(Refused, match="COLLAPSE"):
        machine("madvise", addr=BASE + GIB, length=1024 * PAGE, advice="COLLAPSE")


def test_mergeable_is_a_flag_of_private_memory_alone():
    machine = Machine()
    machine.map(4)
    machine.map(4, shared=True, va=BASE + GIB)
    for va in (BASE, BASE + GIB):
        assert machine("madvise", addr=va, length=2 * PAGE, advice="MERGEABLE")["result"] == "ok"
    assert len(machine("vmas", start=BASE, end=BASE + GIB)["vmas"]) == 2
    assert len(machine("vmas", start=BASE + GIB, end=BASE + 2 * GIB)["vmas"]) == 1
    machine("madvise", addr=BASE, length=2 * PAGE, advice="UNMERGEABLE")
    assert len(machine("vmas", start=BASE, end=BASE + GIB)["vmas"]) == 1


def test_registering_with_userfaultfd_leaves_nothing_behind():
    machine = Machine()
    machine.map(4)
    assert machine("userfaultfd_register", addr=BASE, length=2 * PAGE, mode="missing")["result"] == "ok"
    assert len(machine("vmas", start=BASE, end=BASE + GIB)["vmas"]) == 1
    assert machine.touch(BASE)["result"] == "ok"


# memory, processes, pages


@pytest.mark.parametrize(("release", "left"), [("6.12.117", 3), ("6.1.192", 2)])
def test_more_than_the_machine_has_is_refused_after_the_old_mapping_was_cut(release: str, left: int):
    machine = Machine(release, installed=GIB)
    machine.map(8 << 18 >> 1, "r")
    got = machine("mmap", device=None, addr=BASE + GIB, length=2 * GIB, fixed=True, prot="rw", shared=False)
    assert got["result"] == "ENOMEM"
    assert len(machine("vmas", start=BASE, end=BASE + 8 * GIB)["vmas"]) == left


def test_the_memory_map_of_the_kernel_is_nobody_elses_memory():
    machine = Machine(installed=GIB)
    there = GIB // PAGE - (16 << 20) // PAGE
    assert machine.map(there)["result"] == "ok"
    assert machine.map(there + 1, va=BASE + GIB)["result"] == "ENOMEM"


@pytest.mark.parametrize(("release", "result"), [("6.12.117", "ENOMEM"), ("6.1.192", "EINVAL")])
def test_populating_from_a_hole_into_a_bar_meets_the_bar_before_6_10(release: str, result: str):
    machine = Machine(release)
    machine("mmap", device="dev", bar=0, offset=0, addr=BASE, length=2 * PAGE, fixed=True, prot="rw", shared=True)
    assert machine("madvise", addr=BASE - PAGE, length=2 * PAGE, advice="POPULATE_READ")["result"] == result


def test_memory_that_becomes_writable_is_counted_too():
    machine = Machine(installed=GIB)
    machine.map(2 << 18, "r")
    assert machine("mprotect", addr=BASE, length=2 * GIB, prot="rw")["result"] == "ENOMEM"
    assert machine("mprotect", addr=BASE, length=GIB // 2, prot="rw")["result"] == "ok"


@pytest.mark.parametrize(("cpu", "level"), [({}, "pgd"), ({"la57": True}, "p4d")])
def test_a_child_has_the_tables_of_its_own_program(cpu: dict[str, bool], level: str):
    machine = Machine(cpu=cpu, image=True)
    machine("fork")
    assert machine("walk", "child", va=BASE)["entry"]["level"] == level


def test_before_folio_walk_an_entry_without_a_page_is_a_bad_address_to_move_pages():
    told = {}
    for release in ("6.1.192", "6.12.117"):
        machine = Machine(release)
        machine("mmap", device="dev", bar=0, addr=BASE, length=2 * PAGE, fixed=True, prot="rw", shared=True)
        untouched = machine("move_pages", va=BASE)["status"]
        machine.touch(BASE)
        told[release] = (untouched, machine("move_pages", va=BASE)["status"])
    assert told == {"6.1.192": ("ENOENT", "EFAULT"), "6.12.117": ("ENOENT", "ENOENT")}


def test_a_child_that_a_system_call_holds_does_nothing_until_its_leaf_is_gone():
    machine = Machine()
    machine("mmap", device="dev", bar=0, addr=BASE, length=8 * GIB, fixed=True, prot="rw", shared=True)
    machine("clear_refs", value=4)
    machine("fork")
    got = machine("access", "child", via="read_syscall", va=BASE, length=16)
    assert (got["result"], got["killed"]) == ("HANG", False)
    with pytest.raises(Refused, match="does not end"):
        machine("exit", "child")
    machine("pci_memory", device="dev", enabled=False)
    assert machine("exit", "child")["exited"] is True


# memory failure


@pytest.mark.parametrize(
    ("release", "result", "said"),
    [
        ("6.12.117", "ENXIO", "memory outside kernel control"),
        ("6.19.1", "EBUSY", "recovery action for non struct page pfn: Ignored"),
        ("7.3.4", "EBUSY", "recovery action for non struct page pfn: Ignored"),
    ],
)
def test_a_bad_frame_that_no_driver_registered_changes_nothing(release: str, result: str, said: str):
    machine = Machine(release)
    machine("mmap", device="dev", bar=0, addr=BASE, length=8 * GIB, fixed=True, prot="rw", shared=True)
    machine.touch(BASE, "write")
    before = machine("walk", va=BASE)["entry"]
    got = machine("hard_offline", device="dev", offset=PAGE)
    assert (got["result"], got["signal"], got["pa"]) == (result, "none", "0x800001000")
    assert got["messages"] == [f"Memory failure: 0x800001: {said}"]
    for op, error in (("soft_offline", "ENXIO"), ("corrupt_pfn", "ENXIO"), ("unpoison_pfn", "EIO")):
        got = machine(op, pa=0x20_0000_0000)
        assert (got["result"], got["signal"], "messages" in got) == (error, "none", False)
    assert machine("walk", va=BASE)["entry"] == before
    assert machine.touch(BASE + PAGE)["result"] == "ok"
