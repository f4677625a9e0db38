"""`pfnmap tables` reads of a guest, and of its dump, what the guest itself says (needs pfnmap-tables)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pfnmap.spec import KernelSpec
from pfnmap_verify.guest import Guest
from pfnmap_verify.image import read_image
from pfnmap_verify.machine import machine_of
from pfnmap_verify.package import unpack
from pfnmap_verify.qemu import Qemu
from pfnmap_verify.recorder import Program, perform
from pfnmap_verify.session import DEVICES
from pfnmap_verify.subject import Subject

pytestmark = pytest.mark.realkernel
GIB, MIB, PAGE = 1 << 30, 1 << 20, 4096
AT = {"large": 0x1000_0000_0000, "shifted": 0x1100_0020_0000, "pages": 0x1200_0000_1000}


def steps():
    where = {"op": "mmap", "device": "bar8G", "bar": 2, "offset": 0, "fixed": True, "prot": "rw", "shared": True}
    yield {**where, "id": "m0", "length": 8 * GIB, "addr": hex(AT["large"])}
    yield {**where, "id": "m1", "length": 4 * GIB, "addr": hex(AT["shifted"])}
    yield {**where, "id": "m2", "length": 16 * MIB, "addr": hex(AT["pages"])}
    for base, size, access in (("large", GIB, "write"), ("shifted", 2 * MIB, "read"), ("pages", PAGE, "read")):
        yield from ({"op": "touch", "va": hex(AT[base] + n * size), "access": access} for n in range(2))


@pytest.fixture
def debs():
    pytest.importorskip("pfnmap_tables", reason="pfnmap-tables is not installed")
    if "PFNMAP_KERNEL_DEBS" not in os.environ:
        pytest.skip("PFNMAP_KERNEL_DEBS names no kernel")
    return os.environ["PFNMAP_KERNEL_DEBS"].split(os.pathsep)


def test_tables_of_a_guest_and_of_its_dump_are_what_the_guest_says(debs, tmp_path):
    packaged = unpack(debs, "deb", tmp_path / "kernel")
    image = read_image(packaged.image)
    machine = machine_of(image.arch)
    if shutil.which(machine.qemu) is None:
        pytest.skip(f"{machine.qemu} is not installed")
    subject = Subject.prepare(
        image, machine, packaged.root, KernelSpec(config=packaged.config and str(packaged.config))
    )
    core, qmp = tmp_path / "core", tmp_path / "qmp"

    async def run():
        qemu = Qemu(machine, image.path, subject.files(), DEVICES, qmp=qmp)
        async with qemu:
            guest = Guest(qemu, machine)
            await guest.set_up(subject.modules, DEVICES)
            record = await perform(guest, subject.spec.link(), Program("tables", list(steps())))
            await qemu.dump(core)
            of_guest = await asyncio.to_thread(tables, "--qmp", str(qmp))
        return record, of_guest

    record, of_guest = asyncio.run(run())
    of_dump = tables("--core", str(core))
    assert of_dump["mappings"] == of_guest["mappings"]
    assert [row["device"] for row in of_dump["mappings"]] == ["0000:00:01.0"] * 3
    touched = {int(s["va"], 0): s["expect"]["entry"] for s in record["steps"] if s["op"] == "touch"}
    runs = [run for row in of_dump["mappings"] for run in row["runs"]]
    for run in runs:
        assert touched[int(run["va"], 16)] == {"level": run["level"], "value": run["entry"]}
    assert sum(run["count"] for run in runs) == len(touched)
    assert all(row["kernel"] == "none" for mapping in of_dump["mappings"] for row in mapping["differs"])


def tables(*words):
    pfnmap = Path(sys.executable).parent / "pfnmap"
    done = subprocess.run([pfnmap, "tables", *words, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_dump_laid_out_as_proc_kcore_gives_the_same(tmp_path):
    """The segments of an ELF core have virtual addresses there, and a note says what the kernel's are."""
    if "PFNMAP_VMCORE" not in os.environ:
        pytest.skip("PFNMAP_VMCORE names no dump of x86_64 by QEMU")
    pytest.importorskip("pfnmap_tables", reason="pfnmap-tables is not installed")
    core, kcore = Path(os.environ["PFNMAP_VMCORE"]), tmp_path / "kcore"
    lay_out(core, kcore)
    assert tables("--core", str(kcore)) == tables("--core", str(core))


def lay_out(core, kcore):
    """Write a dump again with the linear map and the kernel's own map as segments, and its VMCOREINFO as a note."""
    from pfnmap_tables.note import note_in_file
    from pfnmap_tables.opening import of_core

    note = note_in_file(str(core))
    linear = of_core(str(core), None).program["page_offset_base"].value_()
    phys_base = int(re.search(rb"NUMBER\(phys_base\)=(-?\d+)", note)[1])
    text = 0xFFFF_FFFF_8000_0000
    with core.open("rb") as file, kcore.open("wb") as out:
        head = file.read(64)
        (count,) = struct.unpack_from("<H", head, 56)
        file.seek(struct.unpack_from("<Q", head, 32)[0])
        rows = [struct.unpack("<IIQQQQQQ", file.read(56)) for _ in range(count)]
        segments, at = [], 1 << 20
        for kind, _, offset, _, phys, size, _, _ in rows:
            if kind == 1:
                segments.append((at, offset, phys, size))
                at += -(-size // 4096) * 4096
        first, _, ram, length = segments[0]
        loads = [(first, text + ram - phys_base, ram, min(length, 1 << 30))]
        loads += [(at, linear + phys, phys, size) for at, _, phys, size in segments]
        described = struct.pack("<III", 11, len(note), 0) + b"VMCOREINFO\0\0" + note
        out.write(head[:56] + struct.pack("<HHHH", 1 + len(loads), 0, 0, 0))
        out.seek(32)
        out.write(struct.pack("<QQIHHHHHH", 64, 0, 0, 64, 56, 1 + len(loads), 0, 0, 0))
        out.write(struct.pack("<IIQQQQQQ", 4, 0, 1 << 16, 0, 0, len(described), len(described), 4))
        for at, virtual, phys, size in loads:
            out.write(struct.pack("<IIQQQQQQ", 1, 7, at, virtual, phys, size, size, 4096))
        out.seek(1 << 16)
        out.write(described)
        for at, offset, _, size in segments:
            file.seek(offset)
            out.seek(at)
            out.write(file.read(size))
