"""Ops by which the kernel looks at user memory: system calls that copy, pin or trace; NUMA; userfaultfd.

Sources, of 6.12 and 6.1: fs/pipe.c, fs/splice.c, mm/filemap.c, mm/process_vm_access.c, fs/proc/base.c (mem_rw),
kernel/ptrace.c, kernel/futex/core.c (get_futex_key), mm/migrate.c, mm/mempolicy.c, fs/userfaultfd.c. The gup.*,
ptrace.*, disable.kernel_access, calls.* and fuzz.* records pin what a pfnmap answers; what anonymous memory answers
is read.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EFAULT, EINVAL, EIO, ENOENT, errorcode
from typing import TYPE_CHECKING, Any

from pfnmap.contract.machine import FOLL_FORCE, FOLL_WRITE
from pfnmap.contract.vma import MmStruct, VmArea
from pfnmap.errors import BadInput, Refused, Unknown
from pfnmap.limits import bounded
from pfnmap.mm.access_process_vm import access_process_vm
from pfnmap.mm.folio_walk import FW_ZEROPAGE, folio_walk_start
from pfnmap.mm.gup import get_user_pages_fast, pin_user_pages_remote, put_pages, unpin_user_pages
from pfnmap.mm.locking import mmap_lock
from pfnmap.mm.uaccess import NeverCompletes, copy_from_user, copy_to_user, fault_in_readable
from pfnmap.mm.userfaultfd import uffd_wp_range
from pfnmap.mm.vm_normal_page import is_zero_pfn, vm_normal_page
from pfnmap.ops.op import Op, errno_result
from pfnmap.vm_flags import VM_ACCESS_FLAGS, VM_IO, VM_PFNMAP, VM_SPECIAL

if TYPE_CHECKING:
    from pfnmap.ops.state import RunState

__all__ = ["OPS"]

_FUTEX_SIZE = 4
_PTRACE_WORD = 8


def _access(run: RunState, mm: MmStruct, via: str, va: int, length: int, target: str = "self") -> dict[str, Any]:
    if via not in _VIA:
        raise Unknown("access via", via, _VIA)
    if target not in ("self", "child"):
        raise BadInput("access", f"target {target!r} is neither self nor child")
    if length <= 0:
        raise BadInput("access", "length must be positive")
    bounded("access", _pages(mm, va, length))
    remote = run.process("child", "access") if target == "child" else mm
    transfer = _VIA[via]
    if via in _UNFORCED and not _proc_mem_foll_force(run, target):
        transfer = _UNFORCED[via]
    try:
        ret = transfer(remote, va, length)
        result = {"result": errorcode[-ret] if ret < 0 else "ok", "ret": max(ret, -1)}
    except NeverCompletes:
        run.hanging[mm] = va
        result = {"result": "HANG", "killed": False}
    return result if target == "child" else {**result, **run.entry(mm, va).as_json()}


def _write_syscall(mm: MmStruct, va: int, length: int) -> int:
    """write(2) into a pipe: the kernel reads user memory by pages of the pipe; a part of one counts as none."""
    return _by_pages(mm, length, lambda done, count: copy_from_user(mm, va + done, count) == 0)


def _read_syscall(mm: MmStruct, va: int, length: int) -> int:
    """read(2) from a pipe: the kernel writes user memory."""
    return _by_pages(mm, length, lambda done, count: copy_to_user(mm, va + done, count) == 0)


def _write_tmpfs(mm: MmStruct, va: int, length: int) -> int:
    """write(2) to a file: each page of it is faulted in before it is copied (generic_perform_write)."""
    page = mm.kernel.geometry.PAGE_SIZE
    done = 0
    while done < length:
        count = min(page - done % page, length - done)
        count -= fault_in_readable(mm, va + done, count)
        if not count:
            return done or -EFAULT
        done += count - copy_from_user(mm, va + done, count)
    return done


def _by_pages(mm: MmStruct, length: int, copy: Callable[[int, int], bool]) -> int:
    page = mm.kernel.geometry.PAGE_SIZE
    for done in range(0, length, page):
        if not copy(done, min(page, length - done)):
            return done or -EFAULT
    return length


def _vmsplice(mm: MmStruct, va: int, length: int) -> int:
    """vmsplice of user pages into a pipe, which is drained again."""
    pages: list[int] = []
    got = get_user_pages_fast(mm, va, _pages(mm, va, length), 0, pages)
    put_pages(mm.machine, pages)
    return got if got < 0 else _bytes_in(mm, va, length, got)


def _process_vm(gup_flags: int) -> Callable[[MmStruct, int, int], int]:
    def process_vm_rw(mm: MmStruct, va: int, length: int) -> int:
        """process_vm_readv and _writev: the pages of the target are pinned."""
        pages: list[int] = []
        with mmap_lock(mm):
            got = pin_user_pages_remote(mm, va, _pages(mm, va, length), gup_flags, pages)
        unpin_user_pages(mm.machine, pages)
        return -EFAULT if got < 0 else _bytes_in(mm, va, length, got)

    return process_vm_rw


def _pages(mm: MmStruct, va: int, length: int) -> int:
    page = mm.kernel.geometry.PAGE_SIZE
    return -(-(va % page + length) // page)


def _bytes_in(mm: MmStruct, va: int, length: int, pages: int) -> int:
    page = mm.kernel.geometry.PAGE_SIZE
    return min(length, pages * page - va % page)


def _proc_mem(gup_flags: int) -> Callable[[MmStruct, int, int], int]:
    def mem_rw(mm: MmStruct, va: int, length: int) -> int:
        """pread and pwrite on /proc/PID/mem, at most a page at a time."""
        page = mm.kernel.geometry.PAGE_SIZE
        done = 0
        while done < length:
            count = access_process_vm(mm, va + done, min(page, length - done), gup_flags)
            if not count:
                break
            done += count
        return done or -EIO

    return mem_rw


def _proc_mem_foll_force(run: RunState, target: str) -> bool:
    """proc_mem_foll_force: whether the file overrides a mapping's protection, as Kconfig says; with
    PROC_MEM_FORCE_PTRACE for the tracer alone (`min.proc_mem.anon_none`, `.child_none` of 7.3.4)."""
    config = run.kernel.config
    if config.enabled("PROC_MEM_FORCE_PTRACE"):
        return target == "child" and run.ptraced
    return not config.enabled("PROC_MEM_NO_FORCE")


def _ptrace(gup_flags: int) -> Callable[[MmStruct, int, int], int]:
    def ptrace_word(mm: MmStruct, va: int, length: int) -> int:
        """PTRACE_PEEKDATA and _POKEDATA: a word, whose size is what the recorder then writes down (res.access_uc,
        min.ptrace.anon)."""
        got = access_process_vm(mm, va, _PTRACE_WORD, FOLL_FORCE | gup_flags)
        return _PTRACE_WORD if got == _PTRACE_WORD else -EIO

    return ptrace_word


def _futex_wake(mm: MmStruct, va: int, length: int) -> int:
    """FUTEX_WAKE with a shared key, which is made from the page behind the address; nobody waits there."""
    if va % _FUTEX_SIZE:
        return -EINVAL
    pages: list[int] = []
    error = get_user_pages_fast(mm, va, 1, FOLL_WRITE, pages)
    if error == -EFAULT:
        error = get_user_pages_fast(mm, va, 1, 0, pages)
        if error > 0:  # read-only: private memory cannot be a futex then
            error = -EFAULT
    put_pages(mm.machine, pages)
    return min(error, 0)


_VIA: dict[str, Callable[[MmStruct, int, int], int]] = {
    "write_syscall": _write_syscall,
    "read_syscall": _read_syscall,
    "write_tmpfs": _write_tmpfs,
    "vmsplice": _vmsplice,
    "process_vm_readv": _process_vm(0),
    "process_vm_writev": _process_vm(FOLL_WRITE),
    "proc_mem_read": _proc_mem(FOLL_FORCE),
    "proc_mem_write": _proc_mem(FOLL_FORCE | FOLL_WRITE),
    "ptrace_peek": _ptrace(0),
    "ptrace_poke": _ptrace(FOLL_WRITE),
    "futex_wake": _futex_wake,
}
_UNFORCED = {"proc_mem_read": _proc_mem(0), "proc_mem_write": _proc_mem(FOLL_WRITE)}


def _move_pages(run: RunState, mm: MmStruct, va: int, node: int | None = None) -> dict[str, Any]:
    """move_pages of one page: where it is (`node` None), or to node 0, where all memory is."""
    if node not in (None, 0):
        raise Refused("move_pages", f"node {node}: the machine has node 0 only")
    with mmap_lock(mm):
        vma = mm.vma_lookup(va)
        if vma is None or (node is not None and vma.vm_flags & (VM_IO | VM_PFNMAP)):
            status = -EFAULT
        else:
            status = _page_status(vma, va)
    return {"status": errorcode[-status] if status else "node"}


def _page_status(vma: VmArea, va: int) -> int:
    """Return 0 where an address has a page, else the errno that move_pages tells.

    Until `move-pages-folio-walk` the page is looked up as for a core dump, where no page behind an entry is -EFAULT,
    and so is memory that nobody faults in (follow_page with FOLL_DUMP, of 6.1). A PROT_NONE entry is none there, as it
    is with NUMA_BALANCING, which no recording's `machine` lists (run on Debian's 6.1.192).
    """
    mm = vma.vm_mm
    ops = mm.kernel.ops
    if not mm.kernel.has("move-pages-folio-walk"):
        leaf = mm.tables.leaf(va)
        if leaf is None:
            return -EFAULT if vma.vm_ops is None or vma.vm_ops.fault is None else -ENOENT
        if leaf[0] != "pte":
            raise Refused("move_pages", f"a {leaf[0]} leaf, of which no release before had any")
        if not ops.pte_present(leaf[1].entry) or not vma.vm_flags & VM_ACCESS_FLAGS:
            return -ENOENT
        return -EFAULT if vm_normal_page(vma, va, leaf[1].entry) is None else 0
    found = folio_walk_start(vma, va, FW_ZEROPAGE)
    if found is None:
        return -ENOENT
    return -EFAULT if is_zero_pfn(mm.machine, ops.pte_pfn(found.entry)) else 0


def _get_mempolicy(run: RunState, mm: MmStruct, va: int) -> dict[str, Any]:
    """get_mempolicy(MPOL_F_NODE | MPOL_F_ADDR): the node of the page, which is faulted in (lookup_node)."""
    if mm.vma_lookup(va) is None:
        return errno_result(-EFAULT)
    pages: list[int] = []
    error = get_user_pages_fast(mm, va, 1, 0, pages)
    put_pages(mm.machine, pages)
    return errno_result(error)


def _userfaultfd_register(run: RunState, mm: MmStruct, addr: int, length: int, mode: str) -> dict[str, Any]:
    """UFFDIO_REGISTER: -EINVAL where a vma of the range is a pfnmap (vma_can_userfault), or none is there.

    Other memory is registered until the descriptor is closed, which is at once here: nobody would answer its faults
    (`neighbour.uffd.*`).
    """
    if mode not in ("missing", "wp"):
        raise BadInput("userfaultfd_register", f"mode {mode!r} is neither missing nor wp")
    page = mm.kernel.geometry.PAGE_SIZE
    if addr % page or length % page or not length or addr + length > mm.kernel.geometry.task_size:
        return errno_result(-EINVAL)
    vmas = mm.intersecting(addr, addr + length)
    if not vmas or any(vma.vm_flags & VM_SPECIAL for vma in vmas):
        return errno_result(-EINVAL)
    if mode == "wp":
        if not run.kernel.config.enabled("HAVE_ARCH_USERFAULTFD_WP"):
            return errno_result(-EINVAL)
        for vma in vmas:
            uffd_wp_range(vma, addr, addr + length)
    return {}


OPS = {
    "access": Op(_access, {"via": "str", "va": "address", "length": "size"}, {"target": "str"}),
    "move_pages": Op(_move_pages, {"va": "address"}, {"node": "node"}),
    "get_mempolicy": Op(_get_mempolicy, {"va": "address"}),
    "userfaultfd_register": Op(_userfaultfd_register, {"addr": "address", "length": "size", "mode": "str"}),
}
