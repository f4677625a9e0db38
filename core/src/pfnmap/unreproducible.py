"""What a recording holds that no run can make again, and by what a replay tells it from what it compares.

Frame numbers of RAM, of which a recording gives none in entries, but which /proc/self/pagemap tells. Where a page is on
the lists of the LRU: a page waits in a batch of its CPU until others fill it, so that "active" of numa_maps, and on 7.x
the "Referenced" of smaps, depend on what else the machine did (`neighbour.numa_maps.*`, `neighbour.smaps.private`).
"""

from __future__ import annotations

from typing import Any, Final

from pfnmap.run import Run

__all__ = ["forgive"]

_PRESENT: Final = 1 << 63
_FRAME: Final = (1 << 55) - 1


def forgive(run: Run, expect: dict[str, Any], got: dict[str, Any]) -> None:
    """Take out of both sides what differs for these reasons alone."""
    if "entries" in expect and len(expect["entries"]) == len(got.get("entries", ())):
        pairs = [_frames(run, int(e, 0), int(g, 0)) for e, g in zip(expect["entries"], got["entries"], strict=True)]
        expect["entries"], got["entries"] = [hex(e) for e, _ in pairs], [hex(g) for _, g in pairs]
    if "tokens" in expect:
        expect["tokens"] = [token for token in expect["tokens"] if not token.startswith("active=")]
    expected, told = expect.get("fields", {}), got.get("fields", {})
    if told.get("Referenced", 0) < expected.get("Referenced", 0) <= told.get("Rss", 0):
        got["fields"] = {**told, "Referenced": expected["Referenced"]}


def _frames(run: Run, expected: int, got: int) -> tuple[int, int]:
    """Return two entries of pagemap without their frames where both are of RAM."""
    shift = run.kernel.geometry.PAGE_SHIFT
    if got & _PRESENT and (got & _FRAME) << shift in run.machine.phys.ram and not _in_a_bar(run, expected, shift):
        return expected & ~_FRAME, got & ~_FRAME
    return expected, got


def _in_a_bar(run: Run, entry: int, shift: int) -> bool:
    address = (entry & _FRAME) << shift
    bars = (bar for device in run.devices.values() for bar in device.bars.values())
    return any(bar.phys <= address < bar.phys + bar.size for bar in bars)
