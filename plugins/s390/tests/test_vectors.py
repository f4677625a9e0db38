"""Who owns each helper, and what the kernel's own code answered beyond the kit's scope."""

import pytest

from pfnmap.hookspecs import ENTRY_HOOKS

BEYOND_SCOPE = (
    "pgprot_modify",
    *(f"{x}_{op}" for x in ("pte", "pmd") for op in ("soft_dirty", "mksoft_dirty")),
    "pte_clear_soft_dirty",
)


def test_each_helper_has_the_owner_that_it_has_in_the_kernel(vectors, kernel):
    for helper, owner in vectors["defined"].items():
        # A hook that the kernel no longer has (devmap) still has its fallback here.
        if helper in kernel.ops.owners and not (owner == "absent" and helper in ENTRY_HOOKS):
            assert kernel.ops.owners[helper] == owner, helper


@pytest.mark.parametrize("helper", BEYOND_SCOPE)
def test_helpers_that_the_mm_needs_beyond_the_scope_agree(vectors, kernel, helper):
    rows = [[int(value, 16) for value in row] for row in vectors["vectors"][helper]]
    assert len(rows) >= 44
    # A predicate of C answers with the bit itself; the rows hold 0 or 1.
    assert [row[-1] for row in rows] == [getattr(kernel.ops, helper)(*row[:-1]) for row in rows]


def test_what_s390_lacks_is_refused_by_name(kernel):
    from pfnmap import Refused

    absent = {"pud_mkhuge", "pud_mkyoung", "pud_modify", "pfn_pud", "pte_mkdevmap"}
    assert {op for op, owner in kernel.ops.owners.items() if owner == "absent"} >= absent
    for op in absent:
        with pytest.raises(Refused, match=f"{op}: absent on s390"):
            getattr(kernel.ops, op)(0)
