"""Recordings whose fields are of the wrong kind: one line that names file, record, step and key; never a traceback."""

from __future__ import annotations

import copy
import json

import pytest


@pytest.fixture
def recording(root, tmp_path):
    """Write the example recording with one value changed, and return its path."""
    original = json.loads((root / "tests/data/cli/recording.json").read_text())

    def write(*keys_and_value):
        *keys, last, value = keys_and_value
        document = copy.deepcopy(original)
        inner = document
        for key in keys:
            inner = inner[key]
        inner[last] = value
        path = tmp_path / "bad.json"
        path.write_text(json.dumps(document))
        return path

    return write


MMAP = ("records", 0, "steps", 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("machine", "release", 5), "machine: release = 5 is of the wrong kind"),
        (("machine", "release", "zzz"), "machine: unknown release 'zzz'"),
        (("machine", "config", "X86_64", 5), "machine: item of config = 5 is of the wrong kind"),
        (("machine", "config", []), "machine: config = [] is of the wrong kind"),
        (("machine", "cpu", "la57", "x"), "machine: cpu la57: 'x' is of the wrong kind"),
        (("machine", "cpu", "la58", True), "machine: unknown cpu key of x86_64 'la58'"),
        (("machine", None), "machine = None is of the wrong kind"),
        (("kernel", "arch", 5), "kernel: arch = 5 is of the wrong kind"),
        (("kernel", "arch", {}), "kernel: arch = {} is of the wrong kind"),
        (("kernel", "traced", [5]), "kernel: item of traced = 5 is of the wrong kind"),
        (("devices", 5), "devices = 5 is of the wrong kind"),
        (("devices", 0, 5), "device 0: a table was expected"),
        (("devices", 0, "bdf", 5), "device 0: bdf = 5 is of the wrong kind"),
        (("devices", 0, "name", {}), "device 0: name = {} is of the wrong kind"),
        (("devices", 0, "bars", 0, "size", "1"), "device 0 bar 0: size = '1' is of the wrong kind"),
        (("devices", 0, "bars", 0, "size", -4096), "device 0 bar 0: size -4096 is no power of two"),
        (("devices", 0, "bars", 0, "index", "2"), "device 0 bar 0: index = '2' is of the wrong kind"),
        (("devices", 0, "bars", 0, "phys", "zz"), "device 0 bar 0: 'zz' is not an address"),
        (("devices", 0, "bars", 0, "phys", "0xfffffffffffff001"), "device 0 bar 0: phys 0xfffffffffffff001"),
        (("devices", 0, "bars", 0, "vfio_region_flags", None), "vfio_region_flags = None is of the wrong kind"),
        (("records", 0, 5), "record #0: a table was expected"),
        (("records", 0, "id", {}), "id = {} is of the wrong kind"),
        (("records", 0, "thp_enabled", 5), "thp_enabled = 5 is of the wrong kind"),
        (("records", 0, "thp_enabled", "banana"), "thp_enabled = 'banana' is none of always, madvise, never"),
        (("records", 0, "own_boot", 1), "own_boot = 1 is of the wrong kind"),
        (("records", 0, "steps", {}), "steps = {} is of the wrong kind"),
        ((*MMAP, 5), "step 0: a step is a table"),
        ((*MMAP, "op", 5), "step 0: a step is a table with an op"),
        ((*MMAP, "length", 1.5), "step 0 mmap length: 1.5 is of the wrong kind"),
        ((*MMAP, "expect", "faults", 5), "step 0 mmap expect: faults = 5 is of the wrong kind"),
        ((*MMAP, "expect", "faults", None), "step 0 mmap expect: faults = None is of the wrong kind"),
        ((*MMAP, "expect", "faults", [5]), "step 0 mmap expect: item of faults = 5 is of the wrong kind"),
        ((*MMAP, "expect", "messages", [1]), "step 0 mmap expect: item of messages = 1 is of the wrong kind"),
        ((*MMAP, "expect", "messages", None), "step 0 mmap expect: messages = None is of the wrong kind"),
        ((*MMAP, "expect", "calls", {"f": "x"}), "step 0 mmap expect: item of calls = 'x' is of the wrong kind"),
        ((*MMAP, "expect", "addr", 5), "step 0 mmap expect: addr = 5 is of the wrong kind"),
        ((*MMAP, "expect", "entry", 5), "step 0 mmap expect: entry = 5 is of the wrong kind"),
        ((*MMAP, "expect", []), "step 0: expect is a table"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named_with_its_place(refused, recording, change, says):
    path = recording(*change)
    line = refused("replay", path)
    assert line.startswith(f"pfnmap: {path}")
    assert says in line


@pytest.fixture
def refusal(pfnmap):
    """Replay a recording and return why its first record is refused; the others agree."""

    def run(path):
        result = pfnmap("replay", path, "--json")
        assert result.exit_code == 3, result.output
        (file,) = json.loads(result.stdout)["files"]
        assert (file["agree"], file["disagree"]) == (file["records"] - 1, [])
        (row,) = file["refused"]
        return row["reason"]

    return run


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("length", -4096), "length: -4096 is negative"),
        (("length", "x"), "length: 'x' is not a size"),
        (("device", {}), "device: {} is of the wrong kind"),
        (("colour", "red"), "unknown argument of mmap"),
    ],
)
def test_a_record_with_an_argument_that_cannot_be_is_refused_by_itself(refusal, recording, change, says):
    reason = refusal(recording(*MMAP, *change))
    assert "step 0 mmap" in reason
    assert says in reason


