"""Looking pfnmaps up: follow_pfnmap, gup, folio_walk, vm_normal_page, access_process_vm, and the ops that use them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from errno import EFAULT, EINVAL
from typing import Any

import pytest

from pfnmap import Device, DeviceBar, Refused, Unknown, VmArea, VmOperations
from pfnmap.contract.follow import FollowPfnmapArgs
from pfnmap.contract.step import Step
from pfnmap.errors import Misuse
from pfnmap.kernel import Kernel
from pfnmap.mm.gup import gup_fast
from pfnmap.mm.locking import i_mmap_rwsem, mmap_lock, page_table_lock
from pfnmap.run import Run
from pfnmap.trace import Call
from pfnmap.vm_flags import VM_MAYWRITE, VM_MIXEDMAP, VM_PFNMAP, VM_SHARED

MIB = 1 << 20
GIB = 1 << 30
PAGE = 4096
BASE = 0x1000_0000_0000
PHYS = 0x8_0000_0000
CONFIG = {"TRANSPARENT_HUGEPAGE": "y", "MEM_SOFT_DIRTY": "y"}
PLACES = {"pud": BASE, "pmd": BASE + 64 * GIB, "pte": BASE + 128 * GIB + PAGE}
"""Where `Machine.map_each_level` has a leaf of each level; each maps the BAR from its start."""


class Machine:
    """A run with one 8 GiB BAR, and short forms of its steps."""

    def __init__(self, release: str, arch: str = "x86_64", phys: int = PHYS, **config: str) -> None:
        self.kernel = Kernel.link(arch, ["vfio_pci"], release=release, config={**CONFIG, **config})
        self.run = Run(self.kernel, [Device("dev", "0000:00:01.0", {0: DeviceBar(0, 8 * GIB, phys)})])
        self.mm = self.run.parent
        self.mapping = self.run.files["dev"].f_mapping

    def __call__(self, op: str, *, by: str = "parent", **arguments: Any) -> dict[str, Any]:
        return self.run.step(Step(op, arguments, by=by, where=f"step {op}")).as_json()

    def map(self, va: int = BASE, length: int = 8 * GIB, prot: str = "rw", **arguments: Any) -> None:
        arguments = {"device": "dev", "bar": 0, "addr": va, "length": length, "fixed": True, "prot": prot, **arguments}
        assert self("mmap", shared=True, **arguments)["result"] == "ok"

    def map_each_level(self) -> None:
        self.map(PLACES["pud"], 2 * GIB)
        self.map(PLACES["pmd"], 4 * MIB)
        self.map(PLACES["pte"], 4 * MIB)
        for va in PLACES.values():
            assert self("touch", va=va, access="read")["result"] == "ok"

    def map_anonymous(self, va: int, pages: int, *touched: int) -> None:
        where = {"device": None, "addr": va, "length": pages * PAGE, "fixed": True, "prot": "rw", "shared": False}
        assert self("mmap", **where)["result"] == "ok"
        for n in touched:
            self("touch", va=va + n * PAGE, access="write")

    def vma(self, va: int) -> VmArea:
        vma = self.mm.vma_lookup(va)
        assert vma is not None
        return vma

    def entry(self, va: int) -> int:
        found = self.mm.tables.leaf(va)
        assert found is not None
        return found[1].entry


@pytest.fixture(params=["6.12.117", "7.3.4", "posted-v2"])
def levels(request: pytest.FixtureRequest) -> Machine:
    """A machine with a leaf of each level."""
    machine = Machine(request.param)
    machine.map_each_level()
    return machine


@pytest.fixture
def machine() -> Machine:
    return Machine("6.12.117")


# follow_pfnmap_start and _end


@pytest.mark.parametrize("level", PLACES)
def test_follow_pfnmap_finds_the_page_inside_a_leaf_of_any_level(levels: Machine, level: str):
    va = PLACES[level]
    within = {"pud": 0x12345000, "pmd": 0x123000, "pte": 0}[level]
    vma = levels.vma(va)
    with mmap_lock(levels.mm), levels.run.machine.mm.follow_pfnmap(vma, va + within + 0x10) as args:
        assert args is not None
        assert args.pfn == (PHYS + within) >> 12
        assert (args.writable, args.special) == (True, True)
        ops = levels.kernel.ops
        assert args.pgprot == getattr(ops, f"{level}_pgprot")(levels.entry(va))
        assert page_table_lock(levels.mm).held
    assert not page_table_lock(levels.mm).held


@pytest.mark.parametrize(("level", "mask"), [("pud", -GIB), ("pmd", -2 * MIB), ("pte", -PAGE)])
def test_addr_mask_says_how_much_the_entry_maps_where_the_release_has_it(level: str, mask: int):
    old, new = Machine("6.12.117"), Machine("7.3.4")
    for machine in (old, new):
        machine.map_each_level()
    with mmap_lock(new.mm), new.run.machine.mm.follow_pfnmap(new.vma(PLACES[level]), PLACES[level]) as args:
        assert args is not None
        assert args.addr_mask == mask % (1 << 64)
    with mmap_lock(old.mm), old.run.machine.mm.follow_pfnmap(old.vma(PLACES[level]), PLACES[level]) as args:
        assert args is not None
        with pytest.raises(Refused, match="follow-addr-mask"):
            _ = args.addr_mask


def test_follow_pfnmap_answers_einval_outside_the_vma_for_other_memory_and_where_nothing_is(machine: Machine):
    machine.map(BASE, 4 * MIB)
    machine.map_anonymous(BASE + GIB, 4, 0)
    follow = machine.run.machine.mm.follow_pfnmap_start
    machine("touch", va=BASE, access="read")
    bar, other = machine.vma(BASE), machine.vma(BASE + GIB)
    with mmap_lock(machine.mm):
        assert follow(FollowPfnmapArgs(bar, BASE - PAGE)) == -EINVAL
        assert follow(FollowPfnmapArgs(bar, BASE + 4 * MIB)) == -EINVAL
        assert follow(FollowPfnmapArgs(other, BASE + GIB)) == -EINVAL
        assert follow(FollowPfnmapArgs(bar, BASE + 2 * MIB)) == -EINVAL
        with machine.run.machine.mm.follow_pfnmap(bar, BASE + 2 * MIB) as nothing:
            assert nothing is None
    assert not page_table_lock(machine.mm).held


def read_after_end(args: FollowPfnmapArgs) -> int:
    return args.pfn


def test_outputs_are_gone_after_follow_pfnmap_end_and_the_error_names_who_reads_them(levels: Machine):
    args = levels.run.machine.mm.FollowPfnmapArgs(levels.vma(BASE), BASE)
    with pytest.raises(Misuse, match="read_after_end"):
        read_after_end(args)
    with mmap_lock(levels.mm):
        assert levels.run.machine.mm.follow_pfnmap_start(args) == 0
        assert read_after_end(args) == PHYS >> 12
        levels.run.machine.mm.follow_pfnmap_end(args)
    with pytest.raises(Misuse, match=r"read_after_end: pfn is valid between"):
        read_after_end(args)


def test_follow_pfnmap_asserts_mmap_lock_or_i_mmap_rwsem_of_the_file(levels: Machine):
    args = FollowPfnmapArgs(levels.vma(BASE), BASE)
    start, end = levels.run.machine.mm.follow_pfnmap_start, levels.run.machine.mm.follow_pfnmap_end
    with pytest.raises(Misuse, match="test_follow_pfnmap_asserts_mmap_lock"):
        start(args)
    for lock in (mmap_lock(levels.mm), i_mmap_rwsem(levels.mapping)):
        with lock:
            assert start(args) == 0
            end(args)


def test_start_and_end_come_in_pairs(levels: Machine):
    args = FollowPfnmapArgs(levels.vma(BASE), BASE)
    with mmap_lock(levels.mm):
        with pytest.raises(Misuse, match="without a successful"):
            levels.run.machine.mm.follow_pfnmap_end(args)
        levels.run.machine.mm.follow_pfnmap_start(args)
        with pytest.raises(Misuse, match="again before"):
            levels.run.machine.mm.follow_pfnmap_start(args)


@pytest.mark.parametrize("level", ["pud", "pmd"])
@pytest.mark.parametrize(("release", "stale"), [("posted-v2", True), ("6.12.80", True), ("6.12.94", False)])
def test_an_entry_zapped_before_the_lock_is_found_only_without_the_recheck(level: str, release: str, stale: bool):
    # ffef67b93aa3 is in 6.12.81 and later, and not in the series as posted.
    machine = Machine(release)
    machine.map_each_level()
    vma = machine.vma(PLACES[level])
    zap = machine.run.machine.mm.zap_vma_ptes
    page_table_lock(machine.mm).contend(lambda: zap(vma, vma.vm_start, vma.size))
    with mmap_lock(machine.mm), machine.run.machine.mm.follow_pfnmap(vma, PLACES[level]) as args:
        assert (args is not None) == stale
    assert not page_table_lock(machine.mm).held


@pytest.mark.parametrize("contended", [False, True])
def test_a_pte_is_found_whether_or_not_somebody_holds_its_lock(contended: bool):
    machine = Machine("6.12.117")
    machine.map_each_level()
    address, lock = PLACES["pte"], page_table_lock(machine.mm)
    vma = machine.vma(address)
    for there in (True, False):
        if contended:
            lock.contend(lambda: None)
        with mmap_lock(machine.mm), machine.run.machine.mm.follow_pfnmap(vma, address) as args:
            assert (args is not None) == there
            assert lock.held == there
            if args is not None:
                assert args.pfn == machine.kernel.ops.pte_pfn(machine.entry(address))
        assert not lock.held
        machine.run.machine.mm.zap_vma_ptes(vma, vma.vm_start, vma.size)


def test_an_entry_that_changed_before_the_lock_is_looked_at_again():
    machine = Machine("6.12.117")
    machine.map_each_level()
    page_table_lock(machine.mm).contend(lambda: _protect(machine, "r"))
    with mmap_lock(machine.mm), machine.run.machine.mm.follow_pfnmap(machine.vma(BASE), BASE) as args:
        assert args is not None
        assert not args.writable


def _protect(machine: Machine, prot: str) -> None:
    machine("mprotect", addr=BASE, length=2 * GIB, prot=prot)


def test_a_1g_leaf_without_access_is_not_present_to_later_releases():
    # x86's pud_present does not know PROT_NONE, and the posted form asked pud_none.
    for release, found in (("posted-v2", True), ("6.12.117", False), ("7.3.4", False)):
        machine = Machine(release)
        machine.map(length=2 * GIB)
        machine("touch", va=BASE, access="read")
        _protect(machine, "none")
        with mmap_lock(machine.mm), machine.run.machine.mm.follow_pfnmap(machine.vma(BASE), BASE) as args:
            assert (args is not None and args.pfn == PHYS >> 12) == found, release


def test_each_release_has_one_of_the_two_look_ups():
    old, new = Machine("6.1.192"), Machine("6.12.117")
    for machine in (old, new):
        machine.map(length=4 * MIB)
        machine("touch", va=BASE, access="read")
    with mmap_lock(old.mm), pytest.raises(Refused, match="follow_pte"):
        old.run.machine.mm.follow_pfnmap_start(FollowPfnmapArgs(old.vma(BASE), BASE))
    assert old.run.machine.mm.follow_pte(old.vma(BASE), BASE + PAGE) == old.entry(BASE + PAGE)
    assert old.run.machine.mm.follow_pte(old.vma(BASE), BASE + GIB) is None
    with pytest.raises(Refused, match="follow_pfnmap_start"):
        new.run.machine.mm.follow_pte(new.vma(BASE), BASE)


# generic_access_phys and access_process_vm


def _calls(machine: Machine, function: str) -> int:
    return sum(e.function == function for e in machine.run.machine.trace.drain() if isinstance(e, Call))


def _wrprotect(machine: Machine) -> None:
    found = machine.mm.tables.leaf(BASE)
    assert found is not None
    table, index = found[1]
    table[index] = machine.kernel.ops.pmd_wrprotect(table[index])


@pytest.mark.parametrize("release", ["6.1.192", "6.12.117", "7.3.4"])
def test_generic_access_phys_maps_again_when_the_entry_changed_under_it(release: str):
    machine = Machine(release)
    machine.map(length=2 * MIB)
    machine("touch", va=BASE, access="read")
    access = machine.run.machine.mm.generic_access_phys
    look = "follow_pte" if release == "6.1.192" else "follow_pfnmap_start"
    with mmap_lock(machine.mm):
        assert access(machine.vma(BASE), BASE + 16, 64, True) == 64
        assert _calls(machine, look) == 2
        if look == "follow_pfnmap_start":
            page_table_lock(machine.mm).contend(lambda: None, lambda: _wrprotect(machine))
            assert access(machine.vma(BASE), BASE, 64, False) == 64
            assert _calls(machine, "ioremap_prot") == 2
            assert access(machine.vma(BASE), BASE, 64, True) == -EINVAL


def test_generic_access_phys_gives_up_when_the_entry_is_gone(machine: Machine):
    machine.map(length=2 * MIB)
    access = machine.run.machine.mm.generic_access_phys
    with mmap_lock(machine.mm):
        assert access(machine.vma(BASE), BASE, 64, False) == -EINVAL
    machine("touch", va=BASE, access="read")
    zap = machine.run.machine.mm.zap_vma_ptes
    page_table_lock(machine.mm).contend(lambda: None, lambda: zap(machine.vma(BASE), BASE, 2 * MIB))
    with mmap_lock(machine.mm):
        assert access(machine.vma(BASE), BASE, 64, False) == -EINVAL


@pytest.mark.parametrize("via", ["proc_mem_read", "proc_mem_write"])
def test_another_process_reaches_device_memory_only_through_the_drivers_access(machine: Machine, via: str):
    machine.map(length=2 * MIB)
    machine("touch", va=BASE, access="write")
    assert (got := machine("access", via=via, va=BASE, length=2 * PAGE))["result"] == "EIO"
    assert got["ret"] == -1
    vma = machine.vma(BASE)
    assert vma.vm_ops is not None
    vma.vm_ops = replace(vma.vm_ops, access=machine.run.machine.mm.generic_access_phys)
    got = machine("access", via=via, va=BASE, length=2 * PAGE)
    assert (got["result"], got["ret"], got["calls"]["generic_access_phys"]) == ("ok", 2 * PAGE, 2)


def test_access_needs_ioremap_prot():
    machine = Machine("6.12.117", HAVE_IOREMAP_PROT="n")
    machine.map(length=2 * MIB)
    machine("touch", va=BASE, access="write")
    vma = machine.vma(BASE)
    vma.vm_ops = VmOperations(fault=lambda vmf: 0, access=machine.run.machine.mm.generic_access_phys)
    assert machine("access", via="proc_mem_read", va=BASE, length=8)["result"] == "EIO"


def test_a_stopped_child_is_read_word_by_word_but_not_its_device_memory(machine: Machine):
    machine.map(length=2 * MIB)
    machine.map_anonymous(BASE + GIB, 2, 0)
    machine("fork", stopped=True)
    for via, va, result in (("ptrace_peek", BASE, "EIO"), ("ptrace_peek", BASE + GIB, "ok")):
        got = machine("access", via=via, va=va, length=8, target="child")
        assert got["result"] == result
        assert "entry" not in got


# gup


@pytest.mark.parametrize("level", PLACES)
@pytest.mark.parametrize("write", [0, 1])
def test_gup_fast_stops_at_special_entries_of_every_level(levels: Machine, level: str, write: int):
    pages: list[int] = []
    assert gup_fast(levels.mm, PLACES[level], PLACES[level] + PAGE, write, pages) == 0
    assert pages == []


@pytest.mark.parametrize(("level", "bits"), [("pmd", 0x200), ("pte", 0x200)])
def test_what_stops_gup_fast_is_the_special_bit(machine: Machine, level: str, bits: int):
    machine.map_each_level()
    found = machine.mm.tables.leaf(PLACES[level])
    assert found is not None
    table, index = found[1]
    table[index] &= ~bits
    with pytest.raises(Refused, match="is not special and maps no RAM"):
        gup_fast(machine.mm, PLACES[level], PLACES[level] + PAGE, 0, [])


def test_pins_of_a_pfnmap_fail_without_a_fault(levels: Machine):
    for op, result in (("vmsplice", "EFAULT"), ("process_vm_readv", "EFAULT"), ("process_vm_writev", "EFAULT")):
        for va in PLACES.values():
            got = levels("access", via=op, va=va, length=64)
            assert (got["result"], got["ret"], got["handle_mm_fault"]) == (result, -1, 0)
    got = levels("access", via="futex_wake", va=BASE, length=4)
    assert (got["result"], got["handle_mm_fault"]) == ("EFAULT", 0)


def test_gup_gets_what_is_there_without_locks_and_faults_the_rest_in(machine: Machine):
    machine.map_anonymous(BASE, 4, 0, 1)
    machine.map(BASE + 4 * PAGE, 2 * MIB)
    pages: list[int] = []
    assert gup_fast(machine.mm, BASE, BASE + 4 * PAGE, 1, pages) == 2
    machine.run.machine.mm.unpin_user_pages(machine.run.machine, pages)
    got = machine("access", via="process_vm_writev", va=BASE + 8, length=4 * PAGE)
    assert (got["result"], got["ret"], got["handle_mm_fault"]) == ("ok", 4 * PAGE - 8, 2)


def test_a_pinned_page_outlives_its_mapping(machine: Machine):
    machine.map_anonymous(BASE, 1, 0)
    pages: list[int] = []
    with mmap_lock(machine.mm):
        assert (
            machine.run.machine.mm.pin_user_pages_remote(machine.mm, BASE, 1, machine.run.machine.mm.FOLL_WRITE, pages)
            == 1
        )
    machine("munmap", addr=BASE, length=PAGE)
    assert machine.run.machine.mm.pfn_valid(machine.run.machine, pages[0])
    machine.run.machine.mm.unpin_user_pages(machine.run.machine, pages)
    assert not machine.run.machine.mm.pfn_valid(machine.run.machine, pages[0])


def test_fixup_user_fault_is_one_pass_and_none_without_permission(machine: Machine):
    mm = machine.run.machine.mm
    machine.map(BASE, 2 * MIB, prot="r")
    flags = mm.FAULT_FLAG_REMOTE | mm.FAULT_FLAG_WRITE
    machine.run.machine.trace.drain()
    assert mm.fixup_user_fault(machine.mm, BASE, flags) == (-EFAULT, False)
    assert mm.fixup_user_fault(machine.mm, BASE + GIB, mm.FAULT_FLAG_REMOTE) == (-EFAULT, False)
    assert [e.function for e in machine.run.machine.trace.drain() if isinstance(e, Call)] == ["fixup_user_fault"] * 2
    assert mm.fixup_user_fault(machine.mm, BASE, mm.FAULT_FLAG_REMOTE) == (0, False)
    assert _calls(machine, "handle_mm_fault") == 1


# folio_walk_start, vm_normal_page


@pytest.mark.parametrize("level", PLACES)
def test_no_folio_behind_special_entries(levels: Machine, level: str):
    with mmap_lock(levels.mm):
        assert levels.run.machine.mm.folio_walk_start(levels.vma(PLACES[level]), PLACES[level]) is None


def test_a_folio_walk_finds_pages_and_on_request_the_zero_page(machine: Machine):
    machine.map_anonymous(BASE, 3, 0)
    machine("touch", va=BASE + PAGE, access="read")
    walk = machine.run.machine.mm.folio_walk_start
    vma = machine.vma(BASE)
    with mmap_lock(machine.mm):
        found = walk(vma, BASE)
        assert found is not None
        assert found.page is not None
        assert machine.run.machine.mm.pfn_valid(machine.run.machine, found.page)
        assert walk(vma, BASE + PAGE) is None
        zero = walk(vma, BASE + PAGE, 2)
        assert zero is not None
        assert zero.page is None
        assert walk(vma, BASE + 2 * PAGE) is None
    with pytest.raises(Misuse, match="mmap_lock"):
        walk(vma, BASE)


def _cow_pfnmap(machine: Machine, pgoff: int, flags: int = VM_PFNMAP | VM_MAYWRITE) -> VmArea:
    return VmArea(machine.mm, BASE, BASE + 4 * MIB, flags, pgoff)


PFN = PHYS >> 12


@pytest.mark.parametrize("release", ["6.12.117", "7.3.4"])
def test_without_a_special_bit_vm_pgoff_tells_the_pfnmap_from_what_was_copied(release: str):
    machine = Machine(release, ARCH_HAS_PTE_SPECIAL="n")
    machine.map_anonymous(BASE + GIB, 1, 0)
    copied = machine.entry(BASE + GIB)
    page = machine.kernel.ops.pte_pfn(copied)
    raw = machine.kernel.ops.pfn_pte(PFN + 3, machine.kernel.ops.vm_get_page_prot(1))
    look = machine.run.machine.mm.vm_normal_page
    cow = _cow_pfnmap(machine, PFN)
    assert look(cow, BASE + 3 * PAGE, raw) is None
    assert look(cow, BASE + 3 * PAGE, copied) == page
    assert look(_cow_pfnmap(machine, PFN, VM_PFNMAP | VM_MAYWRITE | VM_SHARED), BASE, copied) is None
    mixed = _cow_pfnmap(machine, 0, VM_MIXEDMAP | VM_MAYWRITE)
    assert (look(mixed, BASE, raw), look(mixed, BASE, copied)) == (None, page)


@pytest.mark.parametrize("release", ["6.12.117", "7.3.4"])
def test_with_a_special_bit_the_vma_is_not_asked_for_its_pgoff(release: str):
    machine = Machine(release)
    ops = machine.kernel.ops
    machine.map_anonymous(BASE + GIB, 1, 0)
    special = ops.pte_mkspecial(ops.pfn_pte(PFN, ops.vm_get_page_prot(1)))
    copied = machine.entry(BASE + GIB)
    look = machine.run.machine.mm.vm_normal_page
    for pgoff in (PFN, 0):
        assert look(_cow_pfnmap(machine, pgoff), BASE, special) is None
        assert look(_cow_pfnmap(machine, pgoff), BASE, copied) == ops.pte_pfn(copied)


def test_an_entry_that_is_no_page_and_not_special_is_complained_about(machine: Machine):
    ops = machine.kernel.ops
    bad = ops.pfn_pte(PFN, ops.vm_get_page_prot(1))
    machine.run.machine.trace.drain()
    assert machine.run.machine.mm.vm_normal_page(VmArea(machine.mm, BASE, BASE + PAGE, 0), BASE, bad) is None
    assert ["Bad page map" in e.text for e in machine.run.machine.trace.drain()] == [True]


@pytest.mark.parametrize(
    ("release", "phys", "page"),
    [
        pytest.param("posted-v2", 64 * MIB, True, id="posted, below the end of RAM"),
        pytest.param("posted-v2", PHYS, False, id="posted, above all RAM"),
        pytest.param("6.12.117", 64 * MIB, False, id="merged"),
        pytest.param("7.3.4", 64 * MIB, False, id="by level"),
    ],
)
def test_the_posted_pmd_look_up_takes_a_special_leaf_of_a_cow_mapping_for_a_page(release: str, phys: int, page: bool):
    machine = Machine(release)
    machine.run.machine.phys.reserve(0, GIB)
    machine.run.machine.phys.alloc_page()
    ops = machine.kernel.ops
    leaf = ops.pmd_mkspecial(ops.pmd_mkhuge(ops.pfn_pmd(phys >> 12, ops.vm_get_page_prot(1))))
    look = machine.run.machine.mm.vm_normal_page_pmd
    assert look(_cow_pfnmap(machine, 0), BASE, leaf) == (phys >> 12 if page else None)
    assert look(_cow_pfnmap(machine, phys >> 12), BASE, leaf) is None
    assert look(_cow_pfnmap(machine, 0, VM_PFNMAP | VM_SHARED), BASE, leaf) is None


def test_vm_normal_page_pud_comes_with_the_common_form():
    for release in ("6.12.117", "7.3.4"):
        machine = Machine(release)
        machine.map_each_level()
        look = machine.run.machine.mm.vm_normal_page_pud
        if release == "6.12.117":
            with pytest.raises(Refused, match="vm-normal-page-by-level"):
                look(machine.vma(BASE), BASE, machine.entry(BASE))
        else:
            assert look(machine.vma(BASE), BASE, machine.entry(BASE)) is None


# copies of the kernel


@pytest.mark.parametrize(("via", "write"), [("write_syscall", False), ("read_syscall", True), ("write_tmpfs", False)])
def test_the_kernels_own_access_faults_a_huge_leaf_in_by_one_pass(machine: Machine, via: str, write: bool):
    machine.map()
    got = machine("access", via=via, va=BASE + 5, length=8)
    fault = {"order": 18, "ret": "NOPAGE", "va": hex(BASE), "write": write, "vma_lock": False}
    assert (got["ret"], got["faults"], got["handle_mm_fault"]) == (8, [fault], 1)
    dirty = int(got["entry"]["value"], 16) & 0x40
    assert bool(dirty) == write


def test_a_copy_goes_on_over_leaves(machine: Machine):
    machine.map(length=4 * MIB)
    got = machine("access", via="read_syscall", va=BASE + 2 * MIB - 16, length=64)
    assert [f["order"] for f in got["faults"]] == [18, 9, 9]
    assert got["ret"] == 64


def _bad_places(machine: Machine) -> Iterator[int]:
    machine.map(BASE, 2 * MIB, prot="none")
    yield BASE
    yield BASE + GIB


def test_a_copy_without_vma_or_permission_fails_without_a_fault(machine: Machine):
    for va in _bad_places(machine):
        for via in ("write_syscall", "read_syscall", "write_tmpfs"):
            got = machine("access", via=via, va=va, length=16)
            assert (got["result"], got["ret"], got["faults"], got["handle_mm_fault"]) == ("EFAULT", -1, [], 0)


def test_a_copy_into_a_leaf_that_was_made_clean_never_returns(machine: Machine):
    # FINDINGS F22: soft-dirty is cleared, the next write wants a fault, and the driver's handler changes nothing.
    machine.map()
    machine("touch", va=BASE, access="write")
    machine("clear_refs", value=4)
    machine("mprotect", addr=BASE, length=8 * GIB, prot="r")
    machine("mprotect", addr=BASE, length=8 * GIB, prot="rw")
    got = machine("access", via="read_syscall", va=BASE, length=16)
    assert got["result"] == "HANG"
    assert "ret" not in got
    assert {(f["order"], f["ret"]) for f in got["faults"]} == {(18, "NOPAGE")}


# move_pages, get_mempolicy, userfaultfd, arguments


def test_numa_calls_see_no_page_in_a_pfnmap_and_do_in_anonymous_memory(machine: Machine):
    machine.map(length=2 * MIB)
    machine("touch", va=BASE, access="write")
    machine.map_anonymous(BASE + GIB, 4, 0)
    machine("touch", va=BASE + GIB + PAGE, access="read")
    status = [machine("move_pages", va=va)["status"] for va in (BASE, BASE + GIB, BASE + GIB + PAGE, BASE + 2 * GIB)]
    assert status == ["ENOENT", "node", "EFAULT", "EFAULT"]
    assert machine("move_pages", va=BASE, node=0)["status"] == "EFAULT"
    assert machine("get_mempolicy", va=BASE)["result"] == "EFAULT"
    assert (got := machine("get_mempolicy", va=BASE + GIB + 3 * PAGE))["result"] == "ok"
    assert got["handle_mm_fault"] == 1


def test_before_folio_walk_a_prot_none_page_is_none_and_another_is_bad():
    # Run on Debian's 6.1.192.
    machine = Machine("6.1.192")
    machine.map(length=2 * MIB)
    machine("touch", va=BASE, access="read")
    assert machine("move_pages", va=BASE)["status"] == "EFAULT"
    machine("mprotect", addr=BASE, length=2 * PAGE, prot="none")
    assert machine("move_pages", va=BASE)["status"] == "ENOENT"


def test_userfaultfd_does_not_take_a_pfnmap(machine: Machine):
    machine.map(length=2 * MIB)
    for mode in ("missing", "wp"):
        assert machine("userfaultfd_register", addr=BASE, length=PAGE, mode=mode)["result"] == "EINVAL"
    assert machine("userfaultfd_register", addr=BASE + GIB, length=PAGE, mode="wp")["result"] == "EINVAL"
    assert machine("userfaultfd_register", addr=BASE + 1, length=PAGE, mode="wp")["result"] == "EINVAL"


def test_an_unknown_way_of_access_is_an_error_with_the_nearest_name(machine: Machine):
    with pytest.raises(Unknown, match="vmsplice"):
        machine("access", via="vmsplit", va=BASE, length=8)


def test_a_hole_answers_as_system_calls_do(machine: Machine):
    ways = {"process_vm_readv": "EFAULT", "proc_mem_read": "EIO", "vmsplice": "EFAULT", "futex_wake": "EFAULT"}
    for via, result in ways.items():
        assert machine("access", via=via, va=BASE, length=8)["result"] == result
