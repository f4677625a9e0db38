"""clear_refs needs pte_clear_soft_dirty, which is beyond the golden vectors' scope: some of its rows."""

from __future__ import annotations

from typing import Any

import pytest

ROWS = [
    (0x20FFFFF1FFFF320, 0x20FFFFF1FFFF320),
    (0x498EB9DCA02E0C82, 0x498EB9DCA02E0C82),
    (0x820FFFFFFFE002BD, 0x820FFFFFFFE002BD),
    (0x800FFFFFFFE0029D, 0x800FFFFFFFE0029D),
]


@pytest.mark.parametrize(("pte", "cleared"), ROWS)
def test_rows_of_the_kernel_agree(link: Any, pte: int, cleared: int):
    ops = link(config={"MEM_SOFT_DIRTY": "y"}).ops
    assert ops.pte_clear_soft_dirty(pte) == cleared
    assert ops.owners["pte_clear_soft_dirty"] == "arch"
