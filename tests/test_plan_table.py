"""The table of a plan: what stands in it, on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import StringIO

from rich.console import Console

from pfnmap.kernel import Kernel
from pfnmap.plan import POLICIES, Request, plan
from pfnmap.report.plan_table import render

MIB, GIB = 1 << 20, 1 << 30
H100 = [
    Request(index, phys, size, "0000:3b:00.0", policy=policy)
    for index, phys, size in (
        (0, 0x8_8042_000_000, 16 * MIB),
        (2, 0x8_4000_000_000, 128 * GIB),
        (4, 0x8_8040_000_000, 32 * MIB),
    )
    for policy in POLICIES
]


@cache
def linked(release: str, thp: str = "always", arch: str = "x86_64") -> Kernel:
    return Kernel.link(arch, ["vfio_pci"], defaults={"TRANSPARENT_HUGEPAGE": "y"}, release=release, thp=thp)


def printed(kernel: Kernel, requests: Sequence[Request], width: int = 100, terminal: bool = False) -> str:
    colours = "standard" if terminal else None
    console = Console(file=StringIO(), width=width, force_terminal=terminal, color_system=colours, highlight=False)
    for part in render(plan(kernel, requests)):
        console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def lines(text: str) -> list[str]:
    """Lines with their spaces folded."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_a_gpu_fits_100_columns_with_every_number() -> None:
    text = printed(linked("7.3.4"), H100)
    assert max(map(len, text.splitlines())) <= 100
    found = lines(text)
    assert found[:2] == ["0000:3b:00.0", "BAR 0: 16M at 0x88042000000"]
    assert "BAR 2: 128G at 0x84000000000" in found
    assert "kernel 0x7fdff7fff000 33,554,432x4K 33,685,635 256.5M 67,108,864 33,554,432" in found
    assert "aligned 0x100000000000 128x1G 128 4K 256 128" in found
    assert found.count("before 6.12 33,554,432x4K 1 256.5M 33,554,433 33,554,432") == 2
    assert "kernel: not 2M: VA is 0x1ff000 off the BAR's address modulo 2M" in found
    assert sum("mmap(NULL)" in line for line in found) == 1


def test_no_colours_but_on_a_terminal() -> None:
    assert "\x1b[" not in printed(linked("7.3.4"), H100)
    assert "\x1b[" in printed(linked("7.3.4"), H100, terminal=True)


def test_ascii_will_do() -> None:
    assert printed(linked("7.3.4"), H100).isascii()


def test_what_all_placements_share_is_said_once() -> None:
    both = [Request(0, 0x80_0000_0000, GIB, policy=name) for name in POLICIES]
    text = printed(linked("6.12.117", arch="arm64"), both)
    assert text.count("arm64 has no 1G pfnmap leaf") == 1
    assert "aligned: not" not in text


def test_a_kernel_before_6_12_is_not_compared_with_itself() -> None:
    text = printed(linked("6.1.192"), [Request(0, 0x80_0000_0000, GIB, policy="aligned")])
    assert "before 6.12" not in text
    assert "not 2M: 6.1.192 lacks huge-pfnmap (first in 6.12)" in text


def test_each_run_of_a_part_says_why() -> None:
    part = Request(0, 0x80_0000_0000, 8 * GIB, offset=4096, va=0x1000_0000_1000)
    found = lines(printed(linked("6.12.117"), [part], width=240))
    assert "BAR 0: 8G at 0x8000000000, 0x1fffff000 bytes from offset 0x1000" in found
    assert "as given 0x100000001000 7x1G + 511x2M + 511x4K 1,032 12K 2,098,180 2,097,151" in found
    starts = [line.partition(":")[0] for line in found if line.startswith("0x")]
    assert starts == ["0x100000001000-0x100000200000 not 2M", "0x100000200000-0x100040000000 not 1G"]


def test_a_bar_that_cannot_be_mapped_has_no_row() -> None:
    found = lines(printed(linked("6.12.117"), [Request(0, 0xFE00_0100, 256, policy=name) for name in POLICIES]))
    assert found == [
        "BAR 0: 256 bytes at 0xfe000100",
        "cannot be mapped: the BAR has 256 bytes and starts 0x100 into its 4K page",
    ]


def test_wrong_memory_comes_first() -> None:
    found = lines(printed(linked("posted-v2"), [Request(0, 0x80_0000_0000, 4 * MIB, va=0x1000_0000_1000)], width=240))
    assert found[4].startswith("WRONG MEMORY: ")


def test_an_unknown_change_is_shown_both_ways() -> None:
    kernel = linked("6.18.20", "never")
    text = printed(kernel, [Request(0, 0x80_0000_0000, GIB, va=0x1000_0000_0000)], width=240)
    assert "It is not known whether 6.18.20 has thp-bypass-pfnmap:" in text
    assert "with it 1x1G, 1 fault, 4K of page tables, 2 / 1 DMA walks; without 262,144x4K, 262,144 faults" in text


def test_iommufd_says_that_it_refuses_and_what_to_do_instead() -> None:
    def iommufd(release: str) -> list[str]:
        console = Console(file=StringIO(), width=240, highlight=False)
        for part in render(plan(linked(release), [Request(0, 0x80_0000_0000, GIB, policy="aligned")], dma="iommufd")):
            console.print(part)
        return lines(console.file.getvalue())  # type: ignore[attr-defined]

    assert "aligned 0x100000000000 1x1G 1 4K EFAULT EFAULT" in iommufd("7.3.4")
    assert any("IOMMU_IOAS_MAP_FILE of its dma-buf" in line for line in iommufd("7.3.4"))
    assert any("6.12.117 lacks iommufd-dmabuf-bar (first in 6.19)" in line for line in iommufd("6.12.117"))
