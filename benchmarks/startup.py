"""CPU time of commands against that of a three-line typer application that prints its help, in one run on one machine.

Each is started by turns; the ratio is of the medians. All of them find their modules compiled, as installed ones are.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

PEER = "import typer\napp = typer.Typer()\napp.command()(lambda: None)\napp()"
BAR = ("--bar", "8G@0x800000000")
COMMANDS = (("caps",), ("caps", "--json"), ("plugins",), ("plan", *BAR), ("plan", *BAR, "--json"), ("--help",), ("-V",))
AT_MOST = 1.6
COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
PFNMAP = str(Path(sys.executable).with_name("pfnmap"))


def cpu_seconds(command: list[str]) -> float:
    """Run a command and return what it took of the CPU, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, env=COMPILED)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ratios(repeat: int) -> dict[str, float]:
    """Return the ratio of each command."""
    peer: list[float] = []
    found: dict[str, list[float]] = {" ".join(arguments): [] for arguments in COMMANDS}
    for arguments in COMMANDS:
        cpu_seconds([PFNMAP, *arguments])
    for _ in range(repeat):
        peer.append(cpu_seconds([sys.executable, "-c", PEER, "--help"]))
        for arguments in COMMANDS:
            found[" ".join(arguments)].append(cpu_seconds([PFNMAP, *arguments]))
    return {name: statistics.median(times) / statistics.median(peer) for name, times in found.items()}


def main() -> None:
    """Print the ratios."""
    for name, ratio in ratios(int(sys.argv[1]) if len(sys.argv) > 1 else 9).items():
        print(f"{ratio:8.2f}  pfnmap {name} (at most {AT_MOST} is the aim)")


if __name__ == "__main__":
    main()
