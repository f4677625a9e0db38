"""Break the readers' inputs and see what breaks: python tests/fuzz/fuzz.py [TARGET...] [--seconds N] [--seed S].

Each target in turn for so many seconds (default: 60 in all). What is found is written into the corpus, from where
test_fuzz.py tries it again; exit 1. --atheris follows the coverage of one target (pip install atheris); it ends at the
first finding.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import traceback
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

from mutate import mutated
from targets import TARGETS, finding

CORPUS = Path(__file__).parent / "corpus"


def fuzz(name: str, seconds: float, seed: int) -> tuple[int, int]:
    """Fuzz a target; return how many inputs it took, and how many different findings there were."""
    target, random, found = TARGETS[name], Random(f"{name} {seed}"), set()
    seeds, count = list(target.inputs()), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(seeds, target.words, random)
        count += 1
        began = time.process_time()
        error = finding(target, data)
        if error is None and time.process_time() - began > 10:
            error = TimeoutError("more than 10 s")
        if error is None:
            continue
        last = traceback.extract_tb(error.__traceback__)[-1:]
        key = (
            type(error),
            str(error)[-60:] if isinstance(error, AssertionError) else "",
            *((f.filename, f.lineno) for f in last),
        )
        if key not in found:
            found.add(key)
            CORPUS.joinpath(name).mkdir(parents=True, exist_ok=True)
            path = CORPUS / name / hashlib.sha1(data).hexdigest()[:12]
            path.write_bytes(data)
            print(f"{name}: {path}: {type(error).__name__}: {error} at {last}", flush=True)
    return count, len(found)


def main() -> int:
    """Fuzz what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    parser.add_argument("--seconds", type=float, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    asked = parser.parse_args()
    names = asked.targets or list(TARGETS)
    if asked.atheris:
        return follow_coverage(names[0])
    seconds = 60 / len(names) if asked.seconds is None else asked.seconds
    status = 0
    for name in names:
        count, found = fuzz(name, seconds, asked.seed)
        print(f"{name}: {count} inputs, {found} findings", flush=True)
        status = status or int(found > 0)
    return status


def follow_coverage(name: str) -> int:
    """Fuzz a target with atheris, which never comes back."""
    import atheris

    target = TARGETS[name]
    seeds = CORPUS / f"{name}.seeds"
    seeds.mkdir(parents=True, exist_ok=True)
    for n, data in enumerate(target.inputs()):
        (seeds / str(n)).write_bytes(data)

    def one(data: bytes) -> None:
        error = finding(target, data)
        if error is not None:
            raise error

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], str(seeds)], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
