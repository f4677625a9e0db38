"""What the findings of riscv64 and powerpc64 (F17, F18) do to a mapping: from helpers' values, and not recorded."""

from typing import Any

import pytest

from pfnmap import Device, DeviceBar, Refused
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.plan import Request, plan
from pfnmap.run import Run

GIB = 1 << 30
VA, PHYS = 0x10_0000_0000, 0x40_0000_0000


def mapped(arch: str, bar_size: int, cpu: dict[str, Any]) -> Run:
    """A BAR of riscv64 or powerpc64 7.3.4, mapped congruently and not touched yet."""
    defaults = {"TRANSPARENT_HUGEPAGE": "y", "VFIO_PCI": "y"}
    kernel = Kernel.link(arch, ["vfio_pci"], defaults=defaults, release="7.3.4", cpu=cpu)
    run = Run(kernel, [Device("d", "0000:00:01.0", {2: DeviceBar(2, bar_size, PHYS)})])
    arguments = {"device": "d", "bar": 2, "length": bar_size, "addr": VA, "fixed": True, "prot": "rw", "shared": True}
    assert run.step(Step("mmap", arguments)).result == "ok"
    return run


@pytest.mark.parametrize("mode", ["sv39", "sv48", "sv57"])
@pytest.mark.parametrize("last", ["mprotect", "munmap"])
def test_a_1g_leaf_that_was_prot_none_is_a_bad_pud_to_what_comes_next(mode: str, last: str):
    run = mapped("riscv64", GIB, {"mode": mode, "svpbmt": False})
    run.step(Step("touch", {"va": VA, "access": "read"}))
    silenced = run.step(Step("mprotect", {"addr": VA, "length": GIB, "prot": "none"})).as_json()
    assert (silenced["result"], silenced.get("messages", [])) == ("ok", [])
    arguments = {"addr": VA, "length": GIB} | ({"prot": "rw"} if last == "mprotect" else {})
    restored = run.step(Step(last, arguments)).as_json()
    # The leaf: 0x4000000000 >> 2, special, accessed, and PAGE_NONE.
    assert restored["messages"] == ["mm/pgtable-generic.c: bad pud *(0000001000000162)"]
    assert restored["result"] == "ok"


def test_a_16g_block_under_hash_is_refused_by_the_helper_that_would_kill_the_kernel():
    run = mapped("powerpc64", 16 * GIB, {"mmu": "hash"})
    with pytest.raises(Refused, match="pfn_pud"):
        run.step(Step("touch", {"va": VA, "access": "read"}))


def test_a_smaller_block_under_hash_gets_16m_leaves_and_a_table_behind_each():
    run = mapped("powerpc64", 8 * GIB, {"mmu": "hash"})
    touched = run.step(Step("touch", {"va": VA, "access": "read"})).as_json()
    assert [(fault["order"], fault["ret"]) for fault in touched["faults"]] == [(18, "FALLBACK"), (8, "NOPAGE")]
    # A table of PUDs and one of PMDs (1024 entries each), and the deposited one of PTEs (256).
    assert touched["table_bytes"] == 1024 * 8 + 1024 * 8 + 256 * 8


def test_the_table_behind_a_leaf_goes_where_the_leaf_goes():
    size, elsewhere, deposited = 32 << 20, VA + GIB, 256 * 8
    run = mapped("powerpc64", size, {"mmu": "hash"})

    def grown(op: str, **arguments: Any) -> int:
        step = run.step(Step(op, arguments))
        assert step.result == "ok"
        return step.table_bytes

    assert grown("touch", va=VA, access="read", length=size) == 2 * 1024 * 8 + 2 * deposited
    flags = ["MAYMOVE", "FIXED"]
    assert grown("mremap", addr=VA, old_len=size, new_len=size, new_addr=elsewhere, flags=flags) == 0
    assert grown("mprotect", addr=elsewhere, length=1 << 16, prot="r") == -deposited
    assert grown("munmap", addr=elsewhere, length=size) == -2 * 1024 * 8 - deposited


def test_a_plan_refuses_leaves_that_powerpc_hash_would_die_of() -> None:
    kernel = Kernel.link(
        "powerpc64",
        ["vfio_pci"],
        release="7.3.4",
        cpu={"mmu": "hash"},
        given={"PPC_64K_PAGES": "y", "TRANSPARENT_HUGEPAGE": "y"},
    )
    with pytest.raises(Refused, match="pfn_pud"):
        plan(kernel, [Request(bar=0, phys=0x40_0000_0000, bar_size=128 << 30, va=0x1000_0000_0000)])
