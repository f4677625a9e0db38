"""`pfnmap host`: what a host's processes map, read live, from a directory, from a tar file, captured."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pfnmap.host.tree import Directory, TarFile
from pfnmap.survey import attached

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples" / "hosts"
QEMU = "/usr/bin/qemu-system-x86_64"
BY_BAR = {0: 1 << 24, 2: 1 << 38, 4: 1 << 25}


@pytest.fixture
def laid_out(hosts, tmp_path):
    """Write a host below a directory, with changes; None as a content leaves a file out."""

    def write(files, **changes):
        root = tmp_path / f"host{len(list(tmp_path.iterdir()))}"
        hosts.write_directory({p: c for p, c in {**files, **changes}.items() if c is not None}, root)
        return root

    return write


def counts(document):
    return {(row["pid"], row["bar"]): row["counts"] for row in document["mappings"]}


@pytest.mark.parametrize(
    ("version", "gpu_memory", "fix"),
    [
        ("8.2", {"pud": 0, "pmd": 0, "pte": 1 << 26}, "vmm=qemu-10.2"),
        ("9.2", {"pud": 256, "pmd": 0, "pte": 0}, None),
        ("11.0", {"pud": 256, "pmd": 0, "pte": 0}, None),
    ],
)
def test_example_hosts_have_what_their_qemu_places(answer, version, gpu_memory, fix):
    document = answer("host", "--root", EXAMPLES / f"h200-qemu-{version}.tar.xz")
    assert len(document["mappings"]) == 24
    assert counts(document)[4242, 2] == gpu_memory
    assert document["mappings"][0]["vmpte"]["agrees"] is True
    assert {row["fix"]["changes"][0] if row["fix"] else None for row in document["mappings"]} == {fix}
    (vmm,) = document["host"]["vmms"]
    assert (vmm["name"], vmm["version"]) == ("qemu", version)
    assert document["missing"] == []
    assert document["host"]["virtualization"] == "vmx"
    assert document["host"]["cpu"]["phys_bits"] == 52


@pytest.mark.parametrize("version", ["8.2", "9.2", "11.0"])
def test_example_files_are_what_their_script_writes(hosts, version):
    tar = TarFile(EXAMPLES / f"h200-qemu-{version}.tar.xz")
    for path, content in hosts.h200_host(version).items():
        found = tar.link(path) if isinstance(content, hosts.Link) else tar.read(path, 1 << 20)
        assert found == (content.target if isinstance(content, hosts.Link) else content)


def test_directory_tar_and_capture_give_the_same_answer(answer, pfnmap, hosts, laid_out, tmp_path):
    files = hosts.h200_host("8.2")
    root = laid_out(files)
    of_directory = answer("host", "--root", root)
    tar = tmp_path / "host.tar.xz"
    hosts.write_tar(files, tar)
    assert answer("host", "--root", tar) == of_directory
    again = tmp_path / "captured.tar"
    listed = pfnmap("host", "--root", root, "--capture", again)
    assert listed.exit_code == 0
    assert any("/proc/4242/maps" in line for line in listed.stdout.splitlines())
    captured = answer("host", "--root", again)
    captured["host"]["vmms"][0]["executable"] = of_directory["host"]["vmms"][0]["executable"]  # its folder is left out
    assert captured == of_directory


def test_mapping_that_fits_eight_devices_has_them_as_candidates(answer, hosts, laid_out):
    for row in answer("host", "--root", laid_out(hosts.h200_host("8.2")))["mappings"]:
        assert row["device"] is None
        assert row["candidates"] == [gpu.bdf for gpu in hosts.gpus((0, 0, 0))]
        assert sum(row["counts"].values()) == BY_BAR[row["bar"]] // 4096


def test_fdinfo_tells_which_device_it_is(answer, hosts, laid_out):
    document = answer("host", "--root", laid_out(hosts.h200_host("9.2", "6.18.15", syspath=True)))
    by_va = {va: (gpu.bdf, index) for gpu in hosts.gpus((0, 0, 0)) for index, va in gpu.vas.items()}
    found = {int(row["va"], 16): (row["device"], row["bar"]) for row in document["mappings"]}
    assert found == by_va
    assert not any("candidates" in row for row in document["mappings"])


def test_inode_tells_which_mappings_are_of_one_device(answer, hosts, laid_out):
    one, other = hosts.gpus((0, 0, 0), 2)
    other = hosts.Gpu(other.bdf, other.group, {**other.bars, 4: (other.bars[4][0], 1 << 24)}, other.vas)
    files = hosts.machine("6.14.0-27-generic", "1:9.2.1+ds-1")
    files |= hosts.function(one) | hosts.function(other) | hosts.process(7, QEMU, [one, other], 1)
    found = {int(row["va"], 16): row["device"] for row in answer("host", "--root", laid_out(files))["mappings"]}
    assert found == {va: gpu.bdf for gpu in (one, other) for va in gpu.vas.values()}


def test_offset_that_is_a_physical_address_tells_the_device(answer, hosts, laid_out):
    (gpu,) = hosts.gpus((0, 0, 0), 1)
    files = hosts.machine("6.1.0-56-amd64", "1:7.2+dfsg-7")
    files |= hosts.function(gpu) | hosts.process(7, QEMU, [gpu], 1)
    va, (phys, size) = gpu.vas[4], gpu.bars[4]
    maps = f"{va:x}-{va + size:x} rw-s {phys:08x} 00:0e 9633                      anon_inode:[vfio-device]\n"
    document = answer("host", "--root", laid_out(files, **{"/proc/7/maps": maps.encode()}))
    assert [(row["device"], row["bar"], row["va"]) for row in document["mappings"]] == [(gpu.bdf, 4, hex(va))]


def test_driver_that_alters_the_answer_leaves_it_open(answer, hosts, laid_out):
    one, other = hosts.gpus((0, 0, 0), 2)
    files = hosts.machine("6.14.0-27-generic", "1:9.2.1+ds-1")
    files |= hosts.function(one) | hosts.function(other) | hosts.process(7, QEMU, [one], 1)
    device = next(path for path in files if path.endswith(f"{other.bdf}/driver"))
    files[device] = hosts.Link("../../../bus/pci/drivers/nvgrace-gpu-vfio-pci")
    files["/proc/7/fd/90"] = hosts.Link(f"/dev/vfio/{other.group}")
    files["/proc/7/fdinfo/90"] = b""
    rows = {row["bar"]: row for row in answer("host", "--root", laid_out(files))["mappings"]}
    assert rows[2]["candidates"] == rows[0]["candidates"] == [one.bdf, other.bdf]
    assert rows[2]["counts"] is None
    assert rows[2]["runs"] == []
    assert rows[0]["counts"]["pmd"] == 8  # nvgrace-gpu leaves that one to vfio-pci


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        ("/proc/sys/kernel/osrelease", "which kernel it runs"),
        ("/proc/sys/kernel/arch", "its architecture"),
        ("/etc/os-release", "its distribution"),
        ("/boot", "how the kernel was built"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "whether huge pages are on"),
        ("/proc/cpuinfo", "which CPU it has"),
        ("/proc/4242/maps", "what they map"),
        ("/var/lib/dpkg/status", "the versions of the VMMs"),
        ("/sys", "its PCI devices"),
        ("/proc", "which processes map BARs"),
    ],
)
def test_missing_piece_is_named_and_the_rest_is_answered(answer, hosts, laid_out, left_out, told):
    files = {path: content for path, content in hosts.h200_host("9.2").items() if not path.startswith(left_out)}
    document = answer("host", "--root", laid_out(files))
    assert any(one["would_tell"].startswith(told) for one in document["missing"])
    kept = left_out not in ("/proc", "/proc/4242/maps")
    assert bool(document["mappings"]) is kept
    if left_out == "/sys":
        assert {row["device"] for row in document["mappings"]} == {None}


def test_process_without_status_is_answered_without_vmpte(answer, hosts, laid_out):
    document = answer("host", "--root", laid_out(hosts.h200_host("9.2"), **{"/proc/4242/status": None}))
    assert len(document["mappings"]) == 24
    assert {row["vmpte"]["kernel"] for row in document["mappings"]} == {None}
    assert document["host"]["vmms"][0]["name"] == "qemu"


def test_container_without_anything_is_answered(answer, tmp_path):
    document = answer("host", "--root", tmp_path)
    assert document["mappings"] == []
    assert len(document["missing"]) >= 6


def test_what_a_user_says_goes_over_what_the_host_says(answer, hosts, laid_out):
    root = laid_out(hosts.h200_host("9.2"))
    document = answer("host", "--root", root, "--thp", "never")
    assert document["kernel"]["thp"] == "never"
    assert answer("host", "--root", root, "--release", "6.8")["kernel"]["release"] == "6.8"


@pytest.mark.parametrize(("vmpte", "agrees", "status"), [(100 << 30, False, 1), (4096, None, 0), (None, None, 0)])
def test_vmpte_is_compared_with_the_plan(answer, hosts, laid_out, vmpte, agrees, status):
    text = b"Name:\tqemu\n" + (b"" if vmpte is None else b"VmPTE:\t%d kB\n" % (vmpte // 1024))
    root = laid_out(hosts.h200_host("9.2"), **{"/proc/4242/status": text})
    document = answer("host", "--root", root, "--check", exit_code=status)
    check = document["mappings"][0]["vmpte"]
    assert check["agrees"] is agrees
    assert check["kernel"] == vmpte


def test_what_else_a_process_maps_is_allowed_for(answer, hosts, laid_out):
    """256G of other memory take at most a table for each 2M of it, and one for each 1G."""
    check = answer("host", "--root", laid_out(hosts.h200_host("9.2")))["mappings"][0]["vmpte"]
    assert (256 << 9) * 4096 <= check["others_at_most"] <= (256 << 9) * 4096 + (2 << 20)


@pytest.mark.parametrize("where", ["/usr/local/bin", "/opt/qemu/bin", "/home/alice/qemu"])
def test_executable_that_no_package_has_is_of_no_package_s_version(answer, pfnmap, hosts, laid_out, tmp_path, where):
    """Ubuntu's QEMU is installed, and the process runs another."""
    root = laid_out(hosts.h200_host("9.2"), **{"/proc/4242/exe": hosts.Link(f"{where}/qemu-system-x86_64")})
    capture = tmp_path / "x.tar"
    assert pfnmap("host", "--root", root, "--capture", capture).exit_code == 0
    for tree in (root, capture):
        document = answer("host", "--root", tree)
        (vmm,) = document["host"]["vmms"]
        assert (vmm["name"], vmm["version"], vmm["policy"], vmm["package"]) == ("qemu", None, None, None)
        (missing,) = (row for row in document["missing"] if "4242" in row["what"])
        assert "no package" in missing["why"]
    assert answer("host", "--root", laid_out(hosts.h200_host("9.2")))["host"]["vmms"][0]["package"]


