"""Text and tables as answers are made of: in styles, which a terminal shows, or plain.

Whatever is printed passes through `printable` here: an input's names are other people's.

`str` gives the plain form: nothing is folded, columns are aligned, ASCII lines. Rich draws either for a terminal, and
is imported there alone: that takes a fifth of the CPU time of a short command.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text as RichText

__all__ = ["Table", "Text", "printable"]

_BETWEEN: Final = "  "
_WIDEST: Final = 16
"""Columns that a cell keeps on a narrow terminal: an address, or one level's leaves."""


def printable(text: object) -> str:
    """Return a text as one line that a terminal prints as it stands: what is not to be seen (codes of control, marks
    that turn the direction of writing, surrogates) becomes an escape. A line's end in front is kept: it leaves one
    empty."""
    said = str(text)
    if said.isprintable():
        return said
    front, rest = ("\n", said[1:]) if said.startswith("\n") else ("", said)
    return front + "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in rest)


class Text:
    """A text in styles (rich's names: "bold red"), with an indent in columns that the lines of a folded one keep."""

    __slots__ = ("_parts", "indent")

    def __init__(self, text: str, style: str = "", indent: int = 0) -> None:
        self._parts = [(printable(text), style)]
        self.indent = indent

    def append(self, text: str | Text, style: str = "") -> Text:
        """Add a text and return this one."""
        self._parts += text._parts if isinstance(text, Text) else [(printable(text), style)]
        return self

    def in_style(self, style: str) -> Text:
        """Return the text in another style."""
        return Text(self.plain, style, self.indent)

    @property
    def plain(self) -> str:
        """The text without styles and indent."""
        return "".join(text for text, _ in self._parts)

    def __str__(self) -> str:
        return " " * self.indent + self.plain

    def rich(self) -> RichText:
        """Return what rich calls a text."""
        from rich.text import Text as RichText

        return RichText.assemble(*self._parts)

    def __rich__(self) -> RenderableType:
        return _indented(self.rich(), self.indent)


class Table:
    """A table. The columns named in `numbers` are aligned right; `ruled`: a line stands below the names of the columns.

    `widths`: how wide each column is at least, so that tables below one another line up.
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Text]],
        numbers: Collection[str] = (),
        *,
        widths: Sequence[int] = (),
        ruled: bool = True,
        indent: int = 0,
    ) -> None:
        self.columns = tuple(map(printable, columns))
        self.rows = [tuple(row) for row in rows]
        self.numbers = numbers
        self.widths = widths or [0] * len(columns)
        self.ruled = ruled
        self.indent = indent

    def __str__(self) -> str:
        texts = (self.columns, *([cell.plain for cell in row] for row in self.rows))
        columns = zip(self.widths, *texts, strict=True)
        widths = [max(least, *map(len, cells)) for least, *cells in columns]
        right = [name in self.numbers for name in self.columns]

        def line(cells: Iterable[str]) -> str:
            aligned = (
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(cells, widths, right, strict=True)
            )
            return " " * self.indent + _BETWEEN.join(aligned).rstrip()

        rule = [" " * self.indent + "-" * (sum(widths) + len(_BETWEEN) * (len(widths) - 1))] if self.ruled else []
        return "\n".join([line(self.columns), *rule, *(line(cell.plain for cell in row) for row in self.rows)])

    def __rich__(self) -> RenderableType:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable

        if self.ruled:
            made = RichTable(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
        else:
            made = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, len(_BETWEEN), 0, 0))
        for name, width in zip(self.columns, self.widths, strict=True):
            justify: Literal["left", "right"] = "right" if name in self.numbers else "left"
            made.add_column(name, justify=justify, min_width=min(width, _WIDEST), overflow="fold")
        for row in self.rows:
            made.add_row(*(cell.rich() for cell in row))
        return _indented(made, self.indent)


def _indented(part: RenderableType, indent: int) -> RenderableType:
    from rich.padding import Padding

    return Padding(part, (0, 0, 0, indent), expand=False) if indent else part
