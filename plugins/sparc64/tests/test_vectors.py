"""Each helper has the owner that it has in the kernel; its rows are compared in test_conformance.py."""

from typing import Any

from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.kernel import Kernel


def test_each_helper_has_the_owner_that_it_has_in_the_kernel(vectors: dict[str, Any], kernel: Kernel):
    for helper, owner in vectors["defined"].items():
        # vm_get_page_prot is arch's own for the sake of ADI, which is not modelled.
        if helper in ENTRY_HOOKS and owner != "absent" and helper != "vm_get_page_prot":
            assert kernel.ops.owners[helper] == owner, helper
