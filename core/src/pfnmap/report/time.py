"""Estimated seconds in lines made for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pfnmap.report.text import Text

if TYPE_CHECKING:
    from pfnmap.plan.time import Estimate, Times

__all__ = ["render_times"]


def render_times(times: Times) -> list[Text]:
    """Return the lines: what each policy takes, and the sources once."""
    lines = [Text("\nTime, estimated, all devices together", "bold")]
    sources: dict[str, None] = {}
    for policy, one in times.policies.items():
        name = policy or "as given"
        if one is None:
            lines.append(Text(f"{name}: nothing is mapped for DMA, or nobody measured it", "", 2))
            continue
        lines.append(Text(f"{name}: {_said(one)}", "", 2))
        sources |= dict.fromkeys(one.sources)
    return [*lines, *(Text(source, "dim", 2) for source in sources)]


def _said(one: Estimate) -> str:
    toggles = _span(*one.toggles)
    text = f"DMA map, or decode toggle {_seconds(one.dma_map)}; boot with {toggles} toggles {_seconds(one.boot)}"
    if one.boot_batched is not None:
        text += f", with batched BAR sizing in the guest {_seconds(one.boot_batched)}"
    return text


def _seconds(span: tuple[float, float]) -> str:
    return f"{_span(*(float(f'{value:.2g}') for value in span))} s"


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
