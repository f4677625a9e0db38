"""A log's faults as text: a table a BAR, what was mapped as a map, and what contradicts the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pfnmap.contract.plan import LEAF_LEVELS
from pfnmap.report.bar_map import BarMap, Stretch, covering, render
from pfnmap.report.text import Table, Text
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pfnmap.kernel import Kernel
    from pfnmap.survey.faultlog import FaultLog, Judged

__all__ = ["render_log"]

_SHOWN: Final = 256
"""BARs that are shown."""


def render_log(log: FaultLog, kernel: Kernel, judged: Sequence[Judged]) -> list[Text | Table]:
    """Return what `pfnmap log` prints below its heading, in order."""
    page = kernel.geometry.PAGE_SIZE
    parts: list[Text | Table] = []
    for one in judged[:_SHOWN]:
        parts.append(Text(f"\n{one.log.device} BAR {one.log.bar}", "bold underline"))
        cells = [[Text(str(order)), Text(ret), Text(f"{count:,}")] for order, ret, count in one.log.counts()]
        parts.append(Table(("order", "result", "faults"), cells, ("order", "faults"), indent=2))
        parts.append(Text(f"covered: {format_size(one.covered * page)}", "", 2))
        parts += [Text(f"contradicts the plan: {said}", "bold red", 2) for said in one.contradicts]
    if (more := len(judged) - _SHOWN) > 0:
        parts.append(Text(f"\nand {more:,} more BARs; --json has all", "dim"))
    if log.suppressed:
        parts.append(Text(f"\nNot complete: {log.suppressed:,} lines were suppressed by the rate limit", "bold yellow"))
    elif not log.complete:
        parts.append(Text("\nMaybe not complete: it ends with as many lines as the rate limit lets through", "yellow"))
    return parts + render([found for one in judged[:_SHOWN] if (found := _map(one, kernel)) is not None])


def _map(one: Judged, kernel: Kernel) -> BarMap | None:
    """Return what was mapped as a map, in bytes from the start of the vma; None for nothing."""
    page = kernel.geometry.PAGE_SIZE
    levels = {kernel.geometry.size(level): level for level in LEAF_LEVELS}
    found = [
        Stretch(start * page, (end - start) * page, levels[page << order], None, (end - start) >> order)
        for start, end, order in one.filled
    ]
    if not found:
        return None
    size = found[-1].end
    return BarMap(
        one.log.device, one.log.bar, "from the start of the vma, by the log", size, tuple(covering(found, size))
    )
