"""Bad input of each kind: one line that says what and where, exit 2, no traceback, bounded time and memory."""

from __future__ import annotations

import gzip
import json
import sys

import pytest

READERS = {
    "plan --lspci": ("plan", "--lspci"),
    "plan": ("plan",),
    "run": ("run",),
    "replay": ("replay",),
    "check": ("check", "x86_64", "--vectors"),
    "--config": ("caps", "x86_64", "--config"),
    "changes --log": ("changes", "--log"),
}
readers = pytest.mark.parametrize("command", READERS.values(), ids=READERS)


@readers
def test_a_missing_file(refused, command):
    assert "not/there: no such file" in refused(*command, "not/there")


@readers
def test_a_directory(refused, command, tmp_path):
    assert str(tmp_path) in refused(*command, tmp_path)


@readers
@pytest.mark.parametrize("content", [b"", b"\0\1\2\3" * 100, b"\xff\xfe\xfd" * 100, b"{[<" * 100, b"[" * 100_000])
def test_an_empty_a_binary_and_a_garbled_file(refused, command, tmp_path, content):
    path = tmp_path / "input"
    path.write_bytes(content)
    assert str(path) in refused(*command, path)


@readers
def test_a_truncated_gzip_file(refused, command, root, tmp_path):
    whole = (root / "plugins/x86_64/tests/data/x86_64-4k.json.gz").read_bytes()
    path = tmp_path / "input.gz"
    path.write_bytes(whole[: len(whole) // 2])
    assert str(path) in refused(*command, path)


def test_a_truncated_recording_and_vector_file(refused, root, tmp_path):
    path = tmp_path / "half.json"
    text = (root / "tests/data/cli/recording.json").read_text()
    path.write_text(text[: len(text) // 2])
    assert f"{path}: not JSON" in refused("replay", path)
    text = gzip.decompress((root / "plugins/x86_64/tests/data/x86_64-4k.json.gz").read_bytes()).decode()
    path.write_text(text[: len(text) // 2])
    assert f"{path}: not JSON" in refused("check", "x86_64", "--vectors", path)


@readers
def test_a_gigabyte_of_zeros_in_little_memory(process, command, tmp_path):
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (512 << 20,) * 2); from pfnmap.cli import main; main()"
    )
    result = process(*command, str(path), code=code, timeout=20)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"pfnmap: {path}: ")
    assert "internal error" not in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    path = tmp_path_factory.mktemp("bomb") / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(1024):
            file.write(bytes(1 << 20))
    return path


@readers
def test_a_small_file_that_expands_to_a_gigabyte(process, command, bomb):
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30,) * 2); from pfnmap.cli import main; main()"
    )
    result = process(*command, str(bomb), code=code, timeout=30)
    assert (result.returncode, result.stdout) == (2, "")
    assert "internal error" not in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("bar", "says"),
    [
        ("8GB@0x800000000", "unknown unit 'GB'"),
        ("8Gb@0x800000000", "unknown unit"),
        ("1.5G@0x800000000", "not a whole number"),
        ("-8G@0x0", "negative"),
        ("0@0x0", "not a power of two"),
        ("3M@0x0", "not a power of two"),
        ("8G@800000000", "0x800000000"),
        ("8G@0x80000001", "not a multiple of its size"),
        ("8G@0x1ffffffffffffffff", "does not fit in 64 bits"),
        ("99999999999G@0x0", "does not fit in 64 bits"),
        ("3G", "not a power of two"),
        ("", "it is empty"),
        ("@", "size"),
    ],
)
def test_a_bar_that_cannot_be(refused, bar, says):
    line = refused("plan", "--bar", bar)
    assert line.startswith("pfnmap: --bar: ")
    assert says in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--va", "0x7fffffffe000"), "address space"),
        (("--va", "0xfffffffffffff000"), "address space"),
        (("--va", "0x1ffffffffffffffff"), "64 bits"),
        (("--va", "0x100000000123"), "multiple"),
        (("--va", "middle"), "--va"),
        (("--offset", "9G"), "offset"),
        (("--offset", "1"), "offset"),
        (("--offset", "2X"), "--offset"),
        (("--length", "0"), "length"),
        (("--length", "16G"), "beyond"),
        (("--mmap-base", "0xffffffffffff0000"), "mmap base"),
        (("--mmap-base", "high"), "--mmap-base"),
        (("--vmm", "qemuu"), "qemuu"),
    ],
)
def test_a_mapping_that_cannot_be(refused, arguments, says):
    assert says in refused("plan", "--bar", "8G@0x800000000", *arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--arch", "x86_65"), "did you mean 'x86_64'"),
        (("--arch", "vax"), "unknown architecture 'vax'"),
        (("--release", "6.12.x"), "unknown release"),
        (("--release", "9.9"), "unknown release"),
        (("--release", "posted-v3"), "did you mean 'posted-v2'"),
        (("--release", "gone.toml"), "gone.toml: no such file"),
        (("--with", "huge-pfnmaps"), "did you mean 'huge-pfnmap'"),
        (("--without", "nonsense"), "unknown change"),
        (("--with", "thp-bypass-pfnmap", "--without", "thp-bypass-pfnmap"), "both"),
        (("--without", "huge-pfnmap"), "requires 'huge-pfnmap'"),
        (("--set", "TRANSPARENT_HUGEPAGES=y"), "did you mean 'TRANSPARENT_HUGEPAGE'"),
        (("--set", "TRANSPARENT_HUGEPAGE"), "SYM=VAL"),
        (("--set", "TRANSPARENT_HUGEPAGE=maybe"), "y or n"),
        (("--page-size", "8K"), "8K"),
        (("--page-size", "4KB"), "page size"),
        (("--thp", "sometimes"), "always, madvise, never"),
        (("--cpu", "la75=on"), "did you mean 'la57'"),
        (("--cpu", "la57=perhaps"), "neither on nor off"),
        (("--cpu", "sme_mask=some"), "not a number"),
        (("--cpu", "la57"), "KEY=VAL"),
    ],
)
def test_a_kernel_that_cannot_be(refused, arguments, says):
    assert says in refused("plan", "--bar", "8G@0x800000000", *arguments)


