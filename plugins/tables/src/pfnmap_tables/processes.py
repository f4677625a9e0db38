"""The processes of a kernel and their mappings of BARs, which device a file is of, and whose a physical address is.

What cannot be read of one process, of one mapping or of the rest of a list is left out and said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from drgn import Object, Program, container_of, offsetof
from drgn.helpers.linux.mm import for_each_vma, virt_to_phys

from pfnmap.contract.entry import Has
from pfnmap.contract.mapping import MappedPart
from pfnmap.errors import BadInput
from pfnmap.host.pci import normalize_bdf
from pfnmap_tables.memory import DAMAGE

__all__ = ["Resource", "Vma", "is_pci", "resources", "vmas"]

_RESOURCES: Final = 1 << 14
_TASKS: Final = 1 << 20
_VMAS: Final = 1 << 20
_NAME: Final = 256
_BARS: Final = 6


@dataclass(frozen=True)
class Resource:
    """A range of physical addresses, and what the kernel calls it: a PCI address for a BAR."""

    start: int
    size: int
    name: str

    def __contains__(self, address: object) -> bool:
        """Tell whether it holds a physical address."""
        return isinstance(address, int) and self.start <= address < self.start + self.size


class Vma(NamedTuple):
    """A mapping of a BAR: by whom, where, and which part of it as the driver says; `pgd`: the physical address of the
    process's top table; `bars`: those of the device that the file is of, where it says so."""

    pid: int
    start: int
    end: int
    part: MappedPart
    driver: str
    pgd: int
    bars: tuple[Resource, ...] = ()


def vmas(
    program: Program, drivers: dict[str, Any], has: Has, page: int, pid: int | None, tell: Callable[[str], None]
) -> Iterator[Vma]:
    """Yield the mappings of BARs of one process or of all, in the order of pids and addresses.

    `tell` is told what cannot be read. Raises BadInput for a process that is not there.
    """
    tasks = dict(_tasks(program, tell))
    if pid is not None:
        if pid not in tasks:
            raise BadInput(f"--pid {pid}", "no such process")
        tasks = {pid: tasks[pid]}
    for number, task in sorted(tasks.items()):
        try:
            yield from _of_process(number, task, drivers, has, page)
        except DAMAGE as error:
            tell(f"process {number}: its mappings cannot all be read: {_line(error)}")


def _tasks(program: Program, tell: Callable[[str], None]) -> Iterator[tuple[int, Object]]:
    """Yield the first task of each process and its pid (for_each_process): the list that begins at init_task, and where
    it is broken what there is from its other end."""
    first = program["init_task"]
    offset = offsetof(first.type_, "tasks")
    seen = {first.tasks.address_of_().value_()}
    for way in ("next", "prev"):
        try:
            at = first.tasks.member_(way).value_()
            while at not in seen and len(seen) < _TASKS:
                task = Object(program, "struct task_struct *", at - offset)
                pid, after = task.pid.value_(), task.tasks.member_(way).value_()
                seen.add(at)
                yield pid, task
                at = after
            return
        except DAMAGE as error:
            tell(f"the list of processes is broken behind {len(seen) - 1} of them: {_line(error)}")


def _of_process(pid: int, task: Object, drivers: dict[str, Any], has: Has, page: int) -> Iterator[Vma]:
    mm = task.mm.read_()
    if not mm:
        return
    pgd = virt_to_phys(mm.pgd).value_()
    for _, vma in zip(range(_VMAS), for_each_vma(mm), strict=False):
        path = _path(vma)
        offset = vma.vm_pgoff.value_() * page
        for name, driver in drivers.items():
            if path and (part := driver.mapped(path, offset, has)) is not None:
                yield Vma(pid, vma.vm_start.value_(), vma.vm_end.value_(), part, name, pgd, _bars(vma.vm_file))
                break


def _path(vma: Any) -> str:
    """Return what maps shows of an anonymous inode's file, and a device node by its last name; "" for no file."""
    try:
        file = vma.vm_file.read_()
        if not file:
            return ""
        name = file.f_path.dentry.d_name.name
        return bytes(program_string(name)).decode("utf-8", "replace")
    except DAMAGE:
        return ""


def _bars(file: Object) -> tuple[Resource, ...]:
    """Return the BARs of the device that a vfio file is of, by index; none where that cannot be told.

    From 6.6 on the file's private data says which device in a structure of its own (struct vfio_device_file).
    """
    program = file.prog_
    try:
        private = file.private_data.value_()
        try:
            device = Object(program, "struct vfio_device_file *", private).device
        except LookupError:
            device = Object(program, "struct vfio_device *", private)
        pci = container_of(device.dev.read_(), "struct pci_dev", "dev")
        name = program_string(pci.dev.kobj.name).decode("utf-8", "replace")
        if not is_pci(name):
            return ()
        return tuple(_resource(pci.resource[n], name) for n in range(_BARS))
    except DAMAGE:
        return ()


def _resource(one: Object, name: str) -> Resource:
    start = one.start.value_()
    return Resource(start, one.end.value_() - start + 1, name)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def is_pci(name: str) -> bool:
    """Tell whether a name is a PCI address as the kernel writes it."""
    try:
        return normalize_bdf(name) == name
    except BadInput:
        return False


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
            name = program_string(one.name).decode("utf-8", "replace") if one.name else ""
            found.append(_resource(one, name))
            todo += [one.sibling.read_(), one.child.read_()]
        except DAMAGE:
            continue
    return found
