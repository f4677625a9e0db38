"""Memory types: who reserves them, what mappings get, and what becomes of reservations over fork and unmap.

Worked out by hand from arch/x86/mm/pat/memtype.c of 6.12.117 and 6.1.192 and, for the context of later releases, from
its patches. The complaint about a reservation that nobody made was seen on 6.1.192.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL
from typing import Any

import pytest

from pfnmap import BadInput, Device, DeviceBar, Driver, File, Message, Unknown, VmArea, VmOperations
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run
from pfnmap.testing.bar_driver import BarDriver
from pfnmap.vm_flags import VM_DONTDUMP, VM_DONTEXPAND, VM_IO, VM_PFNMAP
from pfnmap_x86_64.bits import CACHE_MASK, PCD, PWT
from pfnmap_x86_64.memtype import CacheMode, Memtype, Memtypes, is_new_memtype_allowed, with_cachemode

PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
PHYS = 0x8_0000_0000
BASE = 0x1000_0000_0000
CONFIG = {"TRANSPARENT_HUGEPAGE": "y", "MEM_SOFT_DIRTY": "y"}
HOOKS = ("track_pfn_remap", "track_pfn_insert", "track_pfn_copy", "untrack_pfn", "untrack_pfn_clear")
CONTEXT = ("pfnmap_track", "pfnmap_untrack", "pfnmap_setup_cachemode")
WB, WC, UC_MINUS, UC, WT, WP = CacheMode


class Remapper(Driver):
    """Maps its BAR with remap_pfn_range at mmap, shared or private, `parts` bytes at a time (0: all at once)."""

    name = "remapper"
    parts = 0
    cached = False
    again = False

    def probe(self, device: Device) -> File:
        return self.open(device.bars[0])

    def mmap_offset(self, bar: int, offset: int) -> int:
        return offset

    def mmap(self, file: File, vma: VmArea) -> int:
        mm = self.machine.mm
        prot = vma.vm_page_prot if self.cached else self.kernel.ops.pgprot_noncached(vma.vm_page_prot)
        vma.vm_page_prot = prot
        vma.vm_ops = VmOperations(fault=None)
        pfn = PHYS // PAGE + vma.vm_pgoff
        for start in range(0, vma.size, self.parts or vma.size):
            size = min(self.parts or vma.size, vma.size - start)
            error: int = mm.remap_pfn_range(vma, vma.vm_start + start, pfn + start // PAGE, size, prot)
            if error:
                return error
        if self.again:
            return int(mm.remap_pfn_range(vma, vma.vm_start, pfn, vma.size, prot))
        vma.vm_flags |= VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP
        return 0


class Machine:
    """A run with one BAR of 4 GiB, and short forms of its steps."""

    def __init__(self, release: str = "6.12.117", driver: type[Driver] = Remapper, **settings: Any) -> None:
        kind = type(driver.__name__, (driver,), settings)
        self.kernel = Kernel.link("x86_64", [kind], release=release, config=CONFIG)
        device = Device("dev", "0000:00:01.0", {0: DeviceBar(0, 4 * GIB, PHYS)}, driver=driver.name)
        self.run = Run(self.kernel, [device])

    def __call__(self, op: str, *, by: str = "parent", **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, by=by, where=f"step {op}")).as_json()

    def map(self, length: int = 4 * PAGE, *, shared: bool = True, va: int = BASE, offset: int = 0) -> str:
        where = {"addr": va, "length": length, "fixed": True, "offset": offset}
        result: str = self("mmap", device="dev", bar=0, prot="rw", shared=shared, **where)["result"]
        return result

    def reserve(self, mode: str, length: int = 4 * PAGE, offset: int = 0) -> str:
        got = self("x86_64.memtype_reserve_io", device="dev", bar=0, offset=offset, length=length, mode=mode)
        result: str = got["result"]
        return result

    def memtypes(self) -> list[tuple[int, int, str]]:
        """Reservations as (offset in the BAR, length, mode)."""
        listed = [line.split() for line in self("x86_64.pat_memtype_list")["memtypes"]]
        spans = [(*(int(end, 16) for end in line[2].rstrip("]").split("-")), line[3]) for line in listed]
        return [(start - PHYS, end - start, mode) for start, end, mode in spans]

    def mode(self, va: int = BASE) -> CacheMode:
        """The cache mode of the leaf at an address."""
        entry = int(self("walk", va=va)["entry"]["value"], 16)
        return CacheMode.of(entry & (PWT | PCD))


# the table


def table() -> tuple[Memtypes, list[str]]:
    log: list[str] = []
    return Memtypes(lambda start, end: False, log.append), log


def test_a_mode_and_its_bits_belong_together():
    assert [CacheMode.of(mode.protval) for mode in CacheMode] == list(CacheMode)
    assert (WC.protval, UC_MINUS.protval, UC.protval) == (PWT, PCD, PWT | PCD)
    assert with_cachemode(CACHE_MASK | 1 << 63 | 0x27, WC) == 1 << 63 | 0x27 | PWT


def test_nothing_reserved_is_uncached_minus_and_a_write_back_wish_becomes_that():
    memtypes, _ = table()
    assert memtypes.lookup(PHYS, PAGE) is UC_MINUS
    assert memtypes.reserve(PHYS, PHYS + PAGE, WB) == (0, UC_MINUS)


def test_write_back_stays_where_the_mtrrs_say_so():
    memtypes = Memtypes(lambda start, end: False, lambda text: None, mtrr_write_back=True)
    assert memtypes.reserve(PHYS, PHYS + PAGE, WB) == (0, WB)
    assert memtypes.reserve(0xFEBF_8000, 0xFEBF_9000, WB) == (0, UC_MINUS)


def test_two_types_in_a_range_are_a_conflict_that_the_log_tells_in_two_lines():
    """pat.two_types_in_range."""
    memtypes, log = table()
    memtypes.reserve(0x60C100000, 0x60C101000, WC)
    memtypes.reserve(0x60C200000, 0x60C201000, UC_MINUS)
    assert memtypes.reserve(0x60C000000, 0x60C400000, WC)[0] == -EBUSY
    assert log == [
        "x86/PAT: init:1 conflicting memory types 60c000000-60c400000 write-combining<->uncached-minus",
        "x86/PAT: memtype_reserve failed [mem 0x60c000000-0x60c3fffff], track write-combining, req write-combining",
    ]


def test_what_is_there_decides():
    memtypes, _ = table()
    assert memtypes.reserve(PHYS, PHYS + 4 * PAGE, WC) == (0, WC)
    assert memtypes.reserve(PHYS + PAGE, PHYS + 8 * PAGE, UC_MINUS) == (0, WC)
    assert memtypes.lookup(PHYS + 7 * PAGE, PAGE) is WC
    assert memtypes.reserve(PHYS + 8 * PAGE, PHYS + 9 * PAGE, UC) == (0, UC)
    assert memtypes.reserve(PHYS + 7 * PAGE, PHYS + 9 * PAGE, UC)[0] == -EBUSY


def test_a_reservation_is_freed_as_it_was_made_or_shortened_from_its_end():
    memtypes, log = table()
    memtypes.reserve(PHYS, PHYS + 4 * PAGE, WC)
    memtypes.reserve(PHYS + 2 * PAGE, PHYS + 4 * PAGE, WC)
    assert memtypes.free(PHYS + 2 * PAGE, PHYS + 4 * PAGE) == 0
    assert memtypes.entries == [Memtype(PHYS, PHYS + 4 * PAGE, WC)]
    assert memtypes.free(PHYS + PAGE, PHYS + 4 * PAGE) == 0
    assert memtypes.entries == [Memtype(PHYS, PHYS + PAGE, WC)]
    assert log == []


@pytest.mark.parametrize(("start", "end"), [(0, 2), (1, 3), (1, 5), (5, 6)])
def test_other_ranges_are_complained_about(start: int, end: int):
    memtypes, log = table()
    memtypes.reserve(PHYS, PHYS + 4 * PAGE, WC)
    assert memtypes.free(PHYS + start * PAGE, PHYS + end * PAGE) == -EINVAL
    span = f"[mem {PHYS + start * PAGE:#x}-{PHYS + end * PAGE - 1:#x}]"
    assert log == [f"x86/PAT: init:1 freeing invalid memtype {span}"]


def test_the_isa_range_is_write_back_and_not_tracked():
    memtypes, log = table()
    assert memtypes.lookup(0xA0000, PAGE) is WB
    assert memtypes.reserve(0xA0000, 0xB0000, UC) == (0, WB)
    assert (memtypes.free(0xA0000, 0xB0000), memtypes.entries, log) == (0, [], [])


def test_a_range_has_a_mode_where_all_its_pages_have_it():
    memtypes, _ = table()
    memtypes.reserve(PHYS + PAGE, PHYS + 2 * PAGE, WC)
    assert memtypes.lookup_all(PHYS + PAGE, PHYS + 2 * PAGE, PAGE) is WC
    assert memtypes.lookup_all(PHYS + 2 * PAGE, PHYS + GIB, PAGE) is UC_MINUS
    assert memtypes.lookup_all(PHYS, PHYS + GIB, PAGE) is None


@pytest.mark.parametrize(
    ("wanted", "got", "allowed"),
    [(UC_MINUS, WB, False), (WC, WB, False), (WT, WB, False), (WT, WC, False), (WT, UC_MINUS, True), (WB, WC, True)],
)
def test_which_mode_does_instead_of_another(wanted: CacheMode, got: CacheMode, allowed: bool):
    assert is_new_memtype_allowed(PHYS, PHYS + PAGE, wanted, got) is allowed


# what is inserted (track_pfn_insert, pfnmap_setup_cachemode)

WITHOUT_FIX, WITH_FIX = "6.16.1", "7.3.4"


@pytest.mark.parametrize(
    ("length", "release", "mode"),
    [
        (4 * PAGE, "6.1.192", WC),
        (4 * PAGE, "6.12.117", WC),
        (4 * PAGE, WITH_FIX, WC),
        (2 * MIB, "6.12.117", WC),
        (2 * MIB, WITH_FIX, WC),
        pytest.param(GIB, "6.12.117", UC_MINUS, id="F13"),
        pytest.param(GIB, WITHOUT_FIX, UC_MINUS, id="F13 with the context"),
        pytest.param(GIB, WITH_FIX, WC, id="F13 repaired"),
    ],
)
def test_a_leaf_has_the_caching_that_is_reserved_for_its_pfn(length: int, release: str, mode: CacheMode):
    machine = Machine(release, BarDriver)
    assert machine.reserve("write-combining", GIB) == "ok"
    machine.map(length)
    machine("touch", va=BASE, access="read")
    assert machine.mode() is mode


@pytest.mark.parametrize("release", ["6.1.192", "6.12.117", "7.3.4"])
@pytest.mark.parametrize("length", [4 * PAGE, 2 * MIB, GIB])
def test_where_nothing_is_reserved_it_is_what_the_driver_says_uncached_minus(release: str, length: int):
    machine = Machine(release, BarDriver)
    machine.map(length)
    machine("touch", va=BASE, access="read")
    assert machine.mode() is UC_MINUS


def test_a_cached_mapping_becomes_uncached_but_for_a_1g_leaf():
    machine = Machine("6.12.117", BarDriver)
    machine.map(GIB)
    vma = machine.run.parent.vma_lookup(BASE)
    assert vma is not None
    vma.vm_page_prot = machine.kernel.ops.vm_get_page_prot(vma.vm_flags)
    machine("touch", va=BASE, access="read")
    assert machine.mode() is WB


# what is reserved (track_pfn_remap, pfnmap_track)


@pytest.mark.parametrize("release", ["6.1.192", "6.12.117", "7.3.4"])
def test_a_whole_vma_reserves_and_gives_back(release: str):
    machine = Machine(release)
    assert machine.map(offset=MIB) == "ok"
    assert machine.memtypes() == [(MIB, 4 * PAGE, "uncached-minus")]
    machine("munmap", addr=BASE, length=4 * PAGE)
    assert machine.memtypes() == []


@pytest.mark.parametrize("release", ["6.12.117", "7.3.4"])
def test_a_part_reserves_nothing_and_takes_what_is_there(release: str):
    machine = Machine(release, parts=2 * PAGE)
    machine.reserve("write-combining", 2 * PAGE)
    assert machine.map() == "ok"
    assert [machine.mode(BASE + n * PAGE) for n in range(4)] == [WC, WC, UC_MINUS, UC_MINUS]
    assert machine.memtypes() == [(0, 2 * PAGE, "write-combining")]


@pytest.mark.parametrize("release", ["6.12.117", "7.3.4"])
def test_a_part_of_two_modes_is_refused(release: str):
    machine = Machine(release, parts=2 * PAGE)
    machine.reserve("write-combining", PAGE)
    assert machine.map() == "EINVAL"


@pytest.mark.parametrize("release", ["6.12.117", "7.3.4"])
@pytest.mark.parametrize(
    ("reserved", "cached", "result", "mode"),
    [
        ("write-combining", False, "ok", WC),
        ("write-combining", True, "ok", WC),
        ("uncached", True, "ok", UC),
    ],
)
def test_a_whole_vma_gets_the_mode_that_is_there(
    release: str, reserved: str, cached: bool, result: str, mode: CacheMode
):
    machine = Machine(release, cached=cached)
    machine.reserve(reserved)
    assert machine.map() == result
    assert machine.mode() is mode
    assert [row[2] for row in machine.memtypes()] == [reserved] * 2


@pytest.mark.parametrize("release", ["6.12.117", "7.3.4"])
def test_a_mode_that_will_not_do_is_refused_and_said(release: str):
    machine = Machine(release)
    machine.reserve("write-combining")
    ops = machine.kernel.ops
    prot = with_cachemode(0x27, WT)
    vma = VmArea(machine.run.parent, BASE, BASE + 4 * PAGE, 0)
    if release == "7.3.4":
        error = ops.pfnmap_track(machine.run.machine, PHYS // PAGE, 4 * PAGE, prot)
    else:
        error = ops.track_pfn_remap(vma, prot, PHYS // PAGE, BASE, 4 * PAGE)
    assert error == -EINVAL
    (event,) = machine.run.machine.trace.drain()
    assert event.text == (  # type: ignore[attr-defined]
        "x86/PAT: init:1 map pfn expected mapping type write-through for"
        f" [mem {PHYS:#x}-{PHYS + 4 * PAGE - 1:#x}], got write-combining"
    )
    assert machine.memtypes() == [(0, 4 * PAGE, "write-combining")]


@pytest.mark.parametrize("release", ["6.12.117", "7.3.4"])
def test_a_part_of_a_private_vma_is_refused_and_leaves_nothing_reserved(release: str):
    machine = Machine(release, parts=2 * PAGE)
    assert machine.map(shared=False) == "EINVAL"
    assert machine.memtypes() == []


# fork and unmap


@pytest.mark.parametrize(("release", "while_both"), [("6.1.192", 2), ("6.12.117", 2), ("7.3.4", 1)])
def test_a_fork_reserves_once_more_or_shares_the_context(release: str, while_both: int):
    machine = Machine(release)
    machine.map()
    assert machine("fork")["result"] == "ok"
    assert len(machine.memtypes()) == while_both
    machine("munmap", addr=BASE, length=4 * PAGE)
    assert len(machine.memtypes()) == 1
    machine("exit", by="child")
    assert machine.memtypes() == []


@pytest.mark.parametrize(("release", "result"), [("6.1.192", "ENOMEM"), ("6.12.117", "ENOMEM"), ("7.3.4", "ok")])
def test_fork_fails_where_the_first_page_was_copied_on_write(release: str, result: str):
    """The page that is there is no longer the pfnmap's, so PAT cannot tell the caching (get_pat_info)."""
    machine = Machine(release)
    machine.map(shared=False)
    machine("touch", va=BASE, access="write")
    assert machine("fork")["result"] == result
    if result == "ENOMEM":
        with pytest.raises(BadInput, match="there is no child process"):
            machine("vmas", by="child", start=0, end=PAGE)
        assert machine.memtypes() == [(0, 4 * PAGE, "uncached-minus")]
    else:
        machine("exit", by="child")
    # vm_pgoff still tells the PFN, and that is enough to give the reservation back.
    machine("munmap", addr=BASE, length=4 * PAGE)
    assert machine.memtypes() == []


