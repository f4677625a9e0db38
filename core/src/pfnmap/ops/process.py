"""Ops on a process or the machine: the THP knobs, prctl, time."""

from __future__ import annotations

from errno import ENOMEM
from typing import TYPE_CHECKING, Any

from pfnmap.contract.kernel import THP_SETTINGS
from pfnmap.contract.vma import MmStruct
from pfnmap.errors import BadInput
from pfnmap.mm.fork import dup_mmap, exit_mmap
from pfnmap.ops.op import Op, errno_result

if TYPE_CHECKING:
    from pfnmap.ops.state import RunState

__all__ = ["OPS"]


def _fork(run: RunState, mm: MmStruct, stopped: bool = False) -> dict[str, Any]:
    """`stopped`: the child stops itself at once under ptrace; its address space is the same."""
    if run.child is not None:
        raise BadInput("fork", "there is a child process already")
    run.child, run.ptraced = dup_mmap(mm), stopped
    return errno_result(0 if run.child else -ENOMEM)


def _exit(run: RunState, mm: MmStruct, stopped: bool = False) -> dict[str, Any]:
    if mm is run.parent:
        raise BadInput("exit", 'only the child exits (by = "child")')
    exit_mmap(mm)
    run.child = None
    return {"exited": True}


def _set_thp_enabled(run: RunState, mm: MmStruct, value: str) -> dict[str, Any]:
    if value not in THP_SETTINGS:
        raise BadInput("set_thp_enabled", f"{value!r} is none of {', '.join(THP_SETTINGS)}")
    run.machine.thp = value
    return {}


def _set_thp_sizes(run: RunState, mm: MmStruct, value: str) -> dict[str, Any]:
    """The per-size knobs, defrag and shmem_enabled decide for RAM only: no pfnmap ever depends on them (thp.*
    records), anonymous memory does."""
    if value not in _THP_SIZES:
        raise BadInput("set_thp_sizes", f"{value!r} is none of {', '.join(_THP_SIZES)}")
    run.machine.thp_sizes = value
    return {}


_THP_SIZES = (*THP_SETTINGS, "inherit")
"""What hugepages-*/enabled takes (mm/huge_memory.c, anon_enabled_store)."""


def _prctl_thp_disable(run: RunState, mm: MmStruct, disabled: bool) -> dict[str, Any]:
    mm.thp_disabled = disabled
    return {}


def _sleep_ms(run: RunState, mm: MmStruct, value: int) -> dict[str, Any]:
    run.machine.clock_ms += value
    return {}


OPS = {
    "fork": Op(_fork, {}, {"stopped": "bool"}),
    "exit": Op(_exit, {}, {"stopped": "bool"}),
    "set_thp_enabled": Op(_set_thp_enabled, {"value": "str"}),
    "set_thp_sizes": Op(_set_thp_sizes, {"value": "str"}),
    "prctl_thp_disable": Op(_prctl_thp_disable, {"disabled": "bool"}),
    "sleep_ms": Op(_sleep_ms, {"value": "int"}),
}
