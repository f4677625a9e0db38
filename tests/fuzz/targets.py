"""What is fuzzed: one target a reader. A target takes bytes, and may raise nothing but a `PfnmapError`."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from pfnmap.cli.app import app
from pfnmap.errors import PfnmapError
from pfnmap.host.dotconfig import parse_dotconfig
from pfnmap.host.gitlog import read_gitlog
from pfnmap.host.input import KINDS, parse_input
from pfnmap.host.tree import open_tree
from pfnmap.kconfig_parser import parse as parse_kconfig
from pfnmap.plugins import Registry
from pfnmap.release import parse_release
from pfnmap.scenario import read_recording, read_scenario
from pfnmap.sizes import parse_bar, parse_size
from pfnmap.testing.vectors import read_vectors

__all__ = ["TARGETS", "Target", "finding"]

ROOT = Path(__file__).parents[2]
REGISTRY = Registry()


@dataclass(frozen=True)
class Target:
    """`run` is given an input; `seeds` are where mutation begins; `words` are put in as they are."""

    run: Callable[[bytes], None]
    seeds: tuple[Path, ...] | tuple[bytes, ...]
    words: tuple[bytes, ...] = ()

    def inputs(self) -> Iterator[bytes]:
        """Yield the seeds, unpacked."""
        for seed in self.seeds:
            raw = seed.read_bytes() if isinstance(seed, Path) else seed
            yield gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw


def finding(target: Target, data: bytes) -> BaseException | None:
    """Return what a target makes of an input where that is a bug."""
    try:
        target.run(data)
    except PfnmapError as error:
        return None if "\n" not in str(error) else error
    except Exception as error:
        return error
    return None


@contextmanager
def file_of(data: bytes, suffix: str = "") -> Iterator[str]:
    """Have an input in a file."""
    handle, name = tempfile.mkstemp(suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        yield name
    finally:
        os.unlink(name)


def reading(read: Callable[[str], object], suffix: str = "") -> Callable[[bytes], None]:
    """Return a target of a reader of files."""

    def run(data: bytes) -> None:
        with file_of(data, suffix) as name:
            read(name)

    return run


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def numbers(data: bytes) -> None:
    for parse in (parse_size, parse_bar):
        try:
            parse(text_of(data), "--bar")
        except PfnmapError:
            continue


CODES = (0, 1, 2, 3)


def commanded(*arguments: str, suffix: str = "") -> Callable[[bytes], None]:
    """Return a target that is a whole command; {} stands for the input's file."""

    def run(data: bytes) -> None:
        with file_of(data, suffix) as name:
            result = CliRunner().invoke(app, [argument.format(name) for argument in arguments])
        if result.exit_code not in CODES or "internal error" in result.output or result.output.count("\x1b"):
            raise AssertionError(f"exit {result.exit_code}: {result.output[-500:]}") from result.exception

    return run


def files(*patterns: str) -> tuple[Path, ...]:
    return tuple(sorted(path for pattern in patterns for path in ROOT.glob(pattern)))


RECORDINGS = tuple(path for path in files("tests/data/recordings/*.json.gz") if path.stat().st_size < 6000)
SCENARIOS = files("examples/scenarios/*.toml")
SCENARIO_WORDS = (
    b"[[step]]\n",
    b"[[device]]\n",
    b'op = "',
    b"m0+",
    b"true",
    b"[]",
    b"{}",
    b"0x",
    b'"""',
    b"= -1",
    b"1e9",
)
JSON_WORDS = (b"null", b"true", b"[]", b"{}", b"-1", b"1.5", b'"0x"', b'"', b"18446744073709551616", b'{"a":1}')
LOG_WORDS = (b"Revert ", b"This reverts commit ", b"commit ", b" upstream.", b"Linux 6.", b"0" * 40, b"Merge ", b"\n\n")
PASTE_WORDS = (
    b"<br>",
    b"&#1;",
    b"\x1b[0m",
    b"=3D",
    b"Region 0: Memory at ",
    b"[size=",
    b"0x",
    b"-",
    b"\xc2\xa0",
    b"<p",
)

