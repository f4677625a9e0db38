"""What a terminal is given: never a code of somebody else's text, whatever that text is and wherever it stands."""

from __future__ import annotations

import ast
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli
import tomli_w

RECORDING = Path(__file__).parent / "data" / "recordings" / "iommufd-6.12.117.json.gz"
NASTY = "\x1b[31m\x1b]0;title\x07\u202e\x9b2J[/x][red]\x7f\r\n"
"""Colours, a window's title, text from right to left, an 8-bit code, rich's markup, and lines of their own."""
CODES = ("\x1b", "\x07", "\u202e", "\x9b", "\x7f", "\r")
ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-c", "from pfnmap.cli import main; main()"]


def assert_clean(text: str) -> None:
    for code in CODES:
        assert code not in text, repr(text[max(text.index(code) - 60, 0) :][:120])


@pytest.fixture
def clean(pfnmap, monkeypatch) -> Callable[..., Any]:
    """Run a command in a pipe, and as wide as a terminal: no code in it, and nothing goes wrong inside."""

    def run(*arguments: Any, input: str | None = None) -> Any:
        for columns in (None, "60"):
            if columns:
                monkeypatch.setenv("COLUMNS", columns)
            result = pfnmap(*arguments, input=input)
            assert_clean(result.output)
            assert "internal error" not in result.output
            assert result.exit_code in (0, 1, 2, 3)
        return result

    return run


