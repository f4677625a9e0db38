"""Each helper has the owner that it has in the kernel; its rows are compared in test_conformance.py."""

from pfnmap.hookspecs import ENTRY_HOOKS


def test_each_helper_has_the_owner_that_it_has_in_the_kernel(vectors, kernel):
    for helper, owner in vectors["defined"].items():
        # A hook that the kernel no longer has (devmap) still has its fallback here.
        if helper in kernel.ops.owners and not (owner == "absent" and helper in ENTRY_HOOKS):
            assert kernel.ops.owners[helper] == owner, helper
