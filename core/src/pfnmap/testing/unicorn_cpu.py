"""The emulated CPUs of unicorn (an emulator made of QEMU's CPUs), each with its real MMU between it and memory.

A CPU is given the words of page tables as they are and a few pages of memory, is put into user mode, and then loads,
stores and executes one address at a time. Nothing here asks an op of an architecture: registers, the instructions that
are run and the words that map the little program itself are written from the CPUs' manuals. The program is mapped in
the half of the address space that user space has not, through tables of its own; it and they lie below
`pfnmap.mm.pgtable.PhysicalMemory.base`, where the mm core has nothing.

All three CPUs read their tables little-endian, and words are stored so. unicorn must be told with UC_TLB_CPU to use the
CPU's MMU at all.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from unicorn import Uc, UcError
from unicorn import arm64_const as arm64
from unicorn import riscv_const as riscv
from unicorn import unicorn_const as unicorn
from unicorn import x86_const as x86

from pfnmap.contract.geometry import Geometry
from pfnmap.contract.phys import PhysicalMemory
from pfnmap.errors import Refused

__all__ = ["CPUS", "Access", "UnicornCpu"]

_PAGE: Final = 0x1000  # of unicorn's memory, whatever the CPU's pages are
_PROGRAM: Final = 0x8000
_OWN_TABLES: Final = 0x1000
_LOAD, _STORE, _JUMP, _START = 0x100, 0x200, 0x300, 0x400  # where in the program
_INSTRUCTIONS: Final = 3  # more than a jump and the trap need; ends a jump that went astray

assert PhysicalMemory.base >= _PROGRAM + _PAGE


_DONE: Final = "its end"
_FAULT: Final = "a page fault"


class Access(NamedTuple):
    """What an access came to, in words; a load that was done has a value."""

    how: str
    value: int = 0

    @property
    def done(self) -> bool:
        """Whether the CPU did it."""
        return self.how == _DONE

    @property
    def fault(self) -> bool:
        """Whether the MMU refused it."""
        return self.how == _FAULT


class UnicornCpu(ABC):
    """A CPU in user mode on the tables at `root`, with memory in the given pages.

    `tables`: physical address -> words; `pages`: 4K pages of memory (physical addresses). They are filled with units of
    UNIT bytes: an instruction that traps, and a word with the unit's own physical address. Pages that the tables or the
    program occupy are left out; `memory` are those that were filled. Raises Refused for a geometry that this CPU has
    not.
    """

    UNIT: ClassVar[int] = 16

    physical_bits: ClassVar[int]
    """Bits of a physical address."""

    _MACHINE: ClassVar[tuple[int, int, int]]  # unicorn's architecture, mode and model
    _ADDRESS: ClassVar[int]  # the register with the address of an access
    _VALUE: ClassVar[int]  # the register that is loaded into, or stored
    _SNIPPETS: ClassVar[Mapping[int, bytes]]  # where in the program -> instruction
    _TRAP: ClassVar[tuple[int, bytes]]  # the exception of a system call or breakpoint, and its instruction
    _FAULTS: ClassVar[frozenset[int]]  # the exceptions of the MMU

    def __init__(
        self, geometry: Geometry, root: int, tables: Mapping[int, Sequence[int]], pages: Iterable[int]
    ) -> None:
        architecture, mode, model = self._MACHINE
        self._uc: Any = Uc(architecture, mode)
        self._uc.ctl_set_cpu_model(model)
        self._uc.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
        own = set(range(_OWN_TABLES, _PROGRAM + _PAGE, _PAGE))
        own |= {page for address, words in tables.items() for page in _pages(address, len(words) * 8)}
        self.memory = frozenset(pages) - own
        for start, end in _runs(own | self.memory):
            self._uc.mem_map(start, end - start)
        for address, words in tables.items():
            self._uc.mem_write(address, struct.pack(f"<{len(words)}Q", *words))
        trap = self._TRAP[1].ljust(8, b"\0")
        for page in self.memory:
            units = (trap + struct.pack("<Q", unit) for unit in range(page, page + _PAGE, self.UNIT))
            self._uc.mem_write(page, b"".join(units))
        for where, instruction in self._SNIPPETS.items():
            self._uc.mem_write(_PROGRAM + where, instruction)
        self._raised: int | None = None
        self._astray = ""
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)
        self._uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self._on_unmapped)
        self._program = self._enter_user_mode(geometry, root)
        self._user_mode = self._uc.context_save()

    @abstractmethod
    def _enter_user_mode(self, geometry: Geometry, root: int) -> int:
        """Map the program, turn the MMU on, enter user mode; return the program's virtual address."""

    def _map_program(self, top: int, slot: int, levels: int, table: int, leaf: int, shift: int) -> None:
        """Make a slot of a top table lead to the program, by entries 0 of own tables.

        `table` and `leaf` are the bits of the two kinds of words, `shift` is how far left an address is moved in one
        (right if negative).
        """
        address, index = top, slot
        for own in range(_OWN_TABLES, _OWN_TABLES + (levels - 1) * _PAGE, _PAGE):
            self.poke(address + 8 * index, _moved(own, shift) | table)
            address, index = own, 0
        self.poke(address + 8 * index, _moved(_PROGRAM, shift) | leaf)

    # Memory

    def word_at(self, physical: int) -> int:
        """Return the physical address of the word in the unit of a physical address."""
        return (physical & -self.UNIT) + 8

    def peek(self, address: int) -> int:
        """Return the word at a physical address."""
        word: int
        (word,) = struct.unpack("<Q", self._uc.mem_read(address, 8))
        return word

    def poke(self, address: int, word: int) -> None:
        """Write a word to a physical address and forget all translations."""
        self._uc.mem_write(address, struct.pack("<Q", word))
        self._uc.ctl(unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE)

    # Accesses: to the unit of memory in which a virtual address lies

    def load(self, address: int) -> Access:
        """Load; the value is what the unit says its physical address is."""
        how = self._run(_LOAD, self.word_at(address))
        return Access(how, self._uc.reg_read(self._VALUE) if how == _DONE else 0)

    def store(self, address: int, value: int) -> Access:
        """Store a value where a unit has its physical address."""
        return Access(self._run(_STORE, self.word_at(address), value))

    def execute(self, address: int) -> Access:
        """Jump to the unit's instruction, which traps."""
        how = self._run(_JUMP, address & -self.UNIT)
        return Access({f"exception {self._TRAP[0]}": _DONE, _DONE: "no exception"}.get(how, how))

    def _run(self, where: int, address: int, value: int = 0) -> str:
        uc = self._uc
        uc.context_restore(self._user_mode)
        uc.reg_write(self._ADDRESS, address)
        uc.reg_write(self._VALUE, value)
        start = self._program + where
        return self._emulate(start, start + len(self._SNIPPETS[where]))

    def _emulate(self, start: int, end: int) -> str:
        self._raised, self._astray = None, ""
        try:
            # Always with a count: where one run has it and the next has not, unicorn walks tables in between.
            self._uc.emu_start(start, end, count=_INSTRUCTIONS)
        except UcError as error:
            return self._astray or str(error)
        if self._raised is None:
            return _DONE
        return _FAULT if self._raised in self._FAULTS else f"exception {self._raised}"

    def _on_exception(self, uc: Any, number: int, data: Any) -> None:
        self._raised = number
        uc.emu_stop()

    def _on_unmapped(self, uc: Any, kind: int, address: int, size: int, value: int, data: Any) -> bool:
        self._astray = f"an access of physical address {address:#x}"
        return False


