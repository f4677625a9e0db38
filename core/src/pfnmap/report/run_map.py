"""The maps of the BARs that a run has mapped: what the page tables hold at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pfnmap.report.bar_map import BarMap, Stretch, covering
from pfnmap.report.page_tables import page_table_rows

if TYPE_CHECKING:
    from pfnmap.contract.device import DeviceBar
    from pfnmap.contract.vma import MmStruct
    from pfnmap.run import Run

__all__ = ["run_maps"]

Leaves = tuple[int, int, str, int, int]
"""Leaves in a row: physical and virtual address of the first, their level, the size of one (bytes), how many."""


def run_maps(run: Run) -> list[BarMap]:
    """Return a map of each BAR that a process of the run has leaves of, as often as it maps it at another address.

    What is mapped is told by the leaves' physical addresses, so that any driver's mapping is seen, and a page that was
    copied is not: it is no longer the BAR's.
    """
    found: list[BarMap] = []
    for by, mm in (("parent", run.parent), ("child", run.child)):
        leaves = list(_leaves(mm)) if mm is not None else []
        for device in run.devices.values():
            for bar in device.bars.values():
                views: dict[int, list[Stretch]] = {}
                for stretch in _of_bar(leaves, bar):
                    assert stretch.va is not None
                    views.setdefault(stretch.va - stretch.offset, []).append(stretch)
                for start, stretches in sorted(views.items()):
                    all_of_it = tuple(covering(_joined(stretches), bar.size))
                    found.append(BarMap(device.bdf, bar.index, f"{by} at {start:#x}", bar.size, all_of_it))
    return found


def _leaves(mm: MmStruct) -> Iterator[Leaves]:
    ops, shift = mm.kernel.ops, mm.kernel.geometry.PAGE_SHIFT
    for row in page_table_rows(mm):
        if not row.table and getattr(ops, f"{row.level}_present")(row.value):
            yield getattr(ops, f"{row.level}_pfn")(row.value) << shift, row.va, row.level, row.size, row.count


def _of_bar(leaves: list[Leaves], bar: DeviceBar) -> Iterator[Stretch]:
    for phys, va, level, size, count in leaves:
        if bar.phys <= phys < bar.phys + bar.size:
            yield Stretch(phys - bar.phys, size * count, level, va, count)


def _joined(stretches: list[Stretch]) -> Iterator[Stretch]:
    """Neighbours of one level as one stretch: their entries may differ in more than the address."""
    held: Stretch | None = None
    for stretch in stretches:
        if held and held.kind == stretch.kind and held.end == stretch.offset:
            length, count = held.length + stretch.length, held.count + stretch.count
            held = Stretch(held.offset, length, held.kind, held.va, count)
            continue
        if held:
            yield held
        held = stretch
    if held:
        yield held
