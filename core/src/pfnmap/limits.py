"""How much work one op of a small file may ask for: what is done one by one has a bound, and more is refused."""

from __future__ import annotations

from typing import Final

from pfnmap.errors import Refused

__all__ = ["MAPPINGS", "PAGES", "PTES", "TABLE_BYTES", "bounded"]

MAPPINGS: Final = 8192
"""Mappings that are planned at once."""

PAGES: Final = 1 << 22
"""Pages that an op goes over one by one (touches, faults, pins, look-ups): 16 GiB in pages of 4K."""

PTES: Final = 1 << 26
"""PTEs that one call fills in, in bulk: 512 MiB of page tables, 256 GiB in pages of 4K."""

TABLE_BYTES: Final = 1 << 30
"""Bytes of page tables that there are at a time."""


def bounded(what: str, count: int, limit: int = PAGES, unit: str = "pages") -> int:
    """Return `count`. Raises Refused where it is over the limit; `what` names the op or the kernel function."""
    if count > limit:
        raise Refused(what, f"{count} {unit}, where {limit} are the most that is simulated")
    return count
