"""Inputs of unknown kind: each is found out by its content, and gives the BARs or mappings that stand in it.

The texts are posted ones, shortened, or in the layout that the tools themselves printed (lshw B.02.19, hwinfo 21.82,
pmap 4.0.2, Linux 6.12's /proc and /sys) with devices made up.
"""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfnmap.errors import BadInput
from pfnmap.host.input import parse_input, read_input
from pfnmap.host.pci import Skipped

G = 1 << 30
M = 1 << 20

RESOURCE = """\
0x00000000f6000000 0x00000000f6ffffff 0x0000000000040200
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000002000000000 0x0000003fffffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000004000000000 0x0000004001ffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x00000000f7000000 0x00000000f707ffff 0x0000000000046200
"""
DMESG_6_8 = """\
[    0.066100] pci 0000:00:04.0: [10de:2216] type 00 class 0x030000
[    0.141127] pci 0000:00:04.0: reg 0x10: [mem 0xe6000000-0xe6ffffff]
[    0.141208] pci 0000:00:04.0: reg 0x14: [mem 0x7f800000000-0x7fbffffffff 64bit pref]
[    0.141293] pci 0000:00:04.0: reg 0x1c: [mem 0x7ff3c000000-0x7ff3dffffff 64bit pref]
[    0.141377] pci 0000:00:04.0: reg 0x24: [io  0xc000-0xc07f]
[    0.141461] pci 0000:00:04.0: reg 0x30: [mem 0xfff80000-0xffffffff pref]
"""
DMESG_6_9 = """\
Nov 28 09:00:00 host kernel: pci 0000:3b:00.0: [10de:2330] type 00 class 0x030200 PCIe Endpoint
Nov 28 09:00:00 host kernel: pci 0000:3b:00.0: BAR 0 [mem 0x88042000000-0x88042ffffff 64bit pref]
Nov 28 09:00:00 host kernel: pci 0000:3b:00.0: BAR 2 [mem 0x84000000000-0x85fffffffff 64bit pref]
Nov 28 09:00:00 host kernel: pci 0000:3b:00.0: VF BAR 0 [mem 0x8a000000000-0x8a000ffffff 64bit pref]
Nov 28 09:00:00 host kernel: pci 0000:3b:00.0: bridge window [mem 0x84000000000-0x85fffffffff 64bit pref]
"""
LSPCI = """\
3b:00.0 3D controller: NVIDIA Corporation GH100 [H100 PCIe] (rev a1)
\tRegion 0: Memory at 38042000000 (64-bit, prefetchable) [size=16M]
\tRegion 2: Memory at 38000000000 (64-bit, prefetchable) [size=128G]
5e:00.0 3D controller: NVIDIA Corporation GH100 [H100 PCIe] (rev a1)
\tRegion 2: Memory at 48000000000 (64-bit, prefetchable) [size=128G]
"""
LSHW = """\
  *-pci:0
       description: PCI bridge
       product: Root Port
       bus info: pci@0000:d7:00.0
       resources: irq:24 memory:ec000000-ecffffff memory:380000000000-3903ffffffff
  *-display
       description: 3D controller
       product: GA100 [A100 PCIe 40GB]
       vendor: NVIDIA Corporation
       physical id: 0
       bus info: pci@0000:d8:00.0
       width: 64 bits
       configuration: driver=vfio-pci latency=0
       resources: iomemory:38000-37fff irq:18 memory:ec000000-ecffffff memory:380000000000-380fffffffff memory:390000000000-390001ffffff
  *-display UNCLAIMED
       description: VGA compatible controller
       bus info: pci@0000:01:00.0
       resources: memory:fa000000-faffffff memory:c0000000-cfffffff memory:d0000000-d1ffffff ioport:e000(size=128) memory:c0000-dffff
"""  # noqa: E501
HWINFO = """\
  87: PCI 1f.0: 0604 PCI bridge
  SysFS BusID: 0000:00:1f.0
  Hardware Class: bridge
  Memory Range: 0x380000000000-0x38ffffffffff (rw,non-prefetchable)
  88: PCI 3700.0: 0300 VGA compatible controller (VGA)
  SysFS BusID: 0000:37:00.0
  Hardware Class: graphics card
  Model: "Intel VGA compatible controller"
  Vendor: pci 0x8086 "Intel Corporation"
  Device: pci 0x56c0
  Driver: "i915"
  Memory Range: 0x23fe7e000000-0x23fe7effffff (ro,non-prefetchable)
  Memory Range: 0x236000000000-0x237fffffffff (ro,non-prefetchable)
  Memory Range: 0x000c0000-0x000dffff (rw,non-prefetchable,disabled)
  90: SCSI 00.0: 10600 Disk
  Model: "Disk"
"""
IOMEM = """\
00001000-0009fbff : System RAM
84000000000-8a0ffffffff : PCI Bus 0000:3a
  84000000000-85fffffffff : 0000:3b:00.0
    84000000000-85fffffffff : vfio-pci
  88042000000-88042ffffff : 0000:3b:00.0
    88042000000-88042ffffff : vfio-pci
  8a000000000-8a000ffffff : 0000:3c:00.0
    8a000000000-8a0000fffff : 0000:3c:00.1
"""
MAPS = """\
558e3c600000-558e3c800000 r-xp 00000000 fe:00 260386                     /usr/bin/qemu-system-x86_64
7137c0000000-7157c0000000 rw-s 20000000000 00:0f 1050                    anon_inode:[vfio-device]
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
7ffd00100000-7ffd00200000 rw-p 00000000 00:00 0
"""


