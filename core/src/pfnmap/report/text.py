"""Text and tables as answers are made of: in styles, which a terminal shows, or plain.

Whatever is printed passes through `printable` here: an input's names are other people's.

`str` gives the plain form: nothing is folded, columns are aligned, ASCII lines. Rich draws either for a terminal, and
is imported there alone: that takes a fifth of the CPU time of a short command.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
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

    A terminal that is too narrow folds what is no number; where even that does not fit, the cells of a row stand below
    its first with the names of their columns. Nothing is cut.
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
        widths = self._natural()
        right = [name in self.numbers for name in self.columns]

        def line(cells: Iterable[str]) -> str:
            aligned = (
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(cells, widths, right, strict=True)
            )
            return " " * self.indent + _BETWEEN.join(aligned).rstrip()

        rule = [" " * self.indent + "-" * (sum(widths) + len(_BETWEEN) * (len(widths) - 1))] if self.ruled else []
        return "\n".join([line(self.columns), *rule, *(line(cell.plain for cell in row) for row in self.rows)])

    def _natural(self) -> list[int]:
        """How wide each column is where there is room."""
        texts = (self.columns, *([cell.plain for cell in row] for row in self.rows))
        return [max(least, *map(len, cells)) for least, *cells in zip(self.widths, *texts, strict=True)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        for gap in (3,) if self.ruled else (len(_BETWEEN), 1):
            room = options.max_width - self.indent - gap * (len(self.columns) - 1)
            if widths := self._fitting(room):
                yield _indented(self._drawn(widths, gap), self.indent)
                return
        yield from self._stacked(options.max_width)

    def _fitting(self, room: int) -> list[int]:
        """Return how wide each column is where all of them have so many columns of a terminal; empty: not enough."""
        natural = self._natural()
        if sum(natural) <= room:
            return natural
        widths = []
        for n, name in enumerate(self.columns):
            cells = [name, *(row[n].plain for row in self.rows)]
            whole = n == 0 or name in self.numbers
            words = cells if whole else [word for cell in cells for word in cell.split()]
            longest = max(map(len, words), default=0)
            widths.append(longest if name in self.numbers else min(longest, _WIDEST))
        spare = room - sum(widths)
        if spare < 0:
            return []
        narrowed = sorted((natural[n] - widths[n], n) for n in range(len(widths)) if natural[n] > widths[n])
        for left, (wanted, n) in zip(range(len(narrowed), 0, -1), narrowed, strict=True):
            given = min(wanted, spare // left)
            widths[n] += given
            spare -= given
        return widths

    def _drawn(self, widths: Sequence[int], gap: int) -> RenderableType:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable

        if self.ruled:
            made = RichTable(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
        else:
            made = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
        for name, width in zip(self.columns, widths, strict=True):
            justify: Literal["left", "right"] = "right" if name in self.numbers else "left"
            made.add_column(name, justify=justify, width=width, overflow="fold")
        for row in self.rows:
            made.add_row(*(cell.rich() for cell in row))
        return made

    def _stacked(self, room: int) -> Iterator[Text]:
        """Yield each row as its first cell and, two columns in, the others behind the names of their columns."""
        for first, *others in self.rows:
            head = f"{self.columns[0]} " if self.columns[0] and self.ruled else ""
            yield Text(head, "bold", self.indent).append(first)
            line = Text("", indent=self.indent + 2 + len(first.plain) - len(first.plain.lstrip()))
            for name, cell in zip(self.columns[1:], others, strict=True):
                if not cell.plain:
                    continue
                named = Text(f"{name} " if name else "", "bold").append(cell)
                if line.plain and line.indent + len(line.plain) + len(_BETWEEN) + len(named.plain) > room:
                    yield line
                    line = Text("", indent=line.indent)
                line.append(_BETWEEN if line.plain else "").append(named)
            if line.plain:
                yield line


def _indented(part: RenderableType, indent: int) -> RenderableType:
    from rich.padding import Padding

    return Padding(part, (0, 0, 0, indent), expand=False) if indent else part
