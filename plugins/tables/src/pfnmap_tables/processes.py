"""The processes of a kernel and their mappings of vfio devices, and whose a physical address is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from drgn import FaultError, Program
from drgn.helpers.linux.mm import for_each_vma, virt_to_phys
from drgn.helpers.linux.pid import find_task, for_each_task

from pfnmap.contract.entry import Has
from pfnmap.contract.mapping import MappedPart
from pfnmap.errors import BadInput

__all__ = ["Resource", "Vma", "resources", "vmas"]

_RESOURCES: Final = 1 << 14
_TASKS: Final = 1 << 20
_VMAS: Final = 1 << 20
_NAME: Final = 256


class Vma(NamedTuple):
    """A mapping of a BAR: by whom, where, and which part of it as the driver says; `pgd`: the physical address of the
    process's top table."""

    pid: int
    start: int
    end: int
    part: MappedPart
    driver: str
    pgd: int


class Resource(NamedTuple):
    """A range of physical addresses, and what the kernel calls it: a PCI address for a BAR."""

    start: int
    size: int
    name: str


def vmas(program: Program, drivers: dict[str, Any], has: Has, page: int, pid: int | None) -> Iterator[Vma]:
    """Yield the mappings of BARs of one process or of all, in the order of pids and addresses.

    Raises BadInput for a process that is not there.
    """
    if pid is not None:
        task = find_task(program, pid)
        if not task:
            raise BadInput(f"--pid {pid}", "no such process")
        tasks = [task]
    else:
        tasks = [task for _, task in zip(range(_TASKS), for_each_task(program), strict=False) if _leads(task)]
    for task in sorted(tasks, key=lambda one: one.pid.value_()):
        mm = task.mm.read_()
        if not mm:
            continue
        pgd = virt_to_phys(mm.pgd).value_()
        for _, vma in zip(range(_VMAS), for_each_vma(mm), strict=False):
            path = _path(vma)
            offset = vma.vm_pgoff.value_() * page
            for name, driver in drivers.items():
                if path and (part := driver.mapped(path, offset, has)) is not None:
                    yield Vma(task.pid.value_(), vma.vm_start.value_(), vma.vm_end.value_(), part, name, pgd)
                    break


def _leads(task: Any) -> bool:
    try:
        return bool(task.pid.value_() == task.tgid.value_())
    except FaultError:
        return False


def _path(vma: Any) -> str:
    """Return what maps shows of an anonymous inode's file, and a device node by its last name; "" for no file."""
    try:
        file = vma.vm_file.read_()
        if not file:
            return ""
        name = file.f_path.dentry.d_name.name
        return bytes(program_string(name)).decode("utf-8", "replace")
    except FaultError:
        return ""


def program_string(pointer: Any) -> bytes:
    """Return a C string of at most _NAME bytes."""
    return bytes(pointer.prog_.read_c_string(pointer.value_(), max_size=_NAME))


def resources(program: Program) -> list[Resource]:
    """Return the leaves of /proc/iomem whose names are PCI addresses, and what holds them."""
    found: list[Resource] = []
    todo = [program["iomem_resource"].child.read_()]
    seen: set[int] = set()
    while todo and len(seen) < _RESOURCES:
        one = todo.pop()
        address = one.value_()
        if not address or address in seen:
            continue
        seen.add(address)
        try:
            start, end = one.start.value_(), one.end.value_()
            name = program_string(one.name).decode("utf-8", "replace") if one.name else ""
            found.append(Resource(start, end - start + 1, name))
            todo += [one.sibling.read_(), one.child.read_()]
        except FaultError:
            continue
    return found
