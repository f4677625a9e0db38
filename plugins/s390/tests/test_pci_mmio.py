"""s390_pci_mmio_read and s390_pci_mmio_write on mapped BARs: what they move, and what they refuse in which order.

The expected outcomes are worked out by hand from arch/s390/pci/pci_mmio.c of 6.12.117 and 6.1.192: there is no
recording.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uar import DeadUar, LazyUar, Uar

from pfnmap import BadInput, Device, DeviceBar, Refused, Unknown
from pfnmap.contract.device import BarPart
from pfnmap.contract.step import Step
from pfnmap.kernel import Kernel
from pfnmap.run import Run
from pfnmap_s390 import S390
from pfnmap_s390.pci_mmio import ZPCI_ADDR, zpci_get_max_io_size

PAGE = 4096
BAR0, BAR2, BELOW, TINY = 0x2000_0000_0000, 0x2000_0010_0000, 0x2000_0020_0000, 0x2000_0030_0000
RW, RO, WO, LOST, MEMORY = 0x1000_0000, 0x1100_0000, 0x1200_0000, 0x1300_0000, 0x1400_0000
UNMAPPED = 0x3000_0000_0000


def device() -> Device:
    """BARs 0 and 2 lie where the kernel puts the first two BARs it finds, BAR 1 where a MIO machine may put one, BAR 3
    in the window at a cookie that is no BAR's; BAR 4 is smaller than a page."""
    bars = [
        DeviceBar(0, 1 << 20, ZPCI_ADDR(0)),
        DeviceBar(1, 1 << 20, 0x4_0000_0000),
        DeviceBar(2, 1 << 20, ZPCI_ADDR(1)),
        DeviceBar(3, 1 << 20, ZPCI_ADDR(5) + (1 << 20)),
        DeviceBar(4, 64, ZPCI_ADDR(7)),
    ]
    return Device("nic", "0000:00:00.0", {bar.index: bar for bar in bars})


def mapped(release: str = "6.12.117", *, driver: type[Uar] = Uar, config: Any = None, **cpu: object) -> Run:
    """A process that has the BARs mapped, and two pages of its own memory."""
    kernel = Kernel.link(S390, [driver], release=release, config={"PCI": "y", **(config or {})}, cpu=cpu)
    run = Run(kernel, [device()], driver.name)
    for addr, bar, prot in (
        (BAR0, 0, "rw"), (RW, 0, "rw"), (RO, 0, "r"), (WO, 0, "w"), (BELOW, 1, "rw"), (BAR2, 2, "rw"), (LOST, 3, "rw"),
    ):  # fmt: skip
        arguments = {"device": "nic", "bar": bar, "length": 1 << 20, "prot": prot, "shared": True}
        assert run.step(Step("mmap", {**arguments, "addr": addr, "fixed": True})).result == "ok"
    tiny = {"device": "nic", "bar": 4, "length": PAGE, "prot": "rw", "shared": True, "addr": TINY, "fixed": True}
    assert run.step(Step("mmap", tiny)).result == "ok"
    memory = {"length": 2 * PAGE, "prot": "rw", "shared": False, "addr": MEMORY, "fixed": True}
    assert run.step(Step("mmap", memory)).result == "ok"
    return run


def write(run: Run, va: int, data: bytes, **arguments: Any) -> dict[str, Any]:
    return run.step(Step("s390.pci_mmio_write", {"va": va, "data": data.hex(), **arguments})).as_json()


def read(run: Run, va: int, length: int, **arguments: Any) -> dict[str, Any]:
    return run.step(Step("s390.pci_mmio_read", {"va": va, "length": length, **arguments})).as_json()


def both(run: Run, va: int, length: int = 8, **arguments: Any) -> tuple[str, str]:
    data = b"\xa5" * length
    return write(run, va, data, **arguments)["result"], read(run, va, length, **arguments)["result"]


@pytest.fixture(scope="module")
def run() -> Run:
    return mapped()


# What is moved