@pytest.mark.parametrize("release", ["6.1.192", "6.12.117"])
def test_fork_works_where_another_page_was_copied_on_write(release: str):
    machine = Machine(release)
    machine.map(shared=False)
    machine("touch", va=BASE + PAGE, access="write")
    assert machine("fork")["result"] == "ok"


def test_a_failed_fork_leaves_the_parent_as_it_was():
    machine = Machine("6.12.117")
    machine("mmap", addr=BASE - MIB, length=PAGE, fixed=True, prot="rw", shared=False)
    machine("touch", va=BASE - MIB, access="write")
    machine.map(shared=False)
    machine("touch", va=BASE, access="write")
    pages = dict(machine.run.machine.phys.ram)
    tables = len(machine.run.machine.phys.tables)
    assert machine("fork")["result"] == "ENOMEM"
    assert machine.run.machine.phys.ram == pages
    assert len(machine.run.machine.phys.tables) == tables


@pytest.mark.parametrize(
    ("release", "left", "complaints"), [("6.12.117", [(0, 4 * PAGE)], 2), ("7.3.4", [(0, 4 * PAGE)], 0)]
)
def test_a_vma_in_pieces(release: str, left: list[tuple[int, int]], complaints: int):
    """Before the context each piece gives back its own part, which nobody reserved (but for a part at the end)."""
    machine = Machine(release)
    machine.map()
    machine("mprotect", addr=BASE + PAGE, length=PAGE, prot="r")
    said = machine("munmap", addr=BASE, length=2 * PAGE).get("messages", [])
    assert (len(said), [row[:2] for row in machine.memtypes()]) == (complaints, left)
    assert all(text.startswith("x86/PAT: init:1 freeing invalid memtype [mem 0x8000") for text in said)
    machine("munmap", addr=BASE, length=4 * PAGE)
    assert [row[:2] for row in machine.memtypes()] == ([(0, 2 * PAGE)] if release == "6.12.117" else [])


