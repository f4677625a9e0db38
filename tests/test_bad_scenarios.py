"""Scenario files that cannot be, or that ask for too much: one line that names file, step and argument."""

from __future__ import annotations

import json
import os
import threading

import pytest

from pfnmap.limits import PAGES, bounded

MACHINE = """
[[device]]
name = "gpu"
[[device.bar]]
index = 2
size = "8G"
phys = "0x800000000"
"""
MAPPED = """
[[step]]
op = "mmap"
id = "m0"
device = "gpu"
bar = 2
length = "8G"
addr = "0x100000000000"
fixed = true
prot = "rw"
shared = true
"""
ANONYMOUS = """
[[step]]
op = "mmap"
id = "m0"
length = "100T"
addr = "0x100000000000"
fixed = true
prot = "rw"
shared = false
noreserve = true
"""


@pytest.fixture
def scenario(tmp_path):
    """Write a scenario and return its path."""

    def write(*parts):
        path = tmp_path / "bad.toml"
        path.write_text("\n".join(parts))
        return path

    return write


@pytest.fixture
def stopped(pfnmap):
    """Run a scenario that stops at one of its steps, and return the line that says why."""

    def run(path, *options, exit_code=2):
        result = pfnmap("run", path, "--json", *options)
        assert result.exit_code == exit_code, result.output
        (line,) = result.stderr.splitlines()
        assert "internal error" not in line
        return line

    return run


def step(op, **arguments):
    lines = [f"{name} = {value if isinstance(value, str) else json.dumps(value)}" for name, value in arguments.items()]
    return "\n".join(["[[step]]", f'op = "{op}"', *lines])


VA = '"0x100000000000"'


@pytest.mark.parametrize(
    ("op", "argument", "arguments"),
    [
        ("mmap", "length", {"length": -4096, "prot": '"rw"', "shared": True}),
        ("mmap", "offset", {"length": 4096, "offset": -4096, "prot": '"rw"', "shared": True}),
        ("munmap", "length", {"addr": VA, "length": -1}),
        ("mprotect", "length", {"addr": VA, "length": -4096, "prot": '"r"'}),
        ("mremap", "new_len", {"addr": VA, "old_len": 4096, "new_len": -4096}),
        ("madvise", "length", {"addr": VA, "length": -4096, "advice": '"COLD"'}),
        ("mincore", "length", {"addr": VA, "length": -4096}),
        ("pagemap", "count", {"va": VA, "count": -1}),
        ("scan", "step", {"start": VA, "end": VA, "step": -1, "access": '"read"'}),
        ("sleep_ms", "value", {"value": -1}),
        ("memory_failure", "pfn", {"pfn": -1}),
        ("memory_failure", "offset", {"device": '"gpu"', "bar": 2, "offset": -4096}),
        ("dma_map", "length", {"iova": VA, "va": VA, "length": -4096, "prot": '"r"'}),
        ("access", "length", {"via": '"vmsplice"', "va": VA, "length": -1}),
    ],
)
def test_a_negative_size_or_count_names_step_and_argument(stopped, scenario, op, argument, arguments):
    path = scenario(MACHINE, MAPPED, step(op, **arguments))
    assert f"{path}: step 1 {op} {argument}: " in (line := stopped(path))
    assert line.endswith("is negative")


def test_a_negative_text_to_clear_refs_is_the_kernels_to_refuse(answer, scenario):
    path = scenario(MACHINE, MAPPED, step("clear_refs", value=-1))
    assert answer("run", path)["steps"][1]["result"] == "EINVAL"


