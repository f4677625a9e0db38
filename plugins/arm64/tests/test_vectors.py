"""The helpers agree, bit for bit, with what the kernel's own code answered."""

from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.testing.vectors import check_vectors


def test_every_row_agrees(vectors, kernel):
    result = check_vectors(vectors, kernel)
    assert result.disagree == []


def test_each_helper_has_the_owner_that_it_has_in_the_kernel(vectors, kernel):
    for helper, owner in vectors["defined"].items():
        # A hook that the kernel no longer has (devmap) still has its fallback here.
        if helper in kernel.ops.owners and not (owner == "absent" and helper in ENTRY_HOOKS):
            assert kernel.ops.owners[helper] == owner, helper
