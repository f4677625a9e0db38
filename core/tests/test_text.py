"""pfnmap.report.text: a pipe gets what a wide terminal shows, aligned and without colours."""

from __future__ import annotations

from collections import Counter
from io import StringIO

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pfnmap.report.text import Table, Text

WORDS = st.text("ab12", min_size=1, max_size=9)
ROWS = st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=5)


def drawn(part: Text | Table, width: int = 200, colours: bool = False) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=colours, markup=False, highlight=False)
    console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_a_text_has_its_styles_on_a_terminal_alone() -> None:
    text = Text("no", "red").append(" or ").append(Text("yes", "green"))
    assert str(text) == text.plain == "no or yes"
    assert "\x1b[31mno" in drawn(text, colours=True)
    assert drawn(text) == "no or yes\n"
    assert "\x1b[2mno or yes" in drawn(text.in_style("dim"), colours=True)


def test_folded_lines_of_a_text_keep_its_indent() -> None:
    text = Text("one two three", indent=2)
    assert str(text) == "  one two three"
    assert drawn(text, width=10).split("\n") == ["  one two ", "  three   ", ""]


def test_columns_are_aligned() -> None:
    rows = [[Text("a"), Text("1,000"), Text("")], [Text("long one"), Text("2"), Text("x")]]
    assert str(Table(("name", "n", "rest"), rows, numbers=("n",), indent=1)).split("\n") == [
        " name          n  rest",
        " ---------------------",
        " a         1,000",
        " long one      2  x",
    ]
    assert str(Table(("", "n", ""), rows, widths=(10, 0, 0), ruled=False)).split("\n")[1:] == [
        "a           1,000",
        "long one    2      x",
    ]


@given(ROWS, st.booleans(), st.integers(0, 3))
def test_a_wide_terminal_shows_what_a_pipe_gets(rows, ruled, indent) -> None:
    table = Table(("a", "b", "c"), [[Text(c) for c in row] for row in rows], ("b",), ruled=ruled, indent=indent)
    shown = [line.rstrip() for line in drawn(table).splitlines()]
    plain = str(table).splitlines()
    if ruled:  # rich has its own line there, and a column more between others
        del shown[1], plain[1]
        shown, plain = ([" ".join(line.split()) for line in lines] for lines in (shown, plain))
    assert shown == plain


LONG = st.text("ab12 ", min_size=1, max_size=40).filter(str.strip)
NUMBERS = st.integers(0, 10**12).map("{:,}".format)


@given(st.lists(st.tuples(LONG, NUMBERS, LONG, NUMBERS), min_size=1, max_size=3), st.integers(24, 90), st.booleans())
def test_a_narrow_terminal_cuts_nothing_and_no_number_in_two(rows, width, ruled) -> None:
    columns = ("a", "first", "b", "second")
    cells = [[Text(c) for c in row] for row in rows]
    shown = drawn(Table(columns, cells, ("first", "second"), widths=(0, 17, 0, 0), ruled=ruled), width)
    assert max(map(len, shown.splitlines())) <= width
    for row in rows:
        assert {row[1], row[3]} <= set(shown.split())
    assert not Counter("".join(c for row in rows for c in row if not c.isspace())) - Counter(shown)


def test_what_a_row_is_of_is_not_folded_before_other_cells() -> None:
    rows = [[Text("  before 6.12"), Text("4,194,304x4K + 1x2M"), Text("4,194,305")]]
    shown = drawn(Table(("placement", "leaves", "faults"), rows, ("faults",), ruled=False), width=38)
    assert [line.rstrip() for line in shown.splitlines()] == [
        "placement      leaves           faults",
        "  before 6.12  4,194,304x4K  4,194,305",
        "               + 1x2M",
    ]


def test_a_row_that_does_not_fit_stands_below_its_first_cell() -> None:
    rows = [[Text("qemu"), Text("0x7fdff7fff000"), Text("33,554,432")], [Text("  before"), Text(""), Text("1")]]
    table = Table(("placement", "VA", "DMA cold"), rows, ("DMA cold",), ruled=False, indent=2)
    assert [line.rstrip() for line in drawn(table, 30).splitlines()] == [
        "  qemu",
        "    VA 0x7fdff7fff000",
        "    DMA cold 33,554,432",
        "    before",
        "      DMA cold 1",
    ]
