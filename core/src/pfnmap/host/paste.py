"""Text that went through terminals, mails, issue trackers and web pages, as lines again.

Nothing of a line's layout is kept, since nothing of it can be relied on: colours, indentation, quote marks, emphasis,
fences, HTML and quoted-printable go. What a line says, and the order of lines, is all that readers have.
"""

from __future__ import annotations

import html
import os
import re
from typing import NamedTuple

from pfnmap.errors import BadInput
from pfnmap.host.bounded import MIB, read_bytes, source_name

__all__ = ["LINE", "Line", "lines_of", "read_paste", "without_prefixes"]

LIMIT = 16 * MIB
"""Bytes that are read of an input, once decompressed."""
LINES = 1 << 18
"""Lines of an input; the smaps of a large process has a hundred thousand."""
LINE = 4096
"""Characters of a line that are looked at; the longest of `lspci -vvv` have a few hundred."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[()][0-9A-B]|[=>])")
_QUOTED_PRINTABLE = re.compile(r"=(C2=A0|3D|09|20(?=\n))")
"""What a mail's encoding makes of a no-break space, "=", a tab and a space at the end of a line. Only these are
decoded: in posted text encoded lines and plain ones ("[size=16M]") stand side by side."""
_TAG_NAMES = (
    "a|b|blockquote|body|br|code|dd|div|dl|dt|em|font|h[1-6]|head|hr|html|i|li|ol|p|pre|small|span|strong|table|tbody|td|"
    "th|thead|title|tr|tt|u|ul|wbr"
)
_BREAK = re.compile(r"<br\s{0,9}/?>|</(?:div|h[1-6]|li|p|pre|tr)>", re.IGNORECASE)
_TAG = re.compile(rf"</?(?:{_TAG_NAMES})(?:\s[^<>]{{0,400}})?/?>", re.IGNORECASE)
_HTML = re.compile(
    r"<(?:br|code|div|html|p|pre|span|td)(?:\s[^<>]{0,400})?/?>|&(?:nbsp|lt|gt|#\d{1,6});", re.IGNORECASE
)
_PREFIX = re.compile(
    r"^(?:\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?|\d{1,6}[:\t-](?![01][0-9a-f]\.[0-7]\b)|[-+•│┃]"
    r"|[\w.@-]{1,64} {0,40}\|"
    r"|(?:[^\\]{0,200}?\"[\w.-]{1,64}\": ?)?\""
    r"|(?![0-9a-f]{2,8}:)/?[\w.@/-]{1,255}:(?:\d{1,6}:(?![01][0-9a-f]\.[0-7]\b))?)\s*"
)
_STRING_END = re.compile(r"\"[],}]{0,9}$")
_BOM_16 = (b"\xff\xfe", b"\xfe\xff")
_LEFT, _RIGHT = " \t>*|`\ufeff", " \t*|`"


class Line(NamedTuple):
    """A cleaned line and its number in the source, from 1. A line of HTML may be several."""

    number: int
    text: str


def read_paste(path: str | os.PathLike[str]) -> str:
    """Return the text of a file (plain or compressed), or of standard input ("-"): UTF-8, or UTF-16 with its mark.

    Bytes that are neither become U+FFFD. Raises BadInput for a file that cannot be read and for a binary one.
    """
    raw = read_bytes(path, LIMIT)
    if raw.startswith(_BOM_16):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw:
        raise BadInput(source_name(path), f"binary (a NUL byte at offset {raw.index(0)}), text was expected")
    return raw.decode("utf-8", "replace")


def lines_of(text: str, source: str = "the input", cut: list[int] | None = None) -> list[Line]:
    """Return the lines of a pasted text, cleaned; empty ones are left out. `cut` gets the numbers of those that have
    more than the LINE characters that are looked at. Raises BadInput for more lines than LINES."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _QUOTED_PRINTABLE.search(text):
        text = _QUOTED_PRINTABLE.sub(lambda found: "=" if found[1] == "3D" else " ", text.replace("=\n", ""))
    is_html = _HTML.search(text) is not None
    if text.count("\n") + (sum(1 for _ in _BREAK.finditer(text)) if is_html else 0) > LINES:
        raise BadInput(source, f"more than {LINES} lines, which is the most that is read")
    found = []
    for number, raw in enumerate(text.split("\n"), 1):
        for part in _BREAK.split(raw) if is_html else (raw,):
            if cut is not None and len(part) > LINE:
                cut.append(number)
            line = _clean(part[:LINE], is_html)
            if line:
                found.append(Line(number, line))
    return found


def without_prefixes(text: str, source: str = "the input", cut: list[int] | None = None) -> list[Line]:
    """Return the lines of a text without what a tool put around each: numbers (grep -n, cat -n), time stamps of a log,
    marks of a list, a diff or a frame, names of files (grep) and of hosts (pdsh, docker compose); of strings of JSON,
    whose line breaks are escaped, the lines. `cut` and errors as of `lines_of`."""
    return [
        Line(number, shorter)
        for number, line in lines_of(text.replace("\\n", "\n").replace("\\t", "\t"), source, cut)
        if (shorter := _STRING_END.sub("", _PREFIX.sub("", line, count=1)).strip())
    ]


def _clean(raw: str, is_html: bool) -> str:
    line = _ANSI.sub("", raw) if "\x1b" in raw else raw
    if is_html:
        line = html.unescape(_TAG.sub("", line))
    return line.replace("\xa0", " ").lstrip(_LEFT).rstrip(_RIGHT)
