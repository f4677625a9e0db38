"""The emulated MMU as the judge of three architectures, and the judge judged: wrong plugins that it has to catch."""

import sys
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from pfnmap import MmuCpu, hookimpl
from pfnmap.contract.arch import Arch
from pfnmap.plugins import Registry
from pfnmap.testing import mmu
from pfnmap.testing.arch_subject import ArchSubject
from pfnmap.testing.bar_driver import BarDriver
from pfnmap.testing.check import Result, cases, run
from pfnmap.testing.machines import Machine, arch_machines, link

try:
    import unicorn
except ImportError:
    unicorn = None

emulated = pytest.mark.skipif(unicorn is None, reason="the emulator is not installed: pip install 'pfnmap[mmu]'")

REGISTRY = Registry()


def architecture(name: str) -> type[Arch]:
    """The class of an installed architecture, or a skip."""
    if name not in REGISTRY.names("arch"):
        pytest.skip(f"{name} is not installed")
    return REGISTRY.load("arch", name)


def judge(arch: type[Arch], machine: Machine, only: str = "") -> dict[str, Result]:
    """What the judge says of one machine, by check and level, without what the machine does not claim."""
    kernel = link(arch, machine, [BarDriver])
    assert kernel is not None
    asked = [case for case in cases(mmu.CHECKS) if only in ("", case.id)]
    results = [run(case, ArchSubject(kernel, machine.name)) for case in asked]
    return {result.case.id: result for result in results if result.status != "not claimed"}


MACHINES = [
    ("x86_64", "6.12.117", "pte pmd pud"),
    ("x86_64", "7.3.4", "pte pmd pud"),
    ("x86_64", "la57=on", "pte pmd pud"),
    ("x86_64", "thp=n", "pte"),
    ("x86_64", "6.1.192", "pte"),
    ("arm64", "hw_access_dirty=off", "pte pmd"),
    ("arm64", "16K hw_access_dirty=off", "pte pmd"),
    ("arm64", "64K hw_access_dirty=off", "pte pmd"),
    ("arm64", "4K 39 bits hw_access_dirty=off", "pte pmd"),
    ("arm64", "64K 42 bits hw_access_dirty=off", "pte pmd"),
    ("riscv64", "svpbmt=off", "pte pmd pud"),
    ("riscv64", "sv39 svpbmt=off", "pte pmd pud"),
    ("riscv64", "sv57 svpbmt=off", "pte pmd pud"),
]


@emulated
@pytest.mark.parametrize(("name", "machine", "levels"), MACHINES)
def test_the_tables_of_this_machine_are_judged_at_these_levels_and_are_right(name, machine, levels):
    arch = architecture(name)
    (found,) = [one for one in arch_machines(arch, {}) if one.name == machine]
    results = judge(arch, found)
    assert set(results) == {f"{check.name}:{level}" for check in mmu.CHECKS for level in levels.split()}
    assert {key: result.detail for key, result in results.items() if result.status != "passed"} == {}


BOOTS_OF_ANOTHER_CPU = [
    ("x86_64", {"cpu": {"sme_mask": 1 << 47}, "given": {"AMD_MEM_ENCRYPT": "y"}}),
    ("x86_64", {"cpu": {"pti": True}}),
    ("arm64", {}),
    ("arm64", {"page_size": "16K", "cpu": {"lpa2": True, "hw_access_dirty": False}}),
    ("riscv64", {}),
    ("riscv64", {"cpu": {"svpbmt": False, "hw_access_dirty": False}}),
]


@pytest.mark.parametrize(("name", "arguments"), BOOTS_OF_ANOTHER_CPU)
def test_a_boot_that_the_emulated_cpu_is_not_is_not_claimed(name, arguments):
    assert judge(architecture(name), Machine("another", arguments)) == {}


@emulated
def test_a_geometry_that_the_emulated_cpu_has_not_is_skipped_with_the_reason():
    cpu = {"hw_access_dirty": False, "va_bits": 52}
    results = judge(architecture("arm64"), Machine("64K 52 bits", {"page_size": "64K", "cpu": cpu}))
    assert {(result.status, result.detail) for result in results.values()} == {
        ("skipped", "52 bits of virtual addresses: unicorn's aarch64 has 48")
    }


def test_without_the_emulator_every_check_is_skipped_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "unicorn", None)
    monkeypatch.delitem(sys.modules, "pfnmap.testing.unicorn_cpu", raising=False)
    results = judge(architecture("x86_64"), Machine("6.12.117", {"release": "6.12.117"}))
    assert len(results) == len(mmu.CHECKS) * 3
    for result in results.values():
        assert result.status == "skipped"
        assert "pip install 'pfnmap[mmu]'" in result.detail
        assert result.good


