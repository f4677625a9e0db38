"""What the planner asks of who maps memory for DMA, and the answer: what a map costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

from pfnmap.contract.plan import Image
from pfnmap.records import dataclass, replace

__all__ = ["DmaBackend", "DmaMap", "DmaReason", "Published", "Reach"]


T = TypeVar("T")


class DmaReason(NamedTuple):
    """An upstream change that would cut `walks` walks of a map, all else as it is; `detail`: why it is not there, in
    words."""

    change: str
    walks: int
    detail: str


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
    maps a BAR then, None where there is none. `reasons`: which changes would cut the walks, those that cut most
    first."""

    backend: str
    cold_walks: int = 0
    cold_fixups: int = 0
    cold_driver_calls: int = 0
    warm_walks: int = 0
    error: str | None = None
    by: str | None = None
    reasons: tuple[DmaReason, ...] = ()

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
            "reasons": [{"change": reason.change, "walks": reason.walks} for reason in self.reasons],
        }
        return costs if self.error is None else {**costs, "error": self.error, "by": self.by}


class Published(NamedTuple):
    """A measurement that somebody published: nanoseconds that a walk took (least and most), and where it stands."""

    ns_per_walk: tuple[float, float]
    source: str


class DmaBackend(ABC):
    """Who maps memory of a process for DMA, as an interface of the kernel (`Module.dma_backends`)."""

    name: ClassVar[str]
    """What ``--dma`` calls it."""

    legend: ClassVar[str]
    """What the numbers of a map are, in a sentence."""

    changes: ClassVar[tuple[str, ...]] = ()
    """The upstream changes that the cost hangs on."""

    published: ClassVar[tuple[Published, ...]] = ()
    """What walks took where it was measured; empty: nobody published it."""

    @abstractmethod
    def map(self, kernel: Image, reach: Reach) -> DmaMap:
        """Return what maps of parts of a mapping cost, together."""

    def explained(self, kernel: Image, reach: Reach) -> DmaMap:
        """Return what `map` says, with the reasons: it is asked again with each of `changes` that the kernel lacks."""
        cost = self.map(kernel, reach)
        lacking = [change for change in self.changes if not kernel.has(change)]
        if not lacking:
            return cost
        saved = ((change, cost.cold_walks - self.map(_Having(kernel, change), reach).cold_walks) for change in lacking)
        reasons = [DmaReason(change, walks, kernel.lacks(change)) for change, walks in saved if walks > 0]
        return replace(cost, reasons=_together(reasons)) if reasons else cost

    def note(self, kernel: Image) -> str:
        """Return what has to be said of any map, in a sentence without its full stop; empty: nothing."""
        return ""


def _together(reasons: list[DmaReason]) -> tuple[DmaReason, ...]:
    """Return one reason a change, with the walks of all; those with most walks first."""
    walks: dict[tuple[str, str], int] = {}
    for reason in reasons:
        key = reason.change, reason.detail
        walks[key] = walks.get(key, 0) + reason.walks
    found = (DmaReason(change, count, detail) for (change, detail), count in walks.items())
    return tuple(sorted(found, key=lambda reason: -reason.walks))


class _Having:
    """A kernel as it would be with one upstream change more."""

    def __init__(self, kernel: Image, change: str) -> None:
        self._kernel = kernel
        self._change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def has(self, change: str) -> bool:
        return change == self._change or self._kernel.has(change)

    def once(self, follows: Callable[[Image], T]) -> T:
        return follows(self)
