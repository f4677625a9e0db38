"""Mappings of the standard devices' BARs: at alignments, from offsets and of lengths that make a difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pfnmap_verify.machine import DEVICES, GIB, MIB
from pfnmap_verify.recorder import Program

__all__ = [
    "PAGE",
    "PMD",
    "PUD",
    "SHIFTS",
    "WINDOW",
    "Step",
    "levels",
    "mmap",
    "partial",
    "placement",
    "touch",
    "whole_bar",
]

Step = Mapping[str, Any]

PAGE, PMD, PUD = 4096, 2 * MIB, GIB
WINDOW = 0x1000_0000_0000
_SIZES = {device.name.removeprefix("bar"): device.size for device in DEVICES}
SHIFTS = {"natural": 0, "va_plus_pmd": PMD, "va_plus_page": PAGE, "va_plus_half_pmd": PMD // 2}


def mmap(size: str, va: int, offset: int = 0, length: int | None = None, prot: str = "rw", name: str = "m0") -> Step:
    return {
        "op": "mmap",
        "id": name,
        "device": f"bar{size}",
        "bar": 2,
        "offset": offset,
        "length": _SIZES[size] - offset if length is None else length,
        "addr": hex(va),
        "fixed": va != 0,
        "prot": prot,
        "shared": True,
    }


def touch(at: str, access: str = "read", **more: Any) -> Step:
    return {"op": "touch", "va": at, "access": access, **more}


def whole_bar(size: str, shift: str = "natural") -> list[Step]:
    """A whole BAR mapped, at an address that is congruent to it, or so many bytes off."""
    return [mmap(size, WINDOW + SHIFTS[shift])]


def _placed(name: str, size: str, va: int, offset: int = 0, length: int | None = None) -> Program:
    """The first and the last byte touched, then what is in each unit on the way."""
    length = _SIZES[size] - offset if length is None else length
    steps = [
        mmap(size, va, offset, length),
        {"op": "note_tables", "va": "m0"},
        touch("m0"),
        touch(f"m0+{length - 1:#x}", "write"),
        {
            "op": "scan",
            "start": "m0",
            "end": f"m0+{length:#x}",
            "step": max(length // 8 & -PAGE, PAGE),
            "access": "read",
        },
    ]
    return Program(f"matrix.{size}.{name}", steps)


def levels() -> Iterator[Program]:
    chosen = {
        "natural": tuple(_SIZES),
        "va_plus_pmd": ("8G", "1G", "128M"),
        "va_plus_page": ("8G", "512M", "2M"),
        "va_plus_half_pmd": ("8G",),
    }
    for shift, sizes in chosen.items():
        for size in sizes:
            yield _placed(shift, size, WINDOW + SHIFTS[shift])


def partial() -> Iterator[Program]:
    offsets = (
        ("8G", "page", PAGE, True),
        ("8G", "512M", 512 * MIB, False),
        ("1G", "pmd", PMD, True),
        ("16G", "pud", PUD, True),
        ("16G", "pud_plus_pmd", PUD + PMD, False),
    )
    lengths = {
        "page": PAGE,
        "pmd_minus_page": PMD - PAGE,
        "pmd_plus_page": PMD + PAGE,
        "pud_minus_page": PUD - PAGE,
        "pud_plus_page": PUD + PAGE,
    }
    for what, length in lengths.items():
        yield _placed(f"len_{what}", "8G", WINDOW, 0, length)
    for size, what, offset, congruent in offsets:
        va = WINDOW + (offset % PUD if congruent else 0)
        yield _placed(f"off_{what}.va_{'congruent' if congruent else 'pud_aligned'}", size, va, offset)


def placement() -> Iterator[Program]:
    for size, length, what in (("8G", 8 * GIB, "null"), ("8G", 8 * GIB - PAGE, "null_minus_page"), ("2M", PMD, "null")):
        steps = [mmap(size, 0, length=length), touch("m0"), touch("m0+0x1fefff", "write")]
        yield Program(f"placement.{size}.{what}", steps)