def test_reader_of_smaps_is_warned_of(answer, hosts, laid_out):
    reader = {"/proc/99/status": b"Name:\tsmem\n", "/proc/99/maps": b""}
    assert "smem" in answer("host", "--root", laid_out(hosts.h200_host("9.2"), **reader))["warnings"][0]
    assert answer("host", "--root", laid_out(hosts.h200_host("8.2"), **reader))["warnings"] == []


def test_process_that_is_gone_is_one_line(refused, hosts, laid_out):
    root = laid_out(hosts.h200_host("9.2"))
    assert "no such process" in refused("host", "--root", root, "--pid", "4243")
    assert "no such process" in refused("host", "--pid", "4194305")


@pytest.mark.parametrize("limit", ["MAPPINGS", "_CANDIDATES"])
def test_more_mappings_than_are_planned_at_once_are_refused(refused, hosts, laid_out, monkeypatch, limit):
    monkeypatch.setattr(attached, limit, 2)
    assert "--pid chooses one" in refused("host", "--root", laid_out(hosts.h200_host("9.2", count=1)))


def test_more_mappings_and_bars_than_are_tried_are_refused(refused, hosts, laid_out, monkeypatch):
    monkeypatch.setattr(attached, "_TRIED", 8)
    assert "3 mappings of process 4242" in refused("host", "--root", laid_out(hosts.h200_host("9.2", count=1)))


