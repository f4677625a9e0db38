"""What many machines come to: a summary of the lines that ``--batch`` writes, one after another."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pfnmap.batch import Line
from pfnmap.contract.plan import LEAF_LEVELS
from pfnmap.plan import REASONS

__all__ = ["Fleet"]

_DISTINCT: Final = 1 << 14
"""Different words that are counted of a kind; a summary has a dozen, and a file of anybody's any number."""
_NEVER: Final = "too_small"
"""What is no fault of a host's: a BAR that is smaller than a leaf never has one."""


@dataclass
class Fleet:
    """Sums over machines.

    `hosts` were answered, of `broken` ones there is an error or a line that cannot be read; `devices`: those of all
    hosts. `bars`: mappings of BARs by the level that maps most of them, ``none`` where nothing is mapped. `reasons`:
    mappings by what stops the next larger leaf that fits. `fixes`: hosts by the steps that help them, and `helped`:
    hosts that something helps. `advised`: hosts of which the lines say what would help. `contradicted`: hosts whose
    VmPTE contradicts the plan.
    """

    hosts: int = 0
    broken: int = 0
    devices: int = 0
    bars: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys((*reversed(LEAF_LEVELS), "none"), 0)))
    reasons: Counter[str] = field(default_factory=Counter)
    fixes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    helped: int = 0
    advised: int = 0
    contradicted: int = 0

    def add(self, line: Line) -> None:
        """Add a line."""
        try:
            document = json.loads(line.content) if not line.error else {"error": line.error}
            if not isinstance(document, dict) or not isinstance(document.get("mappings"), list):
                told = document.get("error") if isinstance(document, dict) else None
                raise ValueError(told or "no document of plan or host")
            self._add(document)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self.broken += 1
            _count(self.errors, ["".join(c if c.isprintable() else "?" for c in str(error))[:120]])

    def _add(self, document: Mapping[str, Any]) -> None:
        rows = document["mappings"]
        levels, reasons = [_level(row) for row in rows], [reason for row in rows for reason in _reasons(row)]
        fixes, told = _fixes(document)
        devices = {row["device"] for row in rows} | {one for row in rows for one in row.get("candidates", ())}
        differ = any((row.get("vmpte") or {}).get("agrees") is False for row in rows)
        self.hosts += 1
        self.devices += len(devices - {None})
        self.bars.update(levels)
        _count(self.reasons, reasons)
        _count(self.fixes, fixes)
        self.helped += bool(fixes)
        self.advised += told
        self.contradicted += differ

    def as_json(self) -> dict[str, Any]:
        """Return the document that `fleet --json` prints, without its schema."""
        return {
            "hosts": self.hosts,
            "broken": self.broken,
            "devices": self.devices,
            "bars": dict(self.bars),
            "reasons": [{"reason": reason, "count": count} for reason, count in _ranked(self.reasons)],
            "fixes": [{"change": change, "hosts": hosts} for change, hosts in _ranked(self.fixes)],
            "helped": self.helped,
            "advised": self.advised,
            "contradicted": self.contradicted,
            "errors": [{"error": error, "count": count} for error, count in _ranked(self.errors)],
        }


def _count(counter: Counter[str], words: Iterable[str]) -> None:
    counter.update(word for word in words if word in counter or len(counter) < _DISTINCT)


def _ranked(counter: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


def _level(row: Mapping[str, Any]) -> str:
    """Return the level that maps most bytes of a mapping."""
    found: Counter[str] = Counter()
    for run in row["runs"]:
        found[run["level"]] += run["length"]
    level = found.most_common(1)[0][0] if found else "none"
    if level not in (*LEAF_LEVELS, "none"):
        raise ValueError("a level that no mapping has")
    return level


def _reasons(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons of a mapping, each once: those of the next larger leaf of each part that would fit."""
    first = {block["va"]: block["reason"] for block in reversed(row["blocked"])}
    for reason in dict.fromkeys(first.values()):
        if reason not in REASONS:
            raise ValueError("a reason that no mapping has")
        if reason != _NEVER:
            yield reason


def _fixes(document: Mapping[str, Any]) -> tuple[set[str], bool]:
    """Return the sets of steps that help a host, and whether the document says anything of that."""
    advice = document.get("advice")
    rows = [row["fix"] for row in document["mappings"] if "fix" in row] if advice is None else advice
    found = {" + ".join(one["changes"]) for one in rows if one}
    if not all(steps.isprintable() for steps in found):
        raise ValueError("a step that no advice has")
    return found, advice is not None or bool(rows)
