"""Locks, as far as the model keeps them: which are held, and what another CPU does before it lets go of one.

The model runs one CPU, so nobody ever waits. A lock says whether it is held, for the functions that assert one
(`follow_pfnmap_start`: mmap_lock or i_mmap_rwsem); and what changes between a look without a lock and the look under
it can be played with `Lock.contend`. Order, as in the kernel: mmap_lock, i_mmap_rwsem, the page-table lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType

from pfnmap.contract.vma import AddressSpace, MmStruct

__all__ = ["Lock", "i_mmap_rwsem", "mmap_lock", "page_table_lock"]


class Lock:
    """A lock; a context manager. `held` counts its holders: readers may be several."""

    def __init__(self) -> None:
        self.held = 0
        self._contenders: deque[Callable[[], None]] = deque()

    @property
    def contended(self) -> bool:
        """Whether another CPU has it when it is taken next."""
        return bool(self._contenders)

    def acquire(self) -> None:
        """Take the lock, after another CPU that has it did what it wanted and let go."""
        if self._contenders:
            self._contenders.popleft()()
        self.held += 1

    def release(self) -> None:
        """Let go of the lock."""
        assert self.held, "release of a lock that nobody holds"
        self.held -= 1

    def contend(self, *actions: Callable[[], None]) -> None:
        """Let another CPU have the lock when it is taken next, and do the first action there; then the second, ..."""
        self._contenders.extend(actions)

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def mmap_lock(mm: MmStruct) -> Lock:
    """Return mm->mmap_lock: taken by whoever looks at or changes the vmas of an address space."""
    return mm.__dict__.get("mmap_lock") or _lock(mm, "mmap_lock")


def i_mmap_rwsem(mapping: AddressSpace) -> Lock:
    """Return mapping->i_mmap_rwsem: taken by whoever goes over the vmas that map a file."""
    return mapping.__dict__.get("i_mmap_rwsem") or _lock(mapping, "i_mmap_rwsem")


def page_table_lock(mm: MmStruct) -> Lock:
    """Return mm->page_table_lock, which stands for the locks of all tables of an address space."""
    return mm.__dict__.get("page_table_lock") or _lock(mm, "page_table_lock")


def _lock(owner: object, name: str) -> Lock:
    """Locks are made when they are first asked for: most address spaces of a run never need one."""
    made = owner.__dict__[name] = Lock()
    return made
