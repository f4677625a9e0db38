"""`pfnmap plan INPUT...`: which input gives which BARs, who drives them, what is left out, which kernel is meant."""

from __future__ import annotations

import gzip
import json
import lzma
import time

import pytest
import zstandard

H100 = """\
3b:00.0 3D controller [0302]: NVIDIA Corporation GH100 [H100 SXM5 80GB] [10de:2330] (rev a1)
\tRegion 0: Memory at 88042000000 (64-bit, prefetchable) [size=16M]
\tRegion 2: Memory at 84000000000 (64-bit, prefetchable) [size=128G]
\tRegion 4: Memory at 88040000000 (64-bit, prefetchable) [size=32M]
\tKernel driver in use: vfio-pci

"""
GH200 = """\
0009:01:00.0 3D controller: NVIDIA Corporation GH100 [GH200 120GB / 480GB] (rev a1)
        Region 0: Memory at 661002000000 (64-bit, prefetchable) [size=16M]
        Region 2: Memory at 660000000000 (64-bit, prefetchable) [size=128M]
        Region 4: Memory at 661000000000 (64-bit, prefetchable) [size=32M]
        Kernel driver in use: nvgrace-gpu-vfio-pci
"""
ODD = """\
3d:00.0 3D controller: NVIDIA Corporation Device 1eb8
\tRegion 1: Memory at 38bfc0000000 (64-bit, prefetchable) [size=256M]

e1:00.0 Class 0800: Device aaaa:bbbb
\tRegion 0: Memory at 20014000000 (64-bit, prefetchable) [disabled]
\tRegion 1: Memory at <unassigned> (32-bit, non-prefetchable) [disabled]
"""
MAPS = """\
558e3c600000-558e3c800000 r-xp 00000000 fe:00 260386                     /usr/bin/qemu-system-x86_64
7137c0000000-7157c0000000 rw-s 20000000000 00:0f 1050                    anon_inode:[vfio-device]
7157c0200000-7157c1200000 rw-s 00000000 00:0f 1050                       anon_inode:[vfio-device]
"""
BY_ADDRESS = MAPS.replace("20000000000", "84000000000").replace("rw-s 00000000", "rw-s 88042000000")
TRACE = """\
vfio_region_setup Device 0000:3b:00.0, region 0 "0000:3b:00.0 BAR 0", flags: 0xf, offset: 0x0, size: 0x1000000
4711@1732780000.1:vfio_region_setup Device 0000:3b:00.0, region 2 "0000:3b:00.0 BAR 2", flags: 0x7, offset: \
0x20000000000, size: 0x2000000000
vfio_region_setup Device 0000:3b:00.0, region 5 "0000:3b:00.0 BAR 5", flags: 0x3, offset: 0x50000000000, size: 0x80
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="input"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def leaves(document):
    return {(m["device"], m["bar"]): tuple(m["counts"].values()) for m in document["mappings"]}


def test_files_add_up_and_each_row_names_its_input(answer, write):
    one, two = write(H100, "one"), write(H100.replace("3b:", "3c:"), "two")
    document = answer("plan", one, "--lspci", two, "--vmm", "aligned")
    assert leaves(document) == {
        (f"0000:{bus}:00.0", bar): counts
        for bus in ("3b", "3c")
        for bar, counts in ((0, (0, 8, 0)), (2, (128, 0, 0)), (4, (0, 16, 0)))
    }
    assert [m["input"] for m in document["mappings"]] == [
        {"file": str(path), "kind": "lspci"} for path in (one, two) for _ in range(3)
    ]
    assert document["skipped"] == []


def test_one_odd_device_does_not_stop_the_file(answer, pfnmap, write):
    path = write(ODD)
    document = answer("plan", path, "--vmm", "aligned", "--release", "6.17")
    assert leaves(document) == {("0000:3d:00.0", 1): (0, 128, 0)}
    assert {one["device"] for one in document["skipped"]} == {"0000:e1:00.0"}
    assert "0000:e1:00.0: line 5: region 0 has no size" in pfnmap("plan", path, "--vmm", "aligned").stderr


def test_driver_in_use_chooses_the_plugin_and_what_it_does_not_map_is_skipped(answer, write):
    document = answer("plan", write(GH200), "--arch", "arm64", "--release", "6.17", "--vmm", "aligned")
    assert leaves(document) == {("0009:01:00.0", 2): (0, 0, 32768), ("0009:01:00.0", 4): (0, 0, 8192)}
    assert {m["driver"] for m in document["mappings"]} == {"nvgrace_gpu"}
    assert [one["device"] for one in document["skipped"]] == ["0009:01:00.0"]


def test_other_drivers_are_planned_as_passed_through_and_that_is_said(pfnmap, write):
    result = pfnmap("plan", write(H100.replace("vfio-pci", "nvidia")), "--vmm", "aligned", "--json")
    assert {m["driver"] for m in json.loads(result.stdout)["mappings"]} == {"vfio_pci"}
    assert "0000:3b:00.0 is bound to nvidia; planned as bound to vfio_pci" in result.stderr


@pytest.mark.parametrize("options", [("-s", "3c:00"), ("-s", "0000:3c:00.0"), ("-s", "3c:"), ("-d", "10de:2329")])
def test_devices_are_chosen_as_lspci_does(answer, write, options):
    path = write(H100 + H100.replace("3b:", "3c:").replace("2330", "2329"))
    found = answer("plan", path, *options, "--vmm", "aligned")
    assert {m["device"] for m in found["mappings"]} == {"0000:3c:00.0"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-s", "99:00.0"), "-s 99:00.0: no such device; there are 0000:3b:00.0"),
        (("-d", "10de:9999"), "-d 10de:9999: no such device; there are 10de:2330"),
        (("-s", "x"), "-s x: [[domain:]bus:]device.function was expected"),
        (("-d", "nvidia"), "-d nvidia: vendor:device was expected"),
    ],
)
def test_a_choice_of_nothing_is_refused(refused, write, options, said):
    assert said in refused("plan", write(H100), *options)


def test_alike_devices_are_one_block_and_one_line(pfnmap, write):
    path = write("".join(H100.replace("3b:", f"3{digit}:") for digit in "bcd"))
    shown = pfnmap("plan", path, "--vmm", "aligned").stdout
    assert "0000:3b:00.0  3 x NVIDIA Corporation GH100 [H100 SXM5 80GB] (also 0000:3c:00.0, 0000:3d:00.0)" in shown
    assert shown.count("BAR 2: 128G") == 1
    quiet = pfnmap("plan", path, "--vmm", "aligned", "-q").stdout.splitlines()[-2:]
    assert quiet[0].startswith("3 x NVIDIA Corporation GH100 [H100 SXM5 80GB]  aligned: 128x1G + 24x2M, ")
    assert quiet[1].startswith("total  aligned: 384x1G + 72x2M, ")


def test_mappings_of_a_process_are_planned_where_they_are(answer, write):
    maps = write(MAPS, "maps")
    document = answer("plan", maps)
    assert leaves(document) == {(None, 2): (128, 0, 0), (None, 0): (0, 8, 0)}
    assert [m["va"] for m in document["mappings"]] == ["0x7137c0000000", "0x7157c0200000"]
    assert "address of BAR 2" in " ".join(document["kernel"]["assumed"])
    document = answer("plan", maps, write(H100, "host"))
    assert [(m["device"], m["phys"]) for m in document["mappings"]] == [
        ("0000:3b:00.0", "0x84000000000"),
        ("0000:3b:00.0", "0x88042000000"),
    ]


def test_a_mapping_of_one_of_two_alike_devices_is_of_neither(answer, pfnmap, write):
    maps, host = write(MAPS, "maps"), write(H100 + H100.replace("3b:", "3c:").replace("84000", "94000"), "host")
    document = answer("plan", maps, host)
    rows = [(m["device"], m["bar"], m["phys"], m["candidates"]) for m in document["mappings"]]
    both = ["0000:3b:00.0", "0000:3c:00.0"]
    assert rows == [(None, 2, None, both), (None, 0, None, both)]
    assert "BAR 2: 128G of 0000:3b:00.0 or 0000:3c:00.0" in pfnmap("plan", maps, host).stdout
    document = answer("plan", maps, host, "-s", "3c:00.0")
    assert [(m["device"], m["phys"]) for m in document["mappings"][:1]] == [("0000:3c:00.0", "0x94000000000")]


def test_offsets_that_the_release_does_not_have_are_said(pfnmap, write):
    said = pfnmap("plan", write(BY_ADDRESS)).stderr
    assert "by its offsets this kernel lacks vfio-unmap-mapping-range; give its --release" in said
    assert "offsets" not in pfnmap("plan", write(BY_ADDRESS), "--release", "6.1.192").stderr
    assert "offsets" not in pfnmap("plan", write(MAPS)).stderr


def test_offsets_of_older_kernels_are_physical_addresses(answer, write):
    for release in ("6.1.192", "7.3.4"):  # no BAR has the index that it would be of a newer one
        first = answer("plan", write(BY_ADDRESS), "--release", release)["mappings"][0]
        assert (first["phys"], first["length"]) == ("0x84000000000", 128 << 30)
    text = BY_ADDRESS.replace("84000000000", "20000000000")
    assert answer("plan", write(text), "--release", "6.1.192")["mappings"][0]["phys"] == "0x20000000000"


@pytest.mark.parametrize("offset", ["d0000000", "f800000000", "38000000000"])
def test_an_offset_far_into_a_bar_is_an_address_whatever_release_is_assumed(answer, pfnmap, write, offset):
    text = "".join(MAPS.splitlines(keepends=True)[:2]).replace("20000000000", offset)
    assert "this kernel lacks vfio-unmap-mapping-range" in pfnmap("plan", write(text)).stderr
    first = answer("plan", write(text))["mappings"][0]
    assert (int(first["phys"], 16), first["bar"]) == (int(offset, 16), 0)


def test_one_offset_tells_how_all_of_a_process_are_meant(answer, pfnmap, write):
    """An enterprise kernel may have the change; no BAR is at address 0, and at 2T one may be."""
    enterprise = ("--release", "5.14.0-503.11.1.el9_5.x86_64")
    assert "this kernel has vfio-unmap-mapping-range" in pfnmap("plan", write(MAPS), *enterprise).stderr
    found = [(m["bar"], m["length"]) for m in answer("plan", write(MAPS), *enterprise)["mappings"]]
    assert found == [(2, 128 << 30), (0, 16 << 20)]


def test_sysfs_mappings_are_those_of_their_own_driver(answer, write):
    path = "/sys/devices/pci0000:3a/0000:3b:00.0/resource2"
    text = f"7137c0000000-7157c0000000 rw-s 84000000000 00:16 4242   {path}\n"
    (mapping,) = answer("plan", write(text))["mappings"]
    assert (mapping["device"], mapping["bar"], mapping["phys"]) == ("0000:3b:00.0", 2, "0x84000000000")
    assert mapping["driver"] == "pci_sysfs"


def test_trace_of_a_vmm_tells_sizes_and_no_addresses(answer, write):
    document = answer("plan", write(TRACE), "--vmm", "aligned")
    assert leaves(document) == {("0000:3b:00.0", 0): (0, 8, 0), ("0000:3b:00.0", 2): (128, 0, 0)}
    assert document["mappings"][0]["input"]["kind"] == "qemu-trace"
    assert len([text for text in document["kernel"]["assumed"] if "a multiple of its size" in text]) == 2
    assert document["skipped"] == [{"device": "0000:3b:00.0", "reason": "line 3: region 5 cannot be mapped"}]


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "--bar", "1G", "--release", "6.12.94", "--release", "7.3"),
        ("plan", "--bar", "1G", "--va=0x0", "--va", "0x200000"),
        ("caps", "x86_64", "--config", "a", "--config", "b"),
    ],
)
def test_an_option_with_one_value_is_not_given_twice(refused, arguments):
    assert "given more than once" in refused(*arguments)


# which kernel

MADVISE = """\
# Linux/x86 6.18.45 Kernel Configuration
CONFIG_64BIT=y
CONFIG_TRANSPARENT_HUGEPAGE=y
# CONFIG_TRANSPARENT_HUGEPAGE_ALWAYS is not set
CONFIG_TRANSPARENT_HUGEPAGE_MADVISE=y
CONFIG_VFIO=m
CONFIG_VFIO_PCI=m
"""
RHEL_64K = """\
# arm64
CONFIG_64BIT=y
CONFIG_ARM64=y
CONFIG_ARM64_64K_PAGES=y
CONFIG_ARM64_VA_BITS_48=y
CONFIG_TRANSPARENT_HUGEPAGE=y
CONFIG_TRANSPARENT_HUGEPAGE_ALWAYS=y
CONFIG_VFIO_PCI=m
"""
BAR = ("--bar", "128G@0x84000000000", "--vmm", "aligned")


def kernel_of(document):
    kernel = document["kernel"]
    return kernel["arch"], f"{kernel['page_size'] >> 10}K", kernel["thp"]


def test_thp_of_a_config_is_the_default_and_an_option_goes_over_it(answer, write):
    path = write(MADVISE)
    document = answer("plan", *BAR, "--config", path)
    assert kernel_of(document) == ("x86_64", "4K", "madvise")
    assert leaves(document)[None, 0] == (0, 0, 128 << 18)
    assert not any("THP" in text for text in document["kernel"]["assumed"])
    assert leaves(answer("plan", *BAR, "--config", path, "--thp", "always"))[None, 0] == (128, 0, 0)


@pytest.mark.parametrize("header", ["# arm64\n", ""])
def test_architecture_and_page_size_of_a_config_of_which_only_prompts_are_there(pfnmap, write, header):
    result = pfnmap("plan", *BAR, "--json", "--config", write(RHEL_64K.replace("# arm64\n", header)))
    document = json.loads(result.stdout)
    assert kernel_of(document) == ("arm64", "64K", "always")
    assert leaves(document)[None, 0] == (0, 256, 0)
    assert result.stderr == ""


def test_a_header_names_the_architecture_where_no_symbol_does(answer, write):
    for header, arch in (("# s390", "s390"), ("# powerpc", "powerpc64"), ("# x86_64", "x86_64")):
        assert kernel_of(answer("plan", *BAR, "--config", write(f"{header}\nCONFIG_PCI=y\n")))[0] == arch


@pytest.mark.parametrize(
    ("symbols", "kernel"),
    [
        ("CONFIG_ARM64_64K_PAGES=y", ("arm64", "64K", "always")),
        ("CONFIG_ARM64_VA_BITS_48=y", ("arm64", "4K", "always")),
        ("CONFIG_PPC_4K_PAGES=y", ("powerpc64", "4K", "always")),
        ("CONFIG_RISCV_ISA_SVPBMT=y", ("riscv64", "4K", "always")),
        ("CONFIG_S390_IOMMU=y", ("s390", "4K", "always")),
        ("CONFIG_X86_PAT=y", ("x86_64", "4K", "always")),
    ],
)
def test_an_excerpt_is_of_the_architecture_whose_name_its_symbols_have(answer, write, symbols, kernel):
    assert kernel_of(answer("plan", *BAR, "--config", write(f"{symbols}\nCONFIG_VFIO_PCI=m\n"))) == kernel


def test_a_kernel_s_name_says_the_page_size_where_an_excerpt_does_not(pfnmap, write):
    excerpt = write("CONFIG_TRANSPARENT_HUGEPAGE_MADVISE=y\nCONFIG_VFIO_PCI=m\n")
    result = pfnmap("plan", *BAR, "--json", "--config", excerpt, "--release", "6.12.0-55.el10.aarch64+64k")
    assert kernel_of(json.loads(result.stdout)) == ("arm64", "64K", "madvise")
    assert "name of a kernel" not in result.stderr


def test_blanks_around_the_lines_of_a_config_do_not_matter(answer, write):
    path = write("\ufeff" + RHEL_64K.replace("CONFIG", "    CONFIG").replace("\n", " \r\n"))
    assert kernel_of(answer("plan", *BAR, "--config", path)) == ("arm64", "64K", "always")


EXCERPT = "CONFIG_X86_64=y\nCONFIG_TRANSPARENT_HUGEPAGE=y\n# CONFIG_TRANSPARENT_HUGEPAGE_ALWAYS is not set\n"
EXCERPT += "CONFIG_TRANSPARENT_HUGEPAGE_MADVISE=y\nCONFIG_VFIO_PCI=m\n"
POSTED = {
    "grep": lambda n, line: f"/boot/config-6.1.0-28-amd64:{line}",
    "grep -n": lambda n, line: f"{n}:{line}",
    "grep -Cn": lambda n, line: f"{n}{':' if n % 2 else '-'}{line}",
    "quoted": lambda n, line: f"> > {line}",
    "fence": lambda n, line: f"```\n{line}\n```",
    "prompt": lambda n, line: f"root@host:~# zcat /proc/config.gz\n{line}",
    "colour": lambda n, line: line.replace("HUGE", "\x1b[01;31m\x1b[KHUGE\x1b[m\x1b[K"),
}


@pytest.mark.parametrize("posted", POSTED.values(), ids=POSTED)
def test_a_config_as_posted(answer, write, posted):
    text = "".join(f"{posted(n, line)}\n" for n, line in enumerate(EXCERPT.splitlines(), 1))
    kernel = answer("plan", *BAR, "--config", write(text))["kernel"]
    assert (kernel["arch"], kernel["thp"]) == ("x86_64", "madvise")
    assert (kernel["release"] == "6.1.0-28-amd64") == ("/boot/config-6" in text)


def test_a_config_of_the_time_before_vfio_names_its_release(refused, write):
    path = write(
        "#\n# Automatically generated make config: don't edit\n# Linux kernel version: 2.6.32\n#\nCONFIG_X86_64=y\n"
    )
    assert "2.6.32 lacks vfio-pci (first in 3.6)" in refused("plan", *BAR, "--config", path, exit_code=3)


def test_a_config_of_an_architecture_that_is_not_installed_is_refused(refused, write):
    path = write("# Linux/arm 6.12.1 Kernel Configuration\nCONFIG_MMU=y\n")
    assert "unknown architecture 'arm'" in refused("plan", *BAR, "--config", path)


def test_a_config_without_the_driver_says_that_first(pfnmap, write):
    path = write(RHEL_64K.replace("CONFIG_VFIO_PCI=m", "# CONFIG_VFIO_PCI is not set"))
    first = pfnmap("plan", *BAR, "--config", path, "--arch", "x86_64").stderr.splitlines()[0]
    assert "this kernel has no vfio_pci: VFIO_PCI is not set" in first


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--arch", "x86_64"), "a configuration of arm64, read as one of x86_64"),
        (("--page-size", "4K"), "ARM64_4K_PAGES is not set there, and pages of 4K are taken"),
        (("--release", "6.12.0-55.el10.x86_64"), "the name of a kernel of x86_64, taken for one of arm64"),
        (("--release", "6.12.0-55.el10.aarch64+16k"), "a kernel with pages of 16K, and pages of 64K are taken"),
    ],
)
def test_what_contradicts_a_config_is_said(pfnmap, write, options, said):
    assert said in pfnmap("plan", *BAR, "--config", write(RHEL_64K), *options).stderr


@pytest.mark.parametrize(
    ("release", "kernel"),
    [
        ("5.14.0-570.12.1.el9_6.aarch64+64k", ("arm64", "64K", "always")),
        ("6.12.0-55.el10.aarch64", ("arm64", "4K", "always")),
        ("6.14.0-1015-nvidia-64k", ("arm64", "64K", "always")),
        ("6.12.117+deb12-arm64-16k", ("arm64", "16K", "always")),
        ("6.12.117+deb12-amd64", ("x86_64", "4K", "always")),
        ("6.17.7-300.fc43.x86_64", ("x86_64", "4K", "always")),
        ("6.12.0-55.el10.s390x", ("s390", "4K", "always")),
        ("6.12.0-105.51.5.el9uek64k.aarch64", ("arm64", "64K", "always")),
        ("6.12.0-124.8.1.el10_1.x86_64_v2", ("x86_64", "4K", "always")),
        ("7.2.13-powerpc64le-64k", ("powerpc64", "64K", "always")),
        ("6.8.0-45-generic", ("x86_64", "4K", "always")),
        ("linux-image-6.12.43+deb13-arm64", ("arm64", "4K", "always")),
        ("kernel-64k-core-5.14.0-570.12.1.el9_6.aarch64", ("arm64", "64K", "always")),
        ("Linux h 6.12.0-55.el10.aarch64+64k #1 SMP Thu Sep 18 UTC 2025 aarch64 GNU/Linux", ("arm64", "64K", "always")),
    ],
)
def test_name_of_a_kernel_says_architecture_and_page_size(answer, release, kernel):
    assert kernel_of(answer("plan", *BAR, "--release", release)) == kernel


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("amd64", "x86_64"),
        ("AMD64", "x86_64"),
        ("x86-64", "x86_64"),
        ("aarch64", "arm64"),
        ("s390x", "s390"),
        ("ppc64le", "powerpc64"),
        ("ppc64el", "powerpc64"),
    ],
)
def test_names_of_other_tools_for_architectures(answer, name, arch):
    assert kernel_of(answer("plan", *BAR, "--arch", name))[0] == arch


def test_compressed_configs(answer, root, write):
    plain = gzip.decompress((root / "examples/configs/config-6.12.117+deb12-arm64-16k.gz").read_bytes())
    for packed in (plain, gzip.compress(plain), lzma.compress(plain), zstandard.compress(plain)):
        assert kernel_of(answer("plan", *BAR, "--config", write(packed))) == ("arm64", "16K", "always")


def _thousands(count: int, size: int) -> str:
    ranges = (
        (0xE000_0000 + n * size, f"{n >> 13:04x}:{n >> 8 & 31:02x}:{n >> 3 & 31:02x}.{n & 7}") for n in range(count)
    )
    return "".join(f"{start:08x}-{start + size - 1:08x} : {bdf}\n" for start, bdf in ranges)


def test_thousands_of_small_bars_in_shared_pages_are_planned(pfnmap, tmp_path):
    """Each is compared with those of its device alone."""
    path = tmp_path / "iomem"
    path.write_text(_thousands(1000, 256))
    result = pfnmap("plan", str(path), "--json", "--vmm", "kernel")
    assert len(json.loads(result.stdout)["mappings"]) == 1000


def test_more_bars_than_any_host_has_are_not_planned_at_once(pfnmap, tmp_path):
    path = tmp_path / "iomem"
    path.write_text(_thousands(8193, 4096))
    result = pfnmap("plan", str(path))
    assert result.exit_code == 2
    assert result.stderr == (
        f"pfnmap: {path}: 8193 mappings, where 8192 are the most that is planned at once; -s and -d choose among "
        "devices\n"
    )


def test_mappings_find_their_bars_among_many_in_time_that_grows_with_both(pfnmap, tmp_path):
    path = tmp_path / "paste"
    bars = "".join(
        f"{n >> 13:04x}:{n >> 8 & 31:02x}:{n >> 3 & 31:02x}.{n & 7} 3D controller: X\n"
        f"\tRegion 0: Memory at {0xE0_0000_0000 + (n << 24):x} (64-bit, prefetchable) [size=16M]\n"
        for n in range(1500)
    )
    maps = "".join(
        f"{start:x}-{start + (1 << 24):x} rw-s 00000000 00:0e 1 anon_inode:[vfio-device]\n"
        for start in range(0x7F00_0000_0000, 0x7F00_0000_0000 + (1500 << 25), 1 << 25)
    )
    path.write_text(bars + maps)
    started = time.process_time()
    assert pfnmap("plan", str(path), "-q").exit_code == 0
    assert time.process_time() - started < 5
