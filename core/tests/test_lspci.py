"""lspci's text becomes devices and BARs; expected values come from lspci itself and from the posted BARs."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfnmap.errors import BadInput
from pfnmap.host.lspci import parse_lspci
from pfnmap.host.paste import lines_of
from pfnmap.host.pci import Bar, Msix, PciDevice, Skipped, normalize_bdf
from pfnmap.sizes import format_size

DATA = Path(__file__).parent / "data"
PRINTED = json.loads(gzip.decompress((DATA / "lspci-3.9.0.json.gz").read_bytes()))["hosts"]
POSTED = json.loads(gzip.decompress((DATA / "bars.json.gz").read_bytes()))

H100 = """\
3b:00.0 3D controller: NVIDIA Corporation GA103 (rev a1)
\tSubsystem: NVIDIA Corporation GA103
\tControl: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr+ Stepping- SERR+ FastB2B- DisINTx+
\tInterrupt: pin A routed to IRQ 17
\tNUMA node: 0
\tRegion 0: Memory at 88042000000 (64-bit, prefetchable) [size=16M]
\tRegion 2: Memory at 84000000000 (64-bit, prefetchable) [size=128G]
\tRegion 4: Memory at 88040000000 (64-bit, prefetchable) [size=32M]
\tCapabilities: <access denied>
\tKernel driver in use: nvidia
\tKernel modules: nvidiafb, nouveau, nvidia_drm, nvidia

