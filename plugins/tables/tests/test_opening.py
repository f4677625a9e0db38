"""Targets that are none: each is one line that says what would help."""

from __future__ import annotations

import os
import socket
import struct
import threading

import pytest

from pfnmap.errors import BadInput, PfnmapError, Refused
from pfnmap_tables.note import _note
from pfnmap_tables.opening import of_core, of_live, of_qmp

TEXT = b"OSRELEASE=6.12.117\nPAGESIZE=4096\nSYMBOL(swapper_pg_dir)=ffffffff81000000\n"
NOTE = struct.pack("<III", 11, len(TEXT), 0) + b"VMCOREINFO\0\0" + TEXT


def test_note_is_found_wherever_it_lies_in_memory():
    assert _note(iter([bytes(100) + NOTE + bytes(50)])) == TEXT
    for cut in (5, 13, 30, len(NOTE) - 1):  # between two reads
        assert _note(iter([bytes(64) + NOTE[:cut], NOTE[cut:] + bytes(64)])) == TEXT


def test_text_without_its_header_is_no_note():
    assert _note(iter([bytes(12) + NOTE[12:]])) is None
    assert _note(iter([NOTE[12:]])) is None
    assert _note(iter([])) is None


def elf(machine=62, kind=4, segments=b""):
    """An ELF core's header: x86-64, of one memory segment that has nothing."""
    head = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    return head + struct.pack("<IIQQQQQQ", 1, 4, 120, 0, 0, len(segments), len(segments), 0) + segments


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text\n" * 100,
        elf(),
        elf(segments=NOTE),
        elf(machine=22),
        b"\x7fELF",
        b"KDUMP   " + bytes(4096),
        elf()[:70],
    ],
    ids=["empty", "text", "elf", "elf with a note and nothing else", "s390", "cut", "kdump", "cut header"],
)
@pytest.mark.parametrize("arch", [None, "x86_64"])
def test_what_is_no_dump_is_refused_by_name(tmp_path, content, arch):
    path = tmp_path / "core"
    path.write_bytes(content)
    with pytest.raises(PfnmapError, match=str(path)):
        of_core(str(path), arch)


def test_architecture_whose_tables_are_not_read_is_refused(tmp_path):
    path = tmp_path / "core"
    path.write_bytes(elf())
    with pytest.raises(Refused, match="s390"):
        of_core(str(path), "s390")


def test_missing_file_and_folder_are_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        of_core(str(tmp_path / "none"), None)
    with pytest.raises(BadInput, match="no file"):
        of_core(str(tmp_path), None)


def test_socket_that_is_not_there_refuses_or_does_not_greet(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="cannot be connected to"):
        of_qmp(str(tmp_path / "none"), None)
    with pytest.raises(BadInput, match="cannot be connected to"):
        of_qmp("127.0.0.1:1", None)
    monkeypatch.setattr("pfnmap_tables.opening._GREETING", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        with pytest.raises(BadInput, match="another client"):
            of_qmp(str(tmp_path / "silent"), None)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "other"))
        other.listen()
        threading.Thread(target=lambda: other.accept()[0].sendall(b"SSH-2.0\n"), daemon=True).start()
        with pytest.raises(BadInput, match="no QMP socket"):
            of_qmp(str(tmp_path / "other"), None)


def test_running_kernel_is_read_or_refused_with_what_would_help():
    try:
        said = of_live().release
    except Refused as refused:
        said = str(refused)
    assert said == os.uname().release or "a dump will do" in said or "it cannot be read" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [(FileNotFoundError, "not there"), (PermissionError, "only root"), (ValueError, "cannot be read")],
)
def test_kcore_that_cannot_be_read_says_why_and_what_will_do(monkeypatch, error, said):
    class Program:
        def set_kernel(self):
            raise error(1, "x")

    monkeypatch.setattr("pfnmap_tables.opening.Program", Program)
    with pytest.raises(Refused, match=f"/proc/kcore: .*{said}.*a dump will do"):
        of_live()
