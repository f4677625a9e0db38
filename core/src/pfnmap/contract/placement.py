"""What the planner asks of a VMM, and the answer: which areas of a BAR are mapped, where, and what is made of them.

A subclass of `Vmm` is what an entry point of group ``pfnmap.vmm`` names. Addresses, offsets and lengths are in bytes;
offsets are within the BAR.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

from pfnmap.contract.plan import Request
from pfnmap.errors import BadInput, Unknown
from pfnmap.records import dataclass

__all__ = ["AddressSpace", "Area", "Placed", "Span", "Unmapped", "Vmm"]


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a BAR."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A part of a BAR that is not mapped, and why."""

    offset: int
    length: int
    reason: str


@dataclass(frozen=True, slots=True)
class Area:
    """A part of a BAR that is mapped at `va`, whole pages.

    `va` is representative: no luckier than what is guaranteed. Guaranteed is that it is a multiple of `alignment`, and
    with `congruent` that it is congruent to the BAR modulo the largest leaf that fits; `luck`: the odds (0 to 1) that a
    real address is congruent modulo the next larger leaf than is guaranteed.
    """

    offset: int
    length: int
    va: int
    alignment: int
    congruent: bool
    luck: float = 0.0


@dataclass(frozen=True, slots=True)
class Placed:
    """What becomes of one request: the areas that are mapped, in ascending order.

    `slots`: what a guest gets as memory slots, `dma`: what is mapped for DMA; None: every area as it is, empty: none.
    `unmapped`: the parts that are not mapped, with why. `notes`: sentences that the answer hangs on.
    """

    areas: tuple[Area, ...]
    slots: tuple[Span, ...] | None = None
    dma: tuple[Span, ...] | None = None
    unmapped: tuple[Unmapped, ...] = ()
    notes: tuple[str, ...] = ()


class AddressSpace(Protocol):
    """The address space of a process that has nothing mapped yet, on one kernel."""

    @property
    def page(self) -> int:
        """Bytes of a base page."""

    @property
    def task_size(self) -> int:
        """The first address past user space."""

    @property
    def base(self) -> int:
        """Where mmap(NULL) searches downwards from. No process's real one, and only page-aligned on purpose."""

    def leaf(self, request: Request, length: int) -> int:
        """Return the largest leaf (bytes) that this kernel can map of a request and that fits into `length` bytes."""

    def mmap(self, request: Request, span: Span) -> Area:
        """Return what mmap(NULL) gives for a part of a BAR, by the release's rule, with what it guarantees.

        Raises BadInput where it does not fit.
        """

    def mmap_note(self, request: Request, area: Area) -> str:
        """Return what has to be said of an area that mmap(NULL) placed, without full stop; empty: nothing."""


class Vmm(ABC):
    """Who maps BARs, by program and version. `version` is empty where nobody said one; `options` are those of the
    program that were given (``--vmm-opt``), in order."""

    name: ClassVar[str]
    """The plugin's name, as in ``--vmm``."""

    versions: ClassVar[tuple[str, ...]] = ()
    """The versions that are known, for who asks for another."""

    def __init__(self, version: str = "", options: Sequence[str] = ()) -> None:
        """Take a version and options. Raises Unknown for a version that is not known, BadInput for an option."""
        if version and version not in self.versions:
            raise Unknown(f"version of {self.name}", version, self.versions)
        if options:
            raise BadInput("--vmm-opt", f"{self.name} takes no option {options[0]!r}")
        self.version = version

    @abstractmethod
    def place(self, space: AddressSpace, requests: Sequence[Request]) -> Sequence[Placed]:
        """Place all BARs that one process maps; return as many answers, in the same order.

        The requests are in the order in which they were given, those of one device together; their `length` and
        `mmapable` are settled.
        """
