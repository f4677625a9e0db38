"""`pfnmap log`: the fault handler's lines, as the recordings' records dmesg.* of 6.12.117 and 7.3.4 have them."""

from __future__ import annotations

import pytest

FAULT = "vfio-pci {}: vfio_pci_mmap_huge_fault(,order = {}) BAR {} page offset {:#x}: {:#x}"
NOPAGE, FALLBACK, SIGBUS = 0x100, 0x800, 0x2
BELOW = (1 << 52) - 0x200
SAMPLE = (  # dmesg.sample of x86_64-4k-6.12.117: 8G at 0x100000200000, touched at +0, +2M and +0x3fe00000
    (18, BELOW, FALLBACK),
    (9, 0, NOPAGE),
    (9, 0x200, NOPAGE),
    (18, 0x3FE00, FALLBACK),
    (9, 0x3FE00, NOPAGE),
)


def text(*faults, device="0000:00:01.0", bar=2, step=1.0):
    lines = (FAULT.format(device, order, bar, offset, ret) for order, offset, ret in faults)
    return "".join(f"[{100 + n * step:12.6f}] {line}\n" for n, line in enumerate(lines))


@pytest.fixture
def read(answer, tmp_path):
    """Read a log, and return the document's devices."""

    def run(log, *words, exit_code=0):
        path = tmp_path / "log"
        path.write_text(log)
        return answer("log", path, *words, exit_code=exit_code)["devices"]

    return run


def test_faults_are_counted_and_what_they_cover(read):
    (found,) = read(text(*SAMPLE), "--release", "6.12.117")
    assert found == {
        "device": "0000:00:01.0",
        "bar": 2,
        "faults": [{"order": 18, "ret": "FALLBACK", "count": 2}, {"order": 9, "ret": "NOPAGE", "count": 3}],
        "covered": 3 << 21,
        "complete": True,
        "suppressed": 0,
        "contradicts": [],
    }


def test_every_form_of_a_log_is_read(read):
    plain = text(*SAMPLE)
    lines = [line.split("] ", 1)[1] for line in plain.splitlines()]
    for form in ("{}", "<7>[ 1.5] {}", "Nov 28 12:00:00 host kernel: {}", "> [Fri Nov 28 12:00:00 2026] {}"):
        (found,) = read("".join(f"{form.format(line)}\n" for line in lines))
        assert found["covered"] == 3 << 21


def test_devices_and_bars_are_told_apart(read):
    log = text((9, 0, NOPAGE)) + text((9, 0, NOPAGE), bar=4) + text((0, 5, NOPAGE), device="0000:01:00.0")
    assert [(one["device"], one["bar"], one["covered"]) for one in read(log)] == [
        ("0000:00:01.0", 2, 1 << 21),
        ("0000:00:01.0", 4, 1 << 21),
        ("0000:01:00.0", 2, 4096),
    ]


def test_block_that_is_mapped_twice_covers_once(read):
    (found,) = read(text((18, 0, NOPAGE), (9, 0x200, NOPAGE), (9, 0x40000, NOPAGE), (9, 0x40000, NOPAGE)))
    assert found["covered"] == (1 << 30) + (1 << 21)


def test_suppressed_lines_are_said(read):
    log = text((9, 0, NOPAGE)) + "[ 9.0] vfio_pci_mmap_huge_fault: 1234 callbacks suppressed\n"
    log += "[ 9.5] vfio_pci_mmap_huge_fault: 6 callbacks suppressed\n[ 9.6] ext4_foo: 7 callbacks suppressed\n"
    (found,) = read(log)
    assert (found["complete"], found["suppressed"]) == (False, 1240)


@pytest.mark.parametrize(("count", "step", "complete"), [(9, 0.01, True), (10, 0.01, False), (10, 1.0, True)])
def test_as_many_lines_as_the_limit_lets_through_may_not_be_all(read, count, step, complete):
    (found,) = read(text(*((9, n << 9, NOPAGE) for n in range(count)), step=step))
    assert found["complete"] is complete
    (found,) = read("".join(line[15:] for line in text(*((9, 0, NOPAGE),) * count).splitlines(keepends=True)))
    assert found["complete"] is (count < 10)


def test_log_that_this_kernel_cannot_have_contradicts(read):
    (found,) = read(text((18, 0, NOPAGE)), "--release", "6.1.192")
    assert "huge-pfnmap" in found["contradicts"][0]
    (found,) = read(text((11, 0, NOPAGE)), "--release", "6.12.117")
    assert "order 11" in found["contradicts"][0]
    (found,) = read(text((18, 0, NOPAGE)), "--release", "6.12.117", "--arch", "arm64", "--check", exit_code=1)
    assert "no pud pfnmap" in found["contradicts"][0]
    assert read(text((11, 0, NOPAGE)), "--arch", "arm64", "--page-size", "16K")[0]["covered"] == 32 << 20


@pytest.mark.parametrize(
    ("release", "thp", "contradicts"), [("6.12.94", "never", 1), ("6.12.94", "madvise", 0), ("6.12.117", "never", 0)]
)
def test_huge_faults_contradict_a_kernel_that_asks_for_none(read, release, thp, contradicts):
    """Before thp-bypass-pfnmap the handler is not called for huge leaves with `never`; with `madvise` it may be."""
    (found,) = read(text(*SAMPLE), "--release", release, "--thp", thp, "--check", exit_code=contradicts)
    assert len(found["contradicts"]) == contradicts
    assert all("5 faults" in said and "never" in said for said in found["contradicts"])
    (found,) = read(text((0, 0, NOPAGE)), "--release", release, "--thp", thp)
    assert found["contradicts"] == []


