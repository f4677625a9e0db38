"""`pfnmap plan --batch`: CPU time against the json module that parses the same lines, two processes, memory.

Fleets of hosts of few kinds (as a provider's are) and of hosts that are all different.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pfnmap.sizes import parse_size

PFNMAP = str(Path(sys.executable).with_name("pfnmap"))
HOSTS = 10_000
MANY = 100_000
"""Lines over which memory is to be flat."""
AT_MOST = 20
GPU = ("16M@0x100000000000", "256G@0x200000000000", "32M@0x100004000000")


def few_kinds(number: int) -> dict[str, object]:
    """Return a host of one of 24 kinds."""
    vmm = ("qemu-8.2", "qemu-9.2", "qemu-11.0")[number % 3]
    release = ("6.12.117", "6.18.15", "7.3.4", "6.1.192")[number % 4]
    gpu = [text.split("@") for text in GPU]
    bars = [f"{size}@{int(phys, 16) + n * (1 << 40):#x}" for n in range(8) for size, phys in gpu]
    return {"id": f"host{number}", "release": release, "vmm": vmm, "bar": bars, "thp": ("always", "never")[number % 2]}


def all_different(number: int) -> dict[str, object]:
    """Return a host with one device whose BAR lies where no other host's does."""
    return {"id": f"host{number}", "release": "6.12.117", "vmm": "qemu-9.2", "bar": [f"16M@{(number + 1) << 24:#x}"]}


DEVICES = {
    "H100": ("16M", "128G", "32M"),
    "H200": ("16M", "256G", "32M"),
    "L40S": ("16M", "64G", "32M"),
    "ConnectX-7": ("32M",),
    "NVMe": ("16K",),
}
RELEASES = ("6.8", "6.12.117", "6.14.0-27-generic", "6.1.0-56-amd64", "6.17", "6.18.15", "7.3.4")
VMMS = ("qemu-8.2", "qemu-9.2", "qemu-11.0", "cloud_hypervisor-53", "firecracker")


def a_fleet(number: int) -> dict[str, object]:
    """Return a host of a fleet: one of 7 kernels, 3 THP settings and 5 VMMs, one to eight of one of 5 devices, whose
    BARs lie at multiples of their sizes where no other host's do."""
    pick = random.Random(number)
    thp = pick.choice(("always", "always", "madvise", "never"))
    sizes = pick.choice(list(DEVICES.values())) * pick.choice((1, 1, 2, 4, 8))
    bars = [f"{size}@{_address(size, pick):#x}" for size in sizes]
    return {"id": f"host{number}", "release": pick.choice(RELEASES), "vmm": pick.choice(VMMS), "thp": thp, "bar": bars}


def _address(size: str, pick: random.Random) -> int:
    length = parse_size(size)
    return length * pick.randrange(1, (1 << 44) // length)


KINDS = (few_kinds, a_fleet, all_different)


def run(path: Path, *words: str) -> tuple[float, float, int]:
    """Answer a file; return seconds, CPU seconds, and KiB of memory at most."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen([PFNMAP, "plan", "--batch", *words, str(path)], stdout=subprocess.DEVNULL) as asked:
        _, status, used = os.wait4(asked.pid, 0)
        asked.returncode = os.waitstatus_to_exitcode(status)
    assert not asked.returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, spent, used.ru_maxrss


def main() -> None:
    """Print a line for each fleet."""
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            path, short, one, many = (Path(scratch) / name for name in ("long", "short", "one", "many"))
            lines = [json.dumps(kind(number)) for number in range(HOSTS)]
            path.write_text("".join(f"{line}\n" for line in lines))
            short.write_text("".join(f"{line}\n" for line in lines[:1000]))
            one.write_text(f"{lines[0]}\n")
            with many.open("w") as file:
                file.writelines(f"{json.dumps(few_kinds(number))}\n" for number in range(MANY))
            started = time.process_time()
            for line in lines:
                json.loads(line)
            parsed = time.process_time() - started
            first = run(one)[1]
            wall, spent, _ = run(path)
            two = run(path, "--jobs", "2")[0]
            print(
                f"{kind.__name__}: {HOSTS} hosts, {parsed * 1e6 / HOSTS:.1f} us of json and "
                f"{(spent - first) * 1e6 / HOSTS:.1f} us each, {(spent - first) / parsed:.1f} x (at most {AT_MOST}); "
                f"two processes {wall / two:.2f} x as fast; "
                f"{run(short)[2] >> 10} MiB for 1000, {run(many)[2] >> 10} MiB for {MANY}"
            )


if __name__ == "__main__":
    main()
