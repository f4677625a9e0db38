"""Memory, as a ratio to the page tables: the peak of a process that touches every 4K page of a BAR, or fills or
forks it, over what it had before, against 8 bytes a PTE.

    python benchmarks/memory.py

prints a row for each piece of work and size, each in a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys

from measures import BARS, GIB, PAGE, VA, filled, mapped

from pfnmap.contract.step import Step

WORKS = {"touch": 1, "fill": 1, "fork": 2}
"""What is done, and how many times the tables of the BAR are there then."""


def peak() -> int:
    """Return the most bytes that this process had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def work(name: str, size: int) -> None:
    """Do one piece of work."""
    if name == "touch":
        mapped(size, PAGE).step(Step("touch", {"va": VA + PAGE, "length": size, "access": "read"}))
        return
    run = filled(size)
    if name == "fork":
        run.step(Step("fork", {}))


def main() -> int:
    """Print the table, or what one piece of work took."""
    if len(sys.argv) == 3:
        name, size = sys.argv[1], int(sys.argv[2])
        work(name, GIB // 64)  # everything is imported and linked
        before = peak()
        work(name, size)
        print(peak() - before)
        return 0
    print(f"{'work':8} {'size':>6} {'MiB':>7} {'tables':>7} {'ratio':>6}")
    for name, times in WORKS.items():
        for label, size in BARS.items():
            command = [sys.executable, __file__, name, str(size)]
            found = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            tables = times * size // PAGE * 8
            print(f"{name:8} {label:>6} {found / 2**20:7.1f} {tables / 2**20:7.1f} {found / tables:6.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