@pytest.mark.parametrize(("release", "left"), [("6.12.117", []), ("7.3.4", [(0, 4 * PAGE)])])
def test_zapping_a_part_ends_the_reservation_of_the_whole_until_the_context(release: str, left: list[tuple[int, int]]):
    machine = Machine(release)
    machine.map()
    vma = machine.run.parent.vma_lookup(BASE)
    assert vma is not None
    machine.run.machine.mm.zap_vma_ptes(vma, BASE + PAGE, PAGE)
    assert [row[:2] for row in machine.memtypes()] == left


def test_a_second_remap_of_a_whole_vma_is_refused_with_the_context():
    assert Machine("7.3.4", again=True).map() == "EINVAL"


def test_a_mapping_that_its_driver_gives_up_leaves_no_context():
    machine = Machine("7.3.4", again=True)
    machine.map()
    assert machine.memtypes() == []


def test_a_mapping_that_moves_keeps_its_reservation():
    for release in ("6.12.117", "7.3.4"):
        machine = Machine(release)
        machine.map()
        where = {"new_addr": BASE + GIB, "flags": ["MAYMOVE", "FIXED"]}
        assert machine("mremap", addr=BASE, old_len=4 * PAGE, new_len=4 * PAGE, **where)["result"] == "ok"
        assert [row[:2] for row in machine.memtypes()] == [(0, 4 * PAGE)]
        machine("munmap", addr=BASE + GIB, length=4 * PAGE)
        assert machine.memtypes() == []


