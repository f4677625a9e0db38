"""`pfnmap tables`: the walk of raw memory finds what the model's machine has in its tables."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfnmap import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.plan import Request, plan
from pfnmap.report.page_tables import page_table_rows
from pfnmap.run import Run
from pfnmap.spec import KernelSpec

drgn = pytest.importorskip("drgn", reason="the extra drgn is not installed")
GIB, MIB = 1 << 30, 1 << 20
PHYS = 8 * GIB
BASE = 0x1000_0000_0000


def memory(machine, arch):
    """Return a drgn program whose physical memory is the model's."""
    program = drgn.Program(drgn.Platform(arch))
    for address, table in machine.phys.tables.items():
        raw = struct.pack(f"<{len(table)}Q", *table)
        program.add_memory_segment(
            address, len(raw), lambda at, count, offset, physical, raw=raw: raw[offset : offset + count], True
        )
    return program


MACHINES = {
    "x86_64": ("x86_64", {}, drgn.Architecture.X86_64),
    "x86_64 la57": ("x86_64", {"cpu": {"la57": True}}, drgn.Architecture.X86_64),
    "arm64": ("arm64", {}, drgn.Architecture.AARCH64),
    "arm64 16K": ("arm64", {"page_size": "16K"}, drgn.Architecture.AARCH64),
}
KERNELS = {name: KernelSpec(arch=arch, release="7.3.4", **how).link() for name, (arch, how, _) in MACHINES.items()}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.parametrize("name", MACHINES)
def test_walk_finds_the_leaves_that_the_machine_has(name, data):
    from pfnmap_tables.walk import walk

    kernel, arch = KERNELS[name], MACHINES[name][2]
    page = kernel.geometry.PAGE_SIZE
    run = Run(kernel, [Device("dev", "0000:00:01.0", {0: DeviceBar(0, 8 * GIB, PHYS)})])

    def step(op, **arguments):
        return run.step(Step(op, arguments, where=op)).as_json()

    shift = data.draw(st.sampled_from((0, page, 2 * MIB, GIB)))
    length = data.draw(st.sampled_from((page, 2 * MIB, 64 * MIB, 3 * GIB)))
    va = BASE + shift
    where = {"device": "dev", "bar": 0, "addr": va, "length": length, "offset": 0, "fixed": True}
    assert step("mmap", prot="rw", shared=True, **where)["result"] == "ok"
    for _ in range(data.draw(st.integers(0, 6))):
        at = va + data.draw(st.integers(0, length // page - 1)) * page
        step("touch", va=at, access=data.draw(st.sampled_from(("read", "write"))))
    if data.draw(st.booleans()):
        step("mprotect", addr=va, length=length, prot="r")
    mm = run.parent
    found = walk(memory(run.machine, arch), kernel, mm.tables.pgd_pa, va, va + length)
    expected = [
        (row.va + n * row.size, row.size, row.level)
        for row in page_table_rows(mm)
        if not row.table
        for n in range(row.count)
    ]
    size = {run.va: run.length // run.count for run in found.runs}
    leaves = [(run.va + n * size[run.va], size[run.va], run.level) for run in found.runs for n in range(run.count)]
    assert leaves == expected
    assert all(run.phys == PHYS + run.va - va for run in found.runs)
    assert found.unreadable == 0


def test_difference_names_range_levels_and_reason():
    from pfnmap.contract.mapping import MappedPart
    from pfnmap_tables.compare import differences
    from pfnmap_tables.processes import Vma
    from pfnmap_tables.walk import Run as Leaves

    kernel = KERNELS["x86_64"]
    (planned,) = plan(kernel, [Request(0, PHYS, 8 * GIB, va=BASE, length=3 * GIB)]).mappings
    vma = Vma(1, BASE, BASE + 3 * GIB, MappedPart(bar=0, offset=0), "vfio_pci", 0)
    runs = [Leaves(BASE, GIB, "pud", 1, 0, 0), Leaves(BASE + GIB, 4 * MIB, "pmd", 2, 0, 0)]
    smaller, missing = differences(vma, runs, planned)
    assert (smaller.va, smaller.length, smaller.kernel, smaller.plan) == (BASE + GIB, 4 * MIB, "pmd", "pud")
    assert "split" in smaller.reason
    assert (missing.va, missing.va + missing.length, missing.kernel) == (BASE + GIB + 4 * MIB, vma.end, "none")
    assert list(differences(vma, [Leaves(BASE, 3 * GIB, "pud", 3, 0, 0)], planned)) == []
    (larger,) = differences(vma._replace(end=BASE + 4 * MIB), [Leaves(BASE, 4 * MIB, "pud", 1, 0, 0)], small(kernel))
    assert "larger than planned" in larger.reason


def small(kernel):
    return plan(kernel, [Request(0, PHYS, 8 * GIB, va=BASE, length=4 * MIB)]).mappings[0]


def test_bad_usage_is_one_line(refused, tmp_path):
    assert "--live, --core and --qmp" in refused("tables")
    assert "not --live and --qmp" in refused("tables", "--live", "--qmp", "x")
    assert "--pid" in refused("tables", "--core", "x", "--pid", "y")
    assert "no such file" in refused("tables", "--core", tmp_path / "none")
    assert "cannot be connected to" in refused("tables", "--qmp", tmp_path / "none")
    (tmp_path / "text").write_text("text")
    assert "no dump of a Linux kernel" in refused("tables", "--core", tmp_path / "text", exit_code=3)
