"""Open files, and lines of the fault handler in the log, as recorded."""

import pytest

from pfnmap.contract.mapping import HeldFile, LoggedFault
from pfnmap_vfio_pci import VfioPci

FDINFO = "pos:\t0\nflags:\t02000002\nmnt_id:\t18\nino:\t139\n"
SYSPATH = FDINFO + "vfio-device-syspath: /sys/devices/pci0000:00/0000:00:01.0\n"
BEHIND_BRIDGES = FDINFO + "vfio-device-syspath: /sys/devices/pci0000:e0/0000:e0:01.1/0000:e1:00.0\n"


@pytest.mark.parametrize(
    ("link", "fdinfo", "held"),
    [
        ("/dev/vfio/1", FDINFO, HeldFile(group=1)),
        ("/dev/vfio/noiommu-0", "", HeldFile(group=0)),
        ("anon_inode:[vfio-device]", FDINFO, HeldFile(maps=True)),
        ("anon_inode:[vfio-device]", "", HeldFile(maps=True)),
        ("anon_inode:[vfio-device]", SYSPATH, HeldFile("0000:00:01.0", maps=True)),
        ("anon_inode:[vfio-device]", BEHIND_BRIDGES, HeldFile("0000:e1:00.0", maps=True)),
        ("/dev/vfio/devices/vfio3", SYSPATH, HeldFile("0000:00:01.0", node="vfio3", maps=True)),
        ("/dev/vfio/vfio", FDINFO, None),
        ("/dev/iommu", FDINFO, None),
        ("/tmp/[vfio-device]", FDINFO, None),
    ],
)
def test_link_and_fdinfo_tell_the_device_the_group_or_the_node(link, fdinfo, held):
    assert VfioPci.held(link, fdinfo) == held


LINE = "vfio-pci 0000:00:01.0: vfio_pci_mmap_huge_fault(,order = {}) BAR 2 page offset {}: {}"


@pytest.mark.parametrize(
    ("order", "printed", "offset"),
    [
        (9, "0x200", 0x200),
        (18, "0xffffffffffe00", -0x200),  # 4K pages
        (9, "0xfffffffffffff", -1),
        (11, "0x3ffffffffffff", -1),  # 16K pages
        (13, "0xfffffffffffe", -2),  # 64K pages: inferred
        (0, "0xfffffffffffff", 0xFFFFFFFFFFFFF),  # a page is never below its vma
        (9, "0x7fffffffffe00", 0x7FFFFFFFFFE00),
    ],
)
def test_offset_below_the_vma_is_negative(order, printed, offset):
    line = LINE.format(order, printed, "0x800")
    for form in (line, f"[  123.456] {line}", f"Nov 28 12:00:00 host kernel: {line}", f"<7>{line}"):
        assert VfioPci.logged(form) == LoggedFault("0000:00:01.0", 2, order, offset, 0x800)


@pytest.mark.parametrize(
    "line",
    ["", "vfio-pci 0000:00:01.0: enabling device", LINE.format(9, "0x200", "-5"), LINE.format(999, "0x1", "0x100")],
)
def test_other_lines_are_none_of_the_handler_s(line):
    assert VfioPci.logged(line) is None