def test_what_was_written_is_read_through_any_mapping_of_the_place(run):
    assert write(run, BAR0 + 0x122, b"pfnmap")["result"] == "ok"
    assert bytes.fromhex(read(run, RO + 0x122, 6)["data"]) == b"pfnmap"
    assert bytes.fromhex(read(run, BAR2 + 0x122, 6)["data"]) == bytes(6)


@given(st.integers(0, PAGE - 1).flatmap(lambda at: st.tuples(st.just(at), st.binary(min_size=1, max_size=PAGE - at))))
def test_any_bytes_within_a_page_arrive_if_none_crosses_a_doubleword(run, place):
    at, data = place
    at &= -8
    assert write(run, BAR2 + at, data)["result"] == "ok"
    assert bytes.fromhex(read(run, BAR2 + at, len(data))["data"]) == data


def test_a_new_boot_has_forgotten_them():
    run = mapped()
    write(run, BAR0, b"\xff")
    assert read(Run(run.kernel, [device()], "uar"), BAR0, 1)["result"] == "EINVAL"
    again = mapped()
    assert read(again, BAR0, 1)["data"] == "00"


@pytest.mark.parametrize(
    ("at", "length", "stores"),
    [
        (0, 8, ["zpci_store"]),
        (0, 16, ["zpci_write_block"]),
        (0, 136, ["zpci_write_block", "zpci_store"]),
        (8, 256, ["zpci_write_block"] * 2),
        (0, 20, ["zpci_store"] * 3),
        (0, 7, ["zpci_store"] * 3),
        (4, 4, ["zpci_store"]),
    ],
)
def test_a_write_is_cut_into_blocks_and_single_stores_and_a_read_into_loads(run, at, length, stores):
    calls = write(run, BAR0 + at, bytes(length))["calls"]
    counted = {name: stores.count(name) for name in stores}
    assert {name: count for name, count in calls.items() if name.startswith("zpci")} == counted
    loads = read(run, BAR0 + at, length)["calls"]["zpci_load"]
    assert loads == length // 8 + (length % 8).bit_count()


@given(st.integers(0, 127), st.integers(0, 127), st.integers(1, 300), st.sampled_from([8, 128]))
def test_the_size_of_an_instruction_fits_and_is_a_power_of_two_or_of_doublewords(src, dst, length, most):
    size = zpci_get_max_io_size(src, dst, length, most)
    assert 0 < size <= min(length, most)
    assert size.bit_count() == 1 or (size % 8 == src % 8 == dst % 8 == 0)


def test_one_look_up_serves_a_call(run):
    result = write(run, RW, bytes(64))
    assert (result["calls"]["follow_pfnmap_start"], result["faults"]) == (1, [])


# What is refused. Each row: the errno of a write and of a read.


def test_a_kernel_without_pci_does_not_have_the_calls():
    # COND_SYSCALL in kernel/sys_ni.c
    assert both(mapped(config={"PCI": "n"}), BAR0) == ("ENOSYS", "ENOSYS")


def test_a_machine_without_pci_has_no_device():
    assert both(mapped(zpci=False), BAR0, length=0) == ("ENODEV", "ENODEV")


def test_nothing_to_move_is_invalid(run):
    assert both(run, UNMAPPED, length=0) == ("EINVAL", "EINVAL")


@pytest.mark.parametrize(("at", "length"), [(0, PAGE + 1), (1, PAGE), (PAGE - 1, 2), (PAGE - 8, 16)])
def test_what_crosses_a_page_is_invalid(run, at, length):
    assert both(run, BAR0 + at, length) == ("EINVAL", "EINVAL")


def test_a_whole_page_does_not_cross_one(run):
    assert both(run, BAR0, PAGE) == ("ok", "ok")


def test_no_mapping_is_invalid(run):
    assert both(run, UNMAPPED) == ("EINVAL", "EINVAL")


def test_memory_is_no_io_memory(run):
    assert both(run, MEMORY) == ("EINVAL", "EINVAL")


@pytest.mark.parametrize(
    ("release", "va", "results"),
    [
        ("6.12.117", RO, ("EACCES", "ok")),
        ("6.12.117", WO, ("ok", "EACCES")),
        # Before s390-pci-mmio-fault the read asked for VM_WRITE.
        ("6.1.192", RO, ("EACCES", "EACCES")),
        ("6.1.192", WO, ("ok", "ok")),
    ],
)
def test_the_mapping_has_to_permit_the_access(release, va, results):
    assert both(mapped(release), va) == results


