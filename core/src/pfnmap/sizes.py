"""Sizes and addresses as people write them: ``8G``, ``8GiB``, ``0x200000``, ``SIZE@PHYS``.

Units are powers of 1024 and mean bytes. Everything fits in 64 bits or is refused, and a text that could be
meant in two ways (``8GB``, ``8Gb``, hexadecimal digits without ``0x``) is refused rather than guessed.
"""

from __future__ import annotations

import re

from pfnmap.errors import BadInput

__all__ = [
    "format_size",
    "is_power_of_two",
    "parse_address",
    "parse_bar",
    "parse_bar_size",
    "parse_size",
    "rounded_size",
]

_UNITS = "KMGTPE"
_SIZE = re.compile(rf"(?:0[xX]([0-9a-fA-F]+)|([0-9]+)(?:([{_UNITS}{_UNITS.lower()}])(?:iB)?)?)")
_ADDRESS = re.compile(r"(?:0[xX]([0-9a-fA-F]+)|([0-9]+))")
_LIMIT = 1 << 64
_MIN_BAR = 16
"""Bytes in the smallest memory BAR: its four low bits are flags (PCI_BASE_ADDRESS_MEM_MASK, pci_regs.h)."""


def is_power_of_two(value: int) -> bool:
    """Tell whether `value` is 1, 2, 4, ..."""
    return value > 0 and value & (value - 1) == 0


def parse_size(text: str, where: str = "") -> int:
    """Return the bytes that ``4096``, ``0x200000``, ``2M``, ``8G`` or ``8GiB`` mean; 0 is a size too.

    `where` names the option or key in the error. Raises BadInput for anything else and for 2**64 and more.
    """
    text = text.strip()
    found = _SIZE.fullmatch(text)
    if found is None:
        raise BadInput(where, f"{_quote(text)} is not a size{_hint(text)}; write 4096, 0x200000, 2M or 8GiB")
    hexadecimal, digits, unit = found.groups()
    size = _number(hexadecimal, digits)
    if unit:
        size <<= 10 * (_UNITS.index(unit.upper()) + 1)
    if size >= _LIMIT:
        raise BadInput(where, f"size {_quote(text)} does not fit in 64 bits")
    return size


def parse_address(text: str, where: str = "") -> int:
    """Return the address that ``0x84000000000`` or a decimal number means. Raises BadInput."""
    text = text.strip()
    found = _ADDRESS.fullmatch(text)
    if found is None:
        hint = "; hexadecimal needs 0x in front" if re.fullmatch(r"[0-9a-fA-F]+", text) else ""
        raise BadInput(where, f"{_quote(text)} is not an address such as 0x84000000000{hint}")
    address = _number(*found.groups())
    if address >= _LIMIT:
        raise BadInput(where, f"address {_quote(text)} does not fit in 64 bits")
    return address


def parse_bar(text: str, where: str = "") -> tuple[int, int]:
    """Return (size, physical address) in bytes of a memory BAR ``SIZE@PHYS``, such as ``128G@0x84000000000``.

    Raises BadInput where it cannot be a BAR: its size is a power of two of at least 16 bytes, and its address
    a multiple of the size (the address bits below it are not writable, and Linux aligns the resource to its
    size: pci_resource_alignment, drivers/pci/pci.h).
    """
    size_text, at, phys_text = (part.strip() for part in text.partition("@"))
    if not at:
        raise BadInput(where, f"{_quote(text)} is not SIZE@PHYS, such as 8G@0x800000000")
    size = parse_bar_size(size_text, where)
    phys = parse_address(phys_text, where)
    if phys % size:
        meant_hex = phys_text.isdigit() and int(phys_text, 16) % size == 0
        hint = f"; did you mean 0x{phys_text}?" if meant_hex else ""
        raise BadInput(where, f"BAR address {phys:#x} is not a multiple of its size {format_size(size)}{hint}")
    return size, phys


def parse_bar_size(text: str, where: str = "") -> int:
    """Return the bytes of a memory BAR: a power of two of at least 16. Raises BadInput."""
    size = parse_size(text, where)
    if size < _MIN_BAR or not is_power_of_two(size):
        least = f"a power of two of at least {_MIN_BAR} bytes"
        raise BadInput(where, f"BAR size {text} ({size} bytes) is not {least}")
    return size


def format_size(size: int) -> str:
    """Return a size in bytes in the largest unit that divides it: ``2M``, ``1G``, ``12K``, ``4097``.

    Exact: parse_size reads the same number back.
    """
    unit = ""
    for larger in _UNITS:
        if size == 0 or size % 1024:
            break
        size //= 1024
        unit = larger
    return f"{size}{unit}"


def rounded_size(size: int) -> str:
    """Return a size in bytes for reading: exact below 1M (``4K``), else with one decimal (``16.0M``, ``256.5M``)."""
    if size < 1 << 20:
        return format_size(size)
    unit, shift = ("G", 30) if size >= 1 << 30 else ("M", 20)
    return f"{size / (1 << shift):.1f}{unit}"


def _number(hexadecimal: str | None, digits: str | None) -> int:
    """Return a number of any length, or 2**64 for one with more digits than 64 bits can need."""
    text, base = (hexadecimal, 16) if hexadecimal else (digits or "", 10)
    text = text.lstrip("0") or "0"
    return int(text, base) if len(text) <= 20 else _LIMIT


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _hint(text: str) -> str:
    """Return what is wrong with a text that is not a size, where that can be told."""
    if not text:
        return " (it is empty)"
    if text.startswith("-"):
        return " (it is negative)"
    if re.match(r"[0-9]*\.[0-9]", text):
        return " (it is not a whole number)"
    if unit := re.fullmatch(r"[0-9]+([A-Za-z]{1,8})", text):
        return f" (unknown unit {unit[1]!r})"
    return ""
