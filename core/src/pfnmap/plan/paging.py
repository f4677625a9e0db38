"""What of a linked kernel decides where leaves of a pfnmap can be, whoever maps it: its mm and its architecture."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from pfnmap.contract.plan import HUGE_LEVELS, LEAF_LEVELS, LeafLevel, Reason
from pfnmap.plan.reasons import arch_lacks, level_reasons, thp_disabled
from pfnmap.records import dataclass

if TYPE_CHECKING:
    from pfnmap.contract.geometry import Geometry, WalkLevel
    from pfnmap.kernel import Kernel

__all__ = ["Paging"]

_CHANGES = (
    "huge-pfnmap",
    "per-vma-lock-faults",
    "thp-bypass-pfnmap",
    "no-thp-align-without-get-unmapped-area",
    "remap-pfn-range-pmd",
)


@dataclass(frozen=True)
class Paging:
    """A linked kernel's side of every mapping.

    `sizes`: bytes of a leaf per level. `tables`: up to which address a process's tables reach, and for each table that
    VmPTE counts then, the bytes that it spans and its own; a process with higher mappings has the next (s390).
    `stack_top`: the end of what those of a new process reach. `asked`: the levels that a fault asks a huge_fault for
    (mm/memory.c, __handle_mm_fault; recordings' faults). `entries`: those that there is an entry for; `remapped`: those
    that remap_pfn_range uses. `passes`: of a user fault that ends at a base page. `deposit`: bytes of page table that a
    PMD leaf needs. `thp_aligned`: mmap(NULL) may align to the PMD size. `huge`: has huge-pfnmap. `reasons`: what rules
    a level out anywhere. `changes`: the upstream changes that all this hangs on.
    """

    sizes: Mapping[LeafLevel, int]
    tables: tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
    task_size: int
    stack_top: int
    huge: bool
    asked: frozenset[LeafLevel]
    entries: frozenset[LeafLevel]
    remapped: frozenset[LeafLevel]
    passes: int
    deposit: int
    thp_aligned: bool
    reasons: Mapping[LeafLevel, tuple[Reason, ...]]
    changes: tuple[str, ...]

    @classmethod
    def of(cls, kernel: Kernel, *, madvised: bool = False) -> Paging:
        """Read a linked kernel; `madvised`: for mappings that are advised of MADV_HUGEPAGE."""
        geometry, config, has = kernel.geometry, kernel.config, kernel.has
        huge, thp = has("huge-pfnmap"), config.enabled("TRANSPARENT_HUGEPAGE")
        counts = range(geometry.new_process_levels or len(geometry.walk), len(geometry.walk) + 1)
        asks = huge and thp and not thp_disabled(kernel, madvised=madvised)
        remaps: tuple[LeafLevel, ...] = ("pmd",) if has("remap-pfn-range-pmd") and kernel.pfnmap("pmd") else ()
        own = (change for changes in kernel.arch.leaf_changes.values() for change in changes)
        return cls(
            sizes={level: geometry.size(level) for level in LEAF_LEVELS},
            tables=tuple(_counted_tables(geometry, geometry.lowest(count)) for count in counts),
            task_size=geometry.task_size,
            stack_top=geometry.stack_top,
            huge=huge,
            asked=frozenset(level for level in HUGE_LEVELS if asks and not arch_lacks(kernel, level)),
            entries=frozenset(level for level in HUGE_LEVELS if kernel.pfnmap(level)),
            remapped=frozenset(remaps),
            passes=2 if has("per-vma-lock-faults") and config.enabled("PER_VMA_LOCK") else 1,
            deposit=geometry.ptrs("pte") * 8 if kernel.ops.arch_needs_pgtable_deposit() else 0,
            thp_aligned=huge and thp and not has("no-thp-align-without-get-unmapped-area"),
            reasons={level: tuple(level_reasons(kernel, level, madvised=madvised)) for level in HUGE_LEVELS},
            changes=(*_CHANGES, *dict.fromkeys(own)),
        )

    @classmethod
    def of_madvised(cls, kernel: Kernel) -> Paging:
        """Read a linked kernel for mappings that are advised of MADV_HUGEPAGE."""
        return cls.of(kernel, madvised=True)

    @property
    def page(self) -> int:
        """Bytes of a base page."""
        return self.sizes["pte"]


def _counted_tables(geometry: Geometry, levels: tuple[WalkLevel, ...]) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return how far (bytes) tables of these levels reach, and the span and size of each that VmPTE counts."""
    spans = ((1 << above.shift, table.ptrs * 8) for above, table in pairwise(levels) if table.name in LEAF_LEVELS)
    return levels[0].ptrs << levels[0].shift, tuple(spans)
