"""The helpers agree, bit for bit, with what the kernel's own code answered."""

from __future__ import annotations

import pytest

from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.testing.vectors import check_vectors


@pytest.mark.parametrize("arrays", [False, True], ids=["ints", "arrays"])
def test_every_row_agrees(vectors, kernel, arrays):
    result = check_vectors(vectors, kernel, arrays=arrays)
    assert result.disagree == []
    assert result.agree == result.rows > 3500


def test_the_data_has_rows_of_every_helper_in_scope(vectors):
    assert vectors.out_of_scope == {}
    assert len(vectors.rows) == (94 if vectors.release == "7.3.4" else 100)
    assert all(len(rows) >= 16 for rows in vectors.rows.values())


def test_each_helper_has_the_owner_that_it_has_in_the_kernel(vectors, kernel):
    for helper, owner in vectors.defined.items():
        # A hook that the kernel no longer has (devmap) still has its fallback here; X_index is geometry.
        if helper in kernel.ops.owners and not (owner == "absent" and helper in ENTRY_HOOKS):
            assert kernel.ops.owners[helper] == owner, helper
