"""At which level a guest's faults on a pfnmap end: x86_64 as recorded (group kvm, `level.*` and `edge.*`), the others
worked out by hand from the sources that their modules name."""

from __future__ import annotations

from typing import Any

import pytest
from virtual_machine import BASE, GIB, GPA, KIB, MIB, PAGE, PHYS, SIZE, Machine

from pfnmap import Refused
from pfnmap.plugins import Registry

INSTALLED = Registry().names("arch")


def on(arch: str) -> pytest.MarkDecorator:
    """Skip where an architecture is not installed: this plugin is tested with any that is."""
    return pytest.mark.skipif(arch not in INSTALLED, reason=f"{arch} is not installed")


x86_64, arm64, riscv64, powerpc64 = (on(a) for a in ("x86_64", "arm64", "riscv64", "powerpc64"))
s390, loongarch64 = on("s390"), on("loongarch64")


@x86_64
@pytest.mark.parametrize(
    ("slot", "leaves"),
    [
        pytest.param({}, {"pud": 4}, id="all congruent: as large as the process's"),
        pytest.param({"gpa": GPA + 2 * MIB}, {"pmd": 2048}, id="guest address off modulo 1G"),
        pytest.param({"gpa": GPA + 4 * KIB, "length": 4 * MIB}, {"pte": 1024}, id="off modulo 2M"),
        pytest.param({"va": BASE + MIB, "gpa": GPA + MIB, "length": 4 * MIB}, {"pmd": 1, "pte": 512}, id="slot's ends"),
        pytest.param({"length": GIB - PAGE}, {"pmd": 511, "pte": 511}, id="the last block of each size does not fit"),
        pytest.param({"length": 2 * MIB, "log": True}, {"pte": 512}, id="a dirty log"),
    ],
)
def test_x86_maps_as_large_as_slot_and_process_allow(slot: dict[str, Any], leaves: dict[str, int]):
    machine = Machine()
    machine.map()
    assert machine.memslot(**slot) == "ok"
    got = machine.guest(slot.get("gpa", GPA), slot.get("length", SIZE))
    assert (got["result"], got["leaves"], got["guest_faults"]) == ("ok", leaves, sum(leaves.values()))


@x86_64
def test_x86_reads_the_level_from_the_process_and_not_from_the_sizes():
    machine = Machine()
    machine.map(BASE + PAGE, 4 * MIB, offset=0)  # base pages in the process, whatever the slot allows
    assert machine.memslot(va=BASE + 2 * MIB, length=2 * MIB) == "ok"
    assert machine.guest(length=2 * MIB)["leaves"] == {"pte": 512}


@x86_64
def test_a_leaf_maps_the_start_of_its_block_wherever_the_guest_comes_in():
    machine = Machine()
    machine.map()
    machine.memslot()
    got = machine.guest(GPA + GIB + 5 * PAGE, PAGE)
    assert got["stage2"] == [
        {"gpa": hex(GPA + GIB), "hpa": hex(PHYS + GIB), "level": "pud", "count": 1, "writable": True, "x": True}
    ]


@x86_64
def test_before_huge_pfnmaps_all_is_base_pages():
    machine = Machine(release="6.1.192")
    machine.map(length=2 * MIB)
    machine.memslot(length=2 * MIB)
    got = machine.guest(length=2 * MIB)
    assert (got["leaves"], got["guest_faults"]) == ({"pte": 512}, 512)
    assert "follow_pfnmap_start" not in got["calls"]
    assert got["follow_returns"] == {"ok": 512, "EINVAL": 512}


@arm64
@pytest.mark.parametrize(
    ("release", "pages", "slot", "leaves"),
    [
        pytest.param("6.12.117", "4K", {}, {"pmd": 2048}, id="blocks of 2M"),
        pytest.param("6.12.117", "64K", {}, {"pmd": 8}, id="blocks of 512M"),
        pytest.param("6.12.117", "4K", {"gpa": GPA + PAGE, "length": 2 * MIB}, {"pte": 512}, id="not congruent"),
        pytest.param("6.12.117", "4K", {"length": 3 * MIB}, {"pmd": 1, "pte": 256}, id="the slot ends in a block"),
        pytest.param("6.1.192", "4K", {"length": 2 * MIB}, {"pte": 512}, id="devices were left out"),
    ],
)
def test_arm64_maps_blocks_of_the_pmd_size_at_most(
    release: str, pages: str, slot: dict[str, Any], leaves: dict[str, int]
):
    machine = Machine("arm64", release, page_size=pages)
    machine.map()
    assert machine.memslot(**slot) == "ok"
    assert machine.guest(slot.get("gpa", GPA), slot.get("length", SIZE))["leaves"] == leaves