@pytest.mark.parametrize(
    ("op", "says", "arguments"),
    [
        (
            "mmap",
            "bar: 6 is no BAR (0 to 5)",
            {"device": '"gpu"', "bar": 6, "length": 1, "prot": '"r"', "shared": True},
        ),
        ("mmap", "bar: -1 is no BAR", {"device": '"gpu"', "bar": -1, "length": 1, "prot": '"r"', "shared": True}),
        ("mmap", "fd 'dup' is not", {"device": '"gpu"', "fd": '"dup"', "length": 1, "prot": '"r"', "shared": True}),
        ("mmap", "length: 1979-05-27", {"length": "1979-05-27", "prot": '"r"', "shared": True}),
        ("mmap", "length: nan", {"length": "nan", "prot": '"r"', "shared": True}),
        ("mmap", "does not fit in 64 bits", {"length": f"0x{'f' * 6000}", "prot": '"r"', "shared": True}),
        ("mremap", "flags: 1 is of the wrong kind", {"addr": VA, "old_len": 4096, "new_len": 0, "flags": [1]}),
        ("mremap", "unknown mremap flag 'MAY'", {"addr": VA, "old_len": 4096, "new_len": 4096, "flags": ["MAY"]}),
        ("mbind", "flags: {} is of the wrong kind", {"addr": VA, "length": 4096, "flags": "[{}]"}),
        ("mbind", "unknown mbind flag 'MOV'; did you mean 'MOVE'", {"addr": VA, "length": 4096, "flags": ["MOV"]}),
        ("move_pages", "node: True is of the wrong kind", {"va": VA, "node": True}),
        ("set_thp_sizes", "'banana' is none of", {"value": '"banana"'}),
        ("touch", "'reed' is neither read nor write", {"va": VA, "access": '"reed"'}),
        ("touch", "at: 1979-05-27", {"va": VA, "access": '"read"', "at": "1979-05-27"}),
        ("touch", "expect: 1979-05-27", {"va": VA, "access": '"read"', "expect": "{ x = 1979-05-27 }"}),
        ("exit", "only the child exits", {}),
        ("madvise", "unknown advice 'COLT'; did you mean 'COLD'", {"addr": VA, "length": 4096, "advice": '"COLT"'}),
        ("pci_memory", "unknown device 'gpu2'", {"device": '"gpu2"', "enabled": True}),
        ("memory_failure", "has no BAR 3", {"device": '"gpu"', "bar": 3}),
    ],
)
def test_an_argument_that_cannot_be_names_file_and_step(stopped, scenario, op, says, arguments):
    path = scenario(MACHINE, MAPPED, step(op, **arguments))
    line = stopped(path)
    assert f"{path}: step 1 {op}" in line
    assert says in line
    assert line.count(f" {op}: ") <= 1


def device(*bars, name="gpu"):
    rows = [f"[[device.bar]]\nindex = {index}\nsize = {size}\nphys = {phys}" for index, size, phys in bars]
    return "\n".join(["[[device]]", f'name = "{name}"', *rows])


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ([device((2, -4096, 0))], "device 0 bar 0: size -4096 is no power of two"),
        ([device((2, 0, 0))], "size 0 is no power of two"),
        ([device((2, 8, 0))], "at least 16"),
        ([device((2, '"3M"', 0))], "no power of two"),
        ([device((2, '"8G"', -(1 << 33)))], "does not fit in 64 bits"),
        ([device((2, '"8G"', '"0x1000"'))], "phys 0x1000 is not a multiple of the size 8G"),
        ([device((2, '"8G"', '"0xfffffffe00000000"'))], "beyond the 0x10000000000000 that an entry of x86_64 can hold"),
        ([device((2, 1 << 70, 0))], "does not fit in 64 bits"),
        ([device((6, '"8G"', '"0x800000000"'))], "index 6 is no BAR"),
        ([device((-1, '"8G"', '"0x800000000"'))], "index -1 is no BAR"),
        ([device(("true", '"8G"', '"0x800000000"'))], "index = True is of the wrong kind"),
        ([device((2, '"4K"', 0), (2, '"4K"', 4096))], "device 0 bar 1: index 2 was there before"),
        ([device((0, '"8G"', '"0x800000000"'), (2, '"4K"', '"0x900000000"'))], "BAR 0 of gpu and BAR 2 of gpu overlap"),
        ([device((0, 4096, 4096)), device((2, 4096, 4096), name="b")], "BAR 0 of gpu and BAR 2 of b overlap at 0x1000"),
        ([device(), device()], "two devices are called 'gpu'"),
    ],
)
def test_a_device_that_cannot_be_is_refused_with_its_place(stopped, scenario, devices, says):
    path = scenario(*devices, step("fork"))
    line = stopped(path)
    assert line.startswith(f"pfnmap: {path}")
    assert says in line


