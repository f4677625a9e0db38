"""Scenarios and recordings become programs that the guest can run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pfnmap.errors import BadInput, Refused
from pfnmap_verify.machine import DEVICES, PciTestdev
from pfnmap_verify.programs import read_programs
from pfnmap_verify.recorder import Program
from pfnmap_verify.suites import suite

DATA = Path(__file__).parent / "data"
SCENARIO = """
[[device]]
name = "gpu"
[[device.bar]]
index = 4
size = "256M"
phys = "0x10000000"
[[step]]
op = "mmap"
id = "m0"
device = "gpu"
bar = 4
length = "256M"
prot = "rw"
shared = true
[[step]]
op = "vmas"
start = "m0"
end = "m0+0x1000"
"""


def test_a_scenarios_bar_becomes_that_of_a_test_device(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(SCENARIO)
    (program,), devices = read_programs(str(path))
    assert devices == [PciTestdev("gpu", 256 << 20)]
    assert program.id == "one"
    assert program.steps[0] == {
        "op": "mmap",
        "id": "m0",
        "device": "gpu",
        "bar": 2,
        "offset": 0,
        "length": 256 << 20,
        "addr": "0x0",
        "fixed": False,
        "prot": "rw",
        "shared": True,
    }
    assert program.steps[-1] == {"op": "walk", "va": "m0"}, "an entry is read in every program"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (SCENARIO.replace('name = "gpu"', 'name = "gpu"\ndriver = "nvgrace_gpu"'), "another driver than vfio_pci"),
        (SCENARIO.replace("index = 4", "index = 0"), "has one memory BAR"),
    ],
)
def test_a_device_that_qemus_cannot_be_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "one.toml"
    path.write_text(text)
    with pytest.raises(Refused, match=what):
        read_programs(str(path))


def test_an_empty_scenario_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text(SCENARIO.partition("[[step]]")[0])
    with pytest.raises(BadInput, match="nothing to run"):
        read_programs(str(path))


def test_what_lies_where_the_kernel_chose_is_told_relative_to_it() -> None:
    programs, devices = read_programs(str(DATA / "core-6.12.117.json.gz"))
    assert devices == DEVICES
    placed = next(program for program in programs if program.id == "placement.2M.null")
    assert [step.get("va") for step in placed.steps] == [None, "c0+0x0", "c0+0x1fefff"]


def test_an_op_that_the_guest_has_not_is_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"acrn\.ram_map"):
        Program("p", [{"op": "acrn.ram_map"}]).check()
    with pytest.raises(Refused, match="access 'execute'"):
        Program("p", [{"op": "kvm.map", "access": "execute"}]).check()


def test_another_architecture_is_not_asked_for_virtual_machines() -> None:
    assert any(program.needs_kvm for program in suite("full"))
    assert not any(program.needs_kvm for program in suite("full", "arm64"))


@pytest.mark.parametrize("name", ["core", "full"])
def test_a_suite_has_no_name_twice_and_nothing_that_the_guest_cannot_do(name: str) -> None:
    programs = suite(name)
    assert len({program.id for program in programs}) == len(programs)
    for program in programs:
        program.check()


@pytest.mark.parametrize(("arch", "page_size"), [("x86_64", 4096), ("arm64", 4096), ("arm64", 16384)])
def test_full_has_core_and_what_was_recorded_of_the_machine(arch: str, page_size: int) -> None:
    full = {program.id for program in suite("full", arch, page_size)}
    assert {program.id for program in suite("core")} <= full
    assert len(full) > 400
    assert any(name.startswith("fuzz.") for name in full)


def test_the_memory_of_a_recorded_virtual_machine_is_the_guests_own(tmp_path: Path) -> None:
    """The guest's init gives it memory by itself, in slot 0."""
    document = {
        "schema": "pfnmap-recording/2",
        "group": "kvm",
        "devices": [],
        "machine": {"release": "6.12.117", "config": {"KVM": "y"}, "cpu": {}},
        "kernel": {"arch": "x86_64", "traced": []},
    }
    slot = {"op": "memslot", "slot": 1, "gpa": "0x4000000000", "va": "0x100000000000", "length": 4096}
    touched = {"op": "guest", "gpa": "0x4000000000", "length": 1, "step": 4096, "access": "read"}
    steps = [{**step, "expect": {"result": "ok"}} for step in ({"op": "vm_create"}, slot, touched)]
    path = tmp_path / "kvm.json"
    path.write_text(json.dumps({**document, "records": [{"id": "r", "thp_enabled": "always", "steps": steps}]}))
    ((program,), _) = read_programs(str(path))
    assert program.needs_kvm
    assert program.steps == [{**slot, "op": "kvm.memslot"}, {**touched, "op": "kvm.map"}]