def test_one_process_is_answered(answer, hosts, laid_out):
    files = hosts.h200_host("9.2")
    files |= hosts.process(5000, "/opt/vmm", hosts.gpus((0, 0, 0), 1), 4096)
    root = laid_out(files)
    assert {row["pid"] for row in answer("host", "--root", root)["mappings"]} == {4242, 5000}
    assert {row["pid"] for row in answer("host", "--root", root, "--pid", "5000")["mappings"]} == {5000}


def test_capture_asks_before_it_replaces(pfnmap, refused, hosts, laid_out, tmp_path):
    root, target = laid_out(hosts.h200_host("9.2")), tmp_path / "x.tar"
    target.write_text("mine")
    assert "--force" in refused("host", "--root", root, "--capture", target)
    assert target.read_text() == "mine"
    assert pfnmap("host", "--root", root, "--capture", target, "--force").exit_code == 0
    assert TarFile(target).text("/proc/sys/kernel/osrelease", 100) == "6.14.0-27-generic\n"
    assert "no directory to write it to" in refused("host", "--root", root, "--capture", tmp_path / "no" / "x.tar")
    assert "--capture" in refused("host", "--root", root, "--force")


SECRETS = ("secrethost", "52:54:00:aa:bb:cc", "192.0.2.7", "SN0042", "alice", "guest=payroll")


