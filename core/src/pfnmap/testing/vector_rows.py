"""The rows of a vector file, from lists of hex strings: all of a file's words are turned into numbers at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from string import hexdigits
from typing import TYPE_CHECKING, Any, Final, TypeAlias, overload

from pfnmap.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Row", "Rows", "hex_number", "rows_of"]

Row: TypeAlias = tuple[int, ...]
"""Inputs, then the result."""

HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,16}")
_LONGEST: Final = len("0x") + 16
_X: Final = 16
_VALUES: Final = bytes(
    {0: 0, ord("x"): _X, **{ord(digit): int(digit, 16) for digit in hexdigits}}.get(code, _X + 1) for code in range(256)
)
"""What each character of a hex string stands for; past its end 0."""


class Rows(Sequence[Row]):
    """The rows of one helper; `words` has them as a read-only array of uint64, a row each."""

    __slots__ = ("words",)

    def __init__(self, words: npt.NDArray[np.uint64]) -> None:
        self.words = words

    def __len__(self) -> int:
        return len(self.words)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Rows: ...

    def __getitem__(self, index: int | slice) -> Row | Rows:
        return Rows(self.words[index]) if isinstance(index, slice) else tuple(self.words[index].tolist())

    def __iter__(self) -> Iterator[Row]:
        return iter(list(map(tuple, self.words.tolist())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and list(self) == list(other)


def rows_of(listed: Mapping[str, Any], widths: Mapping[str, int], where: str) -> dict[str, Rows]:
    """Return the rows of helpers, of `widths` words each. Raises BadInput, naming the helper and the row."""
    for name, rows in listed.items():
        if not isinstance(rows, list):
            raise BadInput(f"{where}: {name}", "expected a list of rows")
    every = list(chain.from_iterable(listed.values()))
    numbers = None
    if set(map(type, every)) <= {list} and all(set(map(len, rows)) <= {widths[n]} for n, rows in listed.items()):
        numbers = _numbers(list(chain.from_iterable(every)))
    if numbers is None:
        raise _wrong(listed, widths, where)
    found, start = {}, 0
    for name, rows in listed.items():
        end = start + len(rows) * widths[name]
        found[name] = Rows(numbers[start:end].reshape(-1, widths[name]))
        start = end
    return found


def _numbers(words: list[Any]) -> npt.NDArray[np.uint64] | None:
    """Return the numbers that hex strings are, read-only; None where one is no hex string of at most 64 bits."""
    import numpy as np

    if not words:
        return np.empty(0, np.uint64)
    try:
        text = "".join(words)
        packed = np.array(words, dtype=f"S{_LONGEST + 1}")  # left-aligned, zeros behind; longer ones are cut there
    except (TypeError, ValueError):
        return None
    digits = np.frombuffer(packed.tobytes().translate(_VALUES), np.uint8).reshape(-1, _LONGEST + 1)
    lengths = np.char.str_len(packed)
    prefixed = not digits[:, 0].any() and (digits[:, 1] == _X).all() and np.count_nonzero(digits == _X) == len(words)
    if not prefixed or "\0" in text or lengths.min() < 3 or lengths.max() > _LONGEST or digits.max() > _X:
        return None
    left = (digits[:, 2:_LONGEST:2] << 4 | digits[:, 3:_LONGEST:2]).view(">u8").ravel()
    numbers: npt.NDArray[np.uint64] = left.astype(np.uint64) >> (4 * (_LONGEST - lengths)).astype(np.uint64)
    numbers.flags.writeable = False
    return numbers


def _wrong(listed: Mapping[str, Any], widths: Mapping[str, int], where: str) -> BadInput:
    """Say which row is the first that is none."""
    for name, rows in listed.items():
        for n, row in enumerate(rows):
            there = f"{where}: {name} row {n}"
            if not isinstance(row, list) or len(row) != widths[name]:
                return BadInput(there, f"expected a list of {widths[name]} hex strings")
            try:
                for word in row:
                    hex_number(word, there)
            except BadInput as error:
                return error
    raise AssertionError("every row is one")


def hex_number(value: Any, where: str) -> int:
    """Return the number that a hex string of at most 64 bits is. Raises BadInput."""
    if not isinstance(value, str) or not HEX.fullmatch(value):
        raise BadInput(where, f"{value!r:.40} is not a hex string of at most 64 bits")
    return int(value, 16)
