"""Records: a program's steps, performed by a guest one by one, with what was measured at each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pfnmap.errors import Refused
from pfnmap.kernel import Kernel
from pfnmap.ops.arguments import address_value
from pfnmap_verify.entries import entry_at
from pfnmap_verify.guest import Died, Guest
from pfnmap_verify.measured import RECORDED, expect_of, message
from pfnmap_verify.stage2 import second_stage

__all__ = ["ADDRESSES", "GUEST_OPS", "Program", "perform", "run_program", "settled"]

STEP_SECONDS = 120
ADDRESSES = ("va", "gpa", "addr", "start", "end", "new_addr", "at", "iova", "any_of", "return_mask")
_LOOKS = ("touch", "walk", "note_tables")
"""Ops that give the entry of their own address."""

GUEST_OPS = frozenset(
    [
        "access",
        "clear_refs",
        "dev_dbg",
        "device_reset",
        "dma_map",
        "dma_unmap",
        "exit",
        "fork",
        "get_mempolicy",
        "iommufd_map",
        "iommufd_unmap",
        "kvm.dirty_log",
        "kvm.map",
        "kvm.memslot",
        "kvm.param",
        "madvise",
        "mbind",
        "mincore",
        "mlock",
        "mlockall",
        "mmap",
        "move_pages",
        "mprotect",
        "mremap",
        "mseal",
        "msync",
        "munlock",
        "munlockall",
        "munmap",
        "note_tables",
        "numa_maps",
        "pagemap",
        "pagemap_scan",
        "pci_memory",
        "prctl_thp_disable",
        "scan",
        "set_thp_enabled",
        "set_thp_sizes",
        "sleep_ms",
        "smaps",
        "smaps_rollup",
        "touch",
        "userfaultfd_register",
        "vmas",
        "walk",
    ]
)
"""What the guest's init can do."""
_NUMA_OPS = ("get_mempolicy", "mbind", "move_pages", "numa_maps")
_RECORDED_AS = {
    "kvm.dirty_log": "dirty_log",
    "kvm.map": "guest",
    "kvm.memslot": "memslot",
    "kvm.param": "kvm_param",
}
"""What recordings of group kvm call the ops of its plugin."""
_BY_IOMMUFD = {"dma_map": "iommufd_map", "dma_unmap": "iommufd_unmap"}
"""What is done where a kernel has no container to map for DMA in."""


@dataclass(frozen=True)
class Program:
    """Steps as a scenario has them, with whole numbers for sizes and without `expect`. `own_boot`: to be run alone."""

    id: str
    steps: Sequence[Mapping[str, Any]]
    note: str = ""
    thp_enabled: str = "always"
    own_boot: bool = False

    @property
    def needs_kvm(self) -> bool:
        """Whether it makes a virtual machine."""
        return any(step["op"].startswith("kvm.") for step in self.steps)

    def check(self, lacking: Collection[str] = ()) -> None:
        """Raises Refused for an op that the guest cannot do, or not on a kernel that lacks these symbols."""
        for step in self.steps:
            if step["op"] in _NUMA_OPS and "NUMA" in lacking:
                raise Refused(step["op"], "CONFIG_NUMA is not set in this kernel")
            if step["op"] not in GUEST_OPS:
                raise Refused(step["op"], "the guest cannot do it")
            if step["op"] == "kvm.map" and step["access"] not in ("read", "write"):
                raise Refused("kvm.map", f"access {step['access']!r}: the guest reads and writes")
            if step["op"] == "kvm.memslot" and step["slot"] == 0:
                raise Refused("kvm.memslot", "slot 0 is the memory of the guest")


@dataclass
class _Progress:
    """What has to be put right before the next record."""

    names: dict[str, int] = field(default_factory=dict)
    pgds: dict[str, int] = field(default_factory=dict)
    off: set[str] = field(default_factory=set)
    dma: dict[tuple[str, int], None] = field(default_factory=dict)
    debugging: bool = False
    parameters: dict[str, str] = field(default_factory=dict)


async def run_program(guest: Guest, kernel: Kernel, program: Program, seconds: float = STEP_SECONDS) -> dict[str, Any]:
    """Perform a program and return its record. A kernel that dies of a step ends the record with an OOPS.

    `kernel` gives the geometry and the ops of the entries. Raises GuestLost for a guest that fails otherwise.
    """
    state = _Progress()
    record = await _performed(guest, kernel, program, seconds, state)
    if "ends_in_oops" not in record:
        await _clean_up(guest, state, seconds)
    return record


async def perform(guest: Guest, kernel: Kernel, program: Program, seconds: float = STEP_SECONDS) -> dict[str, Any]:
    """Perform a program as `run_program` does, and leave its process and mappings as they are for others to look at."""
    return await _performed(guest, kernel, program, seconds, _Progress())


