"""Ops that change mappings: mmap, munmap, madvise, ..."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pfnmap.errors import Refused, Unknown
from pfnmap.mm import mmap as mm_mmap
from pfnmap.ops.op import Op, errno_result
from pfnmap.vm_flags import VM_EXEC, VM_MAYSHARE, VM_READ, VM_WRITE

if TYPE_CHECKING:
    from pfnmap.mm.vma import MmStruct
    from pfnmap.run import Run

__all__ = ["OPS"]


def _mmap(
    run: Run,
    mm: MmStruct,
    length: int,
    prot: int,
    shared: bool,
    id: str = "",
    device: str | None = None,
    bar: int = 0,
    offset: int = 0,
    addr: int = 0,
    fixed: bool = False,
    populate: bool = False,
    locked: bool = False,
    noreserve: bool = False,
    fd: str = "",
) -> dict[str, Any]:
    # populate, locked and a file descriptor that is closed afterwards make no difference for a pfnmap (REAL-KERNEL.md).
    file = None
    if device is not None:
        if device not in run.files:
            raise Unknown("device", device, run.files)
        file = run.files[device]
        offset = file.driver.mmap_offset(bar, offset)
    if file is not None and fixed and mm.intersecting(addr, addr + length):
        raise Refused("mmap", "over a mapping")
    got = mm_mmap.do_mmap(
        mm, file, addr, length, prot, offset, fixed=fixed, shared=shared, noreserve=noreserve, chosen=run.chosen
    )
    if got < 0:
        return errno_result(got)
    if id:
        run.names[id] = got
    if not addr and not fixed:
        run.chosen_ranges.append((got, got + length))
    return {"addr": hex(got)}


def _munmap(run: Run, mm: MmStruct, addr: int, length: int) -> dict[str, Any]:
    return errno_result(mm_mmap.do_munmap(mm, addr, length))


def _madvise(run: Run, mm: MmStruct, addr: int, length: int, advice: str) -> dict[str, Any]:
    if advice not in ("HUGEPAGE", "NOHUGEPAGE"):
        raise Refused("madvise", advice)
    return errno_result(mm_mmap.madvise_hugepage(mm, addr, length, advice))


def _vmas(run: Run, mm: MmStruct, start: int, end: int) -> dict[str, Any]:
    return {
        "vmas": [
            {
                "start": hex(vma.vm_start),
                "end": hex(vma.vm_end),
                "perms": "".join(
                    letter if vma.vm_flags & flag else "-"
                    for letter, flag in (("r", VM_READ), ("w", VM_WRITE), ("x", VM_EXEC))
                )
                + ("s" if vma.vm_flags & VM_MAYSHARE else "p"),
                "file": vma.vm_file is not None,
                "pgoff": vma.vm_pgoff if vma.vm_file is not None else 0,
            }
            for vma in mm.intersecting(start, end)
        ]
    }


OPS = {
    "mmap": Op(
        _mmap,
        {"length": "size", "prot": "prot", "shared": "bool"},
        {
            "id": "str",
            "device": "device",
            "bar": "int",
            "offset": "size",
            "addr": "address",
            "fixed": "bool",
            "populate": "bool",
            "locked": "bool",
            "noreserve": "bool",
            "fd": "str",
        },
    ),
    "munmap": Op(_munmap, {"addr": "address", "length": "size"}),
    "madvise": Op(_madvise, {"addr": "address", "length": "size", "advice": "str"}),
    "vmas": Op(_vmas, {"start": "address", "end": "address"}),
}