def test_a_symbol_that_nobody_declares(refused):
    assert "unknown config symbol 'NOPE'" in refused("kconfig", "x86_64", "NOPE")
    assert "unknown config symbol 'NOPE'" in refused("kconfig", "x86_64", "--explain", "NOPE")


DEVICE = '[[device]]\nname = "d"\n[[device.bar]]\nindex = 0\nsize = "2M"\nphys = "0x80000000"\n'
MMAP = '[[step]]\nop = "mmap"\nid = "m"\ndevice = "d"\nbar = 0\noffset = 0\nlength = "2M"\nprot = "rw"\nshared = true\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[kernell]\narch = "x86_64"\n', "did you mean 'kernel'"),
        ('[kernel]\narhc = "x86_64"\n', "did you mean 'arch'"),
        ("[kernel]\narch = 7\n", "arch"),
        ('[kernel]\nset = { THP = "y" }\n' + DEVICE + MMAP, "unknown config symbol"),
        ('[kernel]\nrelease = "9.9"\n' + DEVICE + MMAP, "unknown release"),
        ("a = [", "TOML"),
        (DEVICE.replace("phys", "phyz"), "did you mean 'phys'"),
        (DEVICE.replace('"2M"', '"3M"'), "power of two"),
        (DEVICE.replace('"2M"', '"2MB"'), "unknown unit"),
        (DEVICE + MMAP.replace("mmap", "mmmap"), "did you mean"),
        (DEVICE + MMAP.replace("length", "lenght"), "length"),
        (DEVICE + MMAP.replace('"d"', '"e"'), "device"),
        (DEVICE + MMAP + "expect = { resullt = 'ok' }\n", "did you mean 'result'"),
        (DEVICE + '[[step]]\nop = "touch"\nva = "m9"\naccess = "read"\n', "m9"),
        (DEVICE + '[[step]]\nop = "touch"\nva = 0x1000\naccess = "lick"\n', "lick"),
        (DEVICE + '[[step]]\nop = "acrn.poke"\n', "acrn"),
    ],
)
def test_a_scenario_that_cannot_be(pfnmap, tmp_path, text, says):
    path = tmp_path / "s.toml"
    path.write_text(text)
    result = pfnmap("run", path, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert "internal error" not in result.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("schema"), "r.json: no recording: schema pfnmap-recording/1 or"),
        (lambda d: d.pop("machine"), "r.json: machine is missing"),
        (lambda d: d.update(devices=7), "r.json: devices = 7 is of the wrong kind"),
        (lambda d: d.update(records=[7]), "r.json: record #0: a table was expected"),
        (lambda d: d["records"][0].pop("steps"), "r.json: record entry.pud.8G.read_then_write: steps is missing"),
        (lambda d: d["records"][0]["steps"][0].update(op=7), "write step 0: a step is a table with an op"),
        (lambda d: d["machine"].update(release="9.9"), "r.json: machine: unknown release '9.9'"),
        (lambda d: d["machine"].update(cpu={"la75": True}), "r.json: machine: unknown cpu key of x86_64 'la75'"),
        (lambda d: d["kernel"].update(arch="vax"), "r.json: machine: unknown architecture 'vax'"),
        (lambda d: d["devices"][0]["bars"][0].update(phys=None), "r.json: device 0 bar 0: phys = None is of the wrong"),
    ],
)
def test_a_recording_that_cannot_be(refused, root, tmp_path, change, said):
    document = json.loads((root / "tests/data/cli/recording.json").read_text())
    change(document)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(document))
    assert said in refused("replay", path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("schema"), "v.json: schema: None, expected 'pfnmap-vectors/1'"),
        (lambda d: d.pop("machine"), "v.json: machine: expected an object"),
        (lambda d: d.update(vectors=[1]), "v.json: vectors: expected an object"),
        (lambda d: d.update(kernel="9.9"), "unknown release '9.9'"),
        (
            lambda d: d["vectors"]["pmd_special"].append(["0xg", "0x0"]),
            "v.json: pmd_special row 40: '0xg' is not a",
        ),
        (lambda d: d["vectors"]["pmd_special"].append(["0x0"]), "v.json: pmd_special row 40: expected a list of 2 hex"),
        (lambda d: d["machine"].update(cpu={"la75": True}), "unknown cpu key of x86_64 'la75'"),
    ],
)
def test_vectors_that_cannot_be(refused, root, tmp_path, change, said):
    document = json.loads(gzip.decompress((root / "plugins/x86_64/tests/data/x86_64-4k.json.gz").read_bytes()))
    change(document)
    path = tmp_path / "v.json"
    path.write_text(json.dumps(document))
    assert said in refused("check", "x86_64", "--vectors", path)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/zero")