@pytest.fixture
def chosen(recording):
    """A recording whose first mapping has an address of the kernel's choice, said to be this one."""

    def write(address):
        path = recording(*MMAP, "fixed", False)
        document = json.loads(path.read_text())
        step = document["records"][0]["steps"][0]
        step["addr"] = "0x0"
        step["expect"]["addr"] = address
        document["records"] = [{**document["records"][0], "steps": [step]}]
        path.write_text(json.dumps(document))
        return path

    return write


def test_a_chosen_address_that_is_none_is_named(refusal, chosen):
    assert "step 0 mmap expect addr: 'zz' is no address" in refusal(chosen("zz"))


@pytest.mark.parametrize("address", ["0xfffffffffffff000", "0x123", "0x400000"])
def test_a_chosen_address_where_nothing_can_be_mapped_is_a_disagreement(pfnmap, chosen, address):
    result = pfnmap("replay", chosen(address), "--json")
    assert result.exit_code == 1, result.output
    (found,) = {row["field"] for row in json.loads(result.stdout)["files"][0]["disagree"]}
    assert found == "addr"


@pytest.fixture
def commanded(recording):
    """A recording of switching memory decode off and on, with these command registers."""

    def write(*registers):
        steps = [
            {
                "op": "pci_memory",
                "device": json.loads(recording("x", 0).read_text())["devices"][0]["name"],
                "enabled": bool(int(register, 16) & 2),
                "expect": {"result": "ok", "command": register, "calls": {}},
            }
            for register in registers
        ]
        path = recording("kernel", "traced", [])
        document = json.loads(path.read_text())
        document["records"] = [{"id": "one", "thp_enabled": "always", "steps": steps}]
        path.write_text(json.dumps(document))
        return path

    return write


@pytest.mark.parametrize("other", [0x0, 0x1, 0x100, 0x505])
def test_what_the_firmware_put_into_a_command_register_is_taken_from_the_recording(pfnmap, commanded, other):
    assert pfnmap("replay", commanded(hex(other), hex(other | 2), hex(other))).exit_code == 0


def test_a_command_register_whose_other_bits_change_disagrees(pfnmap, commanded):
    result = pfnmap("replay", commanded("0x101", "0x3"), "--json")
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout)["files"][0]["disagree"]
    assert (row["step"], row["field"], row["expected"], row["got"]) == (1, "command", "0x3", "0x103")


def test_a_command_register_that_is_no_number_is_named(refused, commanded):
    path = commanded("0x101", "0x103")
    path.write_text(path.read_text().replace('"0x101"', '"on"'))
    assert "step 0 pci_memory expect command: 'on' is not an address" in refused("replay", path)
