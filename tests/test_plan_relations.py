"""What must hold between two plans, whatever either says: on every architecture, page size, release and driver.

`pytest --hypothesis-profile=long tests/test_plan_relations.py tests/test_plan_equals_run.py`: 20,000 machines each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import groupby
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pfnmap.kernel import Kernel
from pfnmap.plan import Request, plan
from pfnmap.sizes import format_size, parse_size

PAGE_SIZES = {
    "x86_64": ("4K",),
    "arm64": ("4K", "16K", "64K"),
    "riscv64": ("4K",),
    "powerpc64": ("4K", "64K"),
    "s390": ("4K",),
    "loongarch64": ("4K", "16K", "64K"),
    "sparc64": ("8K",),
}
MACHINES = [(arch, page) for arch, pages in PAGE_SIZES.items() for page in pages]
DRIVERS = {"vfio_pci": (2,), "nvgrace_gpu": (2, 4), "pci_sysfs": (0,)}
DEFAULTS = {"TRANSPARENT_HUGEPAGE": "y", "VFIO_PCI": "y"}
LONG = settings.default.max_examples > 100
RELEASES = ("6.12.117", "7.3.4", *(("6.1.192", "6.12.94", "6.18.15", "posted-v2") if LONG else ()))
RELATED = settings(
    deadline=None, max_examples=20_000 if LONG else 100, suppress_health_check=list(HealthCheck), derandomize=not LONG
)


@cache
def linked(machine: tuple[str, str], release: str, thp: str) -> Kernel:
    arch, page = machine
    return Kernel.link(arch, list(DRIVERS), defaults=DEFAULTS, release=release, page_size=page, thp=thp)


@st.composite
def asked(draw: st.DrawFn) -> tuple[Kernel, Request]:
    """A kernel, and a part of a BAR at an address of its own."""
    kernel = linked(
        draw(st.sampled_from([("x86_64", "4K")] * 8 + [("arm64", "4K")] * 4 + MACHINES)),
        draw(st.sampled_from(RELEASES)),
        draw(st.sampled_from(["always"] * 4 + ["never", *(["madvise"] if LONG else [])])),
    )
    page, pmd, _ = (kernel.geometry.size(level) for level in ("pte", "pmd", "pud"))
    block = block_of(kernel)
    size = block << draw(st.integers(1, 4))
    phys = size * draw(st.integers(1, min(64, kernel.phys_limit // size - 1)))
    near = st.sampled_from([0] * 4 + [page, pmd, pmd + page])
    offset = draw(st.integers(0, 1)) * block + draw(near)
    length = size - offset - draw(near)
    assume(length > 0)
    va = (kernel.geometry.task_size // 4 // size + draw(st.integers(0, 7))) * size + offset % block
    va += draw(st.sampled_from([0] * 6 + [page, pmd]))
    driver = draw(st.sampled_from([name for name in DRIVERS for _ in range(3 if name == "vfio_pci" else 1)]))
    bar = draw(st.sampled_from(DRIVERS[driver]))
    return kernel, Request(bar, phys, size, "0000:01:00.0", offset, length, va, driver=driver)


def block_of(kernel: Kernel) -> int:
    """The size of a PUD leaf, or of a PMD leaf where that is larger than any BAR."""
    return kernel.geometry.size("pud" if kernel.geometry.size("pud") <= 1 << 36 else "pmd")


def runs_of(kernel: Kernel, request: Request) -> list[tuple[int, int, str, int]]:
    """Return the runs of a mapping: va, length, level, count."""
    (mapping,) = plan(kernel, [request]).mappings
    return [(run.va, run.length, run.level, run.count) for run in mapping.runs]


def joined(runs: list[tuple[int, int, str, int]]) -> Iterator[tuple[int, int, str, int]]:
    """Put runs of one level together where nothing is between them."""
    for level, some in groupby(runs, key=lambda run: run[2]):
        several = list(some)
        yield several[0][0], sum(run[1] for run in several), level, sum(run[3] for run in several)


@RELATED
@given(asked(), st.integers(1, 7))
def test_a_mapping_and_its_bar_moved_together_keep_their_leaves(question: tuple[Kernel, Request], by: int) -> None:
    kernel, request = question
    assert request.va is not None
    step = by * max(block_of(kernel), request.bar_size)
    moved = replace(request, va=request.va + step, phys=request.phys + step)
    assume(
        moved.va + (request.length or 0) < kernel.geometry.task_size and moved.phys + moved.bar_size < kernel.phys_limit
    )
    before, after = runs_of(kernel, request), runs_of(kernel, moved)
    assert [(va + step, *rest) for va, *rest in before] == after


@RELATED
@given(asked(), st.integers(1, 8))
def test_a_mapping_parted_between_leaves_is_its_parts(question: tuple[Kernel, Request], n: int) -> None:
    kernel, request = question
    assert request.va is not None
    assert request.length is not None
    block = block_of(kernel)
    cut = (request.va // block + n) * block - request.va
    assume(0 < cut < request.length)
    whole = runs_of(kernel, request)
    assume(any(level != "pte" for _, _, level, _ in whole))
    first = replace(request, length=cut)
    second = replace(request, va=request.va + cut, offset=request.offset + cut, length=request.length - cut)
    assert list(joined([*runs_of(kernel, first), *runs_of(kernel, second)])) == list(joined(whole))


@RELATED
@given(asked())
def test_a_longer_mapping_never_has_smaller_leaves_in_what_both_map(question: tuple[Kernel, Request]) -> None:
    kernel, request = question
    assert request.length is not None
    page = kernel.geometry.PAGE_SIZE
    shorter = replace(request, length=request.length - page)
    assume(request.length > page)
    sizes = {"pte": 0, "pmd": 1, "pud": 2}
    whole, part = runs_of(kernel, request), runs_of(kernel, shorter)
    for va, length, level, _ in part:
        over = [run for run in whole if run[0] < va + length and va < run[0] + run[1]]
        assert all(sizes[run[2]] >= sizes[level] for run in over)


@RELATED
@given(asked())
def test_what_a_plan_says_of_itself_adds_up(question: tuple[Kernel, Request]) -> None:
    kernel, request = question
    (mapping,) = plan(kernel, [request]).mappings
    row: dict[str, Any] = mapping.as_json()
    runs = row["runs"]
    assume(runs)
    assert sum(run["length"] for run in runs) == row["length"]
    for level in ("pud", "pmd", "pte"):
        assert row["counts"][level] == sum(run["count"] for run in runs if run["level"] == level)
    ends = [int(run["va"], 16) + run["length"] for run in runs]
    assert [int(run["va"], 16) for run in runs[1:]] == ends[:-1]
    for run in runs:
        assert run["length"] == run["count"] * kernel.geometry.size(run["level"])
        assert int(run["va"], 16) % kernel.geometry.size(run["level"]) == 0


@pytest.mark.parametrize(("arch", "page"), MACHINES)
@pytest.mark.parametrize("release", ["6.1.192", "6.12.117", "7.3.4"])
@pytest.mark.parametrize("thp", ["always", "never"])
def test_the_table_has_the_numbers_of_the_json(pfnmap, arch, page, release, thp):
    said = ("--arch", arch, "--page-size", page, "--release", release, "--thp", thp)
    mapped = ("--bar", "64G@0x4000000000", "--offset", "2M", "--length", "40G", "--va", "0x2000200000")
    if arch == "riscv64":
        mapped = (*mapped, "--cpu", "mode=sv48")
    text, document = pfnmap("plan", "-q", *mapped, *said), pfnmap("plan", *mapped, *said, "--json")
    assert (text.exit_code, document.exit_code) == (0, 0), text.output + document.output
    (row,) = json.loads(document.stdout)["mappings"]
    line = next(line for line in text.stdout.splitlines() if line.startswith("BARs"))
    counts = {
        parse_size(size): int(count.replace(",", "")) for count, size in re.findall(r"([\d,]+)x(\d+[KMGT])", line)
    }
    sizes = {run["level"]: run["length"] // run["count"] for run in row["runs"]}
    assert counts == {sizes[level]: count for level, count in row["counts"].items() if count}
    assert f"{row['driver_calls']:,} fault" in line
    mapped_bytes = row["length"] if row["runs"] else 0  # s390 before MIO maps nothing of a BAR
    assert sum(size * count for size, count in counts.items()) == mapped_bytes
    assert format_size(row["table_bytes"])[-1] in line
