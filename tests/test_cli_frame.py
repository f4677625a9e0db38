"""What every command has in common: usage, errors, exit codes, streams, and what is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from pfnmap import cli
from pfnmap.errors import BadInput, Refused

COMMANDS = sorted(p.name for p in entry_points(group="pfnmap.command") if p.dist and p.dist.name == "pfnmap")


def test_the_cores_commands_are_installed_as_commands_of_plugins_are():
    files = (Path(cli.__file__).parent / f"{name}.py" for name in COMMANDS)
    assert len(COMMANDS) > 8
    assert all(file.is_file() for file in files)
    assert "new" in COMMANDS


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_is_the_distributions(pfnmap, option):
    assert pfnmap(option).stdout == f"pfnmap {version('pfnmap')}\n"


def test_help_names_every_command(pfnmap):
    text = pfnmap("--help").stdout
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(pfnmap, command):
    result = pfnmap(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert "<bool>" not in result.stdout


def test_flags_show_no_type(pfnmap):
    assert "<bool>" not in pfnmap("--help").stdout


def test_completion_is_shown_and_completes_commands(pfnmap):
    assert "_PFNMAP_COMPLETE" in pfnmap("--show-completion", "bash").stdout
    env = {"_PFNMAP_COMPLETE": "complete_bash", "COMP_WORDS": "pfnmap pl", "COMP_CWORD": "1"}
    assert pfnmap(env=env).stdout.split() == ["plan", "plugins"]


def test_completion_is_installed(process, tmp_path):
    done = process("--install-completion", "bash", env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "_PFNMAP_COMPLETE" in (tmp_path / ".bash_completions" / "pfnmap.sh").read_text()


def test_no_command_prints_the_help_and_is_bad_usage(pfnmap):
    result = pfnmap()
    assert result.exit_code == 2
    assert "Commands" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("plann",),
        ("plan", "--baar", "1"),
        ("plan", "--bar"),
        ("kconfig",),
        ("run",),
        ("replay",),
        ("check",),
        ("check", "--laws"),
        ("check", "x86_64", "file.json"),
        ("check", "x86"),
        ("plugins", "extra"),
        ("changes", "6.12", "6.13", "6.14"),
        ("--nonsense",),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(refused, arguments):
    refused(*arguments)


@pytest.fixture
def failing(monkeypatch):
    """Let every command fail with an exception when it makes its registry."""

    def fail(error):
        def raising(*_, **__):
            raise error

        monkeypatch.setattr("pfnmap.plugins.Registry.__init__", raising)

    return fail


def test_an_unforeseen_exception_is_one_line_without_traceback(pfnmap, failing):
    failing(KeyError("x\ny"))
    result = pfnmap("plugins")
    assert result.exit_code == 2
    assert result.stderr == "pfnmap: internal error: KeyError: 'x\\ny'; --debug shows the traceback\n"


@pytest.mark.parametrize("arguments", [("--debug", "plugins"), ("plugins", "--debug")])
def test_debug_shows_the_traceback_before_or_behind_the_command(pfnmap, failing, arguments):
    failing(KeyError("x"))
    result = pfnmap(*arguments)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(("error", "code"), [(BadInput("file", "what"), 2), (Refused("op", "why"), 3)])
def test_an_error_decides_its_exit_code(refused, failing, error, code):
    failing(error)
    assert refused("plugins", exit_code=code) == f"pfnmap: {error}"


def test_an_interrupt_ends_quietly(pfnmap, failing):
    failing(KeyboardInterrupt())
    result = pfnmap("plugins")
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_control_characters_in_a_name_do_not_reach_the_terminal(refused):
    line = refused("run", "a\x1b[31m\nb")
    assert "\x1b" not in line
    assert "\\x1b[31m" in line


@pytest.mark.parametrize("arguments", [["changes"], ["changes", "--json"], ["plan", "--bar", "1G"], ["--help"], ["-V"]])
def test_a_closed_pipe_is_no_error_and_exit_141(arguments):
    writer = subprocess.Popen(
        [sys.executable, "-c", "from pfnmap.cli import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    errors = writer.stderr.read()
    assert writer.wait(timeout=60) == 141
    assert errors == b""


INTERRUPTED = """
import os, signal, sys
from pfnmap.cli import main
import pfnmap.release
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is started with it ignored
pfnmap.release.facts = lambda registry: os.kill(os.getpid(), signal.SIGINT)
main()
"""


def test_control_c_is_exit_130(process):
    done = process("changes", code=INTERRUPTED)
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr


NO_NUMPY = """
import sys
from pfnmap.cli import main
try:
    main()
finally:
    assert "numpy" not in sys.modules
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("plugins",),
        ("caps", "--json"),
        ("kconfig", "x86_64", "--json"),
        ("kconfig", "arm64", "--explain", "ARCH_SUPPORTS_PMD_PFNMAP"),
        ("plan", "--bar", "8G@0x800000000"),
        ("plan", "--bar", "8G@0x800000000", "--json"),
        ("changes", "6.12.117"),
    ],
)
def test_numpy_is_not_imported(process, arguments):
    result = process(*arguments, code=NO_NUMPY)
    assert result.returncode == 0, result.stderr


def test_help_and_version_import_neither_kernel_nor_tables(process):
    code = (
        "import sys; from pfnmap.cli.app import app\n"
        "heavy = {'pfnmap.kernel', 'pfnmap.kconfig_parser', 'rich.table'}\n"
        "try:\n app()\nfinally:\n assert not heavy & set(sys.modules)"
    )
    result = process("--version", code=code)
    assert result.returncode == 0, result.stderr


def test_warnings_do_not_mix_with_the_json_document(pfnmap):
    result = pfnmap("caps", "x86_64", "--set", "ARM64_16K_PAGES=y", "--json")
    assert result.exit_code == 0
    json.loads(result.stdout)
    assert "ARM64_16K_PAGES" in result.stderr
    assert "unused" in result.stderr


@pytest.mark.parametrize("arguments", [("plan", "--bar", "4M@0x100000000", "-q"), ("caps", "x86_64"), ("plugins",)])
def test_a_short_command_imports_neither_pydantic_nor_numpy(process, arguments):
    code = (
        "import sys\nfrom pfnmap.cli import main\ntry: main()\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'pydantic', 'rich'} & sys.modules.keys()), file=sys.stderr)"
    )
    assert process(*arguments, code=code).stderr == "[]\n"
