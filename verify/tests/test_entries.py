"""Entries read word by word from memory are those that the model's own walk finds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.run import Run
from pfnmap.spec import KernelSpec
from pfnmap_verify.entries import entry_at

PUD, PMD, VA = 1 << 30, 1 << 21, 0x1000_0000_0000
KERNELS = {
    "x86_64": KernelSpec(arch="x86_64", release="6.12.117"),
    "x86_64 la57": KernelSpec(arch="x86_64", release="6.12.117", cpu={"la57": True}),
    "x86_64 6.1": KernelSpec(arch="x86_64", release="6.1.192"),
    "arm64": KernelSpec(arch="arm64", release="6.12.117"),
    "arm64 16K": KernelSpec(arch="arm64", release="6.12.117", page_size="16K"),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("shift", [0, PMD, 1 << 14], ids=["natural", "va_plus_pmd", "va_plus_16K"])
def test_entries_are_those_of_the_models_walk(name: str, shift: int) -> None:
    run = Run(KERNELS[name].link(), [Device("bar", "0000:00:01.0", {2: DeviceBar(2, 4 * PUD, 1 << 35)})], image=True)
    mmap = {"id": "m0", "device": "bar", "bar": 2, "length": 2 * PUD, "addr": VA + shift, "fixed": True, "prot": "rw"}
    run.step(Step("mmap", {**mmap, "shared": True}))
    anonymous = {"id": "m1", "length": 1 << 14, "addr": VA + 8 * PUD, "fixed": True, "prot": "rw", "shared": False}
    run.step(Step("mmap", anonymous))
    for va in ("m0", f"m0+{PUD:#x}", "m1"):
        run.step(Step("touch", {"va": va, "access": "write"}))
    tables = run.machine.phys.tables

    async def read(address: int) -> int:
        base = max(start for start in tables if start <= address)
        return tables[base][(address - base) // 8]

    def found(va: int) -> dict[str, Any]:
        return asyncio.run(entry_at(run.kernel, read, run.parent.tables.pgd_pa, va, range(1 << 30)))

    for va in (VA + shift, VA + shift + PUD + 5, VA + shift + 2 * PUD, VA + 8 * PUD, VA + 64 * PUD, 0x7FFF_0000_0000):
        got = found(va)
        present = got.pop("present")
        assert got == run.entry(run.parent, va).as_json()
        assert present == run.step(Step("note_tables", {"va": va})).more["present"]