class X86_64(UnicornCpu):
    """An Ice Lake server. Words of 4 and of 5 levels; physical addresses of 40 bits, as of every model in unicorn."""

    physical_bits = 40
    _MACHINE = (unicorn.UC_ARCH_X86, unicorn.UC_MODE_64, x86.UC_CPU_X86_ICELAKE_SERVER)
    _ADDRESS = x86.UC_X86_REG_RAX
    _VALUE = x86.UC_X86_REG_RCX
    _SNIPPETS: ClassVar = {
        _LOAD: bytes.fromhex("488b08"),  # mov (%rax), %rcx
        _STORE: bytes.fromhex("488908"),  # mov %rcx, (%rax)
        _JUMP: bytes.fromhex("ffe0"),  # jmp *%rax
        _START: bytes.fromhex("480f07"),  # sysretq
    }
    _TRAP = (3, bytes.fromhex("cc"))  # int3
    _FAULTS = frozenset({14})  # #PF

    def _enter_user_mode(self, geometry: Geometry, root: int) -> int:
        top = geometry.walk[0]
        # Present, writable and user at every level: the program itself begins with the kernel's privileges.
        self._map_program(root, top.ptrs - 1, len(geometry.walk), 0x7, 0x7, 0)
        program = -(1 << top.shift) & ((1 << 64) - 1)
        uc = self._uc
        uc.reg_write(x86.UC_X86_REG_CR3, root)
        la57 = 1 << 12 if len(geometry.walk) == 5 else 0
        uc.reg_write(x86.UC_X86_REG_CR4, uc.reg_read(x86.UC_X86_REG_CR4) | 1 << 5 | la57)  # PAE
        uc.msr_write(0xC0000080, 0xD01)  # EFER: NXE, LMA, LME, SCE
        uc.msr_write(0xC0000081, 0x23 << 48)  # STAR: user segments
        uc.reg_write(x86.UC_X86_REG_CR0, 0x80010001)  # PG, WP, PE
        uc.reg_write(x86.UC_X86_REG_RCX, program + _LOAD)
        uc.reg_write(x86.UC_X86_REG_R11, 0x2)
        self._emulate(program + _START, program + _LOAD)
        if uc.reg_read(x86.UC_X86_REG_CS) & 3 != 3:
            raise Refused("sysretq", "the emulated CPU did not enter user mode")
        return program


