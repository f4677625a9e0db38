"""Page-table entries: what they are, and the levels that they stand at.

An **entry** is an unsigned 64-bit integer, never wrapped in an object: a Python ``int`` in [0, 2**64), or a
``numpy.uint64`` array whose lanes are entries. Every op is elementwise and gives the same bits for both, without
importing numpy: masks are non-negative 64-bit constants, left shifts are masked to 64 bits, predicates answer 0 or 1 in
the entry's own type, selection is ``predicate * MASK``; no branch on an entry, no ``~``. ``prot`` arguments are pgprot
values (also unsigned 64-bit), ``pfn`` arguments page frame numbers of the base page size, ``pa`` physical addresses in
bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

__all__ = ["LEVELS", "Entry", "Has", "Level"]

Level = Literal["pte", "pmd", "pud", "p4d", "pgd"]
LEVELS: tuple[Level, ...] = ("pte", "pmd", "pud", "p4d", "pgd")

Entry: TypeAlias = Any
"""An ``int`` or a ``numpy.uint64`` array; see the module's text. (`Any`, so that numpy need not be imported.)"""

Has: TypeAlias = Callable[[str], bool]
"""Asks whether the release that is being linked has an upstream change, by its id in changes.toml."""