def bars(text):
    """Index, size and address of the BARs of each device."""
    return {d.bdf: [(b.index, b.size, b.phys) for b in d.bars] for d in parse_input(text).devices}


def test_sysfs_resource_with_and_without_the_device():
    found = [(0, 16 * M, 0xF6000000), (2, 128 * G, 0x2000000000), (4, 32 * M, 0x4000000000)]
    assert parse_input(RESOURCE).kind == "resource"
    assert bars(RESOURCE) == {None: found}
    path = "/sys/bus/pci/devices/0000:3b:00.0/resource"
    assert bars(f"==> {path} <==\n{RESOURCE}") == {"0000:3b:00.0": found}
    assert bars("".join(f"{path}:{row}\n" for row in RESOURCE.splitlines())) == {"0000:3b:00.0": found}
    other = path.replace("3b", "3c")
    two = bars(f"# cat {path}\n{RESOURCE}# cat {other}\n{RESOURCE}")
    assert two == {"0000:3b:00.0": found, "0000:3c:00.0": found}
    loop = "".join(f"/sys/devices/pci0000:3a/0000:3a:01.0/0000:3{d}:00.0\n{RESOURCE}" for d in "bc")
    assert bars(loop) == two
    assert bars(f"$ cd {path.removesuffix('/resource')}\n$ cat resource\n{RESOURCE}") == {"0000:3b:00.0": found}


def test_sysfs_resource_of_bridges_and_of_functions_that_run_into_each_other():
    empty = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
    bridge = RESOURCE + 6 * empty + RESOURCE.splitlines(keepends=True)[2] + 3 * empty
    assert list(bars(f"0000:3a:01.0\n{bridge}0000:3b:00.0\n{RESOURCE}")) == ["0000:3b:00.0"]
    with pytest.raises(BadInput, match="26 rows, more than the 17 of one function; grep"):
        parse_input(2 * (RESOURCE + 6 * empty))


def test_sysfs_resource_flags_say_width_and_whether_there_is_an_address():
    (device,) = parse_input(RESOURCE).devices
    assert [(bar.bits, bar.prefetchable) for bar in device.bars] == [(32, False), (64, True), (64, True)]
    unset = "0x0000000000000000 0x0000001fffffffff 0x000000002014220c\n"
    assert bars(unset) == {None: [(0, 128 * G, None)]}