@pytest.fixture
def captured(hosts, tmp_path):
    """A captured host with one H200 in a QEMU 9.2, and how it is called."""
    root = tmp_path / "host"
    hosts.write_directory(hosts.h200_host("9.2", count=1), root)
    return root, hosts.gpus((0, 0, 0), 1)[0].bdf


def test_log_agrees_with_the_plan_of_its_host_or_says_where_not(read, captured):
    root, bdf = captured
    agreeing = text((18, 0, NOPAGE), (18, 1 << 18, NOPAGE), device=bdf)
    agreeing += text((18, 0, FALLBACK), (9, 0, NOPAGE), device=bdf, bar=4)
    assert [one["contradicts"] for one in read(agreeing, "--root", root)] == [[], []]
    (found,) = read(text((18, 0, FALLBACK), (9, 0, NOPAGE), device=bdf), "--root", root, "--check", exit_code=1)
    fell_back, smaller = found["contradicts"]
    assert "fell back" in fell_back
    assert "pud leaves are planned" in smaller
    (found,) = read(text((18, 1 << 40, NOPAGE), device=bdf), "--root", root)
    assert "in none of process 4242's mappings" in found["contradicts"][0]
    (found,) = read(text((18, 0, SIGBUS), device=bdf), "--root", root)
    assert found["contradicts"] == []


def test_block_that_cannot_be_contradicts_and_covers_nothing(read, captured):
    """A block of no level, one from below the vma, one beyond all of user space; and on a host one that is larger than
    the BAR, at an address that is no multiple of it, or over the mapping's end."""
    root, bdf = captured
    for order, offset, said in (
        (11, 0, "order 11 is of no level"),
        (99, 0, "order 99 is of no level"),
        (18, -0x200, "0x200 pages below the vma"),
        (9, 1 << 40, "more than user space"),
    ):
        (found,) = read(text((9, 0, NOPAGE), (order, offset % (1 << 52), NOPAGE)), "--check", exit_code=1)
        assert found["covered"] == 2 << 20
        (contradiction,) = found["contradicts"]
        assert said in contradiction
    for bar, order, offset, said in (
        (4, 18, 0, "1G, and the BAR has 32M"),
        (2, 18, 0x200, "which is no multiple of 1G"),
        (0, 9, 0x1000, "none of process 4242's mappings"),
        (2, 9, 0x3FFFF00, "which is no multiple of 2M"),
    ):
        (found,) = read(text((order, offset, NOPAGE), device=bdf, bar=bar), "--root", root)
        assert found["covered"] == 0
        assert said in found["contradicts"][0]


def test_faults_of_a_bar_that_is_mapped_in_parts_are_of_either_part(hosts, read, tmp_path):
    """Offsets count from the start of each vma: what one part cannot have is the other's."""
    host = hosts.h200_host("9.2", count=1)
    root = tmp_path / "host"
    hosts.write_directory(host, root)
    (maps,) = root.glob("proc/4242/maps")
    old = maps.read_text()
    line = next(line for line in old.splitlines() if "vfio-device" in line and " 20000000000 " in line)
    area, rest = line.split(" ", 1)
    start, end = (int(word, 16) for word in area.split("-"))
    middle = start + (3 << 20)
    upper = rest.replace("20000000000", f"{0x20000000000 + (3 << 20):x}")
    maps.write_text(old.replace(line, f"{start:x}-{middle:x} {rest}\n{middle:x}-{end:x} {upper}"))
    bdf = hosts.gpus((0, 0, 0), 1)[0].bdf
    log = text((9, 0, NOPAGE), (9, 0x100, NOPAGE), (18, 0x3FD00, NOPAGE), device=bdf)
    (found,) = read(log, "--root", root, "--check")
    assert found["contradicts"] == []
    assert found["covered"] == (1 << 30) + (2 << 21) - (1 << 20)


def test_map_shows_what_was_mapped(pfnmap):
    shown = pfnmap("log", "-", "--release", "6.12.117", input=text(*SAMPLE))
    assert shown.exit_code == 0
    assert "|=......" in shown.stdout
    assert "2x2M" in shown.stdout


def test_log_of_very_many_blocks_or_bars_is_shown_in_part(pfnmap):
    blocks = text(*((0, 2 * n, NOPAGE) for n in range(400)))
    shown = pfnmap("log", "-", "--release", "6.12.117", input=blocks).stdout
    assert "and 543 more" in shown  # of 400 blocks and 399 gaps
    assert "covered: 1600K" in shown
    bars = "".join(text((9, 0, NOPAGE), device=f"{n:04x}:00:01.0") for n in range(300))
    shown = pfnmap("log", "-", "--release", "6.12.117", input=bars).stdout
    assert "and 44 more BARs" in shown
    assert "00ff:00:01.0" in shown
    assert "0100:00:01.0" not in shown


@pytest.mark.parametrize("log", ["", "nothing of it\n", "vfio-pci 0000:00:01.0: enabling device\n"])
def test_log_without_a_fault_is_one_line(refused, tmp_path, log):
    path = tmp_path / "log"
    path.write_text(log)
    assert "no line of a driver's fault handler" in refused("log", path)
