"""pte_clear_soft_dirty, for clear_refs (arch/x86/include/asm/pgtable.h; the vectors' kernels lack soft-dirty)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

SOFT_DIRTY = 1 << 11
entries = st.integers(0, (1 << 64) - 1)


@given(pte=entries)
def test_only_the_soft_dirty_bit_is_cleared(link: Any, pte: int):
    ops = link(config={"MEM_SOFT_DIRTY": "y"}).ops
    cleared = ops.pte_clear_soft_dirty(pte)
    assert not ops.pte_soft_dirty(cleared)
    assert cleared | SOFT_DIRTY == pte | SOFT_DIRTY == ops.pte_mksoft_dirty(pte)


@given(pte=entries)
def test_a_kernel_without_soft_dirty_leaves_the_bit_alone(link: Any, pte: int):
    ops = link(config={"MEM_SOFT_DIRTY": "n"}).ops
    assert ops.pte_clear_soft_dirty(pte) == ops.pte_mksoft_dirty(pte) == pte
