"""What `ratios.py` measures: pairs of CPU seconds, of a piece of work and of its peer, at three sizes each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.host.bounded import MIB, read_json
from pfnmap.kernel import Kernel
from pfnmap.mm.fault import user_access
from pfnmap.plan import Request, plan
from pfnmap.replay import replay
from pfnmap.run import Run
from pfnmap.scenario import read_recording
from pfnmap.spec import KernelSpec

__all__ = ["MEASURES", "Measure"]

GIB = 1 << 30
PAGE = 4096
VA = 0x100000000000
PHYS = 0x8000000000
RECORDINGS = Path(__file__).parents[1] / "tests" / "data" / "recordings"
BARS = {"1G": GIB, "16G": 16 * GIB, "128G": 128 * GIB}


@dataclass(frozen=True)
class Measure:
    """`seconds(size)`: CPU seconds of the work and of its peer, once; `aim`: the ratio to reach; `lacks`: why it
    cannot be measured here."""

    name: str
    text: str
    sizes: dict[str, int]
    seconds: Callable[[int], tuple[float, float]]
    aim: float
    at_most: bool = True
    lacks: str = ""


def cpu(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


@cache
def kernel(release: str = "6.12.117") -> Kernel:
    """Link a kernel, once for all measures."""
    return KernelSpec(release=release).link()


def mapped(size: int, shift: int, release: str = "6.12.117") -> Run:
    """Boot a machine with a BAR of `size` bytes that is mapped `shift` bytes above what huge leaves need."""
    device = Device("gpu", "0000:3b:00.0", {2: DeviceBar(2, size, PHYS)})
    run = Run(kernel(release), [device])
    at = {"device": "gpu", "bar": 2, "length": size, "addr": VA + shift, "fixed": True}
    run.step(Step("mmap", {**at, "prot": "rw", "shared": True, "id": "m"}))
    return run


# faults


def scalar(pages: int) -> tuple[float, float]:
    """Touch pages one by one, against storing an entry for each in a dict."""
    run = mapped(pages * PAGE, PAGE)
    start = VA + PAGE

    def touch() -> None:
        for address in range(start, start + pages * PAGE, PAGE):
            user_access(run.parent, address, False)

    def store() -> None:
        table: dict[int, int] = {}
        for page in range(pages):
            table[page] = PHYS + (page << 12) | 0x237

    return cpu(touch), cpu(store)


def planning(requests: int) -> tuple[float, float]:
    """Plan requests that all differ, against parsing their JSON."""
    asked = [
        {"phys": PHYS + n * (1 << 36), "va": VA + n * (1 << 36) + (n % 3) * PAGE, "size": (1 << 30) + n * 8 * PAGE}
        for n in range(requests)
    ]
    lines = [json.dumps(one) for one in asked]
    linked = kernel()

    def work() -> None:
        for one in asked:
            plan(linked, [Request(0, one["phys"], one["size"], va=one["va"])])

    return cpu(work), cpu(lambda: [json.loads(line) for line in lines])


def replaying(files: int) -> tuple[float, float]:
    """Replay recordings, against parsing their JSON."""
    paths = sorted(RECORDINGS.glob("x86_64-4k-6.*.json.gz"))[:files]
    recordings = [read_recording(path) for path in paths]
    texts = [json.dumps(read_json(path, 64 * MIB)) for path in paths]
    return cpu(lambda: [replay(one) for one in recordings]), cpu(lambda: [json.loads(text) for text in texts])


MEASURES: tuple[Measure, ...] = (
    Measure("scalar", scalar.__doc__ or "", {"1K": 1 << 10, "8K": 1 << 13, "64K": 1 << 16}, scalar, 75),
    Measure("plan", planning.__doc__ or "", {"100": 100, "1000": 1000, "10000": 10000}, planning, 20),
    Measure("replay", replaying.__doc__ or "", {"1": 1, "2": 2, "3": 3}, replaying, 20),
)
