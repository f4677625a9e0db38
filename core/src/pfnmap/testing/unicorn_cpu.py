"""A CPU of unicorn (an emulator made of QEMU's CPUs), with its real MMU between it and memory.

What each architecture's CPU is (registers, instructions, words) is its plugin's: a subclass of `UnicornCpu`, which the
architecture's `mmu_cpu` names.

A CPU is given the words of page tables as they are and a few pages of memory, is put into user mode, and then loads,
stores and executes one address at a time. Nothing here asks an op of an architecture: registers, the instructions that
are run and the words that map the little program itself are written from the CPUs' manuals. The program is mapped in
the half of the address space that user space has not, through tables of its own; it and they lie below
`pfnmap.contract.phys.PhysicalMemory.base`, where the mm core has nothing.

The CPUs read their tables little-endian, and words are stored so. unicorn must be told with UC_TLB_CPU to use the
CPU's MMU at all.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from unicorn import Uc, UcError
from unicorn import unicorn_const as unicorn

from pfnmap.contract.geometry import Geometry
from pfnmap.contract.phys import PhysicalMemory

__all__ = ["JUMP", "LOAD", "OWN_TABLES", "PAGE", "START", "STORE", "Access", "UnicornCpu"]

PAGE: Final = 0x1000  # of unicorn's memory, whatever the CPU's pages are
_PROGRAM: Final = 0x8000
OWN_TABLES: Final = 0x1000
LOAD, STORE, JUMP, START = 0x100, 0x200, 0x300, 0x400  # where in the program
_INSTRUCTIONS: Final = 3  # more than a jump and the trap need; ends a jump that went astray

assert PhysicalMemory.base >= _PROGRAM + PAGE


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

    # What a subclass says

    MACHINE: ClassVar[tuple[int, int, int]]  # unicorn's architecture, mode and model
    ADDRESS: ClassVar[int]  # the register with the address of an access
    VALUE: ClassVar[int]  # the register that is loaded into, or stored
    SNIPPETS: ClassVar[Mapping[int, bytes]]  # where in the program -> instruction
    TRAP: ClassVar[tuple[int, bytes]]  # the exception of a system call or breakpoint, and its instruction
    FAULTS: ClassVar[frozenset[int]]  # the exceptions of the MMU

    def __init__(
        self, geometry: Geometry, root: int, tables: Mapping[int, Sequence[int]], pages: Iterable[int]
    ) -> None:
        architecture, mode, model = self.MACHINE
        self.uc: Any = Uc(architecture, mode)
        self.uc.ctl_set_cpu_model(model)
        self.uc.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
        own = set(range(OWN_TABLES, _PROGRAM + PAGE, PAGE))
        own |= {page for address, words in tables.items() for page in _pages(address, len(words) * 8)}
        self.memory = frozenset(pages) - own
        for start, end in _runs(own | self.memory):
            self.uc.mem_map(start, end - start)
        for address, words in tables.items():
            self.uc.mem_write(address, struct.pack(f"<{len(words)}Q", *words))
        trap = self.TRAP[1].ljust(8, b"\0")
        for page in self.memory:
            units = (trap + struct.pack("<Q", unit) for unit in range(page, page + PAGE, self.UNIT))
            self.uc.mem_write(page, b"".join(units))
        for where, instruction in self.SNIPPETS.items():
            self.uc.mem_write(_PROGRAM + where, instruction)
        self._raised: int | None = None
        self._astray = ""
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self._on_exception)
        self.uc.hook_add(unicorn.UC_HOOK_MEM_UNMAPPED, self._on_unmapped)
        self._program = self.enter_user_mode(geometry, root)
        self._user_mode = self.uc.context_save()

    @abstractmethod
    def enter_user_mode(self, geometry: Geometry, root: int) -> int:
        """Map the program, turn the MMU on, enter user mode; return the program's virtual address."""

    def map_program(self, top: int, slot: int, levels: int, table: int, leaf: int, shift: int) -> None:
        """Make a slot of a top table lead to the program, by entries 0 of own tables.

        `table` and `leaf` are the bits of the two kinds of words, `shift` is how far left an address is moved in one
        (right if negative).
        """
        address, index = top, slot
        for own in range(OWN_TABLES, OWN_TABLES + (levels - 1) * PAGE, PAGE):
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
        (word,) = struct.unpack("<Q", self.uc.mem_read(address, 8))
        return word

    def poke(self, address: int, word: int) -> None:
        """Write a word to a physical address and forget all translations."""
        self.uc.mem_write(address, struct.pack("<Q", word))
        self.uc.ctl(unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE)

    # Accesses: to the unit of memory in which a virtual address lies

    def load(self, address: int) -> Access:
        """Load; the value is what the unit says its physical address is."""
        how = self._run(LOAD, self.word_at(address))
        return Access(how, self.uc.reg_read(self.VALUE) if how == _DONE else 0)

    def store(self, address: int, value: int) -> Access:
        """Store a value where a unit has its physical address."""
        return Access(self._run(STORE, self.word_at(address), value))

    def execute(self, address: int) -> Access:
        """Jump to the unit's instruction, which traps."""
        how = self._run(JUMP, address & -self.UNIT)
        return Access({f"exception {self.TRAP[0]}": _DONE, _DONE: "no exception"}.get(how, how))

    def _run(self, where: int, address: int, value: int = 0) -> str:
        uc = self.uc
        uc.context_restore(self._user_mode)
        uc.reg_write(self.ADDRESS, address)
        uc.reg_write(self.VALUE, value)
        start = self._program + where
        return self.emulate(start, start + len(self.SNIPPETS[where]))

    def emulate(self, start: int, end: int) -> str:
        self._raised, self._astray = None, ""
        try:
            # Always with a count: where one run has it and the next has not, unicorn walks tables in between.
            self.uc.emu_start(start, end, count=_INSTRUCTIONS)
        except UcError as error:
            return self._astray or str(error)
        if self._raised is None:
            return _DONE
        return _FAULT if self._raised in self.FAULTS else f"exception {self._raised}"

    def _on_exception(self, uc: Any, number: int, data: Any) -> None:
        self._raised = number
        uc.emu_stop()

    def _on_unmapped(self, uc: Any, kind: int, address: int, size: int, value: int, data: Any) -> bool:
        self._astray = f"an access of physical address {address:#x}"
        return False


def _moved(address: int, shift: int) -> int:
    return address << shift if shift >= 0 else address >> -shift


def _pages(address: int, size: int) -> range:
    return range(address & -PAGE, address + size, PAGE)


def _runs(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of runs of adjacent pages."""
    start = end = -1
    for page in sorted(pages):
        if page != end:
            if end >= 0:
                yield start, end
            start = page
        end = page + PAGE
    if end >= 0:
        yield start, end