def test_kernel_log_of_6_8_and_of_6_9():
    assert bars(DMESG_6_8) == {
        "0000:00:04.0": [(0, 16 * M, 0xE6000000), (1, 16 * G, 0x7F800000000), (3, 32 * M, 0x7FF3C000000)]
    }
    assert bars(DMESG_6_9) == {"0000:3b:00.0": [(0, 16 * M, 0x88042000000), (2, 128 * G, 0x84000000000)]}
    assert parse_input(DMESG_6_9).devices[0].pci_id == "10de:2330"


def test_kernel_log_of_a_bridge():
    bridge = DMESG_6_8.replace("type 00", "type 01").replace("00:04.0", "00:01.0")
    assert bars(bridge + DMESG_6_8) == bars(DMESG_6_8)


@pytest.mark.parametrize(
    ("line", "phys"),
    [
        ("BAR 1: assigned [mem 0x4000000000-0x43ffffffff 64bit pref]", 0x4000000000),
        ("BAR 1 [mem 0x4000000000-0x43ffffffff 64bit pref]: assigned", 0x4000000000),
        ("BAR 1: releasing [mem 0x7f800000000-0x7fbffffffff 64bit pref]", None),
        ("BAR 1 [mem 0x7f800000000-0x7fbffffffff 64bit pref]: releasing", None),
        ("BAR 1: no space for [mem size 0x400000000 64bit pref]", None),
        ("BAR 1 [mem size 0x400000000 64bit pref]: can't assign; no space", None),
        ("can't claim BAR 1 [mem 0x7f800000000-0x7fbffffffff 64bit pref]: no compatible bridge window", None),
    ],
)
def test_the_last_line_of_the_log_about_a_bar_counts(line, phys):
    text = f"{DMESG_6_8}[    0.2] pci 0000:00:04.0: {line}\n"
    assert bars(text)["0000:00:04.0"][1] == (1, 16 * G, phys)


def test_lshw_functions_without_bridges_and_expansion_roms():
    assert bars(LSHW) == {
        "0000:d8:00.0": [(0, 16 * M, 0xEC000000), (1, 64 * G, 0x380000000000), (3, 32 * M, 0x390000000000)],
        "0000:01:00.0": [(0, 16 * M, 0xFA000000), (1, 256 * M, 0xC0000000), (2, 32 * M, 0xD0000000)],
    }
    device = parse_input(LSHW).devices[0]
    assert (device.driver, device.name) == ("vfio-pci", "NVIDIA Corporation GA100 [A100 PCIe 40GB]")
    assert all(bar.index_inferred for bar in device.bars)


def test_prefetchable_ranges_take_two_registers():
    text = LSHW.replace("c0000000-cfffffff", "c0000000-cfffffff(prefetchable)")
    text = text.replace("d0000000-d1ffffff", "d0000000-d1ffffff(prefetchable)")
    found = [(0, 16 * M, 0xFA000000), (1, 256 * M, 0xC0000000), (3, 32 * M, 0xD0000000)]
    assert bars(text.replace("c0000-dffff", "fb000000-fb07ffff"))["0000:01:00.0"] == found


def test_upper_halves_of_high_addresses_are_no_ranges():
    assert parse_input(LSHW.replace("iomemory:38000-37fff", "iomemory:380000-37ffff")).skipped == ()


def test_hwinfo_functions_without_bridges():
    assert bars(HWINFO) == {"0000:37:00.0": [(0, 16 * M, 0x23FE7E000000), (2, 128 * G, 0x236000000000)]}
    (device,) = parse_input(HWINFO).devices
    assert (device.class_name, device.driver, device.pci_id) == ("VGA compatible controller", "i915", "8086:56c0")


def test_iomem_functions_and_who_asked_for_their_ranges():
    read = parse_input(IOMEM)
    assert bars(IOMEM) == {
        "0000:3b:00.0": [(0, 128 * G, 0x84000000000), (2, 16 * M, 0x88042000000)],
        "0000:3c:00.0": [(0, 16 * M, 0x8A000000000)],
    }
    assert [device.driver for device in read.devices] == ["vfio-pci", None]


