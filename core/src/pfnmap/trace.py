"""The one event stream: whatever a kernel could have traced.

An event is written once and read often: nobody changes one. `Trace.events` holds the events since the last
`Trace.drain`; who listens (``pfnmap run --trace``) is called as events happen.
Nothing prints from inside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from pfnmap.records import dataclass

__all__ = [
    "Bug",
    "Call",
    "Event",
    "Fault",
    "Hang",
    "Install",
    "KernelDied",
    "Message",
    "Misbehaviour",
    "Oops",
    "Outcome",
    "Repeat",
    "Split",
    "Trace",
    "Warn",
    "counted",
    "later",
    "unrolled",
]


@dataclass(slots=True)
class Event:
    """Something that happened in the kernel."""


@dataclass(slots=True)
class Call(Event):
    """A traced kernel function was entered. `va` is its address argument (bytes), `ret` what it returned where that
    is told ("ok" or an errno name)."""

    function: str
    va: int = 0
    ret: str = ""


@dataclass(slots=True)
class Fault(Event):
    """The driver's fault handler returned: `order` (log2 of base pages), `ret` (NOPAGE, FALLBACK, SIGBUS, ...), `va`
    the page-aligned fault address, `write` the write fault flag, `vma_lock` whether it ran under the per-VMA lock."""

    order: int
    ret: str
    va: int
    write: bool
    vma_lock: bool


@dataclass(slots=True)
class Install(Event):
    """A leaf was written: `level`, `va` (start of what it maps), `pfn`, the `entry`, and how many (`count`) in a
    row."""

    level: str
    va: int
    pfn: int
    entry: int
    count: int = 1


@dataclass(slots=True)
class Split(Event):
    """A huge leaf was split, as vmstat counts it: `level` "pmd" or "pud", `va` of the leaf."""

    level: str
    va: int


@dataclass(slots=True)
class Message(Event):
    """A kernel log line."""

    text: str


@dataclass(slots=True)
class Warn(Message):
    """A WARNING in the kernel log; `finding` names the finding of the real kernel's that it is (F4, ...)."""

    finding: str = ""


@dataclass(slots=True)
class Bug(Message):
    """A complaint such as "bad pud"; `finding` as in Warn."""

    finding: str = ""


@dataclass(slots=True)
class Oops(Event):
    """The kernel died in `function`, called from `stack` (innermost first); `finding` as in Warn."""

    function: str
    stack: tuple[str, ...] = ()
    finding: str = ""


@dataclass(slots=True)
class Misbehaviour(Event):
    """A real kernel misbehaves here without a word: `finding` is its number (F3, ...), `what` a sentence."""

    finding: str
    what: str


@dataclass(slots=True)
class Hang(Event):
    """An access to `va` never completes; `finding` as in Warn."""

    va: int
    finding: str = ""


@dataclass(slots=True)
class Repeat(Event):
    """`events` happen `count` times in a row, each time `step` bytes further on, at the PFNs that follow (`pages` on):
    as they are the first time. In a later one an Install's entry has the PFN that it tells, all else is the same."""

    events: tuple[Event, ...]
    count: int
    step: int
    pages: int

    @property
    def first(self) -> int:
        """The first address (bytes)."""
        return next((event.va for event in _plain(self.events) if hasattr(event, "va")), 0)

    @property
    def last(self) -> int:
        """The address of the same event the last time."""
        return self.first + (self.count - 1) * self.step


def _plain(events: Iterable[Event]) -> Iterator[Any]:
    for event in events:
        yield from _plain(event.events) if isinstance(event, Repeat) else (event,)


def later(event: Event, offset: int, pages: int) -> Event:
    """Return an event as it is `offset` bytes and `pages` PFNs further on; the entry of an Install stays."""
    if isinstance(event, Repeat):
        return replace(event, events=tuple(later(one, offset, pages) for one in event.events))
    moved = {"va": getattr(event, "va", 0) + offset, "pfn": getattr(event, "pfn", 0) + pages}
    return replace(event, **{name: value for name, value in moved.items() if hasattr(event, name)})


def unrolled(events: Iterable[Event], kind: type[Event] = Event, offset: int = 0, pages: int = 0) -> Iterator[Event]:
    """Yield the events of a kind one by one, repeated ones as often as they happened, as they are `offset` bytes and
    `pages` PFNs further on."""
    for event in events:
        if isinstance(event, Repeat):
            for n in range(event.count if _holds(event, kind) else 0):
                yield from unrolled(event.events, kind, offset + n * event.step, pages + n * event.pages)
        elif isinstance(event, kind):
            yield later(event, offset, pages) if offset or pages else event


def _holds(event: Event, kind: type[Event]) -> bool:
    """Tell whether an event is of a kind, or repeats one that is."""
    return any(_holds(one, kind) for one in event.events) if isinstance(event, Repeat) else isinstance(event, kind)


def counted(events: Iterable[Event]) -> Iterator[tuple[Event, int]]:
    """Yield each event, a repeated one the first time alone, with how often it happened."""
    for event in events:
        if isinstance(event, Repeat):
            yield from ((one, count * event.count) for one, count in counted(event.events))
        else:
            yield event, 1


class Outcome(Exception):  # of the modelled kernel, no error of ours
    """What ends a step at once: unwinds the model's stack to it."""


class KernelDied(Outcome):
    """The kernel died: unwinds the model's stack to the step that killed it. Nothing runs after it."""

    def __init__(self, oops: Oops) -> None:
        super().__init__(f"Oops in {oops.function} ({oops.finding})")
        self.oops = oops


class Trace:
    """Collects events; see the module's text."""

    events: list[Event]
    emit: Callable[[Event], None]
    """``emit(event)``: append an event and tell the listeners."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Event], None]] = []
        self._begin()

    def _begin(self) -> None:
        self.events = []
        self.emit = self._tell if self._listeners else self.events.append

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        for listener in self._listeners:
            listener(event)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Have `listener` called with each event from now on, as it happens."""
        self._listeners.append(listener)
        self.emit = self._tell

    def drain(self) -> list[Event]:
        """Return the events since the last drain and forget them."""
        events = self.events
        self._begin()
        return events