@pytest.mark.parametrize(
    ("cpu", "says"),
    [
        ("la57 = 1979-05-27", "[kernel]: item of cpu = datetime.date(1979, 5, 27) is of the wrong kind"),
        ("la57 = []", "[kernel]: item of cpu = [] is of the wrong kind"),
        ("la57 = 3", "cpu la57: 3 is neither on nor off"),
        ("sme_mask = true", "cpu sme_mask: True is of the wrong kind"),
    ],
)
def test_a_cpu_value_of_another_kind_names_its_key(stopped, scenario, cpu, says):
    assert says in stopped(scenario("[kernel]", f"cpu = {{ {cpu} }}", step("fork")))


# Large, but possible


@pytest.mark.parametrize(
    ("size", "phys"), [(1 << 51, 0), (1 << 51, 1 << 51), (1 << 47, 0)], ids=["lower half", "upper half", "128T"]
)
def test_ram_stays_where_entries_can_point_to_it_however_large_a_bar_is(answer, scenario, size, phys):
    path = scenario(
        device((2, size, phys)),
        step("mmap", id='"m0"', device='"gpu"', bar=2, length='"1G"', addr=VA, fixed=True, prot='"rw"', shared=True),
        step("touch", va='"m0"', access='"write"'),
        step("mmap", id='"m1"', length='"4K"', prot='"rw"', shared=False),
        step("touch", va='"m1"', access='"write"'),
    )
    assert [s["result"] for s in answer("run", path)["steps"]] == ["ok"] * 4


def test_bars_that_leave_no_room_for_ram_are_refused_by_name(stopped, scenario):
    path = scenario(device((0, 1 << 51, 0), (2, 1 << 51, 1 << 51)), step("fork"))
    assert stopped(path, exit_code=3).startswith("pfnmap: RAM: the BARs leave no room")


WHOLE = {"addr": '"m0"', "length": '"100T"'}


@pytest.mark.parametrize(
    ("says", "op", "arguments"),
    [
        ("pagemap: 34359738367 pages", "pagemap", {"va": '"0x0"', "count": 10**11}),  # no more than there are
        ("madvise:COLD: 26843545600 pages", "madvise", {**WHOLE, "advice": '"COLD"'}),
        ("populate: 26843545600 pages", "mlock", WHOLE),
        ("populate: 26843545600 pages", "mlockall", {}),
        ("access: 26843545600 pages", "access", {"via": '"vmsplice"', "va": '"m0"', "length": '"100T"'}),
        ("access: 26843545600 pages", "access", {"via": '"proc_mem_read"', "va": '"m0"', "length": '"100T"'}),
        (
            "scan: 4294967296 touches",
            "scan",
            {"start": '"m0"', "end": '"m0+0x100000000"', "step": 1, "access": '"read"'},
        ),
        ("dma_map: 4194305 look-ups", "dma_map", {"iova": '"m0"', "va": '"m0"', "length": '"100T"', "prot": '"r"'}),
    ],
)
def test_an_op_that_would_go_over_billions_of_pages_is_refused_with_their_number(
    stopped, scenario, says, op, arguments, monkeypatch
):
    if op == "dma_map":  # counted as it goes: a large leaf is one look-up
        monkeypatch.setattr(
            "pfnmap_vfio_pci.type1.bounded", lambda what, count, unit: bounded(what, count + PAGES, unit=unit)
        )
    path = scenario(ANONYMOUS.replace("0x100000000000", "0x1000000"), step(op, **arguments))
    line = stopped(path, exit_code=3)
    assert line.startswith(f"pfnmap: {path}: step 1 {op}: ")
    assert says in line


