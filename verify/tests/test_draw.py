"""Random programs are sensible and repeatable; one that differs shrinks to what makes it differ."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pfnmap.kernel import Kernel
from pfnmap.spec import KernelSpec
from pfnmap_verify.compare import kills
from pfnmap_verify.draw import draw, shrink
from pfnmap_verify.machine import DEVICES
from pfnmap_verify.recorder import Program


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return KernelSpec(arch="x86_64", release="6.12.117").link()


def test_a_seed_gives_the_same_programs_and_another_others(kernel: Kernel) -> None:
    assert draw(1, 10, kernel) == draw(1, 10, kernel)
    assert [p.steps for p in draw(1, 10, kernel)] != [p.steps for p in draw(2, 10, kernel)]


def test_the_guest_can_do_what_is_drawn_and_the_model_survives_it(kernel: Kernel) -> None:
    for program in draw(3, 60, kernel):
        program.check()
        assert not kills(kernel, program, DEVICES)


def test_a_program_shrinks_to_the_steps_that_matter(kernel: Kernel) -> None:
    steps = [
        {"op": "mmap", "id": "m0", "device": "bar8G", "length": 4096, "addr": "0x100000000000"},
        *({"op": "touch", "va": f"m0+{n:#x}", "access": "read"} for n in range(8)),
        {"op": "fork"},
        {"op": "touch", "va": "m0", "access": "write", "by": "child"},
        {"op": "walk", "va": "m0"},
    ]

    def differing(programs: Sequence[Program]) -> list[str]:
        """As if a touch of byte 5 made the child's write differ."""
        return [
            program.id
            for program in programs
            if any(step.get("va") == "m0+0x5" for step in program.steps) and any("by" in step for step in program.steps)
        ]

    shortest = shrink(Program("r", steps), 10, differing)
    assert [step["op"] for step in shortest.steps] == ["mmap", "touch", "fork", "touch"]
    assert shortest.steps[1]["va"] == "m0+0x5"
    assert shortest.id == "r.shrunk"
