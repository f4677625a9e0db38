"""What a placement policy leaves smaller, as a table: alike areas in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pfnmap.contract.plan import LEAF_LEVELS, LeafLevel
from pfnmap.report.text import Table, Text
from pfnmap.sizes import format_size

if TYPE_CHECKING:
    from pfnmap.plan.losses import Loss

__all__ = ["render"]

_HEADER = ("BAR", "area", "1G/2M/4K", "possible", "of its BAR", "devices")


def render(policy: str, versions: Sequence[str], losses: Sequence[Loss]) -> list[Text | Table]:
    """Return what `pfnmap vmm` prints of a policy: its losses, why, and the rules that would mend them."""
    title = Text(f"\n{policy}", "bold").append(f"  {versions[0]}" if len(versions) == 1 else "", "not bold")
    if not losses:
        return [title, Text("  nothing stays smaller than it could be")]
    alike: dict[tuple[str, ...], dict[str, None]] = {}
    for loss in losses:
        alike.setdefault(_row(loss), {})[loss.device] = None
    rows = [[Text(cell) for cell in (*row, _few(list(devices)))] for row, devices in alike.items()]
    table = Table(_HEADER, rows, _HEADER[:1], ruled=False)
    why = dict.fromkeys(sentence for loss in losses for sentence in (*loss.notes, loss.reason))
    rules = dict.fromkeys(f"rule: {loss.rule}" for loss in losses)
    return [title, table, *(Text(f"  {text}") for text in why), *(Text(f"  {text}", "green") for text in rules)]


def _row(loss: Loss) -> tuple[str, ...]:
    whole = (loss.area.offset, loss.area.length) == (0, loss.bar_size)
    area = "whole" if whole else f"{loss.area.offset:#x}+{loss.area.length:#x}"
    said = [f"after {loss.after}"] if loss.after else []
    said += [] if loss.msix_mappable else ["table not mappable"]
    return (
        format_size(loss.bar_size),
        f"{area} ({', '.join(said)})" if said else area,
        _leaves(loss.counts),
        _leaves(loss.possible),
        "" if whole else f"{_leaves(loss.bar_counts)} for {_leaves(loss.bar_possible)}",
    )


def _leaves(counts: Mapping[LeafLevel, int]) -> str:
    return "/".join(f"{counts[level]:,}" for level in reversed(LEAF_LEVELS))


def _few(devices: list[str]) -> str:
    return devices[0] + (f" and {len(devices) - 1} more" if len(devices) > 1 else "")
