"""The arguments of a step: from what a file says to what an op takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import NoneType
from typing import Any

from pfnmap.contract.vma import prot_flags
from pfnmap.errors import BadInput
from pfnmap.sizes import parse_size

__all__ = ["address_value", "argument_value"]


def address_value(value: Any, names: Mapping[str, int], where: str) -> int:
    """Return an address (bytes): an int, "0x...", or a named mapping with an offset ("m0", "m0+0x200000").

    Raises BadInput for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        address = value
    elif isinstance(value, str):
        name, plus, offset = value.partition("+")
        number = offset if plus and name in names else "0" if name in names else value
        if not _NUMBER.fullmatch(number):
            raise BadInput(where, f"{value!r} is no address (0x..., or a mapping's id as in m0+0x1000)")
        address = names.get(name, 0) + int(number, 0)
    else:
        raise BadInput(where, f"{value!r} is no address")
    if not 0 <= address < 1 << 64:
        raise BadInput(where, f"address {value!r} does not fit in 64 bits")
    return address


_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]{1,32}|[1-9][0-9]{0,32}|0)")

_BARS = 6
"""BARs of a PCI device (PCI_STD_NUM_BARS)."""

_KINDS: Mapping[str, Any] = {
    "signed": int,
    "bool": bool,
    "str": str,
    "device": (str, NoneType),
    "node": (int, NoneType),
}


def argument_value(kind: str, value: Any, names: Mapping[str, int], where: str) -> Any:
    """Convert an argument of a kind (`Op` lists them) to what its op takes; `where`: where it stands."""
    if kind == "address":
        return address_value(value, names, where)
    if kind in ("size", "int"):
        return parse_size(value, where) if kind == "size" and isinstance(value, str) else _unsigned(value, where)
    if kind == "bar":
        if not 0 <= _checked(value, int, where) < _BARS:
            raise BadInput(where, f"{value} is no BAR (0 to {_BARS - 1})")
        return value
    if kind == "list":
        return [_checked(item, str, where) for item in _checked(value, list, where)]
    if kind == "prot":
        text = _checked(value, str, where)
        if text != "none" and (not text or any(c not in "rwx" for c in text) or len(set(text)) != len(text)):
            raise BadInput(where, f"{text!r} is no protection (none, or letters of rwx)")
        return prot_flags(text)
    return _checked(value, _KINDS[kind], where)


def _unsigned(value: Any, where: str) -> int:
    number: int = _checked(value, int, where)
    if not 0 <= number < 1 << 64:
        raise BadInput(where, f"{number} is negative" if number < 0 else f"{number:#x} does not fit in 64 bits")
    return number


def _checked(value: Any, types: Any, where: str) -> Any:
    if not isinstance(value, types) or (types is not bool and isinstance(value, bool)):
        raise BadInput(where, f"{value!r} is of the wrong kind")
    return value
