"""What a check of the conformance kit is, and how it is run; nothing here knows an architecture or a driver.

A check is a row of a table: a name, the reason for it in words, what it needs, and the function that does it. It needs
*capabilities*: what a plugin does not claim is not tested, what it claims is. The same tables serve pytest
(`pfnmap.testing.conformance`) and the command line (``pfnmap check NAME``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol
from unittest import SkipTest

from pfnmap.contract.entry import Level
from pfnmap.errors import BadInput, Unknown, Unwritten

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel

__all__ = [
    "Case",
    "Check",
    "Result",
    "Status",
    "Subject",
    "Violation",
    "bits",
    "cases",
    "check_expectations",
    "expected_failure",
    "run",
]

Status = Literal["passed", "failed", "not claimed", "waiting", "skipped", "expected failure", "unexpected pass"]


class Violation(AssertionError):
    """A plugin broke a law; the text says which op, with which input, and in which bits."""


class Subject(Protocol):
    """What checks are run on: one plugin, linked as one machine."""

    @property
    def machine(self) -> str:
        """The machine's name."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What the plugin claims on this machine."""

    @property
    def kernel(self) -> Kernel | None:
        """The kernel that it is linked into; None for checks that look at the plugin alone."""


@dataclass(frozen=True)
class Check:
    """One check. `needs`: capabilities, with X for the level where the check has `levels`; `function` is called with
    the subject (and the level), and raises Violation, or whatever the plugin raises."""

    name: str
    reason: str
    function: Callable[..., None]
    needs: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()


class Case(NamedTuple):
    """A check at one of its levels ("" for one without)."""

    check: Check
    level: Level | Literal[""] = ""

    @property
    def id(self) -> str:
        """The name, with the level where there is one: "special-survives:pmd"."""
        return f"{self.check.name}:{self.level}" if self.level else self.check.name

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that it asks for."""
        if not self.level:
            return frozenset(self.check.needs)
        return frozenset(_at(need, self.level) for need in self.check.needs)

    def __call__(self, subject: Subject) -> None:
        """Do it; raises what the check's function raises."""
        if self.level:
            self.check.function(subject, self.level)
        else:
            self.check.function(subject)


def _at(need: str, level: Level) -> str:
    return need.replace("X_", f"{level}_").replace("_X", f"_{level}").replace(":X", f":{level}")


@dataclass(frozen=True)
class Result:
    """What came of a case on a machine. `detail`: what was found, what is missing, or why it was expected."""

    case: Case
    machine: str
    status: Status
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether nobody has to do anything about it."""
        return self.status in ("passed", "not claimed", "waiting", "skipped", "expected failure")

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "check": self.case.check.name,
            "level": self.case.level or None,
            "machine": self.machine,
            "status": self.status.replace(" ", "_"),
            "reason": self.case.check.reason,
            "detail": self.detail or None,
        }


def cases(checks: Iterable[Check]) -> Iterator[Case]:
    """Yield every check at every one of its levels."""
    for check in checks:
        yield from (Case(check, level) for level in check.levels or ("",))


def run(case: Case, subject: Subject, expected: Mapping[str, str] | None = None) -> Result:
    """Run a case where the subject claims what it needs; `expected` are the declared failures.

    A case that comes upon something still to be written waits for it: the check ``written`` reports that. One that
    lacks what is no part of the kit (an emulator) raises `unittest.SkipTest`, as pytest understands it too.
    """
    missing = sorted(case.needs - subject.capabilities)
    if missing:
        return Result(case, subject.machine, "not claimed", ", ".join(missing))
    why = expected_failure(case, subject.machine, expected or {})
    try:
        case(subject)
    except Unwritten as error:
        if case.check.name != f"written-{error.name}":
            return Result(case, subject.machine, "waiting", f"for {error.name}, which is still to be written")
        found = str(error)
    except SkipTest as error:
        return Result(case, subject.machine, "skipped", str(error))
    except Exception as error:  # a plugin may raise anything
        found = str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error}"
    else:
        if why:
            return Result(case, subject.machine, "unexpected pass", f"it was expected to fail: {why}")
        return Result(case, subject.machine, "passed")
    return Result(case, subject.machine, *(("expected failure", f"{why}: {found}") if why else ("failed", found)))


def expected_failure(case: Case, machine: str, expected: Mapping[str, str]) -> str:
    """Return the reason why a case is expected to fail on a machine, or ""."""
    for key, reason in expected.items():
        name, _, where = key.partition("@")
        if name in (case.id, case.check.name) and fnmatchcase(machine, where or "*"):
            return reason
    return ""


def check_expectations(expected: Mapping[str, str], all_cases: Sequence[Case], who: str) -> None:
    """Raise Unknown or BadInput for a declared failure of a check that does not exist, or without a reason."""
    names = {name for case in all_cases for name in (case.id, case.check.name)}
    for key, reason in expected.items():
        name = key.partition("@")[0]
        if name not in names:
            raise Unknown(f"check in the expected failures of {who}:", name, sorted(names))
        if not reason.strip():
            raise BadInput(f"expected failures of {who}: {key}", "a reason is missing")


def bits(first: int, second: int) -> str:
    """Return in words in which bits two entries differ: "bits 9, 52 to 62"."""
    differing = [n for n in range(64) if (first ^ second) >> n & 1]
    if not differing:
        return "no bit"
    runs: list[list[int]] = []
    for n in differing:
        if runs and runs[-1][-1] == n - 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    parts = [str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in runs]
    return f"bit{'s' if len(differing) > 1 else ''} {', '.join(parts)}"