class Aarch64(UnicornCpu):
    """A CPU with all that unicorn has: 4K, 16K and 64K pages, addresses of 48 bits. It sets no access flag.

    The program is in the kernel's half (TTBR1), with 4K pages whatever the tables under judgement have.
    """

    physical_bits = 48
    _MACHINE = (unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM, arm64.UC_CPU_ARM64_MAX)
    _ADDRESS = arm64.UC_ARM64_REG_X0
    _VALUE = arm64.UC_ARM64_REG_X1
    _SNIPPETS: ClassVar = {
        _LOAD: struct.pack("<I", 0xF9400001),  # ldr x1, [x0]
        _STORE: struct.pack("<I", 0xF9000001),  # str x1, [x0]
        _JUMP: struct.pack("<I", 0xD61F0000),  # br x0
    }
    _TRAP = (2, struct.pack("<I", 0xD4000001))  # svc #0
    _FAULTS = frozenset({3, 4})  # prefetch abort, data abort

    _KERNEL_BITS = 39  # three levels of 4K tables
    _GRANULE: ClassVar = {12: 0b00, 14: 0b10, 16: 0b01}  # TCR_EL1.TG0
    _SCR_EL3, _HCR_EL2 = (1, 1, 3, 6, 0), (1, 1, 3, 4, 0)  # CRn, CRm, op0, op1, op2
    _SCTLR_EL1, _MAIR_EL1, _TCR_EL1 = (1, 0, 3, 0, 0), (10, 2, 3, 0, 0), (2, 0, 3, 0, 2)
    _TTBR0_EL1, _TTBR1_EL1 = (2, 0, 3, 0, 0), (2, 0, 3, 0, 1)

    def _enter_user_mode(self, geometry: Geometry, root: int) -> int:
        bits = (geometry.task_size - 1).bit_length()
        if bits > 48:
            raise Refused(f"{bits} bits of virtual addresses", "unicorn's aarch64 has 48")
        kernel_root = _OWN_TABLES + 4 * _PAGE
        # Page: access flag, inner shareable, read-only for all.
        self._map_program(kernel_root, 0, 3, 0x3, 0x7C3, 0)
        user_half = (64 - bits) | 1 << 8 | 1 << 10 | 3 << 12 | self._GRANULE[geometry.PAGE_SHIFT] << 14
        kernel_half = (64 - self._KERNEL_BITS) << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 0b10 << 30  # TG1: 4K
        registers = {
            self._SCR_EL3: 1 << 10 | 1,  # RW, NS: the levels below are 64-bit and not secure
            self._HCR_EL2: 1 << 31,  # RW: EL1 is 64-bit; without it the MMU reads the tables of 32-bit Arm
            self._MAIR_EL1: 0,  # every memory type alike: the emulated CPU has no caches
            self._TCR_EL1: user_half | kernel_half | 0b101 << 32,  # IPS: 48 bits
            self._TTBR0_EL1: root,
            self._TTBR1_EL1: kernel_root,
            self._SCTLR_EL1: 0xC50838 | 1,  # its value at reset, and M: the MMU is on
        }
        self._uc.reg_write(arm64.UC_ARM64_REG_PSTATE, 0)  # EL0
        for register, value in registers.items():
            self._uc.reg_write(arm64.UC_ARM64_REG_CP_REG, (*register, value))
        return -(1 << self._KERNEL_BITS) & ((1 << 64) - 1)


