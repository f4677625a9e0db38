"""In what two plans differ, in lines made for reading."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pfnmap.report.text import Text
from pfnmap.sizes import format_size, rounded_size

if TYPE_CHECKING:
    from pfnmap.plan.difference import Difference, MappingDifference, Sum

__all__ = ["render_difference"]


def render_difference(found: Difference, spec: str) -> list[Text]:
    """Return the lines; `spec` is what the other side was called."""
    lines = [Text(f"\nDifference, here / {spec}", "bold")]
    lines += [
        Text(f"  {name}: {_word(name, here)} / {_word(name, there)}") for name, (here, there) in found.kernel.items()
    ]
    lines += [Text(f"  {change}: {here} / {there}") for change, (here, there) in found.changes.items()]
    lines += [Text(f"  {line}") for row in found.mappings for line in _row(row)]
    if not found.mappings:
        lines.append(Text("  none in how any BAR is mapped, and in what that costs"))
    return lines


def _word(name: str, value: Any) -> str:
    return format_size(value) if name == "page_size" else str(value)


def _row(row: MappingDifference) -> Iterable[str]:
    policies = dict.fromkeys(policy or "as given" for policy in row.policies)
    part = f" from {row.offset:#x}" if row.offset else ""
    name = f"BAR {row.bar}{f' of {row.device}' if row.device else ''}{part}, {' / '.join(policies)}"
    here, there = row.sides
    if here is None or there is None:
        yield f"{name}: only {'there' if here is None else 'here'}"
        return
    yield f"{name}: {_leaves(here)} / {_leaves(there)}; {_costs(here, there)}"


def _leaves(side: Sum) -> str:
    shown = (f"{count:,}x{format_size(side.sizes[level])}" for level, count in side.counts.items() if count)
    return " + ".join(shown) or "nothing mapped"


def _costs(here: Sum, there: Sum) -> str:
    def walks(side: Sum) -> str:
        return "-" if side.dma_walks is None else f"{side.dma_walks:,}"

    return (
        f"{here.driver_calls:,} / {there.driver_calls:,} faults; "
        f"{rounded_size(here.table_bytes)} / {rounded_size(there.table_bytes)} of page tables; "
        f"{walks(here)} / {walks(there)} DMA walks (cold)"
    )
