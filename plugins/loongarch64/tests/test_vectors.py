"""The helpers agree, bit for bit, with what the kernel's own code answered."""

from typing import Any

import pytest

from pfnmap.hookspecs import ENTRY_HOOKS
from pfnmap.kernel import Kernel
from pfnmap.testing.vectors import check_vectors


@pytest.mark.parametrize("arrays", [False, True], ids=["ints", "arrays"])
def test_every_row_agrees(vectors: dict[str, Any], kernel: Kernel, arrays: bool):
    result = check_vectors(vectors, kernel, arrays=arrays)
    assert result.disagree == []
    assert result.agree == result.rows > 2000


def test_each_helper_has_the_owner_that_it_has_in_the_kernel(vectors: dict[str, Any], kernel: Kernel):
    for helper, owner in vectors["defined"].items():
        # pud_devmap is arch's own macro where it is one, and says 0 like the fallback.
        if helper in ENTRY_HOOKS and owner != "absent" and helper != "pud_devmap":
            assert kernel.ops.owners[helper] == owner, helper
