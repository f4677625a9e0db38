"""The emulated CPUs honour the words that their manuals define: tables written by hand, no op of an architecture."""

import pytest

pytest.importorskip("unicorn", reason="the emulator is not installed: pip install 'pfnmap[mmu]'")

from pfnmap import Geometry, Refused, WalkLevel
from pfnmap_arm64.emulated_cpu import Aarch64
from pfnmap_riscv64.emulated_cpu import Riscv64
from pfnmap_x86_64.emulated_cpu import X86_64

CPUS = {"x86_64": X86_64, "aarch64": Aarch64, "riscv64": Riscv64}

MEMORY = 0x12_3450_0000  # 37 bits, so that every CPU has it; aligned to 1M
TABLES = 0x10_0000
VA = 0x12_4000_0000  # aligned to 1G
NAMES = {2: ("pgd", "pte"), 3: ("pgd", "pmd", "pte"), 4: ("pgd", "pud", "pmd", "pte")}
NAMES[5] = ("pgd", "p4d", "pud", "pmd", "pte")


def geometry(page_shift, va_bits, user_bits):
    """Levels of one-page tables for so many bits of virtual address, of which user space has `user_bits`."""
    bits = page_shift - 3
    shifts = range(page_shift, va_bits, bits)[::-1]
    walk = tuple(
        WalkLevel(name, shift, 1 << min(bits, va_bits - shift))
        for name, shift in zip(NAMES[len(shifts)], shifts, strict=True)
    )
    names = ("PAGE", "PMD", "PUD", "P4D", "PGDIR")
    constants = {f"{name}_SHIFT": shifts[-1 - min(n, len(shifts) - 1)] for n, name in enumerate(names)}
    entries = {f"PTRS_PER_{name}": 1 << bits for name in ("PTE", "PMD", "PUD", "P4D", "PGD")}
    return Geometry(**constants, **entries, walk=walk, task_size=1 << user_bits)


def on(cpu, form, leaf_flags, leaf_shift):
    """A CPU with one leaf of a level at VA; the leaf's flags are ored to its address."""
    tables, address = {}, TABLES
    for level in form["geometry"].walk:
        words = tables[address] = [0] * level.ptrs
        index = (VA >> level.shift) & (level.ptrs - 1)
        if level.shift == leaf_shift:
            words[index] = (MEMORY & -(1 << leaf_shift)) >> form["right"] | leaf_flags
            break
        address += 0x1_0000
        words[index] = address >> form["right"] | form["table"]
    return CPUS[cpu](form["geometry"], TABLES, tables, [MEMORY])


X86 = {4: {"geometry": geometry(12, 48, 47), "table": 0x7, "right": 0}}
X86[5] = {"geometry": geometry(12, 57, 56), "table": 0x7, "right": 0}
ARM = {
    size: {"geometry": geometry(shift, bits, bits), "table": 0x3, "right": 0}
    for size, shift, bits in (("4K", 12, 48), ("16K", 14, 47), ("64K", 16, 48), ("4K 39 bits", 12, 39))
}
RISCV = {
    mode: {"geometry": geometry(12, bits, bits - 1), "table": 0x1, "right": 2}
    for mode, bits in (("sv39", 39), ("sv48", 48), ("sv57", 57))
}

# flags of a leaf -> (load, store, execute); AMD64 manual, "Page-Translation-Table Entry Fields"
X86_LEAVES = {
    0x7: (1, 1, 1),
    0x5: (1, 0, 1),
    0x5 | 1 << 63: (1, 0, 0),
    0x7 | 1 << 63: (1, 1, 0),
    0x3: (0, 0, 0),  # a supervisor's
    0x6: (0, 0, 0),  # not present
    0x7 | 0x7 << 9 | 0x7FF << 52: (1, 1, 1),  # every bit that is software's, or a protection key's
}
# DDI 0487, "VMSAv8-64 descriptors": AF 10, AP[2] read-only 7, AP[1] user 6, UXN 54; bits 1:0 are added for the level
ARM_LEAVES = {
    0x440: (1, 1, 1),
    0x4C0: (1, 0, 1),
    0x4C0 | 1 << 54: (1, 0, 0),
    0x440 | 1 << 54: (1, 1, 0),
    0x0C0: (0, 0, 0),  # no access flag
    0x480 | 1 << 54: (0, 0, 0),  # not user's
    0x440 | 0xF << 55: (1, 1, 1),  # every bit that is software's
}
# Privileged specification, "Sv39": V R W X U G A D, then two of software's
RISCV_LEAVES = {
    0xDF: (1, 1, 1),
    0xDB: (1, 0, 1),
    0xD3: (1, 0, 0),
    0xD7: (1, 1, 0),
    0xD9: (0, 0, 1),
    0xCF: (0, 0, 0),  # not user's
    0xDE: (0, 0, 0),  # not valid
    0x17: (1, 1, 0),  # neither accessed nor dirty: it sets them
    0x3D7: (1, 1, 0),  # both bits that are software's
}


