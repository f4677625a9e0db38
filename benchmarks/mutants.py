"""Tests that cannot fail: sampled mutants of the core's modules against the tests that concern them.

    python benchmarks/mutants.py mm --count 60 --seed 1

prints every mutant that no test sees, as FILE:LINE and the change, and how many of each module there were. Nothing is
written to the tree. The tests are collected once, and run once to learn which function each reaches; each mutant is a
forked process in which one function has the mutated code, and which runs the tests that reach it, the quickest first.
What the tests compute when they are imported, or in processes of their own, is not mutated: a survivor is a question,
not a verdict. Property tests run with a few examples each; tests that break the code themselves are left out. A mutant
that takes many times the seconds of a test, or memory without end, is caught. Ctrl-C ends it with what was tried.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import functools
import gc
import os
import pickle
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple

import hypothesis
import pytest
from _pytest.runner import runtestprotocol

from pfnmap.testing.mutants import Mutant, mutants_of

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCE: Final = ROOT / "core" / "src"
TIMES: Final = 5
"""How often the CPU time of a test a mutant may take; then it goes round in circles."""
BYTES: Final = 3 << 30
"""Of address space that it may take."""
EXAMPLES: Final = 6
TELL: Final = "_mutants_tell"


class Subject(NamedTuple):
    """Modules, each a pattern below core/src, and the tests that concern them, from the root."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


REPLAYED: Final = "tests/test_replay.py::test_every_record_agrees_in_every_field"
SUBJECTS: Final = {
    "plan": Subject(
        ("pfnmap/plan/*.py",),
        (
            "core/tests/test_plan_counted.py",
            "tests/test_plan.py",
            "tests/test_plan_advise.py",
            "tests/test_plan_against.py",
            "tests/test_plan_plugins.py",
            "tests/test_plan_recordings.py",
            "tests/test_plan_relations.py",
            "tests/test_plan_time.py",
            "tests/test_plan_vmms.py",
            "tests/test_plan_guest.py",
            "tests/test_plan_equals_run.py",
        ),
    ),
    "mm": Subject(
        ("pfnmap/mm/memory.py", "pfnmap/mm/huge_memory.py", "pfnmap/mm/follow_pfnmap.py"),
        (
            "core/tests/test_memory.py",
            "tests/test_private_memory.py",
            "tests/test_anonymous_memory.py",
            "tests/test_arch_findings.py",
            "tests/test_pte_tables.py",
            f"{REPLAYED}[x86_64-4k-6.12.117]",
            f"{REPLAYED}[x86_64-4k-6.1.192]",
            f"{REPLAYED}[huge-x86_64-4k-6.12.117]",
            f"{REPLAYED}[huge-x86_64-4k-6.1.192]",
            f"{REPLAYED}[arm64-4k-6.12.117-n1]",
            f"{REPLAYED}[arm64-4k-6.12.117-a72]",
            "plugins/pci_sysfs/tests/test_resource.py",
            "tests/test_lookup.py",
            "tests/test_procfs.py",
            "tests/test_proposed_changes.py",
            "tests/test_stateful.py",
            "tests/test_plan_equals_run.py",
        ),
    ),
    "release": Subject(
        ("pfnmap/release/*.py",),
        ("tests/test_release.py", "tests/test_changes_toml.py", "core/tests/test_changes_brought.py"),
    ),
}


class Reached(NamedTuple):
    """What a test took (s) and the functions that it reached, as (file, first line)."""

    seconds: float
    functions: frozenset[tuple[str, int]]


