"""The page tables of an address space, in simulated physical memory.

The mm walks the kernel's five levels; a folded level returns its parent's slot (DESIGN rule 5). A table is a window on
`PhysicalMemory` at a physical address; bulk work takes its memory as a numpy array without copying. Sources:
include/linux/pgtable.h, mm/memory.c, mm/pgtable-generic.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from pfnmap.contract.entry import LEVELS, Level
from pfnmap.contract.geometry import WalkLevel
from pfnmap.contract.kernel import MachineState
from pfnmap.contract.pgtable_ops import Ops
from pfnmap.contract.slot import Slot, Table
from pfnmap.errors import Refused
from pfnmap.trace import Bug

__all__ = ["EMPTY", "NO_TABLE", "PageTables"]

_PARENT: dict[Level, Level] = {"p4d": "pgd", "pud": "p4d", "pmd": "pud", "pte": "pmd"}


class Step(NamedTuple):
    """The ops on the slots of a walked level above pte: those of `op`, the lowest level folded into it."""

    op: Level
    none: Callable[[int], int]
    present: Callable[[int], int]
    bad: Callable[[int], int]
    leaf: Callable[[int], int]
    pgtable: Callable[[int], int]


EMPTY: Final = -1
NO_TABLE: Final = -2


class Below(dict[int, int]):
    """Entry of a walked level above pte -> the physical address (bytes) of the table that it points to, `EMPTY`, or
    `NO_TABLE` for a leaf and for what is not present.

    The ops are asked once for each entry that points to a table: their answer never changes.
    """

    def __init__(self, step: Step, ops: Ops) -> None:
        self._step = step
        huge = step.op in ("pmd", "pud")
        self._huge = [getattr(ops, f"{step.op}_{what}") for what in ("trans_huge", "devmap")] if huge else []

    def __missing__(self, entry: int) -> int:
        step = self._step
        if step.none(entry):
            return EMPTY
        if step.leaf(entry) or not step.present(entry) or any(huge(entry) for huge in self._huge):
            return NO_TABLE
        found = self[entry] = step.pgtable(entry)
        return found


class _Walked(NamedTuple):
    """A walked level: where in an address its index is, and, but for pte, what its entries point to."""

    name: Level
    shift: int
    mask: int
    below: Below
    op: Level


_COUNTED = ("pud", "pmd", "pte")
"""What VmPTE counts (mm_inc_nr_puds, _pmds, _ptes); p4d and pgd tables are not."""


class PageTables:
    """The page tables of one address space: offsets, allocation and walks at every level.

    `X_offset(slot, address)` and `X_alloc(slot, address)` follow the kernel's: an `_alloc` fills an empty parent
    slot with a new table of level X first. `alloc` does all of them from the top down.
    """

    pgd: Table
    p4d_offset: Callable[[Slot, int], Slot]
    pud_offset: Callable[[Slot, int], Slot]
    pmd_offset: Callable[[Slot, int], Slot]
    pte_offset: Callable[[Slot, int], Slot]
    pmd_alloc: Callable[[Slot, int], Slot]
    pte_alloc: Callable[[Slot, int], Slot]

    def __init__(self, machine: MachineState, levels: tuple[WalkLevel, ...] | None = None) -> None:
        """`levels`: those that are walked, if not a new process's."""
        self._machine = machine
        self._kernel = machine.kernel
        self._ops = machine.kernel.ops
        self._phys = machine.phys
        self._deposited: dict[int, int] = {}
        self.pgtables_bytes = 0
        """What VmPTE shows: bytes of PTE, PMD and PUD tables."""
        self._begin(machine.kernel.geometry.levels(0) if levels is None else levels)

    def _begin(self, levels: tuple[WalkLevel, ...]) -> None:
        """Walk these levels from here on, from a new and empty top table."""
        kernel = self._kernel
        self.levels = levels
        names = [w.name for w in levels]
        self.steps: dict[Level, Step] = {}
        for name, below in pairwise(names):
            op = _PARENT[below]
            ops = [getattr(self._ops, f"{op}_{what}") for what in ("none", "present", "bad", "leaf", "pgtable")]
            self.steps[name] = Step(op, *ops)
        self.empty = {name: kernel.arch.empty(self.steps[name].op if name in self.steps else name) for name in names}
        self._ptrs = {w.name: w.ptrs for w in levels}
        self._walked = [
            _Walked(w.name, w.shift, w.ptrs - 1, Below(step, self._ops), step.op)
            for w, step in zip(levels, self.steps.values(), strict=False)
        ]
        self.below = {walked.op: walked.below for walked in self._walked}
        top, last = levels[0], levels[-1]
        self._top_shift, self._top_mask = top.shift, top.ptrs - 1
        self._last_shift, self._last_mask = last.shift, last.ptrs - 1
        self._down = {level: self._path(level) for level in LEVELS}
        self.pgd_pa = self._phys.alloc_table(top.ptrs, self.empty[top.name])
        self.pgd = self._phys.tables[self.pgd_pa]
        self.bytes = {name: kernel.geometry.ptrs(name) * 8 if name in _COUNTED else 0 for name in names}
        for level in _PARENT:
            offset = self._offset(level)
            setattr(self, f"{level}_offset", offset)
            if level in ("pmd", "pte"):
                setattr(self, f"{level}_alloc", self._alloc(level, offset))

    def _path(self, level: Level) -> tuple[list[tuple[int, int, Below, Level]], int, int]:
        """Return what is walked from the top down to the slots of a level: of each level above the shift, the mask,
        what is below and its name; and the shift and mask of the slots themselves."""
        at = max(n for n, w in enumerate(self.levels) if LEVELS.index(w.name) >= LEVELS.index(level))
        above = [(w.shift, w.mask, w.below, self.levels[n + 1].name) for n, w in enumerate(self._walked[:at])]
        return above, self.levels[at].shift, self.levels[at].ptrs - 1

    def alloc(self, level: Level, address: int) -> Slot:
        """Return the slot of an address at a level; tables that are missing on the way there are made."""
        above, last_shift, last_mask = self._down[level]
        tables = self._phys.tables
        table = self.pgd
        for shift, mask, below, child in above:
            index = (address >> shift) & mask
            pa = below[table[index]]
            if pa == EMPTY:
                self.populate(Slot(table, index), child)
                pa = below[table[index]]
            table = tables[pa]
        return Slot(table, (address >> last_shift) & last_mask)

    def _offset(self, level: Level) -> Callable[[Slot, int], Slot]:
        for walked in self.levels[1:]:
            if walked.name == level:
                shift, mask = walked.shift, walked.ptrs - 1
                break
        else:
            return lambda slot, address: slot
        pgtable = getattr(self._ops, f"{_PARENT[level]}_pgtable")
        tables = self._phys.tables
        return lambda slot, address: Slot(tables[pgtable(slot[0][slot[1]])], (address >> shift) & mask)

    def _alloc(self, level: Level, offset: Callable[[Slot, int], Slot]) -> Callable[[Slot, int], Slot]:
        none = getattr(self._ops, f"{_PARENT[level]}_none")

        def alloc(slot: Slot, address: int) -> Slot:
            table, index = slot
            if none(table[index]):
                self.populate(slot, level)
            return offset(slot, address)

        return alloc

    def populate(self, slot: Slot, level: Level) -> None:
        """Put a new table of `level` under the parent's slot, and count it."""
        pa = self._phys.alloc_table(self._ptrs[level], self.empty[level])
        slot.table[slot.index] = getattr(self._ops, f"{_PARENT[level]}_populate")(pa)
        self.pgtables_bytes += self.bytes[level]

    def reach(self, end: int) -> None:
        """Have tables that reach up to `end` (bytes): crst_table_upgrade of arch/s390/mm/pgalloc.c, nothing elsewhere.

        The top table becomes the first below a new one, and counts then if it is a PUD table. A process that has
        nothing mapped (a real one always has its stack) begins anew with as many levels as it needs.
        """
        geometry = self._kernel.geometry
        levels = geometry.levels(end)
        if len(levels) <= len(self.levels):
            return
        if all(entry == self.empty["pgd"] for entry in self.pgd):
            self._phys.free_table(self.pgd_pa)
            self._begin(levels)
        while len(self.levels) < len(levels):
            below_pa = self.pgd_pa
            self._begin(geometry.lowest(len(self.levels) + 1))
            below = self.levels[1].name
            self.pgd[0] = getattr(self._ops, f"{_PARENT[below]}_populate")(below_pa)
            self.pgtables_bytes += self.bytes[below]

    def table_under(self, slot: Slot, level: Level) -> Table:
        """Return the table of a walked level under its parent's slot, made where it is missing (X_alloc)."""
        parent = self.steps[self.levels[[w.name for w in self.levels].index(level) - 1].name]
        if parent.none(slot.entry):
            self.populate(slot, level)
        return self._phys.tables[parent.pgtable(slot.entry)]

    def deposit(self, address: int) -> None:
        """pgtable_trans_huge_deposit: keep a PTE table for the PMD leaf at `address`, and count it."""
        self._deposited[address] = self._phys.alloc_table(self._ptrs["pte"], self.empty["pte"])
        self.pgtables_bytes += self.bytes["pte"]

    def withdraw(self, address: int) -> None:
        """zap_deposited_table: free the PTE table that was kept for the PMD leaf at `address`."""
        self._phys.free_table(self._deposited.pop(address))
        self.pgtables_bytes -= self.bytes["pte"]

    def pgd_offset(self, address: int) -> Slot:
        """Return the top slot of an address."""
        return Slot(self.pgd, (address >> self._top_shift) & self._top_mask)

    def next_table(self, level: Level, entry: int) -> Table | None:
        """Return the table that an entry of a walked level points to; None where it is empty, a leaf or no table."""
        return self._phys.tables.get(self.below[self.steps[level].op][entry])

    def walk(self, address: int) -> Iterator[tuple[Level, Slot]]:
        """Yield (walked level, slot) from the top down to the leaf or the first empty entry of an address."""
        tables = self._phys.tables
        table = self.pgd
        for name, shift, mask, below, _ in self._walked:
            slot = Slot(table, (address >> shift) & mask)
            yield name, slot
            pa = below[slot.entry]
            if pa not in tables:
                return
            table = tables[pa]
        yield "pte", Slot(table, (address >> self._last_shift) & self._last_mask)

    def leaf(self, address: int) -> tuple[Level, Slot] | None:
        """Return the level and the slot of the leaf for an address, present or not; None where the slot is empty.

        The level is the one whose ops work on the leaf: the lowest that is folded into the walked one.
        """
        tables = self._phys.tables
        table = self.pgd
        for name, shift, mask, below, op in self._walked:
            index = (address >> shift) & mask
            pa = below[table[index]]
            if pa not in tables:
                return (op, Slot(table, index)) if pa == NO_TABLE and self.steps[name].leaf(table[index]) else None
            table = tables[pa]
        index = (address >> self._last_shift) & self._last_mask
        return None if self._ops.pte_none(table[index]) else ("pte", Slot(table, index))

    def pmd_slot(self, address: int) -> Slot | None:
        """mm_find_pmd's walk: the PMD slot of an address, or None where a table above is missing or a leaf."""
        slot = self.pud_slot(address)
        if slot is None:
            return None
        entry = slot.entry
        ops = self._ops
        if ops.pud_none(entry) or not ops.pud_present(entry) or ops.pud_leaf(entry):
            return None
        return self.pmd_offset(slot, address)

    def pud_slot(self, address: int) -> Slot | None:
        """Return the PUD slot of an address, or None where a table above is missing."""
        ops = self._ops
        pgd = self.pgd_offset(address)
        if ops.pgd_none(pgd.entry):
            return None
        p4d = self.p4d_offset(pgd, address)
        if ops.p4d_none(p4d.entry):
            return None
        return self.pud_offset(p4d, address)

    def none_or_clear_bad(self, level: Level, slot: Slot) -> bool:
        """X_none_or_clear_bad (mm/pgtable-generic.c) of a walked level: empty, or complained about and emptied."""
        table, index = slot
        step = self.steps[level]
        if step.none(table[index]):
            return True
        if step.bad(table[index]):
            self._machine.trace.emit(Bug(f"mm/pgtable-generic.c: bad {step.op} *({table[index]:016x})"))
            table[index] = self.empty[level]
            return True
        return False

    def free(self) -> None:
        """Free the top table, and refuse if anything is left under it (exit_mmap frees all before)."""
        if any(entry != self.empty[self.levels[0].name] for entry in self.pgd):
            raise Refused("exit_mmap", "page tables are left")
        self._phys.free_table(self.pgd_pa)
