"""Ops that change mappings: mmap, munmap, madvise, ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pfnmap.contract.vma import MmStruct
from pfnmap.errors import BadInput, Unknown
from pfnmap.mm import mmap as mm_mmap
from pfnmap.mm.madvise import ADVICES, do_madvise
from pfnmap.mm.mempolicy import do_mbind
from pfnmap.mm.mlock import do_mlock, do_mlockall
from pfnmap.mm.mlock import populate as mlock_populate
from pfnmap.mm.mprotect import do_mprotect
from pfnmap.mm.mremap import do_mremap
from pfnmap.mm.mseal import do_mseal
from pfnmap.mm.msync import do_msync
from pfnmap.ops.op import Op, errno_result
from pfnmap.plugins import calling
from pfnmap.vm_flags import VM_EXEC, VM_LOCKED, VM_MAYSHARE, VM_READ, VM_WRITE

if TYPE_CHECKING:
    from pfnmap.ops.state import RunState

__all__ = ["OPS"]


def _mmap(
    run: RunState,
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
    # A file descriptor that is closed afterwards makes no difference, and a pfnmap is neither populated nor locked.
    if fd not in ("", "dup_closed"):
        raise BadInput("mmap", f'fd {fd!r} is not "dup_closed"')
    file = None
    if device is not None:
        if device not in run.files:
            raise Unknown("device", device, run.files)
        file = run.files[device]
        driver = run.drivers[device]
        with calling(driver.name, "mmap_offset()") as gave:
            offset = gave(driver.mmap_offset(bar, offset), int)
    flags = prot | (VM_LOCKED if locked else 0)
    got = mm_mmap.do_mmap(
        mm, file, addr, length, flags, offset, fixed=fixed, shared=shared, noreserve=noreserve, chosen=run.chosen
    )
    if got < 0:
        return errno_result(got)
    if populate or locked:
        mlock_populate(mm, got, got + mm_mmap.page_align(mm, length))
    if id:
        run.names[id] = got
    if not addr and not fixed:
        run.chosen_ranges.append((got, got + length))
    return {"addr": hex(got)}


def _munmap(run: RunState, mm: MmStruct, addr: int, length: int) -> dict[str, Any]:
    return errno_result(mm_mmap.do_munmap(mm, addr, length))


def _madvise(run: RunState, mm: MmStruct, addr: int, length: int, advice: str) -> dict[str, Any]:
    if advice not in ADVICES:
        raise Unknown("advice", advice, ADVICES)
    return errno_result(do_madvise(mm, addr, length, advice))


def _mprotect(run: RunState, mm: MmStruct, addr: int, length: int, prot: int) -> dict[str, Any]:
    return errno_result(do_mprotect(mm, addr, length, prot))


def _mremap(
    run: RunState,
    mm: MmStruct,
    addr: int,
    old_len: int,
    new_len: int,
    new_addr: int = 0,
    flags: Sequence[str] = (),
) -> dict[str, Any]:
    for flag in flags:
        if flag not in _MREMAP_FLAGS:
            raise Unknown("mremap flag", flag, _MREMAP_FLAGS)
    got = do_mremap(mm, addr, old_len, new_len, frozenset(flags), new_addr, run.chosen)
    return errno_result(got) if got < 0 else {"addr": hex(got)}


_MREMAP_FLAGS = ("MAYMOVE", "FIXED", "DONTUNMAP")


def _mlock(run: RunState, mm: MmStruct, addr: int, length: int) -> dict[str, Any]:
    return errno_result(do_mlock(mm, addr, length, True))


def _munlock(run: RunState, mm: MmStruct, addr: int, length: int) -> dict[str, Any]:
    return errno_result(do_mlock(mm, addr, length, False))


def _mlockall(run: RunState, mm: MmStruct) -> dict[str, Any]:
    return errno_result(do_mlockall(mm, True))


def _munlockall(run: RunState, mm: MmStruct) -> dict[str, Any]:
    return errno_result(do_mlockall(mm, False))


def _msync(run: RunState, mm: MmStruct, addr: int, length: int) -> dict[str, Any]:
    return errno_result(do_msync(mm, addr, length))


def _mseal(run: RunState, mm: MmStruct, addr: int, length: int) -> dict[str, Any]:
    return errno_result(do_mseal(mm, addr, length))


def _mbind(run: RunState, mm: MmStruct, addr: int, length: int, flags: Sequence[str] = ()) -> dict[str, Any]:
    # Mode BIND, node 0. MPOL_MF_MOVE moves pages, and a pfnmap has none.
    for flag in flags:
        if flag != "MOVE":
            raise Unknown("mbind flag", flag, ["MOVE"])
    return errno_result(do_mbind(mm, addr, length, "bind:0"))


def _vmas(run: RunState, mm: MmStruct, start: int, end: int) -> dict[str, Any]:
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
            "bar": "bar",
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
    "mprotect": Op(_mprotect, {"addr": "address", "length": "size", "prot": "prot"}),
    "mremap": Op(
        _mremap,
        {"addr": "address", "old_len": "size", "new_len": "size"},
        {"new_addr": "address", "flags": "list"},
    ),
    "mlock": Op(_mlock, {"addr": "address", "length": "size"}),
    "munlock": Op(_munlock, {"addr": "address", "length": "size"}),
    "mlockall": Op(_mlockall, {}),
    "munlockall": Op(_munlockall, {}),
    "msync": Op(_msync, {"addr": "address", "length": "size"}),
    "mseal": Op(_mseal, {"addr": "address", "length": "size"}),
    "mbind": Op(_mbind, {"addr": "address", "length": "size"}, {"flags": "list"}),
    "madvise": Op(_madvise, {"addr": "address", "length": "size", "advice": "str"}),
    "vmas": Op(_vmas, {"start": "address", "end": "address"}),
}
