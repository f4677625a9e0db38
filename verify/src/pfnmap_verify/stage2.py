"""KVM's second-stage tables of a guest's virtual machine, read from guest memory.

They are AMD's nested page tables, which have the format of x86's own. Bit 51 is KVM's mark of MMIO where the CPU has
fewer physical address bits (kvm_mmu_reset_all_pte_masks), as that of the emulated machine has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

__all__ = ["second_stage"]

_LEVELS = (("pgd", 39), ("pud", 30), ("pmd", 21), ("pte", 12))
_ENTRIES = 512
_PRESENT, _WRITABLE, _LEAF, _MMIO, _NX = 1 << 0, 1 << 1, 1 << 7, 1 << 51, 1 << 63
_ADDRESS = (1 << 51) - (1 << 12)
_RAM = 0x10000
"""What the virtual machine has of its own, at its address 0."""

Read = Callable[[int, int], Awaitable[list[int]]]


async def second_stage(read: Read, root: int) -> dict[str, Any]:
    """Return `stage2` and `mmio_sptes` of a step of a recording of group kvm: leaves beyond the guest's own memory,
    those that continue each other as a run.

    `read` gives so many 64-bit words at a physical address, `root` is that of the top table (bytes).
    """
    stage2: list[dict[str, Any]] = []
    mmio: list[dict[str, Any]] = []
    async for level, shift, gpa, spte in _entries(read, root & _ADDRESS, 0, 0):
        if spte & _MMIO:
            mmio.append({"gpa": hex(gpa), "count": 1, "spte": hex(spte)})
            continue
        hpa, flags = spte & _ADDRESS & -(1 << shift), spte & ~_ADDRESS
        if stage2:
            last = stage2[-1]
            on = last["count"] << shift
            before = int(last["spte"], 16)
            follows = int(last["gpa"], 16) + on == gpa and int(last["hpa"], 16) + on == hpa
            if follows and last["level"] == level and before & ~_ADDRESS == flags:
                last["count"] += 1
                continue
        stage2.append(
            {
                "gpa": hex(gpa),
                "level": level,
                "count": 1,
                "spte": hex(spte),
                "hpa": hex(hpa),
                "writable": bool(spte & _WRITABLE),
                "x": not spte & _NX,
                "read_back": hex(spte),
            }
        )
    return {"stage2": stage2, "mmio_sptes": mmio} if mmio else {"stage2": stage2}


async def _entries(read: Read, table: int, depth: int, start: int) -> AsyncIterator[tuple[str, int, int, int]]:
    """Yield the leaves below a table in ascending order: level, its shift, guest address, entry."""
    level, shift = _LEVELS[depth]
    for index, spte in enumerate(await read(table, _ENTRIES)):
        gpa = start + (index << shift)
        if not spte & _PRESENT:
            continue
        if level == "pte" or spte & (_LEAF | _MMIO):
            if gpa >= _RAM:
                yield level, shift, gpa, spte
            continue
        async for found in _entries(read, spte & _ADDRESS, depth + 1, gpa):
            yield found
