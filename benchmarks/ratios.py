"""Speed, as ratios within one run: each measure against a limit or a peer that the same interpreter sets."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.host.bounded import MIB, read_json
from pfnmap.plan import Request, plan
from pfnmap.replay import replay
from pfnmap.run import Run
from pfnmap.scenario import read_recording
from pfnmap.spec import KernelSpec

GIB = 1 << 30
VA = 0x100000000000
PHYS = 0x800000000
RECORDING = Path(__file__).parents[1] / "tests" / "data" / "recordings" / "x86_64-4k-6.12.117.json.gz"


def seconds(work: Callable[[], object], repeat: int = 3) -> float:
    """Return the shortest of a few runs."""
    found = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def fill_dict() -> None:
    """The peer of filling page tables: an entry for each 4K page of 1 GiB in a dict."""
    table: dict[int, int] = {}
    for page in range(GIB >> 12):
        table[page] = PHYS + (page << 12) | 0x237


def planning() -> float:
    """Planning a BAR of 16 TiB against one of 2 MiB."""
    kernel = KernelSpec(release="6.12.117").link()

    def work(size: int) -> Callable[[], object]:
        requests = [Request(0, 1 << 45, size, va=0x4000_0000_0000)] * 100
        return lambda: plan(kernel, requests)

    return seconds(work(16 << 40)) / seconds(work(2 << 20))


def touching() -> float:
    """Touching each page of 1 GiB with 4K entries through the mm against filling a dict with them."""
    kernel = KernelSpec(release="6.12.117").link()
    device = Device("gpu", "0000:3b:00.0", {2: DeviceBar(2, 8 * GIB, PHYS)})
    mapped = {"device": "gpu", "bar": 2, "length": GIB, "addr": VA + 4096, "fixed": True, "prot": "rw", "shared": True}
    scan = {"start": VA + 4096, "end": VA + 4096 + GIB, "step": 4096, "access": "read"}

    def mm() -> None:
        run = Run(kernel, [device])
        run.step(Step("mmap", mapped))
        assert run.step(Step("scan", scan)).as_json()["touches"] == GIB >> 12

    return seconds(mm, 1) / seconds(fill_dict)


def populating() -> float:
    """The first touch of 1 GiB before 6.12, which fills it with 4K entries, against the same dict."""
    kernel = KernelSpec(release="6.1.192").link()
    device = Device("gpu", "0000:3b:00.0", {2: DeviceBar(2, 8 * GIB, PHYS)})
    mapped = {"device": "gpu", "bar": 2, "length": GIB, "addr": VA, "fixed": True, "prot": "rw", "shared": True}

    def mm() -> None:
        run = Run(kernel, [device])
        run.step(Step("mmap", mapped))
        run.step(Step("touch", {"va": VA, "access": "read"}))

    return seconds(mm) / seconds(fill_dict)


def replaying() -> float:
    """Replaying a file of recordings against parsing its JSON."""
    recording = read_recording(RECORDING)
    return seconds(lambda: replay(recording)) / seconds(lambda: read_json(RECORDING, 64 * MIB))


def main() -> None:
    """Print the ratios."""
    for measure in (planning, touching, populating, replaying):
        assert measure.__doc__
        print(f"{measure():8.2f}  {measure.__doc__}")


if __name__ == "__main__":
    main()