class Riscv64(UnicornCpu):
    """A SiFive U54, and more than that chip: Sv39, Sv48 and Sv57. It sets accessed and dirty, and has no Svpbmt."""

    physical_bits = 56
    _MACHINE = (unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV64, riscv.UC_CPU_RISCV64_SIFIVE_U54)
    _ADDRESS = riscv.UC_RISCV_REG_A0
    _VALUE = riscv.UC_RISCV_REG_A1
    _SNIPPETS: ClassVar = {
        _LOAD: struct.pack("<I", 0x00053583),  # ld a1, 0(a0)
        _STORE: struct.pack("<I", 0x00B53023),  # sd a1, 0(a0)
        _JUMP: struct.pack("<I", 0x00050067),  # jr a0
    }
    _TRAP = (8, struct.pack("<I", 0x00000073))  # ecall
    _FAULTS = frozenset({12, 13, 15})  # instruction, load, store page fault

    def _enter_user_mode(self, geometry: Geometry, root: int) -> int:
        top, levels = geometry.walk[0], len(geometry.walk)
        # V; and V, R, X, U, A for the page.
        self._map_program(root, top.ptrs - 1, levels, 0x01, 0x5B, -2)
        self._uc.reg_write(riscv.UC_RISCV_REG_SATP, (levels + 5) << 60 | root >> 12)
        self._uc.reg_write(riscv.UC_RISCV_REG_PRIV, 0)
        return -(1 << top.shift) & ((1 << 64) - 1)


CPUS: Final[Mapping[str, type[UnicornCpu]]] = {"x86_64": X86_64, "aarch64": Aarch64, "riscv64": Riscv64}
"""The CPUs by the names that an architecture's `mmu_cpu` gives."""


def _moved(address: int, shift: int) -> int:
    return address << shift if shift >= 0 else address >> -shift


def _pages(address: int, size: int) -> range:
    return range(address & -_PAGE, address + size, _PAGE)


def _runs(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of runs of adjacent pages."""
    start = end = -1
    for page in sorted(pages):
        if page != end:
            if end >= 0:
                yield start, end
            start = page
        end = page + _PAGE
    if end >= 0:
        yield start, end