"""


def devices_of(text):
    return parse_lspci(lines_of(text)).devices


def skipped_of(text):
    return [(one.device, one.reason) for one in parse_lspci(lines_of(text)).skipped]


def lspci_text(device, numbered=True):
    """Write a device as lspci does: with ``-vvnn`` (numbered) or with ``-vnn``."""
    pci_id = f" [{device.pci_id}]" if device.pci_id else ""
    lines = [f"{device.bdf} {device.class_name}: {device.name}{pci_id} (rev a1)"]
    for bar in device.bars:
        region = f"Region {bar.index}: " if numbered else ""
        address = "<unassigned>" if bar.phys is None else f"{bar.phys:08x}"
        kind = f"({bar.bits}-bit, {'' if bar.prefetchable else 'non-'}prefetchable)"
        flags = " [virtual]" * bar.virtual + " [disabled]" * bar.disabled
        lines.append(f"\t{region}Memory at {address} {kind}{flags} [size={format_size(bar.size)}]")
    lines.append("\tCapabilities: [40] Power Management version 3")
    resizable = [bar for bar in device.bars if bar.rebar_sizes]
    if resizable:
        lines.append("\tCapabilities: [100 v1] Physical Resizable BAR")
    for bar in resizable:
        sizes = " ".join(f"{format_size(size)}B" for size in bar.rebar_sizes)
        lines.append(f"\t\tBAR {bar.index}: current size: {format_size(bar.size)}B, supported: {sizes}")
    if device.driver:
        lines.append(f"\tKernel driver in use: {device.driver}")
    return "\n".join(lines) + "\n\n"


def posted_bar(bar):
    phys = bar["address"]
    return Bar(
        index=bar["index"],
        size=bar["size_bytes"],
        phys=None if phys is None else int(phys, 16),
        bits=bar["bits"],
        prefetchable=bar["prefetchable"],
        disabled=bar.get("disabled", False),
    )


def posted_device(entry):
    return PciDevice(
        bdf=normalize_bdf(entry["bdf"]),
        class_name="3D controller",
        name=entry["device"],
        pci_id=entry["pci_id"],
        bars=tuple(posted_bar(bar) for bar in entry["bars"]),
    )


@st.composite
def functions(draw):
    """A function with BARs in registers that do not overlap."""
    bars, register = [], draw(st.integers(0, 2))
    while register < 6:
        bits = draw(st.sampled_from([32, 64])) if register < 5 else 32
        size = 1 << draw(st.integers(4, 31 if bits == 32 else 40))
        phys = draw(st.none() | st.integers(1, 2**20).map(lambda n, size=size: n * size))
        virtual = draw(st.booleans()) and phys is not None and phys >= 1 << 20
        mebibyte = st.integers(20, 43).map(lambda shift: 1 << shift)
        sizes = draw(st.sets(mebibyte, max_size=4))
        bar = Bar(register, size, phys, bits, draw(st.booleans()), draw(st.booleans()), virtual)
        bars.append(replace(bar, rebar_sizes=tuple(sorted(sizes)) if size >= 1 << 20 else ()))
        register += bits // 32 + draw(st.integers(0, 3))
    numbers = draw(st.tuples(st.integers(0, 2**20), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7)))
    return PciDevice(
        bdf="{:04x}:{:02x}:{:02x}.{:x}".format(*numbers),
        class_name=draw(st.sampled_from(["3D controller", "VGA compatible controller", "0302"])),
        name=draw(st.sampled_from(["NVIDIA Corporation AD102 [GeForce RTX 4090]", "Vendor MegaRAID (rev 03)"])),
        pci_id=draw(st.none() | st.sampled_from(["10de:2684", "15b3:101e"])),
        bars=tuple(bars),
        driver=draw(st.none() | st.sampled_from(["vfio-pci", "mlx5_core"])),
    )


@pytest.mark.parametrize("host", PRINTED, ids=[f"{n}{host['options']}" for n, host in enumerate(PRINTED)])
def test_reads_what_lspci_printed_for_known_functions(host):
    found = {device.bdf: device for device in devices_of(host["text"])}
    assert list(found) == [function["bdf"] for function in host["devices"]]
    numbered = host["options"] != "-v"
    for function in host["devices"]:
        device = found[function["bdf"]]
        assert device.driver == function["driver"]
        assert device.pci_id == (function["pci_id"] if "n" in host["options"] else None)
        assert len(device.bars) == len(function["bars"])
        for bar, expected in zip(device.bars, function["bars"], strict=True):
            phys = expected["phys"]
            assert (bar.size, bar.bits) == (expected["size"], expected["bits"])
            assert bar.phys == (None if phys is None else int(phys, 16))
            assert bar.prefetchable is expected["prefetchable"]
            assert (bar.disabled, bar.virtual) == (expected["disabled"], expected["virtual"])
            assert bar.index_inferred is not numbered
            assert bar.rebar_sizes == (tuple(expected["rebar_sizes"]) if numbered else ())
            if numbered or function["packed"]:
                assert bar.index == expected["index"]


@pytest.mark.parametrize("entry", POSTED, ids=[entry["device"] for entry in POSTED])
def test_posted_device_written_as_lspci_text_reads_back(entry):
    device = posted_device(entry)
    assert devices_of(lspci_text(device))[0].bars == device.bars
    unnumbered = devices_of(lspci_text(device, numbered=False))[0].bars
    assert all(bar.index_inferred for bar in unnumbered)
    assert [replace(bar, index=0, index_inferred=False) for bar in unnumbered] == [
        replace(bar, index=0) for bar in device.bars
    ]
    if entry["index_inferred"]:
        assert [bar.index for bar in unnumbered] == [bar.index for bar in device.bars]


@given(st.lists(functions(), min_size=1, max_size=3, unique_by=lambda device: device.bdf))
def test_written_devices_read_back(written):
    assert devices_of("".join(lspci_text(device) for device in written)) == tuple(written)


def test_a_post_of_an_h100():
    (device,) = devices_of(H100)
    assert device == PciDevice(
        bdf="0000:3b:00.0",
        class_name="3D controller",
        name="NVIDIA Corporation GA103",
        bars=(
            Bar(0, 16 << 20, 0x88042000000, 64, True),
            Bar(2, 128 << 30, 0x84000000000, 64, True),
            Bar(4, 32 << 20, 0x88040000000, 64, True),
        ),
        driver="nvidia",
    )


@pytest.mark.parametrize(
    "mangle",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\t", ""),
        lambda text: text.replace("\t", "        "),
        lambda text: text.replace("\t", "\xa0\xa0\xa0\xa0"),
        lambda text: "".join(f"> {line}\n" for line in text.splitlines()),
        lambda text: "".join(f"\t{line}\n" for line in text.splitlines()),
        lambda text: text.replace("\tRegion 0", "**Region 0").replace("[size=32M]", "[size=32M]**"),
        lambda text: text.replace("Region", "\x1b[01;31m\x1b[KRegion\x1b[m\x1b[K"),
        lambda text: f"\x1b]0;user@host\x07\x1b[?2004l{text}",
        lambda text: f"\ufeff{text}",
        lambda text: f"user@host:~$ sudo lspci -vv\npcilib: sysfs_read_vpd: read failed\n{text}user@host:~$ \n",
        lambda text: f"\tRegion 2: Memory at 8a000000000 (64-bit, prefetchable) [size=128G]\n\n{text}",
        lambda text: f"3b:00.0 3D controller: NVIDIA Corporation GA103 (rev a1)\n$ lspci -vv\n{text}",
        lambda text: text + "3b:00.0 3D controller: NVIDIA Corporation GA103 (rev a1)\n",
        lambda text: text.rstrip("\n"),
    ],
    ids=[
        "crlf",
        "no indentation",
        "spaces",
        "no-break spaces",
        "quoted",
        "indented",
        "markdown emphasis",
        "grep's colours",
        "terminal title",
        "byte order mark",
        "shell session",
        "begins within a device",
        "listed before",
        "listed after",
        "no last newline",
    ],
)
def test_text_that_went_through_other_tools_reads_the_same(mangle):
    assert devices_of(mangle(H100)) == devices_of(H100)


def test_bridges_have_bars_that_nobody_passes_through():
    text = (
        "00:01.0 PCI bridge: Intel Corporation Device 1bbf (rev 11) (prog-if 00 [Normal decode])\n"
        "\tRegion 0: Memory at 200fffc20000 (64-bit, non-prefetchable) [size=128K]\n"
        "\tRegion 1: Memory at <ignored> (32-bit, non-prefetchable)\n"
        "\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0\n"
    )
    read = parse_lspci(lines_of(text))
    assert [device.bars for device in read.devices] == [()]
    assert not read.skipped


def test_expansion_rom_and_io_ports_are_no_bars_but_ports_take_a_register():
    (device,) = devices_of(
        "01:00.0 VGA compatible controller: NVIDIA Corporation AD102 [GeForce RTX 4090] (rev a1)\n"
        "\tI/O ports at 3000 [size=128]\n"
        "\tMemory at 28800000000 (64-bit, prefetchable) [size=32G]\n"
        "\t[virtual] Expansion ROM at b3000000 [disabled] [size=512K]\n"
        "\tExpansion ROM at b3000000 [virtual] [disabled] [size=512K]\n"
    )
    assert [(bar.index, bar.index_inferred) for bar in device.bars] == [(1, True)]


def test_bar_without_address_or_size():
    text = (
        "02:00.0 3D controller: NVIDIA Corporation GA100\n"
        "\tRegion 0: Memory at <unassigned> (32-bit, non-prefetchable) [disabled] [size=16M]\n"
        "\tRegion 1: Memory at <ignored> (64-bit, prefetchable) [disabled] [size=64G]\n"
        "\tRegion 3: Memory at e9010000 (32-bit, non-prefetchable)\n"
        "\tRegion 5: Memory at <broken-64-bit-slot> (64-bit, prefetchable)\n"
    )
    (device,) = devices_of(text)
    assert skipped_of(text) == [
        ("0000:02:00.0", "line 4: region 3 has no size, so nothing is planned for it"),
        ("0000:02:00.0", "line 5: region 5 has no size, so nothing is planned for it"),
    ]
    assert [(bar.index, bar.phys, bar.disabled) for bar in device.bars] == [(0, None, True), (1, None, True)]


def test_legacy_ide_ports_of_older_lspci_are_not_memory():
    text = (
        "00:01.1 IDE interface: Intel Corporation 82371SB PIIX3 IDE [Natoma/Triton II] (prog-if 80 [Master])\n"
        "\tRegion 0: [virtual] Memory at 000001f0 (32-bit, non-prefetchable) [size=8]\n"
        "\tRegion 1: [virtual] Memory at 000003f0 (type 3, non-prefetchable)\n"
        "\tRegion 2: Memory at 00000170 (32-bit, non-prefetchable) [virtual] [size=8]\n"
        "\tRegion 4: I/O ports at c0e0 [size=16]\n"
    )
    (device,) = devices_of(text)
    assert device.bars == ()
    assert [reason for _, reason in skipped_of(text)] == [
        f"line {line}: region {line - 2} at {ports:#x} is legacy I/O ports, which lspci takes for memory"
        for line, ports in ((2, 0x1F0), (3, 0x3F0), (4, 0x170))
    ]
    assert device.name == "Intel Corporation 82371SB PIIX3 IDE [Natoma/Triton II]"


def test_region_of_enhanced_allocation_may_have_any_size():
    text = (
        "01:00.0 Ethernet controller: Cavium, Inc. x\n\tRegion 0: Memory at 84{} (64-bit, prefetchable) {}[size=3M]\n"
    )
    assert devices_of(text.format("3000000000", "[enhanced] "))[0].bars[0].size == 3 << 20
    assert "not a power of two" in skipped_of(text.format("3000000000", ""))[0][1]


def test_sr_iov_regions_belong_to_virtual_functions():
    text = H100.replace(
        "\tCapabilities: <access denied>\n",
        "\tCapabilities: [250 v1] Single Root I/O Virtualization (SR-IOV)\n"
        "\t\tRegion 0: Memory at 00000e05d4000000 (64-bit, prefetchable)\n"
        "\tCapabilities: [300 v1] Virtual Resizable BAR\n"
        "\t\tBAR 0: current size: 256KB, supported: 1MB\n",
    )
    assert devices_of(text) == devices_of(H100)


def test_resizable_sizes_belong_to_the_bar_they_name():
    text = H100.replace(
        "\tCapabilities: <access denied>\n",
        "\tCapabilities: [134 v1] Physical Resizable BAR\n"
        "\t\tBAR 2: current size: 128GB, supported: 64MB 128MB 1GB 128GB\n",
    )
    sizes = {bar.index: bar.rebar_sizes for bar in devices_of(text)[0].bars}
    assert sizes == {0: (), 2: (64 << 20, 128 << 20, 1 << 30, 128 << 30), 4: ()}


def bad_region(region):
    return f"3b:00.0 3D controller: NVIDIA Corporation GA103\n\tSubsystem: x\n\t{region}\n"


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        ("Region 2: Memory at 84000000000 (64-bit, prefetchable) [size=0]", "not a power of two"),
        ("Region 2: Memory at 84000000000 (64-bit, prefetchable) [size=96G]", "not a power of two"),
        ("Region 2: Memory at 84000000000 (64-bit, prefetchable) [size=128Gb]", "unknown unit"),
        ("Region 2: Memory at 84000000000 (64-bit, prefetchable) [size=-1]", "negative"),
        ("Region 2: Memory at 84000000000 (64-bit, prefetchable) [size=]", "empty"),
        ("Region 2: Memory at 84000000000 (64-bit, prefetchable) [size=99999999E]", "64 bits"),
        ("Region 2: Memory at 84000000000 (64-bit, prefetchable) [size=12", "cannot read"),
        ("Region 2: Memory at 84000000000 (64-bit, pref", "cannot read"),
        ("Region 2: Memory at 84000000000", "cannot read"),
        ("Region 2: Memory at 0x84000000000 (64-bit, prefetchable) [size=128G]", "cannot read"),
        ("Region 2: Memory at 00084000000000000 (64-bit, prefetchable) [size=128G]", "cannot read"),
        ("Region 2: Memory at <nowhere> (64-bit, prefetchable) [size=128G]", "cannot read"),
        ("Region 2: Memory at 84000000000 (48-bit, prefetchable) [size=128G]", "cannot read"),
        ("Region x: Memory at 84000000000 (64-bit, prefetchable) [size=128G]", "cannot read"),
        ("Region 2: Sausages at 84000000000", "cannot read"),
        ("Region 6: Memory at 84000000000 (64-bit, prefetchable) [size=128G]", "has 6 BARs"),
        ("Memory at 84000000000 (64-bit, prefetchable) [size=12", "cannot read"),
    ],
)
def test_a_bad_region_is_skipped_with_its_line_and_the_next_device_is_read(region, reason):
    text = bad_region(region)
    ((device, said),) = skipped_of(text)
    assert (device, reason in said, said.startswith("line 3: ")) == ("0000:3b:00.0", True, True)
    assert "\n" not in said
    assert devices_of(text + H100.replace("3b:", "3c:"))[1:] == devices_of(H100.replace("3b:", "3c:"))


@pytest.mark.parametrize(("old", "new", "line"), [("Region 2", "Region 1", 7), ("Region 4", "Region 2", 8)])
def test_of_two_bars_in_one_register_the_second_is_skipped(old, new, line):
    said = f"line {line}: region {new[-1]} is in a register of the region before it"
    assert skipped_of(H100.replace(old, new)) == [("0000:3b:00.0", said)]


def test_a_seventh_unnumbered_bar_is_skipped():
    bar = "\tMemory at b2000000 (32-bit, non-prefetchable) [size=16M]\n"
    text = "3b:00.0 3D controller: x\n" + bar * 7
    assert len(devices_of(text)[0].bars) == 6
    assert "region 6" in skipped_of(text)[0][1]


def test_a_device_listed_twice_is_one_device_and_other_bars_are_skipped():
    assert parse_lspci(lines_of(H100 + H100)) == parse_lspci(lines_of(H100))
    text = H100 + H100.replace("128G", "256M")
    assert devices_of(text) == devices_of(H100)
    assert skipped_of(text) == [("0000:3b:00.0", "line 13: listed once more with other BARs; the first are taken")]


def test_regions_without_a_device_are_read_where_no_device_is_named():
    region = "Region 2: Memory at 84000000000 (64-bit, prefetchable) [size=128G]\n"
    assert devices_of(region) == (PciDevice(None, "", "", bars=(Bar(2, 128 << 30, 0x84000000000, 64, True),)),)
    reading = parse_lspci(lines_of(region + H100))
    assert reading.skipped == (Skipped(None, "regions before the first device line, with no device"),)
    assert [device.bdf for device in reading.devices if device.bars] == ["0000:3b:00.0"]


def test_a_region_that_a_mail_program_wrapped_is_joined():
    for cut in (" [size=128G]", " (64-bit, prefetchable) [size=128G]", " prefetchable) [size=128G]"):
        assert devices_of(H100.replace(cut, cut.replace(" ", "\n> ", 1))) == devices_of(H100)


def test_msix_table_and_pending_bits():
    text = H100.replace(
        "\tCapabilities: <access denied>\n",
        "\tCapabilities: [78] MSI-X: Enable- Count=6 Masked-\n"
        "\t\tVector table: BAR=0 offset=00b90000\n"
        "\t\tPBA: BAR=0 offset=00ba0000\n",
    )
    assert devices_of(text)[0].msix == Msix(0, 0xB90000, 6, 0, 0xBA0000)
    assert devices_of(text.replace("\t\tPBA", "\t\tX"))[0].msix == Msix(0, 0xB90000, 6)
    assert devices_of(text.replace("\t\tVector", "\t\tX"))[0].msix is None


def test_vendor_and_device_of_a_device_that_has_no_name():
    found = devices_of("00:01.0 Class ffff: Device 1af4:1045 (rev 01)\n00:02.0 ffff: 1af4:1046\n")
    assert [device.pci_id for device in found] == ["1af4:1045", "1af4:1046"]


@given(st.text(alphabet=st.sampled_from("3b:0.1 RegionMemory at[]()<>size=GM64-bit,\n\x1b\t")))
def test_any_text_is_read_or_skipped(text):
    reading = parse_lspci(lines_of("3b:00.0 3D controller: x\n" + text))
    assert all("\n" not in one.reason for one in reading.skipped)


def test_one_endless_line_takes_no_time():
    text = "3b:00.0 3D controller: x" + " (prog-if 00 [" * 500_000
    assert len(devices_of(text)[0].name) < 5000


@pytest.mark.parametrize(
    ("text", "bdf"),
    [
        ("3b:00.0", "0000:3b:00.0"),
        ("0000:3B:1F.7", "0000:3b:1f.7"),
        ("0006:01:00.0", "0006:01:00.0"),
        ("10000:e1:00.0", "10000:e1:00.0"),
        (" 00003b:00.0 ", None),
        ("3b:20.0", None),
        ("3b:00.8", None),
        ("3b:00", None),
        ("", None),
    ],
)
def test_pci_address_is_completed_or_refused(text, bdf):
    if bdf is None:
        with pytest.raises(BadInput, match="not a PCI address"):
            normalize_bdf(text)
    else:
        assert normalize_bdf(text) == bdf


def test_breaks_of_a_web_page_are_lines_that_are_counted():
    with pytest.raises(BadInput, match="more than 262144 lines"):
        lines_of("<br>" * 300_000)
