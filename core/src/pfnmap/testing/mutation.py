"""The kit against mutants of an installed architecture: which of them no check sees.

Each mutant is a copy of the plugin's package with one file changed, and is checked in a process of its own that finds
the copy first (``python -m pfnmap.testing.mutation NAME [VECTORS...]``). A mutant is caught by the first result that is
not good, by a crash, or by taking too long. Nothing of the installed package is written to.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from pfnmap.contract.arch import Arch
from pfnmap.errors import PfnmapError, PluginError
from pfnmap.testing.kit import arch_kit
from pfnmap.testing.mutants import Mutant, sample

__all__ = ["Outcome", "package_of", "run"]

_SECONDS: Final = 300
"""How long one mutant may take: one that goes round in circles is caught."""


class Outcome(NamedTuple):
    """What came of a mutant: what caught it ("" if nothing did)."""

    mutant: Mutant
    caught: str


def package_of(arch: type[Arch]) -> Path:
    """Return the directory of an architecture's top-level package. Raises PluginError where it has none."""
    spec = find_spec(arch.__module__.partition(".")[0])
    for folder in (spec and spec.submodule_search_locations) or ():
        return Path(folder)
    raise PluginError(arch.name, f"{arch.__module__} is in no package that could be copied")


def run(arch: type[Arch], count: int, vectors: Sequence[str] = ()) -> Iterator[Outcome]:
    """Yield what came of each of `count` mutants, as they end.

    Raises PfnmapError where the kit fails on the plugin as it is: then it would catch anything.
    """
    package = package_of(arch)
    files = [os.path.abspath(file) for file in vectors]
    if found := _checked(arch.name, package, None, files):
        raise PluginError(arch.name, f"the kit fails without a mutant: {found}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(
            lambda mutant: Outcome(mutant, _checked(arch.name, package, mutant, files)), sample(package, count)
        )


def _checked(name: str, package: Path, mutant: Mutant | None, vectors: Sequence[str]) -> str:
    """Return what a process of its own found wrong with a copy of a package, or ""."""
    with tempfile.TemporaryDirectory(prefix="pfnmap-mutant-") as folder:
        copy = Path(folder) / package.name
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            (copy / mutant.file).write_text(mutant.source, encoding="utf-8")
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", __name__, name, *vectors]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"more than {_SECONDS} seconds"
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        answer = json.loads(done.stdout)
        if answer["file"] and not Path(answer["file"]).is_relative_to(Path(folder).resolve()):  # "": no kit was made
            raise PluginError(name, f"{answer['file']} is imported, not the copy in {folder}")
        return str(answer["caught"])


def _main(name: str, *vectors: str) -> None:
    """Print as JSON what the kit finds first in an installed architecture, and which file that is."""
    caught = file = ""
    try:
        kit = arch_kit(name, vectors=vectors)
        file = str(Path(sys.modules[kit.plugin.__module__].__file__ or "").resolve())
        results = (kit.run(item) for item in kit.items())
        caught = next((f"{r.case.id} on {r.machine or 'no machine'}: {r.detail}" for r in results if not r.good), "")
    except PfnmapError as error:
        caught = str(error)
    print(json.dumps({"file": file, "caught": caught}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