@arm64
@pytest.mark.parametrize(
    ("offset", "va", "slot", "leaves"),
    [
        pytest.param(0, BASE, {}, {"pud": 4}, id="1G where vm_pgoff and address are congruent"),
        pytest.param(0, BASE + 2 * MIB, {"length": GIB}, {"pmd": 512}, id="2M where they are modulo that"),
        pytest.param(0, BASE + PAGE, {"length": 2 * MIB}, {"pte": 512}, id="pages else"),
        pytest.param(0, BASE, {"gpa": GPA + 2 * MIB}, {"pmd": 2048}, id="guest address off modulo 1G"),
        pytest.param(0, BASE, {"length": GIB + 3 * MIB}, {"pud": 1, "pmd": 1, "pte": 256}, id="the slot's end"),
    ],
)
def test_arm64_before_the_change_went_by_vm_pgoff(offset: int, va: int, slot: dict[str, Any], leaves: dict[str, int]):
    machine = Machine("arm64", "6.12.94")
    machine.map(va, offset=offset)
    slot = {"va": va, "gpa": GPA + va - BASE, "length": SIZE, **slot}
    assert machine.memslot(**slot) == "ok"
    got = machine.guest(slot["gpa"], slot["length"])
    assert (got["leaves"], got["guest_faults"]) == (leaves, sum(leaves.values()))


@arm64
def test_arm64_before_the_change_mapped_blocks_whatever_the_process_has():
    machine = Machine("arm64", "6.1.150", thp="never")
    machine.map(length=2 * GIB)
    machine.memslot(length=2 * GIB)
    got = machine.guest(GPA + 3 * PAGE, PAGE)
    assert got["stage2"] == [
        {"gpa": hex(GPA), "hpa": hex(PHYS), "level": "pud", "count": 1, "writable": True, "x": True}
    ]
    assert [(fault["order"], fault["va"]) for fault in got["faults"]] == [(0, hex(BASE))]  # the block's start


@arm64
@pytest.mark.parametrize(("release", "result"), [("6.12.117", "LOOP"), ("6.12.94", "ok")])
def test_arm64_refaults_for_ever_where_the_process_has_a_block_without_access(release: str, result: str):
    machine = Machine("arm64", release)
    machine.map(length=2 * MIB)
    machine("touch", va=BASE, access="read")
    machine("mprotect", addr=BASE, length=2 * MIB, prot="none")
    machine.memslot(length=2 * MIB)
    got = machine.guest(length=PAGE)
    assert (got["result"], got["guest_faults"]) == (result, 1)


@arm64
def test_arm64_executes_nothing_from_a_device():
    machine = Machine("arm64")
    machine.map()
    machine.memslot()
    assert machine.guest(length=PAGE, access="execute")["result"] == "ENOEXEC"
    assert machine.guest(GPA + SIZE, PAGE, access="execute")["result"] == "ENOEXEC"


@riscv64
def test_riscv_maps_pfnmaps_with_the_slot_to_where_vm_pgoff_points():
    # The kit's driver keeps the offset in the BAR in vm_pgoff, not the PFN, as vfio-pci does since 6.10.
    machine = Machine("riscv64", "6.12.117")
    machine.map(length=2 * MIB, offset=64 * MIB)
    made = machine("kvm.memslot", slot=0, gpa=GPA, va=BASE, length=2 * MIB)
    assert (made["result"], made["leaves"], made["faults"]) == ("ok", {"pte": 512}, [])
    got = machine.guest(length=2 * MIB, access="write")
    assert (got["result"], got["guest_faults"]) == ("ok", 0)
    run = {"gpa": hex(GPA), "hpa": hex(64 * MIB), "level": "pte", "count": 512, "writable": True, "x": True}
    assert got["stage2"] == [run]


@riscv64
def test_riscv_puts_every_pfnmap_of_a_slot_at_its_start():
    machine = Machine("riscv64", "6.12.117")
    machine.map(length=2 * MIB)
    machine.map(BASE + 2 * MIB, MIB, offset=64 * MIB)
    machine.memslot(length=3 * MIB)
    at = {run["gpa"]: run["hpa"] for run in machine.guest(length=2 * MIB)["stage2"]}
    assert at == {hex(GPA): hex(64 * MIB), hex(GPA + MIB): hex(MIB)}


