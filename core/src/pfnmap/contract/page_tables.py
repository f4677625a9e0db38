"""The page tables of an address space, in simulated physical memory.

The mm walks the kernel's five levels; a folded level returns its parent's slot (DESIGN rule 5). A table is a window on
`PhysicalMemory` at a physical address; bulk work takes its memory as a numpy array without copying. Sources:
include/linux/pgtable.h, mm/memory.c, mm/pgtable-generic.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pfnmap.contract.entry import LEVELS, Level
from pfnmap.contract.geometry import WalkLevel
from pfnmap.contract.kernel import MachineState
from pfnmap.contract.slot import Slot, Table, slot_of
from pfnmap.contract.walk import PARENT, Below, Step, shapes, to_pte
from pfnmap.errors import Refused
from pfnmap.trace import Bug

__all__ = ["PageTables"]


class _Walked(NamedTuple):
    """A walked level: where in an address its index is, and, but for pte, what its entries point to."""

    name: Level
    shift: int
    mask: int
    below: Below
    step: Step


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
    pte: Callable[[int], tuple[Table, int] | None]
    """``pte(address)``: the PTE table of an address and the index in it, None where there is none: `slot`, in a third
    of the time."""

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
        shape = kernel.once(shapes)(levels)
        self.steps, self.empty, self.bytes, self._ptrs = shape.steps, shape.empty, shape.bytes, shape.ptrs
        self._walked = [
            _Walked(w.name, w.shift, w.ptrs - 1, Below(step, self._phys.tables), step)
            for w, step in zip(levels, self.steps.values(), strict=False)
        ]
        self.below = {level: self._walked[shape.holding[level]].below for level in LEVELS[1:]}
        top, last = levels[0], levels[-1]
        self._top_shift, self._top_mask = top.shift, top.ptrs - 1
        self._last_shift, self._last_mask = last.shift, last.ptrs - 1
        above = [(w.shift, w.mask, w.below, child.name) for w, child in zip(self._walked, levels[1:], strict=True)]
        self._down = {level: (above[:at], levels[at].shift, levels[at].ptrs - 1) for level, at in shape.holding.items()}
        """What is walked from the top down to the slots of a level: of each level above the shift, the mask, what is
        below and its name; and the shift and the mask of the slots themselves."""
        self.pgd_pa = self._phys.alloc_table(top.ptrs, self.empty[top.name])
        self.pgd = self._phys.tables[self.pgd_pa]
        self.pte = to_pte(levels)(self.pgd, *(w.below for w in self._walked))
        self.stride = self._phys.rounded(kernel.geometry.PTRS_PER_PTE * 8)
        """Bytes from a PTE table to the next that lies right behind it."""
        self.rise = self._ops.pmd_populate(self.stride) - self._ops.pmd_populate(0)
        """By how much the PMD entry of that one is above the entry of the first."""
        for level in PARENT:
            offset = self._offset(level)
            setattr(self, f"{level}_offset", offset)
            if level in ("pmd", "pte"):
                setattr(self, f"{level}_alloc", self._alloc(level, offset))

    def alloc(self, level: Level, address: int) -> Slot:
        """Return the slot of an address at a level; tables that are missing on the way there are made."""
        above, last_shift, last_mask = self._down[level]
        table = self.pgd
        for shift, mask, below, child in above:
            index = (address >> shift) & mask
            table = below[table[index]] or self.populate(table, index, child)
        return slot_of((table, (address >> last_shift) & last_mask))

    def _offset(self, level: Level) -> Callable[[Slot, int], Slot]:
        for walked in self.levels[1:]:
            if walked.name == level:
                shift, mask = walked.shift, walked.ptrs - 1
                break
        else:
            return lambda slot, address: slot
        below = self.below[PARENT[level]]

        def offset(slot: Slot, address: int) -> Slot:
            table, index = slot
            under = below[table[index]]
            assert under is not None, "no table there"
            return slot_of((under, (address >> shift) & mask))

        return offset

    def _alloc(self, level: Level, offset: Callable[[Slot, int], Slot]) -> Callable[[Slot, int], Slot]:
        if level not in self._ptrs:  # folded
            return offset
        below = self.below[PARENT[level]]

        def alloc(slot: Slot, address: int) -> Slot:
            table, index = slot
            if below[table[index]] is None:
                self.populate(table, index, level)
            return offset(slot, address)

        return alloc

    def populate(self, table: Table, index: int, level: Level) -> Table:
        """Return a new table of `level`, put under its parent's empty slot, and count it."""
        above = PARENT[level]
        assert getattr(self._ops, f"{above}_none")(table[index]), f"a {above} slot that is taken"
        pa = self._phys.alloc_table(self._ptrs[level], self.empty[level])
        table[index] = getattr(self._ops, f"{above}_populate")(pa)
        self.pgtables_bytes += self.bytes[level]
        return self._phys.tables[pa]

    def populate_all(self, table: Table, index: int, count: int) -> list[range]:
        """Put a new PTE table under each of `count` empty slots of a PMD table from `index` on, and count them; return
        runs of their physical addresses. They are filled by who asks."""
        import numpy as np

        runs = self._phys.alloc_tables(count, self._ptrs["pte"])
        entries = np.frombuffer(table, np.uint64)
        for run in runs:
            addresses = np.arange(run.start, run.stop, run.step, dtype=np.uint64)
            entries[index : index + len(run)] = self._ops.pmd_populate(addresses)
            index += len(run)
        self.pgtables_bytes += count * self.bytes["pte"]
        return runs

    def slot(self, level: Level, address: int) -> Slot | None:
        """Return the slot of an address at a level, or None where a table above is missing."""
        above, last_shift, last_mask = self._down[level]
        table: Table | None = self.pgd
        for shift, mask, below, _ in above:
            assert table is not None
            table = below[table[(address >> shift) & mask]]
            if table is None:
                return None
        assert table is not None
        return slot_of((table, (address >> last_shift) & last_mask))

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
            self.pgd[0] = getattr(self._ops, f"{PARENT[below]}_populate")(below_pa)
            self.pgtables_bytes += self.bytes[below]

    def table_under(self, slot: Slot, level: Level) -> Table:
        """Return the table of a walked level under its parent's slot, made where it is missing (X_alloc)."""
        return self.below[PARENT[level]][slot.entry] or self.populate(*slot, level)

    def deposit(self, address: int) -> None:
        """pgtable_trans_huge_deposit: keep a PTE table for the PMD leaf at `address`, and count it."""
        self._deposited[address] = self._phys.alloc_table(self._ptrs["pte"], self.empty["pte"])
        self.pgtables_bytes += self.bytes["pte"]

    def withdraw(self, address: int) -> None:
        """zap_deposited_table: free the PTE table that was kept for the PMD leaf at `address`."""
        self._phys.free_table(self._deposited.pop(address))
        self.pgtables_bytes -= self.bytes["pte"]

    def populate_deposited(self, slot: Slot, address: int) -> Table:
        """pgtable_trans_huge_withdraw and pmd_populate: put the PTE table that was kept for the PMD leaf at `address`
        in its place, and return it."""
        pa = self._deposited.pop(address)
        slot.table[slot.index] = self._ops.pmd_populate(pa)
        return self._phys.tables[pa]

    def pgd_offset(self, address: int) -> Slot:
        """Return the top slot of an address."""
        return Slot(self.pgd, (address >> self._top_shift) & self._top_mask)

    def next_table(self, level: Level, entry: int) -> Table | None:
        """Return the table that an entry of a walked level points to; None where it is empty, a leaf or no table."""
        return self.below[self.steps[level].op][entry]

    def walk(self, address: int) -> Iterator[tuple[Level, Slot]]:
        """Yield (walked level, slot) from the top down to the leaf or the first empty entry of an address."""
        table = self.pgd
        for name, shift, mask, below, _ in self._walked:
            slot = Slot(table, (address >> shift) & mask)
            yield name, slot
            under = below[slot.entry]
            if under is None:
                return
            table = under
        yield "pte", Slot(table, (address >> self._last_shift) & self._last_mask)

    def leaf(self, address: int) -> tuple[Level, Slot] | None:
        """Return the level and the slot of the leaf for an address, present or not; None where the slot is empty.

        The level is the one whose ops work on the leaf: the lowest that is folded into the walked one.
        """
        pte = self.pte(address)
        if pte is not None:
            table, index = pte
            return None if self._ops.pte_none(table[index]) else ("pte", slot_of(pte))
        table = self.pgd
        for _, shift, mask, below, step in self._walked:
            index = (address >> shift) & mask
            entry = table[index]
            under = below[entry]
            if under is None:
                return (step.op, slot_of((table, index))) if step.leaf(entry) and not step.none(entry) else None
            table = under
        return None

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

    def none_or_clear_bad(self, level: Level, slot: Slot, finding: str = "") -> bool:
        """X_none_or_clear_bad (mm/pgtable-generic.c) of a walked level: empty, or complained about and emptied."""
        table, index = slot
        step = self.steps[level]
        if step.none(table[index]):
            return True
        if step.bad(table[index]):
            self._machine.trace.emit(Bug(f"mm/pgtable-generic.c: bad {step.op} *({table[index]:016x})", finding))
            table[index] = self.empty[level]
            return True
        return False

    def free(self) -> None:
        """Free the top table, and refuse if anything is left under it (exit_mmap frees all before)."""
        if any(entry != self.empty[self.levels[0].name] for entry in self.pgd):
            raise Refused("exit_mmap", "page tables are left")
        self._phys.free_table(self.pgd_pa)