@readers
def test_a_device_without_end(process, command):
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30,) * 2); from pfnmap.cli import main; main()"
    )
    result = process(*command, "/dev/zero", code=code, timeout=30)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("digits", ["9" * 5000, "٦", "²"], ids=["long", "arabic", "superscript"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "--bar", "{}"),
        ("plan", "--bar", "8G@{}"),
        ("plan", "--bar", "8G", "--va", "{}"),
        ("plan", "--bar", "8G", "--offset", "{}"),
        ("plan", "--bar", "8G", "--mmap-base", "{}"),
        ("plan", "--bar", "8G", "--release", "6.{}"),
        ("plan", "--bar", "8G", "--release", "{}.12"),
        ("plan", "--bar", "8G", "--cpu", "phys_bits={}"),
        ("plan", "--bar", "8G", "--vmm", "qemu-{}"),
        ("plan", "--bar", "8G", "--vmm", "qemu", "--msix", "0:{}:4"),
        ("plan", "--bar", "8G", "--vmm", "qemu", "--sparse", "0:0:{}"),
        ("changes", "6.12.{}"),
        ("vmm", "qemu-{}"),
    ],
)
def test_digits_that_make_no_number_are_one_line(refused, arguments, digits):
    assert len(refused(*(argument.format(digits) for argument in arguments))) < 1100
