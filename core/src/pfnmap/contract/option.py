"""An option of `pfnmap plan` that a plugin brings, and what the options together ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pfnmap.records import dataclass

__all__ = ["Asked", "PlanOption"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked besides the mappings themselves. `dma`: the backend that maps for DMA (None: the driver's own);
    `hypervisor`: whose guest has the mappings, too; `gpa`: where (bytes)."""

    dma: str | None = None
    hypervisor: str | None = None
    gpa: int | None = None


@dataclass(frozen=True, slots=True)
class PlanOption:
    """An option ``--name``; without `metavar` it is a flag, and only what is given is asked.

    `ask(asked, value)` returns what is asked with it, where `value` is the text, or True for a flag; it raises BadInput
    for a value that cannot be. `panel`: under which heading the help has it.
    """

    name: str
    help: str
    panel: str
    ask: Callable[[Asked, Any], Asked]
    metavar: str = ""
