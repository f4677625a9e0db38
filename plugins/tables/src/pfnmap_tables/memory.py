"""A target's memory, read through drgn's program of it: pages that a dump left out, and an end to reading.

makedumpfile leaves out pages of zeros (its level 1), those of user space, of the page cache and free ones. What the
kernel itself has in a page that was left out is zeros: all else that it has there is kept. A damaged target can lead
round in circles that no structure's own limits end, so what is read is counted.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from drgn import BadDataError, FaultError, MissingDebugInfoError, Platform, Program, ProgramFlags

from pfnmap.errors import Refused

__all__ = ["DAMAGE", "Memory"]

DAMAGE: Final = (
    AttributeError,
    BadDataError,
    FaultError,
    LookupError,
    MemoryError,
    MissingDebugInfoError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What drgn and its helpers raise where memory, or the types of what is in it, do not hold together."""
_READS: Final = 5_000_000
"""Reads of a target: some ten for each vma of a thousand processes with 400 each."""
_EXCLUDED: Final = "Excluded page"
"""What libkdumpfile says of a page that was left out (KDUMP_ERR_NODATA)."""
_PAGE: Final = 4096
_ALL: Final = (1 << 64) - 1


class Memory:
    """The memory of `raw`, drgn's own program. `left_out`: how many pages were read as zeros."""

    def __init__(self, raw: Program, name: str, reads: int = _READS) -> None:
        self.raw = raw
        self._name = name
        self._left = reads
        self.left_out: set[int] = set()

    @property
    def platform(self) -> Platform | None:
        """What machine it is of, as far as that is known."""
        return self.raw.platform

    @property
    def local(self) -> bool:
        """Whether it is the running kernel's, whose symbols /proc/kallsyms has."""
        return bool(self.raw.flags & ProgramFlags.IS_LOCAL)

    def program(self, vmcoreinfo: bytes, live: bool) -> Program:
        """Return a program that reads this memory. Raises ValueError for a VMCOREINFO that is none."""
        program = Program(self.raw.platform)
        program.add_memory_segment(0, _ALL, self._read, True)
        program.set_linux_kernel_custom(vmcoreinfo, live)
        program.add_memory_segment(0, _ALL, self._read, False)
        return program

    def _read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        """Return `count` bytes (drgn's interface of a memory segment)."""
        self._left -= 1
        if self._left < 0:
            raise Refused(self._name, f"more than {_READS:,} reads of its memory: is it damaged?")
        try:
            return self._raw_read(address, count, physical)
        except FaultError as error:
            if _EXCLUDED not in str(error):
                raise
        return b"".join(self._page(at, n, physical) for at, n in _pages(address, count))

    def _page(self, address: int, count: int, physical: bool) -> bytes:
        try:
            return self._raw_read(address, count, physical)
        except FaultError as error:
            if _EXCLUDED not in str(error):
                raise
            self.left_out.add(address // _PAGE)
            return bytes(count)

    def _raw_read(self, address: int, count: int, physical: bool) -> bytes:
        try:
            return bytes(self.raw.read(address, count, physical))
        except OSError as error:  # a file that is shorter than it says
            raise FaultError(f"{error.strerror or error}", address) from None


def _pages(address: int, count: int) -> list[tuple[int, int]]:
    """Cut a range of bytes at the borders of pages: addresses and counts."""
    end = address + count
    cuts = [address, *range((address // _PAGE + 1) * _PAGE, end, _PAGE), end]
    return [(low, high - low) for low, high in pairwise(cuts)]
