"""mm/memory.c on the kit's own architecture: write faults on large leaves, and remap_pfn_range."""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL
from typing import Any, ClassVar, Literal, NamedTuple, cast

import pytest

from pfnmap import Device, DeviceBar, Driver, File, VmArea, VmFault, VmOperations
from pfnmap.contract.fault import FAULT_FLAG_VMA_LOCK, FAULT_FLAG_WRITE
from pfnmap.contract.vma import MmStruct
from pfnmap.errors import Refused
from pfnmap.kernel import Kernel
from pfnmap.mm.boot import boot
from pfnmap.mm.fault import user_access
from pfnmap.mm.huge_memory import thp_vma_allowable_order
from pfnmap.mm.memory import handle_mm_fault
from pfnmap.mm.mmap import do_mmap
from pfnmap.release import parse_release
from pfnmap.testing.plain import ACCESSED, DIRTY, Plain
from pfnmap.testing.raw_walk import translate
from pfnmap.trace import Fault, KernelDied
from pfnmap.vm_flags import (
    VM_DONTDUMP,
    VM_DONTEXPAND,
    VM_HUGEPAGE,
    VM_IO,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)

K, M, G = 1 << 10, 1 << 20, 1 << 30
PHYS, VA = 64 * G, 128 * G
ORDERS = {"pte": 0, "pmd": 9, "pud": 18}


class ReadOnlyFirst(Driver):
    """Maps memory with large leaves; a write fault on one is answered as `on_write` says."""

    name: ClassVar[str] = "read_only_first"
    on_write: ClassVar[str] = "fallback"

    def probe(self, device: Device) -> File:
        return self.open(device.bars[0])

    def mmap_offset(self, bar: int, offset: int) -> int:
        return offset

    def mmap(self, file: File, vma: VmArea) -> int:
        vma.vm_flags |= VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP
        vma.vm_ops = VmOperations(fault=lambda vmf: self.fault(vmf, 0), huge_fault=self.fault)
        return 0

    def fault(self, vmf: VmFault, order: int) -> int:
        mm, size = self.machine.mm, (4 * K) << order
        address = vmf.address & -size
        if address < vmf.vma.vm_start or address + size > vmf.vma.vm_end:
            return mm.VM_FAULT_FALLBACK
        if order and vmf.write and self.on_write == "fallback":
            return mm.VM_FAULT_FALLBACK
        pfn = (PHYS + address - vmf.vma.vm_start) >> 12
        insert: Callable[..., int] = {9: mm.vmf_insert_pfn_pmd, 18: mm.vmf_insert_pfn_pud}.get(order)  # type: ignore
        return insert(vmf, pfn, vmf.write) if order else mm.vmf_insert_pfn(vmf.vma, address, pfn)


class Upgrades(ReadOnlyFirst):
    name: ClassVar[str] = "upgrades"
    on_write: ClassVar[str] = "insert"


class Mapping(NamedTuple):
    """A mapping of a process of its own, and what happened in it."""

    mm: MmStruct
    vma: VmArea

    def level(self, offset: int = 0) -> str:
        """The level of the leaf at an offset, whose address has to be the one that was mapped there."""
        found = translate(self.mm, VA + offset)
        assert found is not None
        return found.level

    def faults(self) -> list[tuple[int, bool]]:
        """(order, write) of the driver's faults since this was asked last."""
        return [(e.order, e.write) for e in self.mm.machine.trace.drain() if isinstance(e, Fault)]


def mapping(driver: type[Driver], length: int, shared: bool, release: Any = "6.12.117") -> Mapping:
    kernel = Kernel.link(Plain, [driver], defaults={"TRANSPARENT_HUGEPAGE": "y"}, release=release, thp="always")
    machine = boot(kernel, [(PHYS, 4 * G)])
    module = cast("Driver", machine.modules[driver.name])
    file = module.probe(Device("d", "0000:00:01.0", {0: DeviceBar(0, 4 * G, PHYS)}))
    mm = MmStruct(machine)
    assert do_mmap(mm, file, VA, length, VM_READ | VM_WRITE, 0, fixed=True, shared=shared) == VA
    (vma,) = mm
    return Mapping(mm, vma)


