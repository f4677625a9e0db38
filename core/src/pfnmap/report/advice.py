"""Advice in lines made for reading: what saves most first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pfnmap.report.text import Text
from pfnmap.sizes import rounded_size

if TYPE_CHECKING:
    from pfnmap.plan.advise import Advice

__all__ = ["render_advice"]

_SHOWN = 6
"""Sets that are shown of a policy; ``--json`` has all."""


def render_advice(found: Sequence[Advice]) -> list[Text]:
    """Return the lines; what each step is, is said once below."""
    if not found:
        return [Text("\nAdvice: no release, backport, setting, VMM version or address that is known helps", "bold")]
    lines: list[Text] = []
    steps: dict[str, str] = {}
    for policy in dict.fromkeys(advice.policy for advice in found):
        sets = [advice for advice in found if advice.policy == policy]
        lines.append(Text(f"\nAdvice for {policy or 'the address as given'}, what saves most first", "bold"))
        for advice in sets[:_SHOWN]:
            steps |= {str(step): step.detail for step in advice.steps}
            lines.append(Text(f"  {' + '.join(map(str, advice.steps))}: {', '.join(_saved(advice))}"))
        if len(sets) > _SHOWN:
            lines.append(Text(f"  and {len(sets) - _SHOWN} more, which --json has", "dim"))
    return [*lines, *(Text(f"  {step}: {detail}", "dim") for step, detail in steps.items())]


def _saved(advice: Advice) -> Iterable[str]:
    saves = advice.saves
    for number, unit in (
        (saves.dma_walks, "DMA walks"),
        (saves.driver_calls, "faults"),
        (saves.table_bytes, "of page tables"),
    ):
        if number:
            amount = rounded_size(abs(number)) if unit == "of page tables" else f"{abs(number):,}"
            yield f"{amount} {unit} {'less' if number > 0 else 'more'}"