def test_giving_back_what_was_not_reserved_is_said_in_the_words_that_6_1_was_seen_to_use():
    """There vfio-pci zaps each new piece of a vma as it is opened; a lower one was not reserved by itself."""
    machine = Machine("6.1.192")
    machine.map(MIB)
    vma = machine.run.parent.vma_lookup(BASE)
    assert vma is not None
    machine.kernel.ops.untrack_pfn(vma, PHYS // PAGE, PAGE)
    assert [event.text for event in machine.run.machine.trace.drain() if isinstance(event, Message)] == [
        "x86/PAT: init:1 freeing invalid memtype [mem 0x800000000-0x800000fff]"
    ]


# the actions


@pytest.mark.parametrize("mode", [mode.value for mode in CacheMode if mode is not CacheMode.WB])
def test_a_reservation_is_listed_and_given_back(mode: str):
    machine = Machine()
    assert machine.reserve(mode, PAGE, offset=MIB) == "ok"
    assert machine.memtypes() == [(MIB, PAGE, mode)]
    got = machine("x86_64.memtype_free_io", device="dev", bar=0, offset=MIB, length=PAGE)
    assert (got["memtypes"], got.get("messages")) == ([], None)


def test_errno_of_reservations():
    machine = Machine()
    assert machine.reserve("write-combining", PAGE) == "ok"
    assert machine.reserve("uncached", PAGE, offset=PAGE) == "ok"
    assert machine.reserve("uncached", 2 * PAGE) == "EBUSY"  # two modes are there
    assert machine.reserve("write-through", PAGE) == "EBUSY"  # write-combining will not do instead
    assert len(machine.memtypes()) == 2


def test_a_mode_that_there_is_not():
    with pytest.raises(Unknown, match="cache mode 'write-combined'; did you mean 'write-combining'"):
        Machine().reserve("write-combined")


@pytest.mark.parametrize(
    ("release", "vma", "context"),
    [("6.1.192", "arch", "generic"), ("6.12.117", "arch", "generic"), ("7.3.4", "generic", "arch")],
)
def test_who_tracks(release: str, vma: str, context: str):
    kernel = Kernel.link("x86_64", release=release, config={**CONFIG, "X86_PAT": "y"})
    assert {kernel.ops.owners[hook] for hook in HOOKS} == {vma}
    assert {kernel.ops.owners[hook] for hook in CONTEXT} == {context}


@pytest.mark.parametrize("mode", CacheMode)
def test_cache_mode_of_a_leaf_is_that_of_its_protection(mode):
    """4K entries have the PAT bit where larger leaves have PSE, and those have it at bit 12 (the CPU's manual)."""
    arch = Kernel.link(arch="x86_64", config=CONFIG, release="6.12.117").arch
    assert arch.cache_mode("pte", 1 << 40 | mode.protval) == mode.value
    large = mode.protval & (PWT | PCD) | (mode.protval & 1 << 7) << 5 | 1 << 7
    assert arch.cache_mode("pmd", 1 << 40 | large) == arch.cache_mode("pud", 1 << 40 | large) == mode.value