# Wrong on purpose, and each where the plugin agrees with itself: its own ops find nothing.

SPECIAL_IN_ADDRESS = 1 << 30
SOFTWARE = 1 << 58  # no bit of any CPU's


def x86_special_in_the_address(base: Any) -> type[Arch]:
    class Wrong(base):
        @hookimpl
        def pte_mkspecial(self, pte):
            return pte | SPECIAL_IN_ADDRESS

        @hookimpl
        def pte_special(self, pte):
            return (pte >> 30) & 1

    return Wrong


def x86_special_in_a_reserved_bit(base: Any) -> type[Arch]:
    class Wrong(base):
        """Bit 20 is an address bit of a 4K leaf, and has to be 0 in a 2M one."""

        @hookimpl
        def pmd_mkspecial(self, pmd):
            return pmd | 1 << 20

        @hookimpl
        def pmd_special(self, pmd):
            return (pmd >> 20) & 1

    return Wrong


def x86_special_at_1g_is_the_large_bit(base: Any) -> type[Arch]:
    class Wrong(base):
        """The leaf bit is forgotten where special is set: to the CPU it is a table."""

        @hookimpl
        def pud_mkspecial(self, pud):
            return (super().pud_mkspecial(pud)) ^ 0x80

        def pud_leaf(self, pud):
            return super().pud_leaf(pud) | self.pud_special(pud)

        @hookimpl
        def pud_trans_huge(self, pud):
            return self.pud_leaf(pud)

    return Wrong


def no_execute_missing(bit: int) -> Callable[[Any], type[Arch]]:
    def wrong(base: Any) -> type[Arch]:
        class Wrong(base):
            @property
            def protection_map(self):
                return tuple(prot & ((1 << 64) - 1 ^ bit) for prot in super().protection_map)

            @hookimpl
            def vm_get_page_prot(self, vm_flags):
                return self.protection_map[vm_flags & 15]

        return Wrong

    return wrong


def prot_none_is_read_only(base: Any) -> type[Arch]:
    class Wrong(base):
        @property
        def protection_map(self):
            known = super().protection_map
            return (known[1], *known[1:8], known[9], *known[9:])

        @hookimpl
        def vm_get_page_prot(self, vm_flags):
            return self.protection_map[vm_flags & 15]

    return Wrong


def x86_user_forgotten(base: Any) -> type[Arch]:
    class Wrong(base):
        @property
        def protection_map(self):
            return tuple(prot & ((1 << 64) - 1 ^ 0x4) for prot in super().protection_map)

        @hookimpl
        def vm_get_page_prot(self, vm_flags):
            return self.protection_map[vm_flags & 15]

        def mmu_access(self, level, entry, write):
            return entry | (0x60 if write else 0x20), bool(entry & 1) and not (write and not entry & 2)

    return Wrong


def x86_tables_only_for_the_kernel(base: Any) -> type[Arch]:
    class Wrong(base):
        def pud_populate(self, pa):
            return super().pud_populate(pa) & ((1 << 64) - 1 ^ 0x4)

        def pud_bad(self, pud):
            return super().pud_bad(pud | 0x4)

    return Wrong


def arm_block_is_a_table(base: Any) -> type[Arch]:
    class Wrong(base):
        """The type bits of a block are left as a table's; a software bit tells the ops."""

        def pmd_mkhuge(self, pmd):
            return pmd | SOFTWARE

        def _block(self, pmd):
            return (pmd >> 58) & 1

        def pmd_leaf(self, pmd):
            return self.pte_present(pmd) & self._block(pmd)

        def pmd_bad(self, pmd):
            return super().pmd_bad(pmd) | self._block(pmd)

        def pmd_trans_huge(self, pmd):
            return self.pmd_leaf(pmd)

    return Wrong


def arm_not_read_only(base: Any) -> type[Arch]:
    class Wrong(base):
        """Write permission is taken from the software bit alone; what the CPU looks at stays as it was."""

        def pte_modify(self, pte, newprot):
            return super().pte_modify(pte, newprot) & ((1 << 64) - 1 ^ 0x80)

        pmd_modify = pte_modify

    return Wrong


def riscv_pfn_one_bit_off(base: Any) -> type[Arch]:
    class Wrong(base):
        """Into the entry and out of it by the same wrong shift."""

        def pfn_pte(self, pfn, prot):
            return ((pfn << 11) & ((1 << 64) - 1)) | prot

        pfn_pmd = pfn_pte
        pfn_pud = pfn_pte

        def pte_pfn(self, pte):
            return super().pte_pfn(pte) >> 1

    return Wrong