def test_iomem_read_without_root_is_named():
    text = "".join(f"00000000-00000000 : {name}\n" for name in ("System RAM", "0000:3b:00.0", "vfio-pci"))
    with pytest.raises(BadInput, match="read /proc/iomem as root"):
        parse_input(text)


SMAPS = MAPS.replace("anon_inode:[vfio-device]\n", "anon_inode:[vfio-device]\nSize: 134217728 kB\nVmFlags: rd wr sh\n")
PMAPS = {
    "pmap": "7137c0000000 134217728K rw-s- anon_inode:[vfio-device]",
    "pmap -x": "00007137c0000000 134217728       0       0 rw-s- anon_inode:[vfio-device]",
    "pmap -d": "00007137c0000000 134217728 rw-s- 0000020000000000 000:0000f anon_inode:[vfio-device]",
    "pmap -X": "   7137c0000000 rw-s 20000000000  00:0f    1050  134217728    0    0   0   0 anon_inode:[vfio-device]",
    "pmap -XX": "7137c0000000 rw-s 20000000000 00:0f 1050 134217728  4  4  0 rd wr sh mr de anon_inode:[vfio-device]",
}


@pytest.mark.parametrize("text", [MAPS, SMAPS, *PMAPS.values()], ids=["maps", "smaps", *PMAPS])
def test_mappings_of_a_process(text):
    read = parse_input(f"4711:   qemu\n{text}")
    found = [m for m in read.mappings if m.path == "anon_inode:[vfio-device]"]
    offset = None if text in (PMAPS["pmap"], PMAPS["pmap -x"]) else 0x20000000000
    assert [(m.va, m.length, m.offset) for m in found] == [(0x7137C0000000, 128 * G, offset)]
    assert not any(m.path.startswith("[") for m in read.mappings)


def test_a_paste_of_two_kinds_gives_bars_and_mappings_and_names_the_rest():
    read = parse_input(f"# cat resource\n{RESOURCE}\n# cat /proc/4711/maps\n{MAPS}\n# dmesg\n{DMESG_6_8}")
    assert (read.kind, len(read.devices), len(read.mappings)) == ("resource+maps", 1, 2)
    assert read.skipped == (Skipped(None, "dmesg in the same input"),)