VECTORS = b"""{"schema": "pfnmap-vectors/1", "arch": "x86_64", "kernel": "6.12.117",
 "machine": {"config": {"64BIT": "y"}, "cpu": {"la57": false}},
 "constants": {"PAGE_SHIFT": "0xc", "MAX_PHYSMEM_BITS": "0x34"},
 "bits": {"_PAGE_PRESENT": "0x1"}, "defined": {"pte_pfn": "arch", "pmd_special": "generic", "pud_mkhuge": "absent"},
 "vectors": {"pte_pfn": [["0x1067", "0x1"], ["0x0", "0x0"]], "pmd_special": [["0x0", "0x0"]],
  "composite_insert_pfn_pte": [["0x1", "0x27", "0x1", "0x1067"]], "vm_get_page_prot": [["0xf", "0x27"]]},
 "trapped_inputs_skipped": {"pte_modify": 3}}"""

TARGETS: dict[str, Target] = {
    "scenario": Target(reading(read_scenario, ".toml"), SCENARIOS, SCENARIO_WORDS),
    "recording": Target(reading(lambda name: read_recording(name, REGISTRY)), RECORDINGS, JSON_WORDS),
    "vectors": Target(reading(read_vectors), (VECTORS,), JSON_WORDS),
    "config": Target(
        lambda data: void(parse_dotconfig(text_of(data))),
        (b'# Linux/x86 6.12.117 Kernel Configuration\nCONFIG_X86_64=y\n# CONFIG_A is not set\nCONFIG_B="a\\\\b"\n',),
        (b"CONFIG_", b"=y\n", b" is not set", b"# Linux/", b" Kernel Configuration"),
    ),
    "kconfig": Target(
        lambda data: void(parse_kconfig([("fuzz", text_of(data))])),
        files("core/src/pfnmap/Kconfig", "plugins/*/src/*/Kconfig"),
        (
            b"config A\n",
            b"\tdepends on ",
            b"$(shell,touch /tmp/pwned)",
            b"\\\n",
            b"if ",
            b"choice\n",
            b"source ",
            b"(",
            b"!",
        ),
    ),
    "input": Target(
        lambda data: void(parse_input(text_of(data), "fuzz", KINDS)), files("examples/lspci/*.txt"), PASTE_WORDS
    ),
    "log": Target(
        lambda data: void(read_gitlog(io.BytesIO(data), "fuzz")), files("tests/data/changes/*.log"), LOG_WORDS
    ),
    "profile": Target(
        reading(lambda name: parse_release(name), ".toml"),
        (b'schema = "pfnmap-profile/1"\nbase = "6.12.94"\n[changes]\nhuge-pfnmap = "yes"\nmseal = "unknown"\n',),
        (b'"yes"', b"[changes]", b"base = ", b"[]", b"{}", b"9" * 30),
    ),
    "release": Target(
        lambda data: void(parse_release(text_of(data).replace("/", "").removesuffix(".toml"))),
        (b"6.12.117", b"posted-v2", b"6.1.0-56-amd64", b"5.14.0-503.el9.x86_64", b"v6.13-rc3", b"6.8.0-40-generic"),
        (b"-rc", b".el9", b".", b"-", b"+deb12", b"~"),
    ),
    "numbers": Target(
        numbers, (b"8G@0x800000000", b"0x200000", b"128GiB", b"4096"), (b"0x", b"G", b"iB", b"@", "٣".encode(), b"-")
    ),
    "tree": Target(reading(lambda name: void(open_tree(name)), ".tar"), files("examples/hosts/*-9.2.tar.xz")),
    "run": Target(
        commanded("run", "{}", "--limit", "ops=20K", "--limit", "seconds=5", suffix=".toml"), SCENARIOS, SCENARIO_WORDS
    ),
    "plan": Target(
        commanded("plan", "{}"), (*SCENARIOS, *files("examples/lspci/*.txt")), (*SCENARIO_WORDS, *PASTE_WORDS)
    ),
    "replay": Target(commanded("replay", "{}", "--limit", "ops=20K", "--limit", "seconds=5"), RECORDINGS, JSON_WORDS),
}


def void(result: object) -> None:
    """Take what a reader gives."""
