"""Reading a real kernel's .config."""

import gzip
from pathlib import Path

import pytest

from pfnmap.errors import BadInput
from pfnmap.host.dotconfig import LIMIT, parse_dotconfig, read_dotconfig

TEXT = """\
#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.12.117 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT="gcc \\"12\\" (Debian)"
CONFIG_64BIT=y
CONFIG_VFIO=m
CONFIG_PGTABLE_LEVELS=5
# CONFIG_PREEMPT_RT is not set
# CONFIG_PREEMPT_RT is a comment
CONFIG_ILLEGAL_POINTER_VALUE=0xdead000000000000

# end of it
"""


def test_values_architecture_and_release_are_read(tmp_path: Path):
    plain, packed = tmp_path / "config", tmp_path / "config.gz"
    plain.write_text(TEXT)
    packed.write_bytes(gzip.compress(TEXT.encode()))
    read = read_dotconfig(plain)
    assert read == read_dotconfig(packed)
    assert read.values == {
        "CC_VERSION_TEXT": 'gcc "12" (Debian)',
        "64BIT": "y",
        "VFIO": "m",
        "PGTABLE_LEVELS": "5",
        "PREEMPT_RT": "n",
        "ILLEGAL_POINTER_VALUE": "0xdead000000000000",
    }
    assert (read.arch, read.release) == ("x86", "6.12.117")
    assert read.arch_names == ("x86", "x86_64", "x8664")


def test_file_without_a_header_names_no_architecture():
    read = parse_dotconfig("CONFIG_64BIT=y\n")
    assert (read.arch, read.release, read.arch_names) == ("", "", ())


def test_32_bits_have_the_name_of_the_header_only():
    assert parse_dotconfig("# Linux/arm 6.12.1 Kernel Configuration\nCONFIG_A=y\n").arch_names == ("arm",)


def test_the_last_line_for_a_symbol_counts():
    assert parse_dotconfig("CONFIG_A=y\n# CONFIG_A is not set\n").values == {"A": "n"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("CONFIG_A=y\nA=y\n", r"x, line 2: 'A=y' is not a line of a \.config"),
        ("CONFIG_A\n", "x, line 1: "),
        ("<html>" + "a" * 5000, r"x, line 1: '<html>a{34}\.\.\.'"),
        ("", "x: no CONFIG_ line"),
        ("# nothing\n", "x: no CONFIG_ line"),
    ],
)
def test_other_text_is_bad_input_with_its_line(text: str, what: str):
    with pytest.raises(BadInput, match=f"^{what}"):
        parse_dotconfig(text, "x")


def test_unreadable_files_are_bad_input(tmp_path: Path):
    binary, truncated, huge = tmp_path / "binary", tmp_path / "truncated.gz", tmp_path / "huge.gz"
    binary.write_bytes(b"CONFIG_A=y\n\0\n")
    truncated.write_bytes(gzip.compress(TEXT.encode())[:-20])
    huge.write_bytes(gzip.compress(bytes(LIMIT + 1)))
    for path, what in ((binary, "binary"), (truncated, "gzip"), (huge, "larger than"), (tmp_path, "directory")):
        with pytest.raises(BadInput, match=what):
            read_dotconfig(path)
    with pytest.raises(BadInput, match="no such file"):
        read_dotconfig(tmp_path / "missing")


def test_first_line_of_a_distributions_source_names_an_architecture():
    read = parse_dotconfig("# powerpc\n# CONFIG_A is not set\n# s390\n")
    assert (read.arch, read.release, read.complete) == ("powerpc", "", False)
    assert "powerpc64" in read.arch_names


def test_a_file_that_a_build_wrote_is_complete():
    assert parse_dotconfig(TEXT).complete
    assert not parse_dotconfig(TEXT.replace("CC_VERSION_TEXT", "X")).complete


def test_a_header_with_other_characters_is_a_comment():
    assert parse_dotconfig("# Linux/x86 6.1\x1b]0;x\x07 Kernel Configuration\nCONFIG_A=y\n").release == ""
