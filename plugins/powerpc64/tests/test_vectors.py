"""Who owns each helper, and what the kernel's own code answered beyond the kit's scope."""

from typing import Any

import pytest

from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.kernel import Kernel

BEYOND_SCOPE = (
    "pgprot_modify",
    *(f"{x}_{op}" for x in ("pte", "pmd") for op in ("soft_dirty", "mksoft_dirty")),
    "pte_clear_soft_dirty",
)


def test_each_helper_has_the_owner_that_it_has_in_the_kernel(vectors: dict[str, Any], kernel: Kernel):
    for helper, owner in vectors["defined"].items():
        # A hook that the kernel no longer has (devmap) still has its fallback here.
        if helper in kernel.ops.owners and not (owner == "absent" and helper in ENTRY_HOOKS):
            assert kernel.ops.owners[helper] == owner, helper


@pytest.mark.parametrize("helper", BEYOND_SCOPE)
def test_helpers_that_the_mm_needs_beyond_the_scope_agree(vectors: dict[str, Any], kernel: Kernel, helper: str):
    rows = [[int(value, 16) for value in row] for row in vectors["vectors"][helper]]
    assert len(rows) >= 40
    assert [row[-1] for row in rows] == [getattr(kernel.ops, helper)(*row[:-1]) for row in rows]
    assert kernel.ops.owners[helper] == vectors["defined"][helper]