@pytest.mark.parametrize(
    ("release", "results", "calls"),
    [
        # Without an entry: faulted in where the release does that.
        ("6.12.117", ("ok", "ok"), {"fixup_user_fault": 1, "follow_pfnmap_start": 2}),
        ("6.12.1", ("EINVAL", "EINVAL"), {"follow_pfnmap_start": 1}),
        ("6.1.192", ("EINVAL", "EINVAL"), {"follow_pte": 1}),
    ],
)
def test_what_no_entry_maps_is_faulted_in_or_invalid(release, results, calls):
    run = mapped(release, driver=LazyUar)
    made = write(run, BAR0, bytes(8))["calls"]
    assert {name: made.get(name, 0) for name in calls} == calls
    assert both(run, BAR2) == results


def test_a_fault_that_fails_is_invalid():
    run = mapped(driver=DeadUar)
    result = write(run, BAR0, bytes(8))
    assert (result["result"], result["calls"]["fixup_user_fault"]) == ("EINVAL", 1)
    assert read(run, BAR0, 8)["result"] == "EINVAL"


def test_an_address_below_the_window_of_bars_is_a_fault(run):
    assert both(run, BELOW) == ("EFAULT", "EFAULT")


def test_a_cookie_that_no_bar_has_is_an_io_error(run):
    assert both(run, LOST) == ("EIO", "EIO")


def test_a_place_beyond_the_bar_is_none(run):
    assert both(run, TINY, 64) == ("ok", "ok")
    assert both(run, TINY + 64) == ("ENXIO", "ENXIO")


def test_an_access_that_crosses_a_doubleword_is_none(run):
    assert both(run, BAR0 + 4, 8) == ("ENXIO", "ENXIO")


def test_a_buffer_that_is_not_there_is_a_fault(run):
    assert both(run, BAR0, buffer=UNMAPPED) == ("EFAULT", "EFAULT")
    assert both(run, BAR0, buffer=MEMORY + 1) == ("ok", "ok")


def test_a_buffer_is_read_before_the_mapping_is_looked_at_and_written_after_the_read(run):
    assert both(run, UNMAPPED, buffer=UNMAPPED) == ("EFAULT", "EINVAL")
    write(run, BAR0, b"\x11")
    result = read(run, BAR0, 1, buffer=UNMAPPED)
    assert ("data" in result, result["calls"]["zpci_load"]) == (False, 1)


def test_the_mapping_is_asked_before_the_window(run):
    run.step(Step("mprotect", {"addr": BELOW, "length": 1 << 20, "prot": "r"}))
    assert write(run, BELOW, bytes(8))["result"] == "EACCES"
    run.step(Step("mprotect", {"addr": BELOW, "length": 1 << 20, "prot": "rw"}))


# With the MIO facility


@pytest.fixture(scope="module")
def mio() -> Run:
    return mapped(mio=True)


def test_mio_instructions_go_where_the_mapping_goes(mio):
    # No window, no permission of the vma but through the CPU, no look-up.
    result = write(mio, BELOW + 0x10, b"below")
    assert (result["result"], bytes.fromhex(read(mio, BELOW + 0x10, 5)["data"])) == ("ok", b"below")


@pytest.mark.parametrize(
    ("va", "length", "buffer", "results"),
    [
        (UNMAPPED, 8, None, ("ENXIO", "ENXIO")),
        (RO, 8, None, ("ENXIO", "ok")),
        (BAR0, 8, 0, ("EINVAL", "EFAULT")),
        (BAR0, 8, UNMAPPED, ("ENXIO", "EFAULT")),
        (BAR0, 16, UNMAPPED, ("ENXIO", "EFAULT")),
        (BAR0, 8, MEMORY, ("ok", "ok")),
        (BAR0 + 4, 8, None, ("ENXIO", "ENXIO")),
        (BAR0, 0, None, ("EINVAL", "EINVAL")),
        (BAR0 + 1, PAGE, None, ("EINVAL", "EINVAL")),
    ],
)
def test_what_mio_instructions_refuse_is_no_such_place(mio, va, length, buffer, results):
    assert both(mio, va, length, **({} if buffer is None else {"buffer": buffer})) == results