def test_capture_leaves_out_what_is_of_nobody_s_concern(pfnmap, hosts, laid_out, tmp_path):
    files = hosts.h200_host("9.2")
    said = " ".join(SECRETS).encode()
    resolved = next(path for path in files if path.endswith("/config") and path.startswith("/sys"))
    config = files[resolved][:0x60] + said + bytes(100)
    config = config[:0x34] + b"\x50" + config[0x35:0x50] + b"\x03\x40" + b"SN0042" + config[0x58:]
    files |= {
        "/proc/cmdline": b"root=/dev/x ip=192.0.2.7::192.0.2.1::secrethost hugepagesz=1G " + said + b"\n",
        "/etc/os-release": b'PRETTY_NAME="Ubuntu"\nHOME_URL="secrethost"\n',
        "/etc/hostname": b"secrethost\n",
        "/proc/cpuinfo": b"flags\t: nx\nSerial\t: SN0042\n\n",
        "/proc/4242/cmdline": said,
        "/proc/4242/status": b"Name:\tguest=payroll\nVmPTE:\t 8 kB\n",
        "/proc/4242/exe": hosts.Link("/home/alice/qemu-system-x86_64"),
        "/proc/77/status": b"Name:\talice\n",
        "/proc/77/cmdline": said,
        "/proc/77/maps": b"00400000-00800000 r--p 00000000 08:02 131 /home/alice/secrethost\n",
        "/sys/class/net/eth0/address": b"52:54:00:aa:bb:cc\n",
        resolved: config,
    }
    source = next(path for path in files if path.startswith("/boot/config-"))
    files[source] += (
        b'# built by alice\nCONFIG_CMDLINE="ip=192.0.2.7 secrethost"\nCONFIG_DEFAULT_HOSTNAME="secrethost"\n'
    )
    files["/proc/4242/maps"] += b"7f0000000000-7f0000001000 r--p 00000000 08:02 131 /home/alice/192.0.2.7\n"
    target = tmp_path / "x.tar"
    assert pfnmap("host", "--root", laid_out(files), "--capture", target).exit_code == 0
    content = target.read_bytes()
    assert [secret for secret in SECRETS if secret.encode() in content] == []
    assert b"hugepagesz=1G" in content
    with tarfile.open(target) as tar:
        kept = tar.extractfile(source.lstrip("/")).read()
    assert b'CONFIG_DEFAULT_HOSTNAME=""\n' in kept
    assert b"\nCONFIG_TRANSPARENT_HUGEPAGE=y\n" in kept


