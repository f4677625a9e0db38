"""What an op of a step is: its arguments and the function that performs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from errno import errorcode
from typing import Any

__all__ = ["Op", "errno_result"]


@dataclass(frozen=True)
class Op:
    """An op of the core: `run(run, mm, **arguments)` performs it for the process with address space `mm` and returns
    what the step adds to the common results. `required` and `optional`: arguments with their kinds.

    "address"; "size" and "int", not negative; "signed"; "bar" (0 to 5); "bool"; "str"; "prot"; "list" (of str);
    "device" and "node" (None: none)."""

    run: Callable[..., Mapping[str, Any]]
    required: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)


def errno_result(value: int) -> dict[str, Any]:
    """Return the result of a system call: "ok" for 0 or more, else the errno's name."""
    return {"result": errorcode[-value] if value < 0 else "ok"}


# The ops of the core
