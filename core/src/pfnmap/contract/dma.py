"""What the planner asks of who maps memory for DMA, and the answer: what a map costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from pfnmap.contract.plan import Image

__all__ = ["DmaBackend", "DmaMap", "Reach"]


@dataclass(frozen=True, slots=True)
class Reach:
    """What walks over parts of a mapping, page by page and in ascending order, meet: `leaves` of any size, `pages`
    of the base size, `breaks` (neighbouring pages whose physical addresses do not follow each other: only where leaves
    map the wrong memory). Where nothing is mapped yet, fixup_user_fault is needed `fixups` times and the driver's fault
    handler runs `driver_calls` times."""

    leaves: int
    pages: int
    breaks: int
    fixups: int
    driver_calls: int

    def __sub__(self, other: Reach) -> Reach:
        """What is met besides what is met anyhow."""
        return Reach(
            self.leaves - other.leaves,
            self.pages - other.pages,
            self.breaks - other.breaks,
            self.fixups - other.fixups,
            self.driver_calls - other.driver_calls,
        )


@dataclass(frozen=True, slots=True)
class DmaMap:
    """A DMA map: page-table walks, fixups (fixup_user_fault) and calls of the driver's fault handler when nothing is
    mapped yet (cold), and walks when all is (warm).

    `error`: the errno with which the backend refuses the address before any of them; `by` is the other way in which it
    maps a BAR then, None where there is none."""

    backend: str
    cold_walks: int = 0
    cold_fixups: int = 0
    cold_driver_calls: int = 0
    warm_walks: int = 0
    error: str | None = None
    by: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --json` prints."""
        costs = {
            "backend": self.backend,
            "cold": {
                "walks": self.cold_walks,
                "fixups": self.cold_fixups,
                "driver_calls": self.cold_driver_calls,
            },
            "warm": {"walks": self.warm_walks},
        }
        return costs if self.error is None else {**costs, "error": self.error, "by": self.by}


class DmaBackend(ABC):
    """Who maps memory of a process for DMA, as an interface of the kernel (`Module.dma_backends`)."""

    name: ClassVar[str]
    """What ``--dma`` calls it."""

    legend: ClassVar[str]
    """What the numbers of a map are, in a sentence."""

    changes: ClassVar[tuple[str, ...]] = ()
    """The upstream changes that the cost hangs on."""

    @abstractmethod
    def map(self, kernel: Image, reach: Reach) -> DmaMap:
        """Return what maps of parts of a mapping cost, together."""

    def note(self, kernel: Image) -> str:
        """Return what has to be said of any map, in a sentence without its full stop; empty: nothing."""
        return ""
