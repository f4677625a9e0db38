"""Entries through touches and mprotects are those that real kernels recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pfnmap.vm_flags import VM_EXEC, VM_READ, VM_SHARED, VM_WRITE

RECORDS = json.loads((Path(__file__).parent / "data" / "mprotect.json").read_text())
FLAGS = {"none": 0, "r": VM_READ, "w": VM_WRITE, "x": VM_EXEC}


def _vm_flags(prot: str) -> int:
    return VM_SHARED | sum(FLAGS[letter] for letter in ([prot] if prot == "none" else prot))


def _inserted(kernel: Any, level: str, phys: int, prot: int) -> int:
    """What vmf_insert_pfn and its huge fellows put in for a fault on an uncached BAR."""
    ops = kernel.ops
    pfn = phys >> kernel.geometry.shift(level) << kernel.geometry.shift(level) >> 12
    entry = getattr(ops, f"pfn_{level}")(pfn, ops.pgprot_noncached(prot))
    if level != "pte":
        entry = getattr(ops, f"{level}_mkhuge")(entry)
    return getattr(ops, f"{level}_mkspecial")(entry)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record['release']}-{record['record']}")
def test_entries_are_as_recorded(record, link):
    kernel = link(record["release"], {"MEM_SOFT_DIRTY": "y"})
    level, vm_flags = record["level"], _vm_flags(record["prot"])
    entry = _inserted(kernel, level, int(record["phys"], 16), kernel.ops.vm_get_page_prot(vm_flags))
    for what, argument, si_code, expected in record["steps"]:
        if what == "mprotect":
            vm_flags = _vm_flags(argument)
            entry = getattr(kernel.ops, f"{level}_modify")(entry, kernel.ops.vm_get_page_prot(vm_flags))
        else:
            write = argument == "write"
            entry, allowed = kernel.arch.mmu_access(level, entry, write)
            assert allowed == (si_code == 0)
            assert kernel.arch.access_error(vm_flags, write) == si_code
        assert hex(entry) == expected, (what, argument)