WRAPPINGS = {
    "crlf": lambda text: text.replace("\n", "\r\n"),
    "old mac": lambda text: text.replace("\n", "\r"),
    "quoted": lambda text: "".join(f"> > {line}\n" for line in text.splitlines()),
    "fence": lambda text: f"```\n{text}```\n",
    "table": lambda text: "".join(f"| {line} |\n" for line in text.splitlines()),
    "colours": lambda text: text.replace("mem", "\x1b[1;31mmem\x1b[0m").replace("0x", "\x1b[32m0x\x1b[K"),
    "html": lambda text: f"<html><pre>{text.replace('<', '&lt;')}</pre>",
    "html lines": lambda text: text.replace(" ", "&nbsp;").replace("\n", "<br>\n"),
    "html in one line": lambda text: "<p>" + text.replace("<", "&lt;").replace("\n", "<br/>"),
    "quoted-printable": lambda text: text.replace("=", "=3D").replace(" ", "=C2=A0", 1),
    "cut": lambda text: text + text.splitlines()[0][:30],
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize(
    "text",
    [RESOURCE, DMESG_6_8, DMESG_6_9, LSHW, HWINFO, IOMEM, MAPS, PMAPS["pmap -d"]],
    ids=["resource", "dmesg 6.8", "dmesg 6.9", "lshw", "hwinfo", "iomem", "maps", "pmap"],
)
def test_what_wraps_a_text_does_not_matter(text, wrap):
    plain, wrapped = parse_input(text + "\n"), parse_input(wrap(text + "\n"))
    assert (wrapped.kind, wrapped.devices, wrapped.mappings) == (plain.kind, plain.devices, plain.mappings)


AROUND = {
    "grep -n": lambda n, line: f"{n}:{line}",
    "grep of files": lambda n, line: f"/tmp/of-host:{line}",
    "grep -n of files": lambda n, line: f"/tmp/of.host:{n}:{line}",
    "pdsh": lambda n, line: f"gpu-node1: {line}",
    "docker compose": lambda n, line: f"gpu-node-1  | {line}",
    "time": lambda n, line: f"2025-11-24T10:00:00.1234567Z {line}",
    "list of strings": lambda n, line: f"    {json.dumps(line)},",
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_what_a_tool_puts_around_each_line_does_not_matter(around):
    text = "".join(f"{around(n, line)}\n" for n, line in enumerate(LSPCI.splitlines(), 1))
    assert bars(text) == bars(LSPCI)


def test_lines_in_one_string_of_json():
    assert bars(json.dumps({"rc": 0, "stdout": LSPCI})) == bars(LSPCI)
    assert bars(json.dumps({"stdout": LSPCI}, indent=2)) == bars(LSPCI)


def test_lines_that_a_web_page_put_in_one():
    bridge = "3a:01.0 PCI bridge: Intel Corporation Device 352a (rev 04)\n"
    bridge += "\tMemory at 3ffe0000000 (64-bit, non-prefetchable) [size=128K]\n"
    bridge += "\tBus: primary=3a, secondary=3b, subordinate=3b, sec-latency=0\n"
    for text in (LSPCI, bridge + LSPCI, LSPCI.replace("Region 0: ", "").replace("Region 2: ", "")):
        assert bars(" ".join(text.split())) == bars(text)


def test_what_a_line_has_beyond_what_is_looked_at_is_said():
    long = f"{LSPCI}Kernel modules: {'nouveau, ' * 500}\n"
    assert parse_input(long).skipped == (Skipped(None, "what line 6 has beyond its first 4096 characters"),)
    assert parse_input(f"{LSPCI}<p>{'x' * 3000}</p><p>{'x' * 3000}</p>\n").skipped == ()


@pytest.mark.parametrize(
    "wrap",
    [lambda text: text.replace("\n", "\r"), lambda text: json.dumps({"stdout": text})],
    ids=["CR alone", "JSON"],
)
def test_no_line_is_long_that_another_line_break_ends(wrap):
    device = "".join(LSPCI.splitlines(keepends=True)[:3])
    devices = "".join(device.replace("3b:", f"{n:02x}:") for n in range(16, 48))
    read = parse_input(wrap(devices))
    assert len(read.devices) == 32
    assert (read.devices, read.skipped) == (parse_input(devices).devices, ())


def test_html_and_encoded_text_side_by_side():
    text = (
        "<i>=C2=A0=C2=A0=C2=A0 Interrupt: pin A routed to IRQ 223</i>\n"
        "0000:00:00.0 PCI bridge: Freescale Semiconductor Inc Device 0824 (rev 11)<br>\n"
        "&nbsp; &nbsp; &nbsp; &nbsp; Memory at &lt;ignored&gt; (32-bit, non-prefetchable)<br>\n"
        "0001:01:00.0 Network controller: Qualcomm Atheros<br>\n"
        "&nbsp; &nbsp; &nbsp; &nbsp; Memory at c20000000 (64-bit, non-prefetchable) [size=16M]<br>\n"
    )
    assert bars(text) == {"0001:01:00.0": [(0, 16 * M, 0xC20000000)]}
    (skipped,) = parse_input(text).skipped
    assert skipped == Skipped("0000:00:00.0", "line 3: region 0 has no size, so nothing is planned for it")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3b:00.0 3D controller: NVIDIA Corporation GA103\n", "lspci of 1 device without a memory BAR; run lspci -vv"),
        ("Slot:\t3b:00.0\nClass:\t3D controller\n", "lspci -vmm, which prints no BARs; run lspci -vv"),
        ('3b:00.0 "3D controller" "NVIDIA" "GA103" -ra1 "" ""\n', "lspci -mm, which prints no BARs; run lspci -vv"),
        ("00: de 10 30 23 06 04 10 00 a1 00 02 03 10 00 00 00\n", "no sizes; run lspci -vv"),
        ("-[0000:00]-+-00.0  Intel Corporation Device\n", "lspci -t"),
        ("H/W path    Device    Class          Description\n=====\n", "lshw -short"),
        ('    "businfo" : "pci@0000:00:03.0",\n', "lshw -json"),
        ('<node id="display" claimed="true" class="display" handle="PCI:0000:d8:00.0">\n', "lshw -xml"),
        ("#\n# Linux/x86 6.12.117 Kernel Configuration\n#\nCONFIG_64BIT=y\n", "--config"),
        ("55ccae444000 default file=/usr/bin/cat mapped=2 N0=2 kernelpagesize_kB=4\n", "/proc/PID/maps"),
        ("VmPTE:\t  1234 kB\n", "/proc/PID/maps"),
        ("Linux host 6.12.117+deb12-amd64 #1 SMP x86_64 GNU/Linux\n", "--release"),
        ("+-----+\n| NVIDIA-SMI 535.129.03   Driver Version: 535.129.03 |\n", "nvidia-smi"),
        ("<domain type='kvm' id='1'>\n  <name>vm1</name>\n", "libvirt's XML"),
        ("(qemu) info mtree\nmemory-region: pci\n", "the guest's addresses; give /proc/PID/maps of the VMM"),
        ("  Bus  1, device   0, function 0:\n    3D controller: PCI device 10de:2330\n", "the guest's addresses"),
        ("qemu-system-x86_64 -device vfio-pci,host=0000:01:00.0 -m 64G\n", "a VMM's command line"),
        ("-rw------- 1 root root 16777216 Nov  2 10:11 resource0\n", "run grep . /sys/bus/pci/devices/*/resource"),
        ("IOMMU Group 1 01:00.0 3D controller [0302]: NVIDIA\n", "IOMMU groups"),
        ("[    0.000000] Linux version 6.8.0-85-generic\n", "without a line about a BAR"),
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\n", "/proc/cpuinfo"),
        ("cloud-hypervisor: 152.8ms: <vmm> DEBUG:vfio_device.rs:801 -- Region #0\n", "a VMM's log"),
        ("2026-08-26T12:00:01.123 [anonymous-instance:main] Running Firecracker\n", "a VMM's log"),
        ("cloud-hypervisor --cpus boot=8 --device path=/sys/bus/pci/devices/0000:3b:00.0/\n", "a VMM's command line"),
        ("machine: q35\nhostpci0: 0000:3b:00,pcie=1\n", "a VMM's command line or configuration"),
        (
            "3211 mmap(NULL, 137438953472, PROT_READ, MAP_SHARED, 45, 0x20000000000) = 0x7f00c0000000\n",
            "/proc/PID/maps",
        ),
        ("[ 1.1] vfio-pci 0000:3b:00.0: x_mmap_huge_fault(,order = 18) BAR 2 page offset 0x0: 0x100\n", "pfnmap log"),
        ("commit 0fd06844de5d063cb384384e06a11ec7141a35d5\nAuthor: A\n", "pfnmap changes --log"),
        ("linux (6.14.0-24.24) plucky; urgency=medium\n", "pfnmap changes --log"),
        ('{"schema": "pfnmap-plan/1"}\n', "pfnmap report --from"),
        ("BOOT_IMAGE=/boot/vmlinuz-6.12.43 root=UUID=0 ro iommu=pt\n", "a kernel's command line"),
        ("Module                  Size  Used by\n", "lsmod"),
        ("    42.10%  vmm  [kernel.kallsyms]  [k] follow_pfnmap_start\n", "a trace or a profile"),
        ("vgapci0@pci0:59:0:0:\tclass=0x030200 rev=0xa1\n", "FreeBSD's pciconf"),
        ("  Device-1: NVIDIA AD102 driver: vfio-pci v: N/A\n", "inxi"),
        ("/sys/kernel/iommu_groups/27/devices/0000:3b:00.0\n", "a list of devices"),
        ("0000:3b:00.0 vfio-pci [*]\n", "a list of devices"),
        ("not anything at all\n", "run lspci -vv"),
        ("", "it is empty; run lspci -vv"),
    ],
)
def test_text_that_tells_nothing_is_named_with_what_does(text, said):
    with pytest.raises(BadInput, match=r"^host\.txt: ") as error:
        parse_input(text, "host.txt")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_scenario_is_told_by_its_tables():
    assert parse_input('[kernel]\narch = "x86_64"\n\n[[device]]\nname = "gpu"\n').kind == "scenario"


