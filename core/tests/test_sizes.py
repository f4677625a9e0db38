"""Sizes, addresses and BARs as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfnmap.errors import BadInput
from pfnmap.sizes import format_size, is_power_of_two, parse_address, parse_bar, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("0x200000", 2 << 20),
        ("0X200000", 2 << 20),
        ("12K", 12 << 10),
        ("2M", 2 << 20),
        ("2m", 2 << 20),
        ("8G", 8 << 30),
        ("8GiB", 8 << 30),
        (" 8G ", 8 << 30),
        ("16T", 16 << 40),
        ("0xffffffffffffffff", 2**64 - 1),
        ("0000000000000000000000004096", 4096),
    ],
)
def test_size_is_read_in_units_of_1024(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("-1", "negative"),
        ("-8G", "negative"),
        ("1.5G", "not a whole number"),
        (".5G", "not a whole number"),
        ("8Gb", "unknown unit 'Gb'"),
        ("8GB", "unknown unit 'GB'"),
        ("8gb", "unknown unit 'gb'"),
        ("8Gi", "unknown unit 'Gi'"),
        ("8X", "unknown unit 'X'"),
        ("8 G", "not a size"),
        ("G", "not a size"),
        ("0x", "not a size"),
        ("0x20G", "not a size"),
        ("1e9", "not a size"),
        ("1_000", "not a size"),
        ("٤٠٩٦", "not a size"),
        ("eight", "not a size"),
        ("16E", "does not fit in 64 bits"),
        ("18446744073709551616", "does not fit in 64 bits"),
        ("0x10000000000000000", "does not fit in 64 bits"),
        ("9" * 10000, "does not fit in 64 bits"),
    ],
)
def test_what_is_not_a_size_is_refused_with_the_reason(text, reason):
    with pytest.raises(BadInput) as error:
        parse_size(text, "--length")
    assert reason in str(error.value)
    assert str(error.value).startswith("--length: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 160


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (1, "1"),
        (4097, "4097"),
        (4096, "4K"),
        (12 << 10, "12K"),
        (2 << 20, "2M"),
        (3 << 19, "1536K"),
        (1 << 30, "1G"),
        (128 << 30, "128G"),
        (16 << 40, "16T"),
    ],
)
def test_size_is_printed_exactly_in_the_largest_unit(size, text):
    assert format_size(size) == text


@given(st.integers(0, 2**64 - 1) | st.builds(lambda n, shift: n << shift, st.integers(0, 15), st.integers(0, 60)))
def test_printed_size_reads_back(size):
    assert parse_size(format_size(size)) == size
    assert parse_size(hex(size)) == size
    assert parse_size(str(size)) == size
    assert parse_address(hex(size)) == size


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not an address"),
        ("-1", "not an address"),
        ("8G", "not an address"),
        ("0xg", "not an address"),
        ("8fffe100000", "needs 0x"),
        ("0x10000000000000000", "does not fit in 64 bits"),
    ],
)
def test_what_is_not_an_address_is_refused_with_the_reason(text, reason):
    with pytest.raises(BadInput, match=reason):
        parse_address(text, "--va")


def test_bar_is_size_and_physical_address():
    assert parse_bar("128G@0x84000000000") == (128 << 30, 0x84000000000)
    assert parse_bar("256@0x1b00004000") == (256, 0x1B00004000)
    assert parse_bar("8GiB @ 34359738368") == (8 << 30, 0x800000000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8G", "not SIZE@PHYS"),
        ("", "not SIZE@PHYS"),
        ("@0x800000000", "empty"),
        ("8G@", "not an address"),
        ("8G@0x0@0x0", "not an address"),
        ("0@0x800000000", "not a power of two"),
        ("3G@0x800000000", "not a power of two"),
        ("8@0x800000000", "at least 16 bytes"),
        ("8Gb@0x800000000", "unknown unit"),
        ("8G@0x800001000", "not a multiple of its size 8G"),
        ("128G@84000000000", "did you mean 0x84000000000?"),
    ],
)
def test_what_cannot_be_a_bar_is_refused_with_the_reason(text, reason):
    with pytest.raises(BadInput) as error:
        parse_bar(text, "--bar")
    assert reason in str(error.value)
    assert str(error.value).startswith("--bar: ")


@given(st.integers(-5, 2**70))
def test_power_of_two_has_one_bit(value):
    assert is_power_of_two(value) == (value > 0 and bin(value).count("1") == 1)