def test_mincore_of_nearly_all_of_user_space_counts_without_going_over_pages(answer, scenario):
    path = scenario(ANONYMOUS.replace("0x100000000000", "0x1000000"), step("mincore", addr='"m0"', length='"100T"'))
    assert answer("run", path)["steps"][1]["pages"] == 100 << 28


def test_a_whole_vma_population_of_64_terabytes_is_refused_with_the_number_of_ptes(stopped, scenario):
    path = scenario(
        '[kernel]\nrelease = "6.1.192"',
        device((2, '"64T"', '"0x400000000000"')),
        step("mmap", id='"m0"', device='"gpu"', bar=2, length='"64T"', addr=VA, fixed=True, prot='"rw"', shared=True),
        step("touch", va='"m0"', access='"read"'),
    )
    assert f"{path}: step 1 touch: insert_pfns: 17179869184 PTEs" in stopped(path, exit_code=3)


def test_page_tables_without_end_are_refused(stopped, scenario):
    touches = step("scan", start='"m0"', end='"m0+0x40000000"', step='"2M"', access='"read"')
    path = scenario(ANONYMOUS, touches)
    assert "bytes of page tables" in stopped(
        path, "--set", "TRANSPARENT_HUGEPAGE=n", "--limit", "bytes=1M", exit_code=3
    )


# What reading a file of /proc does comes before what it says


@pytest.mark.parametrize("op", ["smaps", "numa_maps"])
@pytest.mark.parametrize("va", ['"0x1000"', '"a0"'], ids=["unmapped", "anonymous"])
def test_reading_a_whole_file_drops_leaves_whatever_mapping_is_asked_for(scenario, op, va):
    from pfnmap.run import Run
    from pfnmap.scenario import read_scenario

    path = scenario(
        MACHINE,
        MAPPED,
        step("touch", va='"m0"', access='"read"'),
        step("mmap", id='"a0"', length='"4K"', prot='"rw"', shared=False),
        step(op, va=va),
    )
    read = read_scenario(path)
    run = Run(read.kernel.link(), list(read.devices))
    *before, last = read.steps
    for one in before:
        run.step(one)
    assert run.entry(run.parent, run.names["m0"]).level == "pud"
    assert run.step(last).result == "ok"
    assert run.entry(run.parent, run.names["m0"]).value == 0


def test_an_op_of_vfio_pci_is_told_to_be_one_where_it_is_not_linked():
    from pfnmap.contract.step import Step
    from pfnmap.errors import BadInput
    from pfnmap.kernel import Kernel
    from pfnmap.run import Run

    run = Run(Kernel.link("x86_64"), [])
    with pytest.raises(BadInput, match="'dma_map' is an action of plugin 'vfio_pci', which is not linked"):
        run.step(Step("dma_map", {}, where="f.toml: step 0 dma_map"))


# What `run` refuses of a scenario, `plan` refuses with the same words

WRONG = {
    "no such op": ('op = "mmap"', 'op = "mmmap"'),
    "no such argument": ("length =", "lengthh ="),
    "a number for a protection": ('prot = "rw"', "prot = 7"),
    "a protection that is none": ('prot = "rw"', 'prot = "rq"'),
    "a number for a switch": ("fixed = true", "fixed = 1"),
    "a text for a switch": ("shared = true", 'shared = "yes"'),
    "a table for a device": ('device = "gpu"', "device = {}"),
    "a list for a BAR": ("bar = 2", "bar = []"),
    "a BAR that cannot be": ("bar = 2", "bar = 7"),
    "a length that is none": ('length = "8G"', 'length = "8Q"'),
    "a negative length": ('length = "8G"', "length = -4096"),
    "no protection": ('prot = "rw"', ""),
    "an address that is none": ('addr = "0x100000000000"', 'addr = "m1"'),
    "an address of 65 bits": ('addr = "0x100000000000"', 'addr = "0x10000000000000000"'),
}