def read_only(driver: type[Driver], length: int) -> Mapping:
    """Map memory shared, and as a driver that wants to know of the first write: what a load inserts is read-only."""
    on = mapping(driver, length, shared=True)
    on.vma.vm_page_prot = on.mm.kernel.ops.vm_get_page_prot(VM_READ | VM_SHARED)
    assert user_access(on.mm, VA, False).result == "ok"
    return on


def stored(on: Mapping, offset: int = 0) -> str:
    return user_access(on.mm, VA + offset, True).result


@pytest.mark.parametrize(("length", "level"), [(2 * M, "pmd"), (G, "pud")])
def test_a_read_fault_on_a_large_leaf_asks_no_driver_whatever_other_flags_it_has(length: int, level: str):
    on = read_only(ReadOnlyFirst, length)
    assert on.faults()[-1] == (ORDERS[level], False)
    assert handle_mm_fault(on.vma, VA, FAULT_FLAG_VMA_LOCK) == 0
    assert (on.level(), on.faults()) == (level, [])


@pytest.mark.parametrize(("length", "level"), [(2 * M, "pmd"), (G, "pud")])
def test_a_driver_that_falls_back_on_a_write_loses_its_large_leaf(length: int, level: str):
    on = read_only(ReadOnlyFirst, length)
    assert (on.level(), on.faults()[-1]) == (level, (ORDERS[level], False))
    handle_mm_fault(on.vma, VA + 8 * K, FAULT_FLAG_WRITE)
    faults = on.faults()
    assert faults[0] == (ORDERS[level], True)
    assert faults[-1][0] == 0
    assert on.level(8 * K) == "pte"
    assert translate(on.mm, VA) is None


@pytest.mark.parametrize(("length", "level"), [(2 * M, "pmd"), (G, "pud")])
def test_a_driver_that_answers_a_write_keeps_its_large_leaf(length: int, level: str):
    on = read_only(Upgrades, length)
    on.faults()
    assert stored(on) == "ok"
    assert (on.level(), on.faults()) == (level, [(ORDERS[level], True)])


@pytest.mark.parametrize(("length", "level"), [(2 * M, "pmd"), (G, "pud")])
def test_a_read_fault_on_a_large_leaf_marks_it_accessed_and_not_dirty(length: int, level: Literal["pmd", "pud"]):
    on = read_only(ReadOnlyFirst, length)
    table, index = on.mm.tables.alloc(level, VA)
    table[index] &= ~(ACCESSED | DIRTY)
    before = table[index]
    assert handle_mm_fault(on.vma, VA, 0) == 0
    assert table[index] == before | ACCESSED


@pytest.mark.parametrize(("length", "level"), [(4 * K, "pfn_prot"), (2 * M, "pfn_pmd"), (G, "pfn_pud")])
def test_a_driver_that_inserts_into_a_private_mapping_kills_the_kernel(length: int, level: str):
    on = mapping(ReadOnlyFirst, length, shared=False)
    with pytest.raises(KernelDied, match=f"vmf_insert_{level}"):
        handle_mm_fault(on.vma, VA, 0)


@pytest.mark.parametrize(
    ("thp", "flags", "allowed"),
    [
        ("always", VM_PFNMAP, True),
        ("always", 0, False),
        ("always", VM_PFNMAP | VM_NOHUGEPAGE, False),
        ("madvise", VM_PFNMAP, False),
        ("madvise", VM_PFNMAP | VM_HUGEPAGE, True),
        ("never", VM_PFNMAP | VM_HUGEPAGE, False),
    ],
)
def test_sysfs_and_advice_allow_large_leaves_of_a_pfnmap(
    thp: Literal["always", "madvise", "never"], flags: int, allowed: bool
):
    on = mapping(ReadOnlyFirst, 2 * M, shared=True, release="6.12.94")
    on.mm.machine.thp = cast("Any", thp)
    on.vma.vm_flags = on.vma.vm_flags & ~VM_PFNMAP | flags
    assert thp_vma_allowable_order(on.vma) is allowed


