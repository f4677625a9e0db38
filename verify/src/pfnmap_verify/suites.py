"""The suites: programs for the standard devices, and the project's example scenarios that they can run.

`core` has what matters in as few programs as that takes. `full` is core and the programs of all recordings of the
machine (docs/evidence), which are in ``recorded/``: random ones, splits that end in an oops, and virtual machines among
them; of two with one name, the recording's.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import resources
from typing import Any

from pfnmap.errors import Unknown
from pfnmap.scenario import read_scenario
from pfnmap_verify.machine import GIB, MIB
from pfnmap_verify.mappings import (
    PAGE,
    PMD,
    PUD,
    WINDOW,
    Step,
    levels,
    mmap,
    partial,
    placement,
    touch,
    whole_bar,
)
from pfnmap_verify.programs import of_scenario
from pfnmap_verify.recorder import Program

__all__ = ["SUITES", "suite"]

_EXAMPLES = (
    *("decode-off-on", "decode-off-under-split-vma", "dontfork-leak", "fork-shared-pud", "middle-of-block-after-align"),
    *("mremap-bad-pud", "neighbour-forbids-1g", "smaps-drops-leaves", "split-2m-from-1g", "thp-never-6.12.117"),
    *("unaligned-pfn", "zap-keeps-tables", "mprotect-page-oops"),
)
_OWN_BOOT = ("decode-off-under-split-vma", "mremap-bad-pud")
"""Examples whose messages come once a boot, or would stand in the way of others."""


def suite(name: str, arch: str = "x86_64", page_size: int = PAGE) -> list[Program]:
    """Return the programs of a suite for a machine. Raises Unknown for a suite that there is not."""
    if name not in SUITES:
        raise Unknown("suite", name, SUITES)
    programs = [program for part in _PARTS for program in part()]
    if name == "core":
        return programs
    machine = f"{arch}-{page_size >> 10}k"
    recorded = [*_recorded(machine), *_recorded(f"{machine}-kvm")]
    names = {program.id for program in recorded}
    return [*(program for program in programs if program.id not in names), *recorded]


def _recorded(name: str) -> list[Program]:
    file = resources.files(__package__) / "recorded" / f"{name}.json.gz"
    if not file.is_file():
        return []
    return [Program(**row) for row in json.loads(gzip.decompress(file.read_bytes()))]


def _access() -> Iterator[Program]:
    middle = [
        touch("m0+0x52345678"),
        touch("m0+0x40000000"),
        touch("m0+0x7fffffff"),
        touch("m0+0x3fffffff", "write"),
    ]
    for shift in ("natural", "va_plus_pmd"):
        yield Program(f"middle.8G.{shift}.middle_first", [*whole_bar("8G", shift), *middle])
    for prot in ("r", "w", "none"):
        steps = [
            mmap("1G", WINDOW, prot=prot),
            touch("m0+0x3005"),
            touch("m0+0x3005", "write"),
            {"op": "walk", "va": "m0"},
        ]
        yield Program(f"middle.1G.{prot}_mapping", steps)
    for shift in ("natural", "va_plus_page"):
        again = [touch("m0+0x1000"), touch("m0+0x1000", "write"), touch("m0+0x1000")]
        yield Program(f"entry.8G.{shift}.read_then_write", [*whole_bar("8G", shift), *again])


def _decode() -> Iterator[Program]:
    off, on = ({"op": "pci_memory", "device": "bar8G", "enabled": enabled} for enabled in (False, True))
    for shift in ("natural", "va_plus_pmd", "va_plus_page"):
        around = [
            touch("m0"),
            off,
            {"op": "walk", "va": "m0"},
            touch("m0"),
            on,
            {"op": "walk", "va": "m0"},
            touch("m0"),
        ]
        yield Program(f"disable.8G.{shift}", [*whole_bar("8G", shift), *around])
    write = {"op": "access", "via": "write_syscall", "va": "m0", "length": 16}
    yield Program("disable.kernel_access", [*whole_bar("8G"), off, write, on, write, {"op": "walk", "va": "m0"}])


def _fork() -> Iterator[Program]:
    child: Mapping[str, Any] = {"by": "child"}
    gone = {"op": "exit", "by": "child"}
    for size, shift in (("8G", "natural"), ("8G", "va_plus_pmd"), ("8G", "va_plus_page"), ("2M", "natural")):
        steps = [touch("m0", "write"), {"op": "fork"}, {"op": "walk", "va": "m0", **child}, touch("m0", **child)]
        after = [touch("m0", "write"), {"op": "walk", "va": "m0", **child}, gone]
        yield Program(f"fork.{size}.{shift}", [*whole_bar(size, shift), *steps, *after])
    faults = [{"op": "fork"}, touch("m0+0x40000000", **child), {"op": "walk", "va": "m0+0x40000000"}, gone]
    yield Program("fork.8G.untouched_then_child_faults", [*whole_bar("8G"), *faults])
    unmaps = [
        touch("m0"),
        {"op": "fork"},
        {"op": "munmap", "addr": "m0", "length": PUD, **child},
        touch("m0", **child),
    ]
    yield Program("fork.8G.child_munmaps", [*whole_bar("8G"), *unmaps, {"op": "walk", "va": "m0"}, gone])


def _split() -> Iterator[Program]:
    at = "m0+0x40e00000"
    page = "m0+0x40f00000"
    whole = {"addr": "m0", "length": 8 * GIB}
    calls: Mapping[str, Step] = {
        "munmap_pmd": {"op": "munmap", "addr": at, "length": PMD},
        "madv_nohugepage_pmd": {"op": "madvise", "addr": at, "length": PMD, "advice": "NOHUGEPAGE"},
        "mprotect_unit_ro": {"op": "mprotect", "addr": "m0+0x40000000", "length": PUD, "prot": "r"},
        "mlock_page": {"op": "mlock", "addr": page, "length": PAGE},
        "mremap_shrink_pmd": {"op": "mremap", "addr": "m0", "old_len": 8 * GIB, "new_len": 4 * GIB + PMD, "flags": []},
    }
    pages: Mapping[str, Step] = {
        "mprotect_page": {"op": "mprotect", "addr": page, "length": PAGE, "prot": "r"},
        "munmap_page": {"op": "munmap", "addr": page, "length": PAGE},
    }
    look = [
        {"op": "vmas", "start": "m0", "end": "m0+0x200000000"},
        {"op": "walk", "va": page},
        touch(page),
        touch(at),
    ]
    touched = [touch("m0"), touch(page, "write")]
    for what, call in calls.items():
        yield Program(f"split.8G.natural.{what}", [*whole_bar("8G"), *touched, call, *look])
    for what, call in pages.items():
        yield Program(f"split.8G.va_plus_pmd.{what}", [*whole_bar("8G", "va_plus_pmd"), *touched, call, *look])
    for shift in ("natural", "va_plus_page"):
        to = [{"op": "mprotect", **whole, "prot": "r", "at": page}, touch(page, "write")]
        back = [{"op": "mprotect", **whole, "prot": "rw", "at": page}, touch(page, "write")]
        yield Program(f"mprotect.8G.{shift}.whole_ro_rw", [*whole_bar("8G", shift), *touched, *to, *back])
    none = [{"op": "mprotect", **whole, "prot": "none", "at": page}, touch(page)]
    yield Program("mprotect.8G.natural.whole_none", [*whole_bar("8G"), *touched, *none])
    move = {"op": "mremap", "addr": "m0+0x40200000", "old_len": PMD, "new_len": PMD, "flags": ["MAYMOVE", "FIXED"]}
    to_va = hex(WINDOW + 32 * GIB)
    moved = [touch("m0+0x40200000", "write"), {**move, "new_addr": to_va, "at": to_va}, touch(to_va)]
    yield Program("mremap.8G.pmd_mapped_move_middle_pmd", [*whole_bar("8G", "va_plus_pmd"), *moved])


def _dma() -> Iterator[Program]:
    for shift, length in (("natural", 8 * MIB), ("va_plus_pmd", 8 * MIB), ("va_plus_page", 256 << 10)):
        dma_map = {"op": "dma_map", "iova": "0x100000000", "va": "m0", "length": length, "prot": "rw", "at": "m0"}
        unmap = {"op": "dma_unmap", "iova": "0x100000000", "length": length}
        yield Program(f"dma.8G.{shift}.cold_then_warm", [*whole_bar("8G", shift), dma_map, unmap, dma_map, unmap])
    touched = [
        touch("m0"),
        {"op": "dma_map", "iova": "0x100000000", "va": "m0+0x1000", "length": 4 * MIB, "prot": "r"},
    ]
    yield Program("dma.8G.natural.touched", [*whole_bar("8G"), *touched])


def _thp() -> Iterator[Program]:
    advise = {"op": "madvise", "addr": "m0", "length": 8 * GIB, "advice": "HUGEPAGE"}
    touched = [touch("m0"), touch("m0+0x40201000", "write")]
    for setting in ("never", "madvise"):
        yield Program(f"thp.{setting}.plain", [*whole_bar("8G"), *touched], thp_enabled=setting)
        yield Program(f"thp.{setting}.madv_hugepage", [*whole_bar("8G"), advise, *touched], thp_enabled=setting)
    disable, enable = ({"op": "prctl_thp_disable", "disabled": disabled} for disabled in (True, False))
    yield Program("thp.prctl_disable", [*whole_bar("8G"), disable, *touched, enable, touch("m0+0x80000000")])


def _kernel_accesses() -> Iterator[Program]:
    for shift in ("natural", "va_plus_page"):
        ways = ("write_syscall", "read_syscall", "process_vm_readv", "proc_mem_read", "futex_wake", "vmsplice")
        accesses = [
            {"op": "access", "via": via, "va": f"m0+{n * PMD:#x}", "length": 16 if n != 4 else 4}
            for n, via in enumerate(ways)
        ]
        yield Program(f"gup.8G.{shift}", [*whole_bar("8G", shift), *accesses])
    look = [touch("m0"), {"op": "mincore", "addr": "m0", "length": 4 * MIB}, {"op": "pagemap", "va": "m0", "count": 4}]
    files = [{"op": "smaps", "va": "m0"}, {"op": "walk", "va": "m0"}, touch("m0"), {"op": "numa_maps", "va": "m0"}]
    yield Program("procfs.8G.natural", [*whole_bar("8G"), *look, *files, {"op": "walk", "va": "m0"}])


def _examples() -> Iterator[Program]:
    """The example scenarios, on the 16G BAR where theirs is larger."""
    folder = resources.files(__package__) / "scenarios"
    for name in _EXAMPLES:
        with resources.as_file(folder / f"{name}.toml") as path:
            program = of_scenario(read_scenario(path))
        steps = [{key: _shrunk(key, value) for key, value in step.items()} for step in program.steps]
        yield replace(program, id=f"example.{name}", steps=steps, own_boot=name in _OWN_BOOT)


def _shrunk(key: str, value: Any) -> Any:
    if key == "device" and value is not None:
        return "bar16G"
    return 16 * GIB if value == 128 * GIB and not isinstance(value, bool) else value


_PARTS = (levels, partial, _access, _decode, _fork, _split, _dma, _thp, placement, _kernel_accesses, _examples)

SUITES = ("core", "full")