def test_file_plain_compressed_utf_16_and_with_broken_bytes(tmp_path: Path):
    path = tmp_path / "input"
    contents = {
        "plain": RESOURCE.encode(),
        "gzip": gzip.compress(RESOURCE.encode()),
        "utf-16": RESOURCE.encode("utf-16"),
        "latin-1": b"\xb7 r\xe9sum\xe9\n" + RESOURCE.encode(),
    }
    for content in contents.values():
        path.write_bytes(content)
        assert read_input(path).devices == parse_input(RESOURCE).devices
    path.write_bytes(b"\x7fELF\0\0\0")
    with pytest.raises(BadInput, match="binary"):
        read_input(path)


WORDS = [*"0123456789abcdef:. -[]()<>=x\n\t\x1b", "Region 0: Memory at ", "3b:00.0 x: y\n", "(64-bit, prefetchable) "]
WORDS += ["[size=2M]", "pci 0000:00:04.0: BAR 0 [mem 0x", "bus info: pci@0000:00:00.0\n", "resources: memory:"]
WORDS += [
    "1: PCI 0.0: 0300 x\n",
    "SysFS BusID: ",
    "Memory Range: 0x",
    "0000000000000000",
    " : 0000:00:00.0\n",
    " rw-s ",
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map("".join))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        parse_input(text)
    except BadInput as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_more_lines_than_any_input_has_are_refused():
    with pytest.raises(BadInput, match="lines, which is the most that is read"):
        parse_input("\n" * (1 << 19))