class Remaps(ReadOnlyFirst):
    """Maps at once a part of the vma, from `first` on, to memory from `phys` on."""

    name: ClassVar[str] = "remaps"
    first: ClassVar[int] = 0
    less: ClassVar[int] = 0
    phys: ClassVar[int] = PHYS
    returned: ClassVar[list[int]] = []

    def mmap(self, file: File, vma: VmArea) -> int:
        got = self.machine.mm.remap_pfn_range(
            vma, vma.vm_start + self.first, self.phys >> 12, vma.size - self.first - self.less, vma.vm_page_prot
        )
        self.returned.append(got)
        return 0


def test_a_private_mapping_is_remapped_as_a_whole_and_its_offset_tells_the_pfn():
    on = mapping(type("Whole", (Remaps,), {"name": "whole"}), 16 * K, shared=False)
    assert (on.vma.vm_pgoff, on.vma.vm_flags & (VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP)) == (
        PHYS >> 12,
        VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP,
    )
    assert [translate(on.mm, VA + offset).physical for offset in range(0, 16 * K, 4 * K)] == [  # type: ignore[union-attr]
        PHYS + offset for offset in range(0, 16 * K, 4 * K)
    ]


@pytest.mark.parametrize("part", [{"first": 4 * K}, {"less": 4 * K}])
@pytest.mark.parametrize("shared", [False, True])
def test_a_part_of_a_private_mapping_is_not_remapped(part: dict[str, int], shared: bool):
    driver: Any = type("Part", (Remaps,), {"name": "part", "returned": [], **part})
    on = mapping(driver, 16 * K, shared)
    assert driver.returned == [0 if shared else -EINVAL]
    assert (translate(on.mm, VA + 4 * K) is not None) == shared
    assert on.vma.vm_pgoff == 0


@pytest.mark.parametrize(
    ("off", "levels"), [(0, ["pmd", "pmd", "pte"]), (4 * K, ["pte", "pte", "pte"]), (1 * M, ["pte", "pte", "pte"])]
)
def test_remapped_blocks_are_large_where_they_are_aligned_and_whole(off: int, levels: list[str]):
    # remap-pfn-range-pmd, by the letter of the series: nothing else is known of it.
    release = parse_release("7.3.4", ("remap-pfn-range-pmd",))
    driver: Any = type("Blocks", (Remaps,), {"name": "blocks", "phys": PHYS + off})
    on = mapping(driver, 4 * M + 12 * K, True, release)
    assert [on.level(offset) for offset in (0, 2 * M, 4 * M)] == levels
    for offset in range(0, 4 * M + 12 * K, 4 * K):
        found = translate(on.mm, VA + offset)
        assert found is not None
        assert found.physical == PHYS + off + offset


def test_remapped_memory_that_begins_within_a_block_has_base_pages_up_to_the_next():
    release = parse_release("7.3.4", ("remap-pfn-range-pmd",))
    driver: Any = type("Within", (Remaps,), {"name": "within", "first": 1 * M, "phys": PHYS + 1 * M})
    on = mapping(driver, 4 * M, True, release)
    assert translate(on.mm, VA) is None
    assert [on.level(offset) for offset in (1 * M, 2 * M, 4 * M - 1)] == ["pte", "pmd", "pmd"]
    for offset in range(1 * M, 4 * M, 4 * K):
        assert cast("Any", translate(on.mm, VA + offset)).physical == PHYS + offset


def test_more_ptes_than_a_process_can_hold_are_refused_by_name(monkeypatch):
    monkeypatch.setattr("pfnmap.mm.memory.PTES", 4)
    with pytest.raises(Refused, match="insert_pfns: 5 PTEs, where 4 are the most"):
        mapping(type("Many", (Remaps,), {"name": "many"}), 20 * K, shared=True)
