"""What the planner is asked, and what a driver answers: how user space's mapping of a region of its device is filled.

The planner works on intervals and asks; it knows no plugin by name. What a plugin answers here shares no code with its
fault handler: property tests hold the two equal. Of the physical address of a BAR of a page or more an answer hangs
only on what it is modulo the leaves that fit into the BAR, and no sentence names it: requests that are alike so far are
answered together. Addresses, sizes, offsets and lengths are in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from pfnmap.contract.defaults import DEFAULT_DRIVER
from pfnmap.contract.region import Msix, Span
from pfnmap.records import dataclass

__all__ = [
    "HUGE_LEVELS",
    "LEAF_LEVELS",
    "Filling",
    "Image",
    "InputName",
    "LeafLevel",
    "Reason",
    "RegionRules",
    "Request",
    "Run",
    "by_device",
]

T = TypeVar("T")

LeafLevel: TypeAlias = Literal["pte", "pmd", "pud"]
"""A level at which memory is mapped: base pages, PMD leaves, PUD leaves."""

LEAF_LEVELS: Final[tuple[LeafLevel, ...]] = ("pte", "pmd", "pud")
HUGE_LEVELS: Final[tuple[LeafLevel, ...]] = LEAF_LEVELS[1:]

Filling: TypeAlias = Literal["fault", "first fault", "mmap"]
"""When entries appear: each fault maps the leaf around it; the first one fills the whole vma with base pages; or mmap
itself does, by remap_pfn_range, and no fault follows."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _Symbols(Protocol):
    def enabled(self, symbol: str) -> bool: ...

    def value(self, symbol: str) -> str: ...


class _Geometry(Protocol):
    @property
    def PAGE_SIZE(self) -> int: ...

    def size(self, level: LeafLevel) -> int: ...


class Image(Protocol):
    """A linked kernel, as far as who answers the planner may look at it."""

    @property
    def arch(self) -> _Named:
        """The architecture."""

    @property
    def release(self) -> _Named:
        """The release."""

    @property
    def geometry(self) -> _Geometry:
        """The sizes of pages and leaves."""

    @property
    def config(self) -> _Symbols:
        """The resolved configuration."""

    @property
    def cpu(self) -> Mapping[str, Any]:
        """Boot-time state."""

    def has(self, change: str) -> bool:
        """Tell whether the release has an upstream change; an unknown one counts as absent."""

    def once(self, follows: Callable[[Image], T]) -> T:
        """Return what follows from this kernel alone, as a function of it says; it is called once."""

    def lacks(self, change: str) -> str:
        """Return a sentence that says that a change is not there: "6.1.192 lacks huge-pfnmap (first in 6.12)"."""


class InputName(NamedTuple):
    """Where a request comes from: a file, and what kind of input that is."""

    file: str
    kind: str


@dataclass(frozen=True, slots=True)
class Request:
    """What to plan: `length` bytes from `offset` of BAR `bar` (None: the rest of it), which lies at physical address
    `phys` and is `bar_size` bytes long.

    Placed at `va`, or by the policy of that name; with a `va`, `policy` only says who chose it. `device` is the PCI
    address or None. `mmapable`: whether the driver offers the BAR to mmap; None leaves that to its own rule. `gpa`:
    where a guest has the mapping, None: where its firmware would place the BAR. `driver`: who binds the device.
    `memory`: bytes of the BAR with memory behind them; None: all. `phys_assumed`: nobody said `phys`. `input`:
    the file that it was read from. `candidates`: the devices that it may be of, where there are several: `phys` is
    then the first one's, and those of the others differ by multiples of the BAR's size.

    What a VMM looks at besides: `bits`, the BAR's width (64 where nobody says it). `msix`: the device's capability.
    `sparse`: the parts of the region that can be mapped, where it says so (the sparse-mmap capability); empty: all.
    `msix_mappable`: it says that the MSI-X table may be mapped with the rest (4.16 and later). `pci_id`
    (``10de:2330``) and `class_name` as the source has them, None: not said.

    `prot` (letters of rwx, or "none") and `shared`: what mmap is asked for.
    """

    bar: int
    phys: int
    bar_size: int
    device: str | None = None
    offset: int = 0
    length: int | None = None
    va: int | None = None
    policy: str | None = None
    mmapable: bool | None = None
    gpa: int | None = None
    driver: str = DEFAULT_DRIVER
    memory: int | None = None
    phys_assumed: bool = False
    input: InputName | None = None
    bits: int = 64
    msix: Msix | None = None
    sparse: tuple[Span, ...] = ()
    msix_mappable: bool = True
    pci_id: str | None = None
    class_name: str | None = None
    prot: str = "rw"
    shared: bool = True
    candidates: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """How errors call it."""
        return f"BAR {self.bar}" + (f" of {self.device}" if self.device else "")

    def beside(self, others: Iterable[Request]) -> list[Request]:
        """Return those of `others` that are other BARs of the same device."""
        return [o for o in others if o.device is not None and o.device == self.device and o.bar != self.bar]


def by_device(requests: Iterable[Request]) -> dict[str | None, list[Request]]:
    """Return what is planned of each device; of a BAR of no device nothing stands beside it."""
    found: dict[str | None, list[Request]] = {None: []}
    for request in requests:
        if request.device is not None:
            found.setdefault(request.device, []).append(request)
    return found


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a mapping at one level: `count` leaves from `va` on."""

    va: int
    length: int
    level: LeafLevel
    count: int

    @property
    def end(self) -> int:
        """The first address past the run."""
        return self.va + self.length


class Reason(NamedTuple):
    """Why a level is not used: a name of `pfnmap.plan.REASONS`, and the same in words with numbers."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class RegionRules:
    """How one region of a device is mapped by its driver on one kernel. A sentence that is empty says that there is
    nothing to say.

    `end`: how many bytes from the region's start mmap takes, whole pages; `beyond`: what lies there, for the error.
    `refused`: why mmap takes nothing of it at all. `filling`: when entries appear; `before`: when they would without
    huge pfnmaps, as before 6.12.

    For filling by faults: `huge_fault`: there is such a handler. `answers`: the levels at which it maps a leaf, where
    the kernel has the entry for it. `unchecked`: it maps a leaf at an aligned address even where the PFN is not, which
    maps the wrong memory, because of this. `unaligned`: a fault in the middle of a block maps no leaf, because of this.

    `mapping_order`: the levels of whose leaves its get_mapping_order gives the order, by which mmap(NULL) makes a
    mapping congruent to its file offset. `pgoff_is_pfn`: its vm_pgoff is its first PFN, not an offset in the
    file.

    `reasons`: what of the driver rules a level out, by level. `dma`: the backend by which user space maps such regions
    for DMA unless another is asked for; None: it does not. `changes`: the upstream changes that any of this hangs on.
    """

    end: int
    beyond: str = "the BAR's end"
    refused: str = ""
    filling: Filling = "fault"
    before: Filling = "first fault"
    huge_fault: bool = False
    answers: frozenset[LeafLevel] = frozenset(HUGE_LEVELS)
    unchecked: str = ""
    unaligned: str = ""
    mapping_order: frozenset[LeafLevel] = frozenset()
    pgoff_is_pfn: bool = False
    reasons: Mapping[LeafLevel, tuple[Reason, ...]] = field(default_factory=dict)
    dma: str | None = None
    changes: tuple[str, ...] = ()
