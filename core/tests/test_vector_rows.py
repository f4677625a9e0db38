"""pfnmap.testing.vector_rows: words of a file are what int() makes of each, or the first that is none is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfnmap.errors import BadInput
from pfnmap.testing.vector_rows import rows_of

WORDS = st.from_regex(r"0x[0-9a-fA-F]{1,16}", fullmatch=True)
NO_WORDS = st.one_of(
    st.sampled_from(["", "0x", "1f", "0X1", "0x1g", "0x0x1", "0xx", "-0x1", "0x1 ", "0x1\0", "0x\x001", "0x١", "x01"]),
    st.just("0x" + "0" * 17),
    st.sampled_from([1, None, 1.5, True, [], ["0x1"], b"0x1"]),
    st.text(max_size=20).filter(lambda text: not text.startswith("0x")),
)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=20), st.lists(st.tuples(WORDS), max_size=3))
def test_rows_are_the_numbers_that_int_makes_of_their_words(pairs, singles):
    found = rows_of(
        {"pair": [list(row) for row in pairs], "single": [list(row) for row in singles]},
        {"pair": 2, "single": 1},
        "file",
    )
    assert list(found["pair"]) == [tuple(int(word, 16) for word in row) for row in pairs]
    assert list(found["single"]) == [tuple(int(word, 16) for word in row) for row in singles]
    assert [found["pair"][n] for n in range(len(pairs))] == list(found["pair"][:])


@given(st.lists(WORDS, max_size=5), NO_WORDS)
def test_what_is_no_hex_string_is_named_with_its_row(before, word):
    rows = [[one] for one in before] + [[word], ["0x1"]]
    with pytest.raises(BadInput, match=rf"^file: helper row {len(before)}: .* is not a hex string of at most 64 bits"):
        rows_of({"helper": rows}, {"helper": 1}, "file")


@pytest.mark.parametrize("row", [{"0x1": 0, "0x2": 0}, "0x", ["0x1"], ["0x1", "0x2", "0x3"], None, 7])
def test_what_is_no_row_is_named(row):
    with pytest.raises(BadInput, match=r"^file: helper row 1: expected a list of 2 hex strings"):
        rows_of({"helper": [["0x1", "0x2"], row]}, {"helper": 2}, "file")
