"""Print a fleet as JSON lines for `pfnmap plan --batch`: made-up hosts of a few kinds, the same ones each time.

python examples/fleet.py 1000 | pfnmap plan --batch --jobs 2 | pfnmap fleet
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator

GPUS = {
    "H100": ("16M", "128G", "32M"),
    "H200": ("16M", "256G", "32M"),
    "L40S": ("16M", "64G", "32M"),
    "ConnectX-7": ("32M",),
}
KERNELS = ("6.8", "6.12.117", "6.14.0-27-generic", "6.1.0-56-amd64", "6.17", "7.3.4")
VMMS = ("qemu-8.2", "qemu-9.2", "qemu-11.0", "cloud_hypervisor-53", "firecracker")


def fleet(count: int, seed: int = 1) -> Iterator[dict[str, object]]:
    """Yield hosts: what each has of GPUs, which kernel and which VMM."""
    choose = random.Random(seed).choice
    for number in range(count):
        bars = GPUS[choose(list(GPUS))] * choose((1, 2, 4, 8))
        thp = choose(("always", "always", "madvise"))
        yield {"id": f"host{number:05}", "release": choose(KERNELS), "vmm": choose(VMMS), "thp": thp, "bar": list(bars)}


if __name__ == "__main__":
    for host in fleet(int(sys.argv[1])):
        print(json.dumps(host))