class Mutation:
    """A pytest plugin that runs mutants in place of the tests."""

    def __init__(self, mutants: list[Mutant], jobs: int) -> None:
        self.mutants = mutants
        self.jobs = jobs
        self.files = sorted({SOURCE / mutant.file for mutant in mutants})
        self.tried: list[Mutant] = []
        self.survivors: list[Mutant] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            function, case = getattr(item, "obj", None), getattr(item, "cls", None)
            if set_by := getattr(function, "_hypothesis_internal_use_settings", None):
                few = hypothesis.settings(set_by, max_examples=EXAMPLES, database=None)
                function._hypothesis_internal_use_settings = few  # type: ignore[union-attr]
            elif isinstance(getattr(case, "settings", None), hypothesis.settings):
                case.settings = hypothesis.settings(case.settings, max_examples=EXAMPLES, database=None)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        reached = self._reached(session.items)
        running: dict[int, Mutant] = {}
        waiting = iter(self.mutants)
        while True:
            while len(running) < self.jobs and (mutant := next(waiting, None)):
                running[_forked(lambda mutant=mutant: self._survives(mutant, session.items, reached))] = mutant
            if not running:
                return True
            child, status = os.wait()
            mutant = running.pop(child)
            self.tried.append(mutant)
            if status == 0:
                self.survivors.append(mutant)
                print(f"{mutant.file}:{mutant.line}: {mutant.change}", flush=True)

    def _reached(self, items: list[pytest.Item]) -> list[Reached]:
        """Run each test once, without a mutant, in a forked process whose functions tell that they are reached."""
        with tempfile.NamedTemporaryFile() as file:
            child = _forked(lambda: bool(Path(file.name).write_bytes(pickle.dumps(self._look(items)))))
            if os.waitpid(child, 0)[1]:
                raise pytest.UsageError("the tests could not be run without a mutant")
            found: list[Reached] = pickle.loads(Path(file.name).read_bytes())
            return found

    def _look(self, items: list[pytest.Item]) -> list[Reached]:
        functions: set[tuple[str, int]] = set()
        builtins.__dict__[TELL] = functions.add
        for path in self.files:
            _give(path, _codes(compile(_telling(path), str(path), "exec", dont_inherit=True)))
        found = []
        for item in items:
            functions.clear()
            _forget()  # a cached answer would hide who asks
            start = time.process_time()
            if _passes(item):
                found.append(Reached(time.process_time() - start, frozenset(functions)))
            else:
                print(f"left out, fails without a mutant: {item.nodeid}", flush=True)
                found.append(Reached(0, frozenset()))
        return found

    def _survives(self, mutant: Mutant, items: list[pytest.Item], reached: list[Reached]) -> bool:
        where = _mutate(mutant)
        _forget()
        tests = sorted((r.seconds, n) for n, r in enumerate(reached) if where in r.functions)
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        for seconds, n in tests:
            most = int(time.process_time() + 3 + TIMES * seconds)
            resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
            if not _passes(items[n]):
                return False
        return True


def _forked(work: Any) -> int:
    """Do some work in a forked process, quietly; its exit status is 0 where that answers True."""
    if child := os.fork():
        return child
    status = 1
    with contextlib.suppress(BaseException):
        status = 0 if work() else 1
    os._exit(status)


def _passes(item: pytest.Item) -> bool:
    reports = runtestprotocol(item, log=False, nextitem=None)
    return not any(report.failed for report in reports)


def _forget() -> None:
    """Empty every cache of the project and its tests."""
    for thing in gc.get_objects():
        if isinstance(thing, functools._lru_cache_wrapper) and "site-packages" not in (
            getattr(getattr(thing, "__wrapped__", None), "__code__", _forget.__code__).co_filename
        ):
            thing.cache_clear()


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            if constant.co_name[0].isupper():  # a class
                yield from _codes(constant)


def _telling(path: Path) -> ast.Module:
    """Return a module each of whose functions says first that it is reached."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body.insert(0, ast.parse(f"{TELL}(({str(path)!r}, {_first_line(node)}))").body[0])
    return tree


def _first_line(function: ast.FunctionDef) -> int:
    return min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])


def _give(path: Path, codes: Iterable[CodeType]) -> None:
    """Give functions of a file that are there these codes."""
    new = {code.co_firstlineno: code for code in codes}
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and thing.__code__.co_filename == str(path):
            thing.__code__ = new.get(thing.__code__.co_firstlineno, thing.__code__)


def _mutate(mutant: Mutant) -> tuple[str, int]:
    """Give the function that a mutant is of its code; return (file, first line) of the function."""
    path = SOURCE / mutant.file
    codes = {c.co_firstlineno: c for c in _codes(compile(mutant.source, str(path), "exec", dont_inherit=True))}
    first = max(
        line
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and (line := _first_line(node)) in codes and line <= mutant.line
    )
    _give(path, [codes[first]])
    return str(path), first


def _sampled(pattern: str, count: int, seed: int) -> list[Mutant]:
    found = [
        mutant
        for path in sorted(SOURCE.glob(pattern))
        for mutant in mutants_of(path.relative_to(SOURCE).as_posix(), path.read_text("utf-8"))
    ]
    found = list(dict.fromkeys(found))
    return random.Random(seed).sample(found, min(count, len(found)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--count", type=int, default=60, help="mutants of each pattern of the subject")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    subject = SUBJECTS[arguments.subject]
    samples = {pattern: _sampled(pattern, arguments.count, arguments.seed) for pattern in subject.modules}
    mutants = [mutant for sample in samples.values() for mutant in sample]
    random.Random(arguments.seed).shuffle(mutants)
    plugin = Mutation(mutants, arguments.jobs)
    os.chdir(ROOT)
    options = [
        "-q",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--capture=no",
        "-k=not a_wrong",
    ]
    status = int(pytest.main([*options, *subject.tests], plugins=[plugin]))
    for pattern, sample in samples.items():
        tried, survived = (sum(mutant in sample for mutant in those) for those in (plugin.tried, plugin.survivors))
        print(f"{pattern}: {tried} mutants, {survived} survived")
    return status


if __name__ == "__main__":
    sys.exit(main())
