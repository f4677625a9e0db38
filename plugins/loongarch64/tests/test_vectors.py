"""Each helper has the owner that it has in the kernel; its rows are compared in test_conformance.py."""

from typing import Any

from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.kernel import Kernel


def test_each_helper_has_the_owner_that_it_has_in_the_kernel(vectors: dict[str, Any], kernel: Kernel):
    for helper, owner in vectors["defined"].items():
        # pud_devmap is arch's own macro where it is one, and says 0 like the fallback.
        if helper in ENTRY_HOOKS and owner != "absent" and helper != "pud_devmap":
            assert kernel.ops.owners[helper] == owner, helper
