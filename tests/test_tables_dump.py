"""`pfnmap tables` on the dump of a made-up kernel: what it has is shown, and damage harms nothing."""

from __future__ import annotations

import json
import runpy
import struct
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfnmap.errors import PfnmapError
from pfnmap.spec import KernelSpec

drgn = pytest.importorskip("drgn", reason="the extra drgn is not installed")

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("kernel_image.py"))))
BTF, DWARF, PAGE, LINEAR, LARGE = made.BTF, made.DWARF, made.PAGE, made.LINEAR, made.LARGE
GIB, MIB = 1 << 30, 1 << 20
WHOLE, NOTE = made.kernel()
KERNEL = KernelSpec(arch="x86_64", release="6.12.117").link()
BARE, BARE_NOTE = made.kernel(btf=False)


@pytest.fixture
def dump(tmp_path):
    def write(image=WHOLE, note=NOTE, memory=None):
        path = tmp_path / "vmcore"
        path.write_bytes(made.elf(bytes(image.memory if memory is None else memory), note))
        return path

    return write


@pytest.fixture
def tables(pfnmap):
    def answer(*words):
        result = pfnmap("tables", *words, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return answer


def test_mappings_of_a_dump_have_device_levels_entries_and_what_differs(tables, dump):
    document = tables("--core", dump())
    large, small = document["mappings"]
    assert document["warnings"] == []
    assert document["kernel"]["release"] == "6.12.117"
    assert [(m["pid"], m["device"], m["bar"], m["offset"]) for m in document["mappings"]] == [
        (made.PID, made.BDF, 2, 0)
    ] * 2
    assert large["counts"] == {"pud": 2, "pmd": 3, "pte": 0}
    assert large["plan"]["counts"] == {"pud": 4, "pmd": 0, "pte": 0}
    assert [run["count"] for run in large["runs"]] == [2, 3]
    first = large["runs"][0]
    assert (first["va"], first["entry"]) == (hex(LARGE), "0x80000002000002f7")
    assert (first["special"], first["writable"], first["dirty"]) == (True, True, True)
    assert first["cache_mode"] == "uncached-minus"
    assert large["runs"][1]["dirty"] is False
    assert [(d["kernel"], d["length"]) for d in large["differs"]] == [("pmd", 6 * MIB), ("none", 2 * GIB - 6 * MIB)]
    assert (small["counts"]["pte"], small["va"], small["table_bytes"]) == (4, hex(made.SMALL), 3 * PAGE)
    assert {row["reason"] for row in small["plan"]["blocked"]} == {"not_congruent", "too_small"}


@pytest.mark.parametrize("file", [BTF, DWARF], ids=["BTF", "DWARF"])
def test_types_from_a_file_serve_where_the_kernel_has_none(tables, refused, dump, file):
    expected = tables("--core", dump())
    bare = dump(BARE, BARE_NOTE)
    assert "--types" in refused("tables", "--core", bare, exit_code=3)
    assert tables("--core", bare, "--types", file)["mappings"] == expected["mappings"]


def test_types_of_another_kernel_are_refused(refused, dump, tmp_path):
    other = BARE_NOTE.replace(made.BUILD_ID, made.BUILD_ID[::-1])
    assert "another kernel" in refused("tables", "--core", dump(BARE, other), "--types", DWARF)
    shifted = bytearray(BTF.read_bytes())
    strings = 24 + struct.unpack_from("<I", shifted, 16)[0]
    name = struct.pack("<I", shifted.index(b"\0comm\0", strings) + 1 - strings)
    shifted[shifted.index(name) + 8] += 8  # a byte further on
    (tmp_path / "other.btf").write_bytes(shifted)
    said = refused("tables", "--core", dump(BARE, BARE_NOTE), "--types", tmp_path / "other.btf")
    assert "types are not those of" in said
    (tmp_path / "text").write_text("text")
    assert "neither BTF nor" in refused("tables", "--core", dump(), "--types", tmp_path / "text")
    assert "cannot be read" in refused("tables", "--core", dump(), "--types", tmp_path / "none")


def test_note_that_the_dump_lacks_is_found_in_memory(tables, dump):
    text = NOTE.encode()
    memory = bytes(WHOLE.memory).ljust(16 * PAGE, b"\0")
    memory += struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text
    assert tables("--core", dump(note=None, memory=memory))["mappings"] == tables("--core", dump())["mappings"]


def test_process_is_chosen_or_not_there(tables, refused, dump):
    assert len(tables("--core", dump(), "--pid", made.PID)["mappings"]) == 2
    assert "no such process" in refused("tables", "--core", dump(), "--pid", 77)


def poked(address, value):
    memory = bytearray(WHOLE.memory)
    struct.pack_into("<Q", memory, address - LINEAR - made.BASE, value)
    return memory


def test_list_of_processes_that_is_broken_is_read_from_its_other_end(pfnmap, dump):
    first = WHOLE.symbols["init_task"]
    result = pfnmap("tables", "--core", dump(memory=poked(first + WHOLE.offset("task_struct", "tasks"), 8)), "--json")
    document = json.loads(result.stdout)
    assert len(document["mappings"]) == 2
    assert "list of processes is broken" in document["warnings"][0]
    assert "list of processes is broken" in result.stderr


def test_list_and_tables_that_go_round_in_circles_end(tables, dump):
    slot = 8 * (LARGE >> 39)
    pgd = next(n for n in range(0, len(WHOLE.memory), PAGE) if WHOLE.memory[n + slot] == 0x67) + made.BASE
    row = tables("--core", dump(memory=poked(LINEAR + pgd + slot, pgd | 0x67)))["mappings"][0]
    assert (row["runs"], row["unreadable_tables"] > 0) == ([], True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_ends_and_is_answered_or_refused_in_words(tmp_path, data):
    from pfnmap.plugins import environment
    from pfnmap_tables.compare import compared
    from pfnmap_tables.memory import DAMAGE
    from pfnmap_tables.opening import of_core

    content = bytearray(made.elf(bytes(WHOLE.memory), NOTE))
    said = [at for at in range(0, len(content) - 7, 8) if any(content[at : at + 8])]
    word = st.one_of(
        st.integers(0, (1 << 64) - 1), st.integers(0, len(WHOLE.memory)).map(lambda n: LINEAR + made.BASE + n)
    )
    for _ in range(data.draw(st.integers(1, 8))):
        struct.pack_into("<Q", content, data.draw(st.sampled_from(said)), data.draw(word))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path / "damaged"
    path.write_bytes(content)
    try:
        target = of_core(str(path), None)
        assert target.thp() in (None, "always", "madvise", "never")
        with suppress(*DAMAGE):  # the command refuses for it
            for one in compared(target, KERNEL, environment(), None, lambda said: None):
                json.dumps(one.as_json(KERNEL))
    except PfnmapError:  # what the command says in words
        pass
