"""What the planner is told of arm64's KVM before `arm64-kvm-pfnmap-block`, which sized blocks by vm_pgoff.

get_vma_page_shift() of arch/arm64/kvm/mmu.c, 5.14 on: the block around a guest's fault is the largest modulo which
address, vm_pgoff and guest address are congruent and that lies in the mapping, whatever leaves the process has. The
process faults at the block's start alone. Read and not run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pfnmap.contract.guest import GuestRun, Host, Hosted
from pfnmap.contract.plan import LEAF_LEVELS, LeafLevel
from pfnmap.records import dataclass

__all__ = ["BlockRun", "block_runs", "cold_of", "leaves_of"]


@dataclass(frozen=True)
class BlockRun:
    """A stretch [va, end) of the mapping that the guest gets in blocks of one level."""

    va: int
    end: int
    level: LeafLevel
    size: int

    @property
    def count(self) -> int:
        """How many blocks, each by a fault."""
        return (self.end - self.va) // self.size


def block_runs(hosted: Hosted, off: Mapping[LeafLevel, int]) -> tuple[BlockRun, ...]:
    """Cut a mapping into the blocks that the guest gets; `off`: by how much guest address and address differ modulo
    each level."""
    if not hosted.runs:
        return ()
    pgoff = hosted.phys if hosted.pgoff_is_pfn else hosted.offset
    fit = [(level, size) for level, size in hosted.sizes.items() if not off[level] and not (hosted.va - pgoff) % size]
    return tuple(_cut(hosted.va, hosted.runs[-1].end, sorted(fit, key=lambda row: LEAF_LEVELS.index(row[0]))))


def _cut(start: int, end: int, fit: list[tuple[LeafLevel, int]]) -> Iterator[BlockRun]:
    """The blocks of the largest level first, and around them those of the smaller ones."""
    if start >= end:
        return
    *smaller, (level, size) = fit
    low, high = -(-start // size) * size, end // size * size
    if low >= high:
        yield from _cut(start, end, smaller)
        return
    yield from _cut(start, low, smaller)
    yield BlockRun(low, high, level, size)
    yield from _cut(high, end, smaller)


def leaves_of(kernel: Host, hosted: Hosted, gpa: int, blocks: Iterable[BlockRun]) -> Iterator[GuestRun]:
    """Return what the blocks are mapped with: one leaf each, or smaller ones where guest and physical address are not
    congruent, or the hardware has no such leaf (of 1G with 4K pages alone; kvm_block_mapping_supported)."""
    for run in blocks:
        at = gpa + run.va - hosted.va
        phys = hosted.phys + run.va - hosted.va
        level, size = next(
            (level, hosted.sizes[level])
            for level in reversed(LEAF_LEVELS[: LEAF_LEVELS.index(run.level) + 1])
            if not (phys - at) % hosted.sizes[level] and (level != "pud" or kernel.geometry.PAGE_SIZE == 4096)
        )
        yield GuestRun(at, run.end - run.va, level, (run.end - run.va) // size)


def cold_of(hosted: Hosted, blocks: Iterable[BlockRun]) -> tuple[int, int]:
    """Return how often the process faults, and its driver's handler runs, when the guest touches all of it: at the
    start of each block, or once for each of its own leaves where those are larger."""
    fixups = calls = 0
    for run in blocks:
        for own in hosted.runs:
            low, high = max(run.va, own.va), min(run.end, own.end)
            low = -(-low // run.size) * run.size  # the first block that starts in it
            if low >= high:
                continue
            if hosted.sizes[own.level] >= run.size:
                found, times = hosted.reach(low, high), 1
            else:
                found, times = hosted.reach(low, low + hosted.sizes["pte"]), -(-(high - low) // run.size)
            fixups += found.fixups * times
            calls += found.driver_calls * times
    whole = hosted.reach(hosted.va, hosted.runs[-1].end if hosted.runs else hosted.va)
    return min(fixups, whole.fixups), min(calls, whole.driver_calls)  # a first fault that fills all comes once