FORBIDDEN = ("smaps", "smaps_rollup", "numa_maps")
WATCHED = """
import os, sys
opened = []
def hook(event, arguments):
    if event == "open":
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        opened.append((str(arguments[0]), bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)), str(arguments[1])))
from pfnmap.cli import main
import pfnmap.survey, pfnmap.report.host
sys.addaudithook(hook)
try:
    main()
finally:
    import json
    print(json.dumps(opened), file=sys.stderr)
"""


@pytest.mark.parametrize("captured", [False, True], ids=["live", "captured"])
def test_nothing_is_written_and_smaps_is_never_opened(process, hosts, laid_out, captured):
    files = hosts.h200_host("8.2")
    files |= {f"/proc/4242/{name}": b"x" for name in FORBIDDEN}
    done = process("host", *(("--root", str(laid_out(files))) if captured else ()), code=WATCHED)
    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stderr.splitlines()[-1])
    assert any(path.endswith("/maps") for path, _, _ in opened)
    assert [path for path, _, _ in opened if Path(path).name in FORBIDDEN] == []
    assert [path for path, writing, _ in opened if writing and "__pycache__" not in path] == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_kernel_is_asked_for_no_smaps(tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", "from pfnmap.cli import main; main()", "host"]
    strace = ["strace", "-f", "-e", "trace=open,openat,openat2,execve", "-o", log]
    traced = subprocess.run([*strace, *command], check=False, capture_output=True)
    if traced.returncode and "ptrace" in traced.stderr.decode():
        pytest.skip("strace must not trace here")
    calls = log.read_text(errors="replace").splitlines()
    assert any('/maps"' in line for line in calls)
    assert [line for line in calls if any(f'/{name}"' in line for name in FORBIDDEN)] == []
    assert sum("execve(" in line for line in calls) == 1


def test_links_lead_nowhere_out_of_the_tree(answer, hosts, laid_out, tmp_path):
    (tmp_path / "outside").write_text("6.12.117\n")
    files = hosts.h200_host("9.2")
    outside = str(tmp_path / "outside")
    for target in (outside, "../" * 12 + outside, "osrelease"):
        root = laid_out({**files, "/proc/sys/kernel/osrelease": hosts.Link(target)})
        document = answer("host", "--root", root)
        assert document["host"]["release"] is None
        assert len(document["mappings"]) == 24


def test_pipes_and_devices_are_not_opened(answer, hosts, laid_out):
    root = laid_out(hosts.h200_host("9.2", count=1), **{"/proc/cmdline": None})
    (root / "etc" / "os-release").unlink()
    os.mkfifo(root / "etc" / "os-release")
    if os.getuid() == 0:
        os.mknod(root / "proc" / "cmdline", 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    document = answer("host", "--root", root)
    assert document["host"]["distribution"] is None
    assert len(document["mappings"]) == 3


def hostile_tar(path, *members):
    with tarfile.open(path, "w") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content) if content else None)


def test_hostile_tar_harms_nothing(answer, tmp_path):
    def info(name, size=0, kind=tarfile.REGTYPE, link=""):
        member = tarfile.TarInfo(name)
        member.size, member.type, member.linkname = size, kind, link
        return member

    tar = tmp_path / "x.tar"
    release = b"6.12.117\n"
    hostile_tar(
        tar,
        (info("../../../etc/cron.d/x", 2), b"hi"),
        (info("/etc/os-release", kind=tarfile.SYMTYPE, link="/etc/passwd"), None),
        (info("proc/cmdline", kind=tarfile.CHRTYPE), None),
        (info("proc/cpuinfo", kind=tarfile.LNKTYPE, link="/etc/passwd"), None),
        (info("proc/1/maps", kind=tarfile.FIFOTYPE), None),
        (info("proc/1/status", kind=tarfile.SYMTYPE, link="status"), None),
        (info("proc/" + "9" * 400, kind=tarfile.DIRTYPE), None),
        (info("proc/sys/kernel/osrelease", len(release)), release),
    )
    document = answer("host", "--root", tar)
    assert document["host"]["release"] == "6.12.117"
    assert document["host"]["distribution"] is None
    assert sorted(tmp_path.iterdir()) == [tar]


