"""The guest's init: what it can do is what the host asks for, and it is built the same each time."""

from __future__ import annotations

import importlib.util
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from pfnmap_verify.recorder import GUEST_OPS

ROOT = Path(__file__).parents[1]
CONTROL = {"module", "probe", "record", "trace", "vfio", "vm_create", "wire"}
"""What is asked for around records."""


def test_every_op_of_a_step_is_in_the_guests_table() -> None:
    table = (ROOT / "guest/ops.c").read_text().partition("const struct op ops[]")[2]
    ops = re.findall(r'\{ "([\w.]+)", do_\w+ \}', table)
    assert ops == sorted(ops)
    assert set(ops) == GUEST_OPS | CONTROL


@pytest.mark.parametrize("arch", ["x86_64", "arm64", "riscv64"])
def test_the_installed_program_is_a_static_one_of_its_architecture(arch: str) -> None:
    program = (resources.files("pfnmap_verify") / "guests" / f"init-{arch}").read_bytes()
    machine = {"x86_64": 62, "arm64": 183, "riscv64": 243}[arch]
    assert program[:4] == b"\x7fELF"
    assert int.from_bytes(program[18:20], "little") == machine
    headers = int.from_bytes(program[32:40], "little")
    types = [int.from_bytes(program[headers + 56 * n : headers + 56 * n + 4], "little") for n in range(program[56])]
    assert 3 not in types, "a PT_INTERP asks for a dynamic linker"


def _build_hook() -> Any:
    spec = importlib.util.spec_from_file_location("build_guest", ROOT / "build_guest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("ziglang", reason="ziglang, a build requirement, is not installed")
    hook = _build_hook()
    for name in ("one", "other"):
        hook.build("x86_64", ROOT / "guest", tmp_path / name / "init")
    assert (tmp_path / "one/init").read_bytes() == (tmp_path / "other/init").read_bytes()