async def _performed(
    guest: Guest, kernel: Kernel, program: Program, seconds: float, state: _Progress
) -> dict[str, Any]:
    if not guest.by_iommufd and (op := next((s["op"] for s in program.steps if s["op"] in _BY_IOMMUFD.values()), None)):
        raise Refused(op, "this kernel's devices are in a container; iommufd is used where there is none")
    record: dict[str, Any] = {"id": program.id, "boot": "default", "thp_enabled": program.thp_enabled}
    if program.note:
        record["note"] = program.note
    if program.own_boot:
        record["own_boot"] = True
    steps: list[dict[str, Any]] = []
    record["steps"] = steps
    await guest.ask(f"set_thp_enabled value={program.thp_enabled}", seconds)
    state.pgds["parent"] = _pgd(guest, await guest.ask("record", seconds))
    if program.needs_kvm:
        vm_create = {"op": "vm_create"}
        steps.append({**vm_create, "expect": await _step(guest, kernel, state, vm_create, seconds)})
        if (result := steps[0]["expect"]["result"]) != "ok":
            raise Refused("kvm", f"no virtual machine: {result}; CONFIG_KVM and CONFIG_KVM_AMD are not there")
    for n, said in enumerate(program.steps):
        step = _absolute(said, state.names, f"{program.id} step {n} {said['op']}")
        if guest.by_iommufd:
            step["op"] = _BY_IOMMUFD.get(step["op"], step["op"])
        try:
            expect = await _step(guest, kernel, state, step, seconds)
        except Died as death:
            steps.append({**_recorded(step), "expect": oops(death.messages)})
            record["ends_in_oops"] = True
            return record
        steps.append({**_recorded(step), "expect": expect})
    return record


async def _step(
    guest: Guest, kernel: Kernel, state: _Progress, step: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    op = step["op"]
    lines = await guest.ask(_request(step), seconds)
    expect = expect_of(op, lines, guest.functions, kernel.geometry.PAGE_SIZE)
    _remember(guest, state, step, expect, lines)

    async def looked_at(va: int) -> dict[str, Any]:
        return await entry_at(kernel, guest.words, state.pgds[step.get("by", "parent")], va, guest.ram)

    if "kvm" in expect:
        root = next(int(line.split()[1], 16) for line in lines if line.startswith("root "))
        expect["kvm"].update(await second_stage(guest.qemu.read_words, root))
    if op == "scan":
        for run in settled(expect["runs"]):
            run["entry"] = (await looked_at(_number(step["start"]) + run["off"]))["entry"]
    at = step.get("at", step.get("va") if op in _LOOKS or (op == "access" and "target" not in step) else None)
    if at is not None:
        found = await looked_at(_number(at))
        present = found.pop("present")
        expect.update({**found, "present": present} if op == "note_tables" else found)
    return expect


def settled(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs of a scan whose first entry is after the scan what it was after their first touch: where a touch
    was refused, tables may have come with later ones."""
    return [run for run in runs if run["result"] == "ok" or run is runs[-1]]


def _recorded(step: Mapping[str, Any]) -> dict[str, Any]:
    return {**step, "op": _RECORDED_AS.get(step["op"], step["op"])}


def _absolute(step: Mapping[str, Any], names: Mapping[str, int], where: str) -> dict[str, Any]:
    """Return a step with its addresses as a recording has them. Raises BadInput for a mapping that there is not."""
    return {key: hex(address_value(value, names, where)) if key in ADDRESSES else value for key, value in step.items()}


def _request(step: Mapping[str, Any]) -> str:
    return " ".join(
        [step["op"], *(f"{key}={_word(value)}" for key, value in step.items() if key not in ("op", "id", "at"))]
    )


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(value)
    return "null" if value is None else str(value)


def _number(value: Any) -> int:
    return int(value, 0) if isinstance(value, str) else int(value)


def _remember(
    guest: Guest, state: _Progress, step: Mapping[str, Any], expect: dict[str, Any], lines: Sequence[str]
) -> None:
    op, ok = step["op"], expect.get("result") == "ok"
    if op == "mmap" and ok and "id" in step:
        state.names[step["id"]] = _number(expect["addr"])
    elif op == "fork" and ok:
        state.pgds["child"] = _pgd(guest, lines)
    elif op == "exit":
        state.pgds.pop("child", None)
    elif op == "pci_memory":
        (state.off.discard if step["enabled"] else state.off.add)(step["device"])
    elif op in ("dma_map", "iommufd_map") and ok:
        state.dma[step["iova"], step["length"]] = None
    elif op in ("dma_unmap", "iommufd_unmap"):
        state.dma.pop((step["iova"], step["length"]), None)
    elif op == "kvm.param":
        was = next((line.split()[1] for line in lines if line.startswith("was ")), None)
        if was is not None:
            state.parameters.setdefault(step["name"], was)
    elif op == "dev_dbg":
        state.debugging = step["enabled"]


async def _clean_up(guest: Guest, state: _Progress, seconds: float) -> None:
    """Put everything back that outlives the process."""
    for iova, length in state.dma:
        unmap = "iommufd_unmap" if guest.by_iommufd else "dma_unmap"
        await guest.ask(f"{unmap} iova={iova} length={length}", seconds)
    for device in state.off:
        await guest.ask(f"pci_memory device={device} enabled=true", seconds)
    for name, value in state.parameters.items():
        await guest.ask(f"kvm.param name={name} value={value}", seconds)
    if state.debugging:
        await guest.ask("dev_dbg enabled=false", seconds)
    await guest.ask("end", seconds)


def _pgd(guest: Guest, lines: Sequence[str]) -> int:
    linear = next(int(line.split()[1], 16) for line in lines if line.startswith("pgd "))
    return guest.machine.physical(linear)


def oops(messages: Sequence[str]) -> dict[str, Any]:
    """Return the `expect` of the step that killed the kernel."""
    stack = [found for text in messages if (found := _frame(text))]
    told = [message(text) for text in messages if RECORDED.search(text) or text.startswith("RIP: ")]
    return {"result": "OOPS", "messages": told, "stack": stack, "panic": True}


def _frame(text: str) -> str | None:
    """Return the function of a line of a stack trace; those that the unwinder doubts ("? f") are left out."""
    name, plus, rest = text.strip().partition("+0x")
    return name if plus and name.isidentifier() and "/0x" in rest else None
