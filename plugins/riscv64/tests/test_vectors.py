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
PROT_NONE = 0x22


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


@pytest.mark.parametrize(("level", "answers"), [("pmd", (0, 1, 1, 1)), ("pud", (0, 0, 0, 1))])
def test_prot_none_leaves_a_pud_that_is_neither_none_nor_present_nor_leaf(
    vectors: dict[str, Any], kernel: Kernel, level: str, answers: tuple[int, ...]
):
    """FINDINGS F17, in the kernel's own rows and in what the plugin makes of them."""
    for op, answer in zip(("none", "present", "leaf", "bad"), answers, strict=True):
        inputs = [int(row[0], 16) for row in vectors["vectors"][f"{level}_{op}"]]
        found = [entry for entry in inputs if entry & 0x3F == PROT_NONE]
        assert found
        assert {getattr(kernel.ops, f"{level}_{op}")(entry) for entry in found} == {answer}
