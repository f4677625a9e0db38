"""Events of `pfnmap.trace` as text and for JSON, whatever type a plugin adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from pfnmap.trace import Repeat

if TYPE_CHECKING:
    from pfnmap.trace import Event

__all__ = ["event_json", "event_line", "json_line"]

_HEX: Final = frozenset({"va", "pfn", "entry", "old", "new"})
"""Fields that are addresses or entries."""


def event_json(event: Event) -> dict[str, Any]:
    """Return an event as ``{"event": "fault", "order": 9, ...}``, addresses and entries as "0x..."."""
    found: dict[str, Any] = {"event": type(event).__name__.lower()}
    for field in fields(event):
        value = getattr(event, field.name)
        if field.name == "events":
            value = [event_json(one) for one in value]
        found[field.name] = hex(value) if field.name in _HEX else list(value) if isinstance(value, tuple) else value
    if isinstance(event, Repeat):
        found.update(first=hex(event.first), last=hex(event.last))
    return found


def event_line(event: Event) -> str:
    """Return an event as a line: ``fault order=9 ret=NOPAGE va=0x...``; what is empty is left out."""
    return json_line(event_json(event))


def json_line(event: Mapping[str, Any]) -> str:
    """Return as a line what `event_json` gave."""
    shown = {name: value for name, value in event.items() if value not in ("", [], None)}
    kind = shown.pop("event")
    if isinstance(event, Repeat):
        each = "; ".join(event_line(one) for one in event.events)
        return f"{event.count:,} times, from va={shown['first']} to va={shown['last']}: {each}"
    return " ".join([kind, *(f"{name}={_word(value)}" for name, value in shown.items())])


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " <- ".join(map(str, value))
    return repr(value) if isinstance(value, str) and " " in value else str(value)
