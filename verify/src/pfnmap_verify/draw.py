"""Programs drawn at random, and how one that differs is made as short as it goes.

Not drawn: what the model expects to kill the kernel (the suites have that), and clear_refs, after which a write may
never come back (docs/evidence/FINDINGS.md, F21, F22).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from pfnmap.kernel import Kernel
from pfnmap_verify.compare import kills
from pfnmap_verify.machine import DEVICES, GIB, MIB
from pfnmap_verify.recorder import Program

__all__ = ["draw", "shrink"]

_WINDOW = 0x1000_0000_0000
_PAGE, _PMD, _PUD = 4096, 2 * MIB, GIB
_STEPS = (4, 14)
_ADVICES = ("HUGEPAGE", "NOHUGEPAGE", "DONTFORK", "DOFORK", "DONTNEED", "WILLNEED", "COLD", "POPULATE_READ")
_ACCESSES = ("write_syscall", "process_vm_readv", "process_vm_writev", "proc_mem_read", "vmsplice")
_MOST_DMA = 4 * MIB


def draw(seed: int, count: int, kernel: Kernel) -> list[Program]:
    """Return `count` programs for the standard devices; the same seed gives the same ones."""
    programs: list[Program] = []
    attempt = 0
    while len(programs) < count:
        program = _Draft(Random(f"{seed}/{attempt}")).program(f"random.{seed}.{attempt}")
        attempt += 1
        if not kills(kernel, program, DEVICES):
            programs.append(program)
    return programs


class _Draft:
    """A program in the making: what is mapped, whether there is a child, which devices are off."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._device = random.choice(DEVICES)
        self._length = self._device.size
        self._child = self._off = False
        self._dma: list[tuple[str, int]] = []

    def program(self, name: str) -> Program:
        """Return a program: a mapping, random steps, and a look at the end."""
        steps = [self._mmap(), {"op": "note_tables", "va": "m0"}]
        for _ in range(self._random.randint(*_STEPS)):
            steps.append(self._random.choices(*zip(*self._weighted(), strict=True))[0]())
        if self._child:
            steps.append({"op": "exit", "by": "child"})
        steps.append({"op": "vmas", "start": hex(_WINDOW), "end": hex(2 * _WINDOW)})
        steps.append({"op": "walk", "va": self._at()})
        return Program(name, steps, thp_enabled=self._random.choice(("always", "always", "madvise", "never")))

    def _weighted(self) -> Iterator[tuple[Callable[[], dict[str, Any]], int]]:
        yield self._touch, 10
        yield self._scan, 2
        yield self._mprotect, 3
        yield self._munmap, 2
        yield self._madvise, 3
        yield self._mremap, 1
        yield self._mlock, 1
        yield self._mincore, 1
        yield self._access, 2
        yield self._pci_memory, 2
        yield self._dma_map, 1
        yield self._fork, 2

    def _mmap(self) -> dict[str, Any]:
        choose = self._random.choice
        offset = choose((0, 0, 0, _PAGE, _PMD, _PMD + _PAGE, _PUD))
        offset = offset if offset < self._device.size else 0
        self._length = self._device.size - offset
        if self._random.random() < 0.3:
            self._length = min(self._length, choose((_PAGE, _PMD, _PMD + _PAGE, 3 * _PMD, _PUD, _PUD + _PMD)))
        va = _WINDOW + choose((0, 0, _PMD, _PAGE, offset % _PUD, offset % _PUD))
        prot = choose(("rw", "rw", "rw", "r", "w", "none"))
        where = {"offset": offset, "length": self._length, "addr": hex(va), "fixed": True, "prot": prot, "shared": True}
        return {"op": "mmap", "id": "m0", "device": self._device.name, "bar": 2, **where}

    def _offset(self, unit: int) -> int:
        return self._random.randrange(0, max(self._length // unit, 1)) * unit

    def _at(self) -> str:
        near = self._offset(self._random.choice((_PAGE, _PMD, _PUD)))
        return f"m0+{min(near + self._random.choice((0, 0, 5, _PAGE)), self._length - 1):#x}"

    def _range(self) -> dict[str, Any]:
        unit = self._random.choice((_PAGE, _PMD, _PUD))
        start = self._offset(unit)
        length = min(unit * self._random.randint(1, 3), max(self._length - start, _PAGE))
        return {"addr": f"m0+{start:#x}", "length": length}

    def _by(self) -> dict[str, Any]:
        return {"by": "child"} if self._child and self._random.random() < 0.5 else {}

    def _touch(self) -> dict[str, Any]:
        return {"op": "touch", "va": self._at(), "access": self._random.choice(("read", "write")), **self._by()}

    def _scan(self) -> dict[str, Any]:
        step = self._random.choice((_PAGE, _PMD, _PMD // 2))
        length = min(step * self._random.randint(2, 40), self._length)
        ends = {"start": "m0", "end": f"m0+{length:#x}", "step": step}
        return {"op": "scan", **ends, "access": self._random.choice(("read", "write")), **self._by()}

    def _mprotect(self) -> dict[str, Any]:
        return {"op": "mprotect", **self._range(), "prot": self._random.choice(("r", "rw", "none")), **self._by()}

    def _munmap(self) -> dict[str, Any]:
        return {"op": "munmap", **self._range(), **self._by()}

    def _madvise(self) -> dict[str, Any]:
        return {"op": "madvise", **self._range(), "advice": self._random.choice(_ADVICES), **self._by()}

    def _mremap(self) -> dict[str, Any]:
        part = self._range()
        addr, length = part["addr"], part["length"]
        to = _WINDOW + 64 * GIB + self._offset(_PMD)
        flags = ["MAYMOVE", "FIXED"]
        return {"op": "mremap", "addr": addr, "old_len": length, "new_len": length, "new_addr": hex(to), "flags": flags}

    def _mlock(self) -> dict[str, Any]:
        return {"op": "mlock", **self._range()}

    def _mincore(self) -> dict[str, Any]:
        return {"op": "mincore", "addr": "m0", "length": min(self._length & -_PAGE, 4 * MIB)}

    def _access(self) -> dict[str, Any]:
        return {"op": "access", "via": self._random.choice(_ACCESSES), "va": self._at(), "length": 8}

    def _pci_memory(self) -> dict[str, Any]:
        self._off = not self._off
        return {"op": "pci_memory", "device": self._device.name, "enabled": not self._off}

    def _dma_map(self) -> dict[str, Any]:
        if self._dma:
            iova, length = self._dma.pop()
            return {"op": "dma_unmap", "iova": iova, "length": length}
        start = self._offset(_PAGE)
        length = min(
            self._random.choice((_PAGE, 64 << 10, _PMD, _MOST_DMA)), max((self._length - start) & -_PAGE, _PAGE)
        )
        self._dma.append(("0x100000000", length))
        prot = self._random.choice(("r", "rw"))
        return {"op": "dma_map", "iova": "0x100000000", "va": f"m0+{start:#x}", "length": length, "prot": prot}

    def _fork(self) -> dict[str, Any]:
        self._child = not self._child
        return {"op": "fork"} if self._child else {"op": "exit", "by": "child"}


def shrink(program: Program, step: int, differing: Callable[[Sequence[Program]], Collection[str]]) -> Program:
    """Return the shortest program that still differs, of those that are made by leaving steps out.

    `step` is where it differs; `differing` runs programs and returns the ids of those that differ.
    """
    shortest = replace(program, steps=list(program.steps[: step + 1]))
    while True:
        tried = {f"{program.id}.{n}": steps for n, steps in enumerate(_shorter(shortest.steps))}
        candidates = [replace(shortest, id=name, steps=steps) for name, steps in tried.items()]
        found = differing(candidates) if candidates else ()
        if not found:
            return replace(shortest, id=f"{program.id}.shrunk")
        shortest = replace(shortest, steps=tried[min(found, key=lambda name: len(tried[name]))])


def _shorter(steps: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield the steps without each half and without each one of them, where what is left makes sense."""
    half = len(steps) // 2
    parts = [(0, half), (half, len(steps)), *((n, n + 1) for n in range(len(steps)))] if half > 1 else []
    for start, end in parts or [(n, n + 1) for n in range(len(steps))]:
        left = [*steps[:start], *steps[end:]]
        if left and _sensible(left):
            yield left


def _sensible(steps: Sequence[Any]) -> bool:
    """Whether each step has the mapping and the child that it speaks of."""
    mapped: set[str] = set()
    child = False
    for step in steps:
        names = {value.partition("+")[0] for value in step.values() if isinstance(value, str) and value[:1] == "m"}
        if {name for name in names if name[1:].isdigit()} - mapped - {step.get("id")}:
            return False
        if step.get("by") == "child" and not child:
            return False
        if step["op"] == "mmap":
            mapped.add(step["id"])
        child = step["op"] == "fork" or (child and step["op"] != "exit")
    return True
