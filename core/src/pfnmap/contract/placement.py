"""What the planner asks of a VMM, and the answer: which areas of a BAR are mapped, where, and what is made of them.

A subclass of `Vmm` is what an entry point of group ``pfnmap.vmm`` names. Addresses, offsets and lengths are in bytes;
offsets are within the BAR.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from pfnmap.contract.plan import Image, Request
from pfnmap.contract.region import Span
from pfnmap.errors import BadInput, Unknown
from pfnmap.records import dataclass

__all__ = ["AddressSpace", "Area", "Part", "Placed", "Redone", "Unmapped", "Vmm"]

Redone: TypeAlias = Literal["mmap", "slots", "dma"]
"""A mapping of the process, a guest's memory slots, DMA maps."""


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
    `unmapped`: the parts that are not mapped, with why. `notes`: sentences that the answer hangs on. `gpa`: where a
    guest has the BAR where nobody says it; None: at a multiple of its size. `redone`: what is undone and done again
    when the guest switches memory decode off and on; None: not known. `madvise_hugepage`: the areas are advised of
    MADV_HUGEPAGE.
    """

    areas: tuple[Area, ...]
    slots: tuple[Span, ...] | None = None
    dma: tuple[Span, ...] | None = None
    unmapped: tuple[Unmapped, ...] = ()
    notes: tuple[str, ...] = ()
    gpa: int | None = None
    redone: tuple[Redone, ...] | None = None
    madvise_hugepage: bool = False


class Part(NamedTuple):
    """A part of a BAR that goes `at` bytes above a base that is still to be found."""

    request: Request
    span: Span
    at: int = 0


class AddressSpace(Protocol):
    """The address space of a process that has nothing mapped yet, on one kernel."""

    @property
    def kernel(self) -> Image:
        """The kernel."""

    @property
    def page(self) -> int:
        """Bytes of a base page."""

    @property
    def task_size(self) -> int:
        """The first address past user space."""

    @property
    def base(self) -> int:
        """Where mmap(NULL) searches downwards from. No process's real one, and only page-aligned on purpose."""

    def leaf(self, request: Request, span: Span) -> int:
        """Return the largest leaf (bytes) that this kernel can map of a request and of which a block fits into a part
        of it."""

    def mmap_grain(self, request: Request, span: Span) -> int:
        """Return modulo how many bytes mmap(NULL) makes a part of a BAR congruent to its offset, by the release's
        rule: a page where it aligns nothing."""

    def place(self, parts: Sequence[Part], grain: int, top: int | None = None) -> tuple[Area, ...]:
        """Return the areas of some parts above one base, the highest below `top` (None: `base`) of which nothing is
        known but that it is a multiple of `grain` (a power of two), and that is not luckier than that.

        Raises BadInput where they do not fit.
        """


class Vmm(ABC):
    """Who maps BARs, by program and version. An instance is asked any number of times, for different kernels."""

    name: ClassVar[str]
    """The plugin's name, as in ``--vmm``."""

    versions: ClassVar[tuple[str, ...]] = ()
    """The versions that are known, oldest first: "9.2", with its stable releases, "9.2 to 10.2" or "to 9.1". Those of
    one entry do the same. Empty: it is known in one `state` only."""

    state: ClassVar[str] = ""
    """In which state it is known, where it has no versions: "its source of 2024-07-10"."""

    takes: ClassVar[tuple[str, ...]] = ()
    """The options of the program that it knows (``--vmm-opt NAME`` or ``NAME=VALUE``)."""

    changes: ClassVar[tuple[str, ...]] = ()
    """The upstream changes of the kernel that its answers hang on."""

    executables: ClassVar[tuple[str, ...]] = ()
    """What its executable is called, as patterns of the shell: ``qemu-system-*``. What several have is taken for the
    one whose package is installed, else for the one whose class the others derive from."""

    packages: ClassVar[tuple[str, ...]] = ()
    """The packages of distributions that hold it, whose version (`upstream`) is its own."""

    def __init__(self, version: str = "", options: Sequence[str] = (), *, newest: bool = False) -> None:
        """Take a version (empty: the newest that is known) and options of the program, in order; `newest`: take a
        version that is newer than what is known for the newest known.

        Raises Unknown for a version that is not known, BadInput for an option.
        """
        self.version = version
        self.assumed = ""
        """What was taken of the version that nobody said or knows, in a sentence without its full stop."""
        self.number = self._known(version, newest)
        """The version as numbers; the newest known where none was given."""
        self.options: Mapping[str, str] = self._options(options)
        """What the options say by name; "on" without a value."""

    @abstractmethod
    def place(self, space: AddressSpace, requests: Sequence[Request]) -> Sequence[Placed]:
        """Place all BARs that one process maps; return as many answers, in the same order.

        The requests are in the order in which they were given, those of one device together; their `length` is
        settled, and all of them can be mapped. The answer hangs on no more of a physical address than `RegionRules` do.
        """

    def upstream(self, version: str) -> str:
        """Return the program's own version in what a distribution calls it."""
        return version

    def _known(self, version: str, newest: bool) -> tuple[int, ...]:
        ranges = [_ends(text) for text in self.versions]
        last = ranges[-1][1] if ranges else ()
        if not version:
            if ranges:
                self.assumed = f"no version of {self.name} is given: {self._newest}"
            elif self.state:
                self.assumed = f"{self.name} as in {self.state}"
            return last
        number = _number(self.upstream(version))
        number += (0,) * (len(last) - len(number) if number else 0)
        if number and any(low <= number and number[: len(high)] <= high for low, high in ranges):
            return number
        if newest and number and ranges and number > last:
            self.assumed = f"{self.name} {version} is newer than what is known: {self._newest}"
            return last
        raise Unknown(f"version of {self.name}", version, self.versions or filter(None, (self.state,)), every=True)

    @property
    def _newest(self) -> str:
        return f"taken as {self.versions[-1].rpartition(' ')[2]}"

    def _options(self, options: Iterable[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for text in options:
            name, equals, value = text.partition("=")
            if name not in self.takes:
                known = f"; it takes {', '.join(self.takes)}" if self.takes else ""
                raise BadInput("--vmm-opt", f"{self.name} takes no option {name!r}{known}")
            if name in found:
                raise BadInput("--vmm-opt", f"{name} is given twice")
            found[name] = value if equals else "on"
        return found

    def switched_on(self, option: str, default: str = "off") -> bool:
        """Tell whether an option is on; `default`: what it is if not given. Raises BadInput for neither on nor off."""
        value = self.options.get(option, default)
        if value not in ("on", "off"):
            raise BadInput("--vmm-opt", f"{option} is on or off, not {value!r}")
        return value == "on"


def _number(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with; none where it does not begin with one."""
    found = re.match(r"[0-9]{1,9}(?:[.-][0-9]{1,9})*", text)
    return tuple(int(part) for part in re.split(r"[.-]", found[0])) if found else ()


def _ends(text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the first and the last version of "9.2 to 10.2", "9.2", or "to 10.2" (the first of all)."""
    low, to, high = f" {text}".partition(" to ")
    return _number(low.strip()), _number(high if to else low.strip())