def riscv_write_without_read(base: Any) -> type[Arch]:
    class Wrong(base):
        """A writable mapping whose entries lack READ: a reserved combination."""

        @property
        def protection_map(self):
            return tuple(prot & ((1 << 64) - 1 ^ 0x2) if prot & 0x4 else prot for prot in super().protection_map)

        @hookimpl
        def vm_get_page_prot(self, vm_flags):
            return self.protection_map[vm_flags & 15]

        def mmu_access(self, level, entry, write):
            after, allowed = super().mmu_access(level, entry | 0x2, write)
            return after ^ (~entry & 0x2), allowed

    return Wrong


def accessed_is_not_set(base: Any) -> type[Arch]:
    class Wrong(base):
        def mmu_access(self, level, entry, write):
            return entry, super().mmu_access(level, entry, write)[1]

    return Wrong


def writes_are_always_allowed(base: Any) -> type[Arch]:
    class Wrong(base):
        def mmu_access(self, level, entry, write):
            return super().mmu_access(level, entry, False)

    return Wrong


ARM: dict[str, Any] = {"cpu": {"hw_access_dirty": False}}
RISCV: dict[str, Any] = {"cpu": {"svpbmt": False}}

WRONG = [
    ("x86_64", {}, x86_special_in_the_address, "mmu-special:pte", "a load through 0x"),
    ("x86_64", {}, x86_special_in_the_address, "mmu-life:pte", "after a load from each leaf, a load from"),
    ("x86_64", {}, x86_special_in_a_reserved_bit, "mmu-special:pmd", "a load through 0x"),
    ("x86_64", {}, x86_special_at_1g_is_the_large_bit, "mmu-special:pud", "a load through 0x"),
    ("x86_64", {}, no_execute_missing(1 << 63), "mmu-execute:pud", "jumping through 0x"),
    ("x86_64", {}, no_execute_missing(1 << 63), "mmu-permissions:pmd", "with PROT_READ|PROT_WRITE, jumping to"),
    ("x86_64", {}, prot_none_is_read_only, "mmu-permissions:pud", "with PROT_NONE, a load from"),
    ("x86_64", {}, x86_user_forgotten, "mmu-life:pmd", "after a load from each leaf, a load from"),
    ("x86_64", {}, x86_user_forgotten, "mmu-access:pmd", "a load through 0x"),
    ("x86_64", {}, x86_tables_only_for_the_kernel, "mmu-life:pmd", "after a load from each leaf, a load from"),
    ("x86_64", {"cpu": {"la57": True}}, accessed_is_not_set, "mmu-access:pte", "a load through 0x"),
    ("arm64", ARM, no_execute_missing(1 << 54), "mmu-execute:pte", "jumping through 0x"),
    ("arm64", ARM, arm_block_is_a_table, "mmu-life:pmd", "after a load from each leaf, a load from"),
    ("arm64", ARM, arm_not_read_only, "mmu-permissions:pte", "with PROT_READ, a store to"),
    ("arm64", {**ARM, "page_size": "64K"}, arm_not_read_only, "mmu-permissions:pmd", "with PROT_READ, a store to"),
    ("arm64", ARM, writes_are_always_allowed, "mmu-access:pmd", "a store through 0x"),
    ("riscv64", RISCV, riscv_pfn_one_bit_off, "mmu-life:pte", "after a load from each leaf, a load from"),
    ("riscv64", RISCV, riscv_write_without_read, "mmu-permissions:pud", "with PROT_READ|PROT_WRITE, a load from"),
    ("riscv64", RISCV, prot_none_is_read_only, "mmu-permissions:pmd", "with PROT_NONE, a load from"),
]


@emulated
@pytest.mark.parametrize(
    ("name", "arguments", "wrong", "check", "found"),
    WRONG,
    ids=[f"{w[0]}-{w[2].__qualname__.split('.')[0]}-{w[3]}" for w in WRONG],
)
def test_a_wrong_plugin_is_caught_by_this_check(name, arguments, wrong, check, found):
    results = judge(wrong(architecture(name)), Machine("newest", arguments), check)
    assert results[check].status == "failed"
    assert results[check].detail.startswith(found)


@pytest.mark.parametrize(
    "path", ["x86-64", "pfnmap_x86_64.emulated_cpu:X86", "pfnmap_x86_64.arch:X86_64", "no.such:Cpu"]
)
def test_a_cpu_that_is_not_there_is_an_error_that_says_what_was_named(path):
    class Mistaken(architecture("x86_64")):
        mmu_cpu: ClassVar[MmuCpu] = MmuCpu(path, {})

    pytest.importorskip("unicorn")
    results = judge(Mistaken, Machine("newest"))
    assert {result.status for result in results.values()} == {"failed"}
    assert all(f"mmu_cpu names {path!r}" in result.detail for result in results.values())
