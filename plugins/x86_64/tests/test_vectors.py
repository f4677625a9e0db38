"""Who owns each helper, and what the kernel's own code answered beyond the kit's scope."""

from __future__ import annotations

import pytest

from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.host.bounded import MIB, read_json

BEYOND_SCOPE = ("pgprot_modify", *(f"{x}_{op}" for x in ("pte", "pmd") for op in ("soft_dirty", "mksoft_dirty")))


def test_the_data_has_rows_of_every_helper_in_scope(vectors):
    assert vectors.out_of_scope == dict.fromkeys(BEYOND_SCOPE, "not in scope")
    assert len(vectors.rows) == (94 if vectors.release == "7.3.4" else 100)
    assert all(len(rows) >= 16 for rows in vectors.rows.values())


def test_each_helper_has_the_owner_that_it_has_in_the_kernel(vectors, kernel):
    for helper, owner in vectors.defined.items():
        # A hook that the kernel no longer has (devmap) still has its fallback here; X_index is geometry.
        if helper in kernel.ops.owners and not (owner == "absent" and helper in ENTRY_HOOKS):
            assert kernel.ops.owners[helper] == owner, helper


@pytest.mark.parametrize("helper", BEYOND_SCOPE)
def test_helpers_that_the_mm_needs_beyond_the_scope_agree(vector_file, kernel, helper):
    document = read_json(vector_file, MIB)
    rows = [[int(value, 16) for value in row] for row in document["vectors"][helper]]
    assert len(rows) >= 40
    assert [row[-1] for row in rows] == [getattr(kernel.ops, helper)(*row[:-1]) for row in rows]
    assert kernel.ops.owners[helper] == document["defined"][helper]