def strings(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where the texts of a document stand."""
    if isinstance(document, str):
        yield path
    elif isinstance(document, (dict, list)):
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from strings(value, (*path, key))


def with_nasty(document: Any, path: tuple[Any, ...], only: bool) -> Any:
    """Return a copy in which the text at a path is nasty; `only`: nothing of the old one is left."""
    if not path:
        return NASTY if only else document + NASTY
    copy = document.copy()
    copy[path[0]] = with_nasty(document[path[0]], path[1:], only)
    return copy


SCENARIO = tomli.loads(
    """
[kernel]
arch = "x86_64"
release = "6.12.117"
thp = "always"
with = ["huge-pfnmap"]
page_size = "4K"
[kernel.set]
PREEMPT_RT = "n"
[kernel.cpu]
la57 = "0"
[[device]]
name = "gpu"
bdf = "0000:01:00.0"
driver = "vfio_pci"
[[device.bar]]
index = 2
size = "8G"
phys = "0x800000000"
[[step]]
op = "mmap"
id = "m0"
device = "gpu"
bar = 2
length = "8G"
prot = "rw"
shared = true
[step.expect]
result = "ok"
[[step]]
op = "touch"
va = "m0"
access = "read"
at = "m0"
[step.expect]
result = "SIGBUS"
"""
)


@pytest.mark.parametrize("path", list(strings(SCENARIO)), ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("only", [True, False])
def test_every_text_of_a_scenario_is_printed_without_its_codes(clean, tmp_path, path, only):
    file = tmp_path / "scenario.toml"
    file.write_text(tomli_w.dumps(with_nasty(SCENARIO, path, only)))
    clean("run", file, "--trace", "--dump")
    clean("plan", file)


def test_keys_of_a_scenario_are_printed_without_their_codes(clean, tmp_path):
    file = tmp_path / "scenario.toml"
    for key in ("kernel", "device", "step"):
        document = {**SCENARIO, key: SCENARIO[key]}
        table = document[key] if key == "kernel" else document[key][0]
        changed = {**table, NASTY: 1}
        document[key] = changed if key == "kernel" else [changed]
        file.write_text(tomli_w.dumps(document))
        clean("run", file)
        clean("plan", file)


def test_names_of_files_are_printed_without_their_codes(clean, tmp_path):
    nasty = NASTY.replace("/", "|")
    (tmp_path / f"{nasty}.toml").write_text(tomli_w.dumps(SCENARIO))
    (tmp_path / f"{nasty}.log").write_text("0" * 40 + "\nLinux 6.12\n\n")
    (tmp_path / f"{nasty}.profile.toml").write_text('schema = "pfnmap-profile/1"\nbase = "6.12"\n[changes]\n')
    (tmp_path / f"{nasty}.json").write_text("{}")
    (tmp_path / f"{nasty}.config").write_text(f"# Linux/x86 6.1.0{NASTY} Kernel Configuration\nCONFIG_X86_64=y\n")
    (tmp_path / f"{nasty}.lspci").write_text(
        f"01:00.0 3D {NASTY[:-2]}controller: X{NASTY[:-2]}\n"
        "\tRegion 0: Memory at 800000000 (64-bit, prefetchable) [size=8G]\n"
    )
    clean("run", tmp_path / f"{nasty}.toml")
    clean("plan", tmp_path / f"{nasty}.lspci", "--config", tmp_path / f"{nasty}.config")
    clean("plan", "-q", tmp_path / f"{nasty}.lspci", "--release", tmp_path / f"{nasty}.profile.toml")
    clean("changes", tmp_path / f"{nasty}.profile.toml", "6.12")
    clean("changes", "--log", tmp_path / f"{nasty}.log")
    clean("replay", tmp_path / f"{nasty}.json")
    clean("check", "x86_64", "--vectors", tmp_path / f"{nasty}.json")
    clean("new", "driver", "abc", tmp_path / f"{nasty}.new")


@pytest.mark.parametrize(
    "arguments",
    [
        [NASTY],
        ["plan", NASTY],
        ["plan", "--bar", NASTY],
        *(["plan", "--bar", "8G", option, NASTY] for option in ("--release", "--arch", "--with", "--set", "--cpu")),
        *(["plan", "--bar", "8G", option, NASTY] for option in ("--vmm", "--va", "--thp", "--against", "--mmap-base")),
        ["plan", "--bar", "8G", f"--{NASTY}"],
        ["plan", "--bar", "8G", "--vmm", "qemu", "--vmm-opt", NASTY],
        ["plan", "--bar", "8G", "--set", f"PREEMPT_RT={NASTY}"],
        ["plan", "--bar", "8G", "--release", f"6.12.1-{NASTY}"],
        ["plan", "--bar", "8G", "--release", "6.12.1-\x1b]0;x\x07\u202e"],
        ["kconfig", NASTY],
        ["kconfig", "x86_64", NASTY],
        ["kconfig", "x86_64", "--explain", NASTY],
        ["kconfig", "x86_64", "--explain", "DEFAULT_HOSTNAME"],
        ["caps", NASTY],
        ["changes", NASTY],
        ["check", NASTY],
        ["new", NASTY, "x"],
        ["new", "arch", NASTY],
        ["vmm", NASTY],
    ],
)
def test_what_the_command_line_says_is_printed_without_its_codes(clean, arguments):
    clean(*arguments)


def test_a_log_is_told_of_without_its_codes(clean, tmp_path):
    log = tmp_path / "log"
    picked = "commit e384abeb559d10d6505aec053ede9368d81d4c71 upstream."
    nasty = NASTY[:-2]
    one, other = "1" * 40, "2" * 40
    log.write_text(f'{one}\nRevert "{nasty}"\n\nThis reverts commit {other}.\n\n{other}\n{nasty}\n\n{picked}\n')
    clean("changes", "--log", log)


def test_colours_on_a_terminal_are_only_those_of_the_answer(tmp_path):
    """Progress and tables are drawn by rich, whose markup an input's names are not."""
    file = tmp_path / "[red]\x1b]0;x\x07[|x].toml"
    document = with_nasty(with_nasty(SCENARIO, ("device", 0, "name"), True), ("step", 0, "device"), True)
    file.write_text(tomli_w.dumps(document))
    assert "\\x1b[31m" in on_terminal("run", str(file)).replace("\r\n", "")
    (tmp_path / "[").mkdir()
    (tmp_path / "[" / "x]\x1b]0;x\x07.json").write_bytes(RECORDING.read_bytes())
    assert "[/x]" in on_terminal("replay", str(tmp_path / "[")).replace("\r\n", "")


def test_a_run_shows_on_a_terminal_how_far_it_is_and_in_a_pipe_nothing_of_it(tmp_path):
    file = tmp_path / "one.toml"
    file.write_text(tomli_w.dumps(SCENARIO))
    shown = on_terminal("run", str(file))
    assert "steps ━" in re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert shown.rstrip().endswith("\x1b[2K")  # and is gone at the end
    piped = subprocess.run([*PROGRAM, "run", str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert (piped.stderr, "━" in piped.stdout, "\x1b" in piped.stdout) == ("", False, False)


def test_a_batch_shows_on_a_terminal_how_many_hosts_are_answered(tmp_path):
    file = tmp_path / "hosts.jsonl"
    file.write_text('{"bar": "1G"}\n' * 3)
    reader, writer = pty.openpty()
    command = [*PROGRAM, "plan", "--batch", str(file)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=writer, env={**os.environ, "TERM": "xterm"}, check=True
    )
    os.close(writer)
    shown = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert re.search(r"\d hosts", shown)
    assert shown.endswith("\x1b[2K")  # and is gone at the end
    assert done.stdout.count(b"\n") == 3
    piped = subprocess.run(command, capture_output=True, check=True)
    assert (piped.stderr, piped.stdout) == (b"", done.stdout)


PRINTS = {"core/src/pfnmap/cli/terminal.py", "core/src/pfnmap/cli/app.py", "core/src/pfnmap/cli/streams.py"}
"""Where the gate itself is."""
DRAWS = {
    *PRINTS,
    "core/src/pfnmap/cli/kconfig.py",
    "core/src/pfnmap/report/text.py",
    "verify/src/pfnmap_verify/progress.py",
}


def test_nothing_but_the_gate_prints_or_draws():
    """A module that prints or draws by itself is one whose inputs' names nobody escapes."""
    sources = [p for pattern in ("core/src", "plugins/*/src", "verify/src") for p in ROOT.glob(f"{pattern}/**/*.py")]
    prints, draws = set[str](), set[str]()
    for path in sources:
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                prints.add(name)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rich":
                draws.add(name)
    assert sorted(p for p in prints - PRINTS if "/testing/" not in p) == []
    assert sorted(draws - DRAWS) == []


def on_terminal(*arguments: str) -> str:
    """Return what a command prints on a terminal; a title is never set, nothing turned around."""
    reader, writer = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *arguments], stdin=writer, stdout=writer, stderr=writer, env={**os.environ, "TERM": "xterm"}
    )
    os.close(writer)
    said = b""
    while True:
        try:
            piece = os.read(reader, 1 << 16)
        except OSError:  # the terminal's other end is closed
            break
        if not piece:
            break
        said += piece
    os.close(reader)
    assert process.wait(timeout=60) in (0, 1, 2, 3)
    text = said.decode()
    for code in ("\x1b]", "\x07", "\u202e", "\x9b", "\x7f"):
        assert code not in text
    assert "internal error" not in text
    return text


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = f"{sys.executable} -c 'from pfnmap.cli import main; main()'"
    return subprocess.run(
        ["bash", "-c", command.replace("PFNMAP", program)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("PFNMAP changes > /dev/full", 2, "pfnmap: standard output: No space left on device\n"),
        ("PFNMAP --version > /dev/full", 2, "pfnmap: standard output: No space left on device\n"),
        ("PFNMAP changes --json >&-", 2, "pfnmap: standard output: closed\n"),
        ("PFNMAP plan - <&-", 2, "pfnmap: standard input: closed\n"),
        ("PFNMAP plan nothing 2> /dev/full", 2, ""),
        ("PFNMAP plan nothing 2>&-", 2, ""),
        ("set -o pipefail; { PFNMAP plan nothing 2>&1 1>&3 | true; } 3>&1", 2, ""),
    ],
)
def test_streams_that_are_full_or_closed_are_no_fault_of_the_program(command, code, said):
    result = shell(command)
    assert (result.returncode, result.stderr) == (code, said)


@pytest.mark.parametrize("columns", ["0", "1", "9" * 5000])
def test_any_width_that_somebody_says_is_lived_with(columns):
    result = shell("PFNMAP --help && PFNMAP kconfig x86_64 --explain VFIO_PCI", COLUMNS=columns, TERMINAL_WIDTH=columns)
    assert (result.returncode, result.stderr) == (0, "")


def test_names_that_the_locale_cannot_write_are_escaped(tmp_path):
    file = tmp_path / "ѓ.toml"
    file.write_text(tomli_w.dumps(with_nasty(SCENARIO, ("device", 0, "bdf"), True)))
    document = {**SCENARIO, "device": [{**SCENARIO["device"][0], "name": "ѓ"}]}
    document["step"] = [{**SCENARIO["step"][0], "device": "ѓ"}]
    file.write_text(tomli_w.dumps(document))
    result = shell(f"PFNMAP run '{file}'", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert result.returncode == 0, result.stderr
    assert "\\u0453" in result.stdout


def test_an_error_is_a_screen_at_most(refused):
    assert len(refused("plan", "--bar", "8" * 100_000)) < 1100
    assert len(refused("run", "x" * 100_000)) < 1100