@riscv64
@pytest.mark.parametrize(
    ("release", "slot", "leaves"),
    [
        pytest.param("6.19", {"length": 2 * MIB}, {"pte": 512}, id="base pages before 7.0"),
        pytest.param("7.3.4", {"length": GIB}, {"pmd": 512}, id="2M, never 1G"),
        pytest.param("7.3.4", {"length": 3 * MIB}, {"pmd": 1, "pte": 256}, id="the slot ends in a block"),
        pytest.param("7.3.4", {"gpa": GPA + PAGE, "length": 2 * MIB}, {"pte": 512}, id="not congruent"),
    ],
)
def test_riscv_later_maps_by_faults(release: str, slot: dict[str, Any], leaves: dict[str, int]):
    machine = Machine("riscv64", release)
    machine.map()
    assert machine.memslot(**slot) == "ok"
    got = machine.guest(slot.get("gpa", GPA), slot["length"])
    assert (got["leaves"], got["guest_faults"]) == (leaves, sum(leaves.values()))
    assert got["stage2"][0]["hpa"] == hex(PHYS)


@riscv64
def test_riscv_unmaps_again_what_a_refused_slot_had_mapped():
    machine = Machine("riscv64", "6.12.117")
    machine.map(length=2 * MIB)
    machine.map(BASE + 2 * MIB, MIB, offset=64 * MIB, prot="r")
    made = machine("kvm.memslot", slot=0, gpa=GPA, va=BASE, length=3 * MIB)
    assert (made["result"], made["leaves"]) == ("EPERM", {})


@s390
def test_s390_maps_base_pages_in_tables_of_its_own():
    machine = Machine("s390", "7.3.4")
    machine.map()
    assert machine.memslot(length=MIB + PAGE) == "EINVAL"
    assert machine.memslot(va=BASE + PAGE, length=MIB) == "EINVAL"
    assert machine.memslot(length=MIB) == "ok"
    assert machine.guest(length=MIB)["leaves"] == {"pte": 256}
    assert machine.guest(GPA + MIB, PAGE)["result"] == "PGM_ADDRESSING"
    machine.memslot(slot=1, gpa=0, length=MIB, readonly=True)
    assert machine.guest(0, PAGE, access="write")["result"] == "EOPNOTSUPP"


@loongarch64
def test_loongarch_maps_a_read_for_a_write_that_does_not_look_at_the_process():
    machine = Machine("loongarch64", "6.12.117")
    machine.map()
    assert machine.memslot() == "ok"
    page = machine.kernel.geometry.PAGE_SIZE
    read = machine.guest(length=page)
    assert (read["stage2"][0]["writable"], read["guest_faults"]) == (False, 1)
    written = machine.guest(length=page, access="write")
    assert (written["stage2"][0]["writable"], written["guest_faults"], written["calls"]) == (True, 1, {})
    assert machine.guest(GPA + SIZE, page)["result"] == "MMIO"
    machine("munmap", addr=BASE, length=SIZE)
    assert machine.guest(length=page)["result"] == "MMIO"  # whatever fails


@powerpc64
@pytest.mark.parametrize(
    ("slot", "leaves"),
    [
        pytest.param({}, {"pud": 4}, id="as large as the process's"),
        pytest.param({"length": 2 * MIB}, {"pud": 1}, id="beyond the end of the slot, too"),
        pytest.param({"gpa": GPA + 2 * MIB, "length": 2 * MIB}, {"pte": 32}, id="off modulo 1G: nothing between"),
        pytest.param({"length": 2 * MIB, "log": True}, {"pte": 32}, id="a dirty log"),
    ],
)
def test_powerpc_takes_the_processs_level_or_base_pages(slot: dict[str, Any], leaves: dict[str, int]):
    machine = Machine("powerpc64", "7.3.4", page_size="64K")
    machine.map()
    assert machine.memslot(**slot) == "ok"
    got = machine.guest(slot.get("gpa", GPA), slot.get("length", SIZE))
    assert (got["leaves"], got["guest_faults"]) == (leaves, sum(leaves.values()))


@pytest.mark.parametrize(
    ("arch", "cpu", "text"),
    [
        pytest.param("s390", {}, "kvm: s390's guests share the page tables of the process before", marks=s390),
        pytest.param("powerpc64", {"mmu": "hash"}, "kvm: powerpc64 with the hash MMU is not modelled", marks=powerpc64),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(arch: str, cpu: dict[str, Any], text: str):
    with pytest.raises(Refused, match=f"^{text}"):
        Machine(arch, "6.12.117", cpu=cpu).memslot()


@pytest.mark.parametrize("arch", [arch for arch in INSTALLED if arch != "sparc64"])  # it has no KVM
def test_every_architecture_maps_what_the_process_has_and_nothing_else(arch: str):
    machine = Machine(arch, "7.3.4")
    machine.map()
    page = machine.kernel.geometry.PAGE_SIZE
    assert machine.memslot(length=256 * page) == "ok"
    got = machine.guest(length=256 * page)
    assert got["result"] == "ok"
    assert {int(run["hpa"], 16) - int(run["gpa"], 16) for run in got["stage2"]} == {PHYS - GPA}
