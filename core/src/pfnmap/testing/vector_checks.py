"""Checks of an architecture against golden vectors: every row in scope of a file, one by one and as arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from pfnmap.contract.arch import Arch
from pfnmap.kernel import Kernel
from pfnmap.testing.check import Check, Violation
from pfnmap.testing.vectors import check_vectors, machine_of, read_vectors

__all__ = ["vector_checks"]

_REASON = "the helpers answer bit for bit what the real kernel's own code did"
_SHOWN = 3  # disagreements that a failure lists


def vector_checks(arch: type[Arch], files: Iterable[str | os.PathLike[str]]) -> list[Check]:
    """Return two checks for each file, on ints and on arrays; each links the file's own machine."""
    return [
        Check(f"vectors-{Path(file).name.partition('.json')[0]}-{how}", _REASON, _comparison(arch, file, arrays))
        for file in files
        for how, arrays in (("ints", False), ("arrays", True))
    ]


def _comparison(arch: type[Arch], file: str | os.PathLike[str], arrays: bool) -> Callable[..., None]:
    def compare(subject: object) -> None:
        vectors = read_vectors(file)
        if vectors.arch != arch.name:
            raise Violation(f"{Path(file).name} is of {vectors.arch}, not of {arch.name}")
        machine = machine_of(vectors, arch=arch)
        kernel = Kernel.link(arch, config=machine.config, release=machine.release, cpu=machine.cpu)
        checked = check_vectors(vectors, kernel, arrays=arrays)
        if checked.rows == checked.agree > 0:
            return
        shown = [one.as_dict() for one in checked.disagree[:_SHOWN]]
        rows = [
            f"{d['helper']}({', '.join(d['inputs'])}) is {d['got']}, the kernel's is {d['expected']}" for d in shown
        ]
        raise Violation(f"{checked.rows - checked.agree} of {checked.rows} rows disagree: {'; '.join(rows)}")

    return compare