@pytest.mark.parametrize("what", WRONG)
def test_plan_refuses_what_run_refuses_in_the_same_words(scenario, refused, what):
    right, wrong = WRONG[what]
    assert right in MAPPED
    path = scenario(MACHINE, MAPPED.replace(right, wrong))
    assert refused("plan", path) == refused("run", path)


def test_steps_are_checked_before_the_first_is_performed(scenario, refused):
    path = scenario(MACHINE, MAPPED, step("touch", va='"m0"', access='"read"', acess='"read"'))
    assert "step 1 touch" in refused("run", path)
    assert "'acess'; did you mean 'access'?" in refused("plan", path)


@pytest.mark.parametrize(
    ("said", "errno"), [(("shared = true", "shared = false"), "EINVAL"), (('"rw"', '"rx"'), "EPERM")]
)
def test_a_plan_of_a_mapping_that_mmap_refuses_says_the_errno(scenario, answer, said, errno):
    path = scenario(MACHINE, MAPPED.replace(*said))
    ran = answer("run", path, "--release", "7.3.4")
    assert [one["result"] for one in ran["steps"]] == [errno]
    (mapping,) = answer("plan", path, "--release", "7.3.4")["mappings"]
    (row, *_) = mapping["blocked"]
    assert (mapping["runs"], row["reason"]) == ([], "not_mmapable")
    assert f"mmap gives {errno}" in row["detail"]


def test_more_steps_or_mappings_than_anybody_writes_are_not_read(scenario, refused):
    path = scenario(MACHINE, "[[step]]\nop = 'x'\n" * 100_001)
    assert refused("run", path).endswith("more than 100000 items")
    path = scenario(MACHINE, MAPPED * 8193)
    assert "8193 mappings, where 8192 are the most" in refused("plan", path)


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "9" * 5000, str(1 << 64), "1e999", "inf"])
@pytest.mark.parametrize("place", ["index", "size", "phys"])
def test_numbers_of_any_length_are_one_line(scenario, refused, place, number):
    bar = {"index": "2", "size": "4096", "phys": "0", place: number}
    rows = "\n".join(f"{key} = {value}" for key, value in bar.items())
    path = scenario(f'[[device]]\nname = "gpu"\n[[device.bar]]\n{rows}\n', MAPPED)
    for command in ("run", "plan"):
        assert len(refused(command, path)) < 1100


@pytest.mark.parametrize(
    "text", ["9" * 5000, "0x" + "f" * 5000, "٣" * 30, "²", "1_000", "-1", "m0+" + "9" * 5000, "0b1" * 3]
)
@pytest.mark.parametrize("argument", ["length", "addr", "offset"])
def test_texts_that_are_no_numbers_are_one_line(scenario, stopped, argument, text):
    mapped = "\n".join(line for line in MAPPED.splitlines() if not line.startswith(argument))
    assert len(stopped(scenario(MACHINE, mapped + f'\n{argument} = "{text}"\n'))) < 1100


def test_a_scenario_is_planned_from_a_pipe(scenario, answer, tmp_path):
    path = scenario(MACHINE, MAPPED)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(path.read_text(),))
    writer.start()
    mappings = answer("plan", pipe)["mappings"]
    writer.join()
    assert mappings == answer("plan", path)["mappings"]


def test_a_driver_that_is_switched_off_is_told_to_be(refused, root, monkeypatch):
    monkeypatch.setenv("PFNMAP_PLUGINS", "x86_64,pci_sysfs")
    said = refused("run", root / "examples/scenarios/decode-off-on.toml")
    assert said.endswith("driver vfio_pci of pfnmap-vfio-pci is disabled: not in PFNMAP_PLUGINS")