def test_a_mio_access_to_what_is_no_bar_is_not_modelled(mio):
    with pytest.raises(Refused, match="no BAR is mapped"):
        write(mio, MEMORY, bytes(8))


def test_a_mio_access_faults_the_mapping_in():
    run = mapped(driver=LazyUar, mio=True)
    result = write(run, BAR0, bytes(8))
    assert (result["result"], result["handle_mm_fault"]) == ("ok", 2)  # young, then dirty


# As actions


def test_the_child_makes_the_call_in_its_own_address_space(run):
    run.step(Step("fork", {}))
    run.step(Step("munmap", {"addr": BAR2, "length": PAGE}, by="child"))
    step = Step("s390.pci_mmio_read", {"va": BAR2, "length": 1}, by="child")
    assert run.step(step).as_json()["result"] == "EINVAL"
    assert read(run, BAR2, 1)["result"] == "ok"
    run.step(Step("exit", {}, by="child"))


def test_a_negative_length_is_refused(run):
    with pytest.raises(BadInput, match="-1"):
        read(run, BAR0, -1)


@pytest.mark.parametrize("data", ["0", "xyz", "0x10"])
def test_data_that_is_no_hex_is_refused(run, data):
    with pytest.raises(BadInput, match="no bytes in hex"):
        run.step(Step("s390.pci_mmio_write", {"va": BAR0, "data": data}))


def test_a_misspelt_call_is_told_its_name(run):
    with pytest.raises(Unknown, match="pci_mmio_write"):
        run.step(Step("s390.pci_mmio_wirte", {"va": BAR0, "data": ""}))


# What the device and the machine say (res1.rw and vfio.rw of 7.2.12)


def with_parts(*parts: BarPart) -> Run:
    bar = DeviceBar(0, PAGE, ZPCI_ADDR(0), parts=parts or None)
    run = Run(
        Kernel.link(S390, [Uar], release="7.3.4", config={"PCI": "y"}), [Device("nic", "0000:00:00.0", {0: bar})], "uar"
    )
    where = {"device": "nic", "bar": 0, "length": PAGE, "prot": "rw", "shared": True, "addr": BAR0, "fixed": True}
    assert run.step(Step("mmap", where)).result == "ok"
    return run


@pytest.mark.parametrize(
    ("at", "length", "result"),
    [(0, 4, "ok"), (4, 4, "ok"), (0, 8, "ok"), (16, 16, "ok"), (0, 1, "ENXIO"), (0, 3, "ENXIO"), (1, 2, "ENXIO"),
     (32, 8, "ENXIO"), (24, 16, "ENXIO"), (0, PAGE, "ENXIO"), (0x800, 8, "ok")],
)  # fmt: skip
def test_a_device_answers_only_what_it_has(at: int, length: int, result: str):
    """An MSI-X table of two vectors with its pending bits."""
    run = with_parts(BarPart(0, 32, (4, 8)), BarPart(0x800, 8, (4, 8)))
    assert both(run, BAR0 + at, length) == (result, result)


def test_an_access_that_is_not_aligned_to_its_size_is_refused_by_a_device_that_says_so():
    assert both(with_parts(BarPart(0, PAGE, (1, 2, 4, 8))), BAR0 + 1, 2) == ("ENXIO", "ENXIO")
    assert both(with_parts(), BAR0 + 1, 2) == ("ok", "ok")


@pytest.mark.parametrize("access", ["read", "write"])
def test_a_plain_access_of_a_cookie_is_sigill(run: Run, access: str):
    got = run.step(Step("touch", {"va": BAR0, "access": access})).as_json()
    assert (got["result"], got["si_code"]) == ("SIGILL", 3)
    assert run.step(Step("touch", {"va": BELOW, "access": access})).result == "ok"


def test_with_mio_there_are_no_cookies():
    assert mapped(mio=True).step(Step("touch", {"va": BAR0, "access": "read"})).result == "ok"
