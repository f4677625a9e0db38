"""Checks of a Kconfig fragment against records of what the kernel's own ``conf`` made of configurations.

A file (JSON, plain or gzip) has ``records``: of each the release, what was ``given``, and what conf ``derived``.
Symbols that neither the core nor the architecture's package declares are left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from pfnmap.contract.arch import Arch
from pfnmap.errors import BadInput
from pfnmap.host.bounded import MIB, read_json
from pfnmap.kconfig import declared, fragment, resolve
from pfnmap.release import parse_release
from pfnmap.testing.check import Check, Violation

__all__ = ["record_checks"]

_REASON = "the architecture's Kconfig derives what the kernel's own conf derived"
_LIMIT = 16 * MIB


def record_checks(arch: type[Arch], files: Iterable[str | os.PathLike[str]]) -> list[Check]:
    """Return a check for each file."""
    return [
        Check(f"kconfig-records-{Path(file).name.partition('.json')[0]}", _REASON, _comparison(arch, file))
        for file in files
    ]


def _comparison(arch: type[Arch], file: str | os.PathLike[str]) -> Callable[..., None]:
    packages = ("pfnmap", arch.__module__.partition(".")[0])

    def compare(subject: object) -> None:
        document = read_json(file, _LIMIT)
        if not (isinstance(document, dict) and isinstance(document.get("records"), list) and document["records"]):
            raise BadInput(f"{file}: records", "expected a list of records")
        known, wrong = declared(*packages), []
        for record in document["records"]:
            has = parse_release(record["release"]).has
            given = {symbol: value for symbol, value in record["given"].items() if symbol in known}
            derived = {symbol: value for symbol, value in record["derived"].items() if symbol in known}
            if not derived:
                raise Violation(f"{record['id']}: no symbol of this record is declared")
            config = resolve([(package, fragment(package, has)) for package in packages], given)
            wrong += [
                f"{record['id']}: {symbol} is {config.value(symbol)}, conf derived {value}"
                for symbol, value in derived.items()
                if config.value(symbol) != value
            ]
        if wrong:
            raise Violation(f"{len(wrong)} values differ: {'; '.join(wrong[:3])}")

    return compare