POSTED = """\
3b:00.0 3D controller: NVIDIA Corporation GH100 [H100 PCIe] (rev a1)
\tRegion 0: Memory at d2000000 (64-bit, prefetchable) [size=16M]
\tRegion 2: Memory at 380000000000 (64-bit, prefetchable) [size=128G]
\tKernel driver in use: vfio-pci
"""
PREFIXES = {
    "grep -n": "{number}:",
    "cat -n": "     {number}\t",
    "log": "2024-11-20T10:00:00.1234567Z ",
    "list": "  - ",
    "diff": "+",
    "frame": "    │ ",
}


@pytest.mark.parametrize("tool", PREFIXES)
def test_what_a_tool_puts_before_every_line_does_not_matter(tool):
    lines = (PREFIXES[tool].format(number=n) + line for n, line in enumerate(POSTED.splitlines(), 1))
    (device,) = parse_input("\n".join(lines)).devices
    assert [(bar.index, bar.size, bar.phys) for bar in device.bars] == [
        (0, 16 * M, 0xD2000000),
        (2, 128 * G, 0x380000000000),
    ]
    assert (device.bdf, device.driver) == ("0000:3b:00.0", "vfio-pci")


def test_a_region_that_was_wrapped_before_its_address_is_one():
    (device,) = parse_input(
        POSTED.replace("Memory at 380", "Memory at\n380").replace(" [size=128G]", "\n[size=128G]")
    ).devices
    assert [(bar.index, bar.size) for bar in device.bars] == [(0, 16 * M), (2, 128 * G)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1234:   qemu\n00007fa000000000 134217728K rw-s-   [ anon ]\n", "pmap -X of the process that has the device"),
        ("7fa000000000-7fc000000000 rw-p 00000000 00:00 0\n", "give /proc/PID/maps or pmap -X of the process"),
        ('{"handle":"PCI:0000:3b:00.0","businfo":"pci@0000:3b:00.0"}', "lshw -json"),
    ],
)
def test_what_tells_nothing_is_named(text, said):
    with pytest.raises(BadInput, match=said):
        parse_input(text)
