"""What the rows of a vector file say of its kernel's helpers: functions that are known at some points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from pfnmap.contract.entry import Level
from pfnmap.testing.vector_rows import Row
from pfnmap.testing.vectors import Vectors

__all__ = ["Facts"]

_CHANGES = ("mkyoung", "mkold", "mkdirty", "mkclean", "wrprotect", "mkwrite", "mkwrite_novma")
_ADDRESS_BITS_UNSAID = 40
_CACHE_MODES = ("pgprot_noncached", "pgprot_writecombine", "pgprot_device")


class Facts:
    """The rows of a vector file as functions of their inputs, known at some points."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self._tables = {
            helper: {row[:-1] if len(row) > 2 else row[0]: row[-1] for row in rows}
            for helper, rows in vectors.rows.items()
        }

    def provided(self, helper: str) -> bool:
        """Tell whether the architecture itself defines a helper."""
        return self.vectors.defined.get(helper) == "arch"

    def table(self, helper: str) -> Mapping[Any, int]:
        """Return what is known of a helper: input (a tuple of several) -> output."""
        return self._tables.get(helper, {})

    def know(self, level: Level, name: str, entry: int) -> int | None:
        """Return X_name(entry), or None where the file does not have it."""
        return self.table(f"{level}_{name}").get(entry)

    def rows(self, helper: str) -> list[Row]:
        """Return the rows of a helper."""
        return list(self.vectors.rows.get(helper, ()))

    @cached_property
    def prots(self) -> Mapping[int, int]:
        """The pgprots of mappings, in every cache mode with rows: pgprot -> VM_ flags & 15."""
        plain = {row[1]: row[0] for row in reversed(self.rows("vm_get_page_prot"))}
        found = dict(plain)
        for mode in _CACHE_MODES:
            for prot, flags in plain.items():
                if (other := self.table(mode).get(prot)) is not None:
                    found.setdefault(other, flags)
        return found

    def accessible(self, prot: int) -> bool:
        """Tell whether a pgprot is one of mappings that can be accessed."""
        return bool(self.prots.get(prot, 0) & 7)

    def lacks_leaves(self, level: Level) -> str:
        """Return the symbol for want of which no user mapping has leaves at a level, or ""."""
        symbol = {"pmd": "TRANSPARENT_HUGEPAGE", "pud": "HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD"}.get(level, "")
        return "" if not symbol or self.vectors.config.get(symbol) == "y" else symbol

    def is_leaf(self, level: Level, entry: int) -> bool:
        """Tell whether the file's own predicates call an entry a present leaf."""
        if not self.know(level, "present", entry) or self.know(level, "none", entry) != 0:
            return False
        return level == "pte" or (
            self.know(level, "leaf", entry) == 1 and self.know(level, "mkhuge", entry) in (entry, None)
        )

    def leaves(self, level: Level) -> list[int]:
        """Return the known leaves of a level."""
        return [entry for entry in self.table(f"{level}_present") if self.is_leaf(level, entry)]

    def changed(self, level: Level, *more: str) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        """Yield (helper, inputs, leaf, outcome) of everything that the file does to a leaf."""
        leaves = set(self.leaves(level))
        for name in (*_CHANGES, *more):
            for entry, outcome in self.table(f"{level}_{name}").items():
                if entry in leaves:
                    yield f"{level}_{name}", (entry,), entry, outcome
        for (entry, prot), outcome in self.table(f"{level}_modify").items():
            if entry in leaves and prot in self.prots:
                yield f"{level}_modify", (entry, prot), entry, outcome

    def inserted(self, level: Level) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        """Yield (helper, inputs, pfn, entry) of the leaves that the insert functions make for mappings."""
        for pfn, prot, write, entry in self.rows(f"composite_insert_pfn_{level}"):
            if self.accessible(prot) and self.can_map(level, pfn):
                yield f"composite_insert_pfn_{level}", (pfn, prot, write), pfn, entry

    def can_map(self, level: Level, pfn: int) -> bool:
        """Tell whether a leaf of a level can map a pfn: it is aligned, and a physical address."""
        bits_of_pfn = (self.vectors.physical_bits or _ADDRESS_BITS_UNSAID) - self.vectors.constants.get(
            "PAGE_SHIFT", 12
        )
        return not pfn & ((1 << self.order(level)) - 1) and not pfn >> bits_of_pfn

    def order(self, level: Level) -> int:
        """Return the order (log2 of base pages) of a level's leaves."""
        constants = self.vectors.constants
        return 0 if level == "pte" else constants.get(f"{level.upper()}_ORDER", 0)