def leaves():
    for levels, form in X86.items():
        for shift in (12, 21, 30):
            for flags, expected in X86_LEAVES.items():
                kind = flags | (1 << 7 if shift > 12 else 0)
                yield pytest.param("x86_64", form, kind, shift, expected, id=f"x86_64-{levels}-{shift}-{kind:x}")
    for size, form in ARM.items():
        walk = form["geometry"].walk
        for shift in (level.shift for level in walk[-2:]):
            for flags, expected in ARM_LEAVES.items():
                kind = flags | (0x3 if shift == walk[-1].shift else 0x1)
                yield pytest.param("aarch64", form, kind, shift, expected, id=f"aarch64-{size}-{shift}-{kind:x}")
    for mode, form in RISCV.items():
        for shift in (12, 21, 30):
            for flags, expected in RISCV_LEAVES.items():
                yield pytest.param("riscv64", form, flags, shift, expected, id=f"riscv64-{mode}-{shift}-{flags:x}")


@pytest.mark.parametrize(("name", "form", "flags", "shift", "expected"), list(leaves()))
def test_a_leaf_allows_what_the_manual_says_and_reaches_its_memory(name, form, flags, shift, expected):
    cpu = on(name, form, flags, shift)
    address = VA + (MEMORY & ((1 << shift) - 1))
    load, store, execute = expected
    got = cpu.load(address)
    assert (got.done, got.fault, got.value) == (bool(load), not load, MEMORY if load else 0)
    got = cpu.execute(address)
    assert (got.done, got.fault) == (bool(execute), not execute)
    got = cpu.store(address, 0x1234)
    assert (got.done, got.fault) == (bool(store), not store)
    assert cpu.peek(cpu.word_at(MEMORY)) == (0x1234 if store else MEMORY)


SOME = [("x86_64", X86[4], 0x7, 12), ("aarch64", ARM["4K"], 0x443, 12), ("riscv64", RISCV["sv48"], 0xDF, 12)]


@pytest.mark.parametrize(("name", "form", "flags", "shift"), SOME)
def test_an_access_goes_to_its_address_alone(name, form, flags, shift):
    cpu = on(name, form, flags, shift)
    for offset in (0, 0x10, 0xFF8, 0xFFF):
        assert cpu.load(VA + offset).value == (MEMORY + offset) & -cpu.UNIT
    assert cpu.load(VA + 0x1000).fault
    assert cpu.execute(VA + 0x1000).fault


@pytest.mark.parametrize(("name", "form", "flags", "shift"), SOME)
def test_an_access_of_memory_that_is_not_there_says_where_it_went(name, form, flags, shift):
    cpu = on(name, form, flags, shift)
    elsewhere = on(name, form, flags | (1 << 30 if name == "riscv64" else 1 << 32), shift)
    assert cpu.load(VA).done
    assert "physical address 0x" in elsewhere.load(VA).how


@pytest.mark.parametrize(("name", "form", "flags", "shift"), SOME)
def test_a_word_that_is_written_anew_counts_at_once(name, form, flags, shift):
    cpu = on(name, form, flags, shift)
    assert cpu.load(VA).done
    last = TABLES + 0x1_0000 * (len(form["geometry"].walk) - 1) + 8 * ((VA >> 12) & 511)
    cpu.poke(last, 0)
    assert cpu.load(VA).fault


def test_more_bits_than_the_cpu_has_are_refused():
    with pytest.raises(Refused, match="52 bits of virtual addresses"):
        CPUS["aarch64"](geometry(16, 52, 52), TABLES, {TABLES: [0] * 1024}, [])
