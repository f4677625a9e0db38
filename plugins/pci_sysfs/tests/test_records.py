"""The res.* records of a real 6.12.117: each step gives what the kernel gave.

`data/res-6.12.117.json.gz` holds these records without what no op gives: the list of memory types, which has those of
vfio-pci's devices, and the functions counted by kprobes.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pfnmap import Device, DeviceBar, Refused
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run

RECORDING: dict[str, Any] = json.loads(
    gzip.decompress((Path(__file__).parent / "data" / "res-6.12.117.json.gz").read_bytes())
)
RECORDS = {record["id"]: record for record in RECORDING["records"]}
WITHOUT_DRIVER = {d["name"] for d in RECORDING["devices"] if not d["bars"][0]["vfio_region_flags"]}
COMPARED = (
    *("result", "addr", "entry", "upper", "table_bytes", "handle_mm_fault", "faults", "si_code", "si_addr"),
    *("ret", "pages", "resident", "fields", "vmas", "entries", "bytes", "messages"),
)


def device(row: dict[str, Any]) -> Device:
    bars = {
        bar["index"]: DeviceBar(bar["index"], bar["size"], int(bar["phys"], 16), prefetchable=bar["prefetchable"])
        for bar in row["bars"]
    }
    return Device(row["name"], row["bdf"], bars, driver="pci_sysfs" if row["name"] in WITHOUT_DRIVER else "vfio_pci")


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    machine = RECORDING["machine"]
    cpu = {key: value for key, value in machine["cpu"].items() if key != "phys_bits"}
    return Kernel.link("x86_64", ["pci_sysfs", "vfio_pci"], release="6.12.117", given=machine["config"], cpu=cpu)


def as_op(row: dict[str, Any], n: int) -> Step:
    """A step of the recording: /proc/PID/mem is a way of `access` here."""
    arguments = {key: value for key, value in row.items() if key not in ("op", "expect", "by", "at", "stopped")}
    op = row["op"]
    if op == "proc_mem":
        op, arguments["via"] = "access", {"r": "proc_mem_read", "w": "proc_mem_write"}[arguments.pop("access")]
    elif arguments.get("via", "").startswith("ptrace"):
        arguments["length"] = 8
    return Step(op, arguments, by=row.get("by", "parent"), at=row.get("at"), where=f"step {n}")


@pytest.mark.parametrize("name", [name for name in RECORDS if name != "res.of_vfio_device"])
def test_a_record_comes_out_as_recorded(kernel: Kernel, name: str):
    run = Run(kernel, [device(row) for row in RECORDING["devices"]], image=True)
    for n, row in enumerate(RECORDS[name]["steps"]):
        got = run.step(as_op(row, n)).as_json()
        expect = row["expect"]
        keys = [key for key in COMPARED if key in expect]
        assert {key: got.get(key) for key in keys} == {key: expect[key] for key in keys}, (n, row["op"])


def test_a_device_that_another_driver_binds_is_refused(kernel: Kernel):
    run = Run(kernel, [device(row) for row in RECORDING["devices"]])
    with pytest.raises(Refused, match="bar8G is bound by another driver"):
        run.step(as_op(RECORDS["res.of_vfio_device"]["steps"][0], 0))