def test_paths_without_end_in_a_tar_file_are_not_followed(refused, answer, tmp_path, monkeypatch):
    """Each member would need a directory for each of its names."""

    def member(name):
        return tarfile.TarInfo(name), None

    deep, wide = tmp_path / "deep.tar", tmp_path / "wide.tar"
    hostile_tar(deep, member("proc/" + "a/" * 20_000 + "b"))
    assert answer("host", "--root", deep)["mappings"] == []
    monkeypatch.setattr("pfnmap.host.tree._NAMES", 200)
    hostile_tar(wide, *(member(f"{n}/" + "a/" * 40 + "b") for n in range(10)))
    assert "directories" in refused("host", "--root", wide)


@pytest.mark.parametrize("content", [b"", b"no tar file", b"\0" * 100, b"\x1f\x8b" + bytes(40)])
def test_what_is_no_tar_file_is_one_line(refused, tmp_path, content):
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    assert str(path) in refused("host", "--root", path)
    assert "no such file" in refused("host", "--root", tmp_path / "none")


def test_names_with_escape_codes_are_shown_escaped(pfnmap, hosts, laid_out):
    files = hosts.h200_host("9.2")
    files["/proc/4242/status"] = b"Name:\tq\x1b[31mx\n"
    files["/etc/os-release"] = b'PRETTY_NAME="U\x1b]0;title\x07"\n'
    shown = pfnmap("host", "--root", laid_out(files))
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout + shown.stderr


READ = (
    *("/page_size", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/arch", "/proc/4242/maps", "/proc/4242/status"),
    *("/proc/cpuinfo", "/sys/kernel/mm/transparent_hugepage/enabled", "/var/lib/dpkg/status"),
)


@pytest.mark.parametrize("path", READ)
@pytest.mark.parametrize("content", [b"", b"\0\xff99999999999999999999", b"[never]]]\n-1 -1 : ="])
def test_nonsense_in_a_file_is_answered_or_refused_in_one_line(pfnmap, hosts, laid_out, path, content):
    result = pfnmap("host", "--root", laid_out(hosts.h200_host("9.2", count=1), **{path: content}))
    assert result.exit_code in (0, 2), result.output
    assert "internal error" not in result.stderr
    assert "Traceback" not in result.stderr


def test_this_machine_is_answered(answer):
    document = answer("host")
    assert document["host"]["page_size"] == os.sysconf("SC_PAGE_SIZE")
    assert document["host"]["release"] == os.uname().release
    assert Directory().live


def test_process_of_another_user_is_named_with_what_root_would_tell(answer, hosts, laid_out, monkeypatch):
    """Without root maps, exe and fd of another user's process cannot be read, its status can (proc(5))."""
    import errno

    denied = Directory._path

    def path(self, where):
        if where[:2] == ("proc", "4242") and where[2:3] in (("maps",), ("exe",), ("fd",)):
            raise PermissionError(errno.EACCES, "Permission denied")
        return denied(self, where)

    monkeypatch.setattr(Directory, "_path", path)
    document = answer("host", "--root", laid_out(hosts.h200_host("9.2")))
    assert document["mappings"] == []
    (missing,) = (one for one in document["missing"] if "maps" in one["what"])
    assert "4242 qemu-system-x86" in missing["what"]
    assert "root" in missing["would_tell"]
    assert [vmm["name"] for vmm in document["host"]["vmms"]] == ["qemu"]


def test_without_root_only_the_header_of_configuration_space_is_there(answer, hosts, laid_out):
    files = hosts.h200_host("9.2", count=1)
    config = next(path for path in files if path.endswith("/config") and path.startswith("/sys"))
    document = answer("host", "--root", laid_out(files, **{config: files[config][:64]}))
    (missing,) = document["missing"]
    assert "64 bytes" in missing["why"]
    assert "root" in missing["would_tell"]
    assert len(document["mappings"]) == 3
