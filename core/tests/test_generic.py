"""The headers' fallbacks where an architecture has no leaves at the PUD: 6.12, include/linux/pgtable.h."""

from typing import Any

import numpy as np
import pytest

from pfnmap.errors import Refused
from pfnmap.kernel import Kernel
from pfnmap.testing.plain import PRESENT, Plain


class WithoutPudLeaves(Plain):
    """An architecture that has neither pud_write nor pud_pfn of its own."""

    undefined = frozenset({"pud_pfn", "pud_write"})


@pytest.fixture(scope="module")
def ops() -> Any:
    return Kernel.link(WithoutPudLeaves).ops


def test_pud_pfn_and_pud_write_are_the_headers_where_an_architecture_has_none(ops):
    assert [ops.owners[name] for name in ("pud_pfn", "pud_write")] == ["generic", "generic"]
    assert ops.pud_pfn(PRESENT | 0x1234_5000) == 0
    with pytest.raises(Refused, match=r"pud_write.*BUG\(\)"):
        ops.pud_write(PRESENT)


@pytest.mark.parametrize("entry", [0, PRESENT])
def test_a_read_does_not_ask_whether_the_entry_can_be_written(ops, entry):
    assert ops.pud_access_permitted(entry, 0) == entry & PRESENT
    assert ops.pud_access_permitted(np.array([entry, 0], dtype=np.uint64), 0).tolist() == [entry & PRESENT, 0]


def test_a_write_asks_only_of_entries_that_are_present(ops):
    absent = np.array([0, PRESENT << 1], dtype=np.uint64)
    assert ops.pud_access_permitted(0, 1) == 0
    got = ops.pud_access_permitted(absent, 1)
    assert (got.dtype, got.tolist()) == (np.uint64, [0, 0])
    for entry in (PRESENT, np.array([0, PRESENT], dtype=np.uint64)):
        with pytest.raises(Refused, match="pud_write"):
            ops.pud_access_permitted(entry, 1)
