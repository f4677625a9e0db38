"""A plugin that does at one door of the contract what nobody expects: it harms no answer that does not need it, and who
needs it is told its name, the method and what it did."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfnmap import PfnmapError
from pfnmap.boundary import interrupt
from pfnmap.contract.device import Device, DeviceBar
from pfnmap.contract.step import Step
from pfnmap.host.tree import open_tree
from pfnmap.plan import Request, plan
from pfnmap.plugins import Registry
from pfnmap.run import Run
from pfnmap.spec import KernelSpec
from pfnmap.survey import survey
from pfnmap.survey.capture import capture
from pfnmap.trial import failures

USELESS = "gives what is of no use"
DEEDS = {
    "raises": ("raise ValueError('ou\\nch')", "raised ValueError: ou ch"),
    "exits": ("raise SystemExit(0)", "raised SystemExit: 0"),
    "raises what is no Exception": ("raise Own('ouch')", "raised Own: ouch"),
    "raises Ctrl-C itself": ("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
    "raises what cannot be shown": ("raise Unsayable", "raised Unsayable"),
    USELESS: ("return object()", "object where"),
}
"""What it does there, and what is said of it."""

PREAMBLE = """
from pfnmap import Action, hookimpl
from pfnmap.contract.dma import DmaBackend, DmaMap
from pfnmap.contract.guest import Hypervisor
from pfnmap.contract.option import PlanOption
from pfnmap.contract.placement import Vmm
from pfnmap.contract.plan import RegionRules
from pfnmap.contract.recording import RecordingGroup
from pfnmap.contract.vma import File, FileOperations, VmOperations
from pfnmap.testing.bar_driver import BarDriver

print("PRINTED at import")

class Own(BaseException): pass
class Unsayable(Exception):
    def __str__(self): raise SystemExit(0)

class Backend(DmaBackend):
    name = "evil"
    legend = "walks"
    def map(self, kernel, reach): return DmaMap("evil", 1, 1, 1, 1)

class Guests(Hypervisor):
    name = "evil"
    legend = "leaves"
    def changes(self, kernel): return ()
    def guest(self, kernel, hosted): raise ValueError("not asked")

class Works(BarDriver):
    name = "evil"
    dma_backends = (Backend(),)
    hypervisor = Guests()
    @classmethod
    def region(cls, kernel, request, others): return RegionRules(end=request.bar_size, huge_fault=True, dma="evil")
    def actions(self): return {"act": Action(self.act, {})}
    def act(self, run): return {}

class Places(Vmm):
    name = "evil"
    versions = ("1.0",)
    def place(self, space, requests): return []
"""

DRIVER = {
    "__init__()": "def __init__(self): DEED",
    "kconfig()": "@hookimpl\n    def kconfig(self, has): DEED",
    "boot()": "def boot(self, machine):\n        super().boot(machine)\n        DEED",
    "actions()": "def actions(self): DEED",
}
"""Doors of a driver that everybody's machine has to go through."""
NEEDED = {
    "probe()": "def probe(self, device): DEED",
    "mmap_offset()": "def mmap_offset(self, bar, offset): DEED",
    "mmap": "def mmap(self, file, vma): DEED",
    "_fault": "def _fault(self, vmf, order): DEED",
    "path()": "def path(self, file): DEED",
    "evil.act": "def act(self, run): DEED",
}
"""Doors of a driver that its own devices alone go through."""
PLANNED = {
    "region()": "@classmethod\n    def region(cls, kernel, request, others): DEED",
    "map()": "class B(Backend):\n        def map(self, kernel, reach): DEED\n    dma_backends = (B(),)",
    "note()": "class B(Backend):\n        def note(self, kernel): DEED\n    dma_backends = (B(),)",
    "changes()": "class G(Guests):\n        def changes(self, kernel): DEED\n    hypervisor = G()",
    "guest()": "class G(Guests):\n        def guest(self, kernel, hosted): DEED\n    hypervisor = G()",
}
"""Doors at which the planner asks it."""
ARCH = {
    "__init__()": "def __init__(self): DEED",
    "kconfig()": "@hookimpl\n    def kconfig(self, has): DEED",
    "setup_arch()": "def setup_arch(self, *given):\n        super().setup_arch(*given)\n        DEED",
    "empty": "def empty(self, level): DEED",
    "protection_map": "@property\n    def protection_map(self): DEED",
    "pte_pfn()": "def pte_pfn(self, pte): DEED",
    "pte_mkspecial()": "@hookimpl\n    def pte_mkspecial(self, pte): DEED",
    "boot()": "class M(Base.module):\n        def boot(self, machine): DEED\n    module = M",
}

HOST = {
    "mapped()": "@classmethod\n    def mapped(cls, *given): DEED",
    "held()": "@classmethod\n    def held(cls, *given): DEED",
}
"""Doors at which it is asked what of a host is its."""
LOG = "[ 1.0] vfio-pci 0000:00:01.0: vfio_pci_mmap_huge_fault(,order = 9) BAR 2 page offset 0x0: 0x100\n"

Install = Callable[[str, str], Registry]
SILENT = ("__init__()", "boot()", "setup_arch()")
"""Doors at which nobody looks at what is given."""


def each(doors: Iterable[str]) -> pytest.MarkDecorator:
    """Every door with every deed."""
    looked_at = [(door, deed) for door in doors for deed in DEEDS if not (door in SILENT and deed == USELESS)]
    return pytest.mark.parametrize(("door", "deed"), looked_at)


deeds = pytest.mark.parametrize("deed", DEEDS)
GPU = Device("gpu", "0000:00:01.0", {0: DeviceBar(0, 4 << 20, 1 << 32)})
EVIL = Device("gpu", "0000:00:01.0", {0: DeviceBar(0, 4 << 20, 1 << 32)}, driver="evil")
MAP = {"device": "gpu", "bar": 0, "length": 4 << 20, "prot": "rw", "shared": True, "id": "m"}
STEPS = (Step("mmap", MAP, where="s"), Step("touch", {"va": "m", "access": "write"}, where="s"))
BAR = {"policy": "aligned"}


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Handle Ctrl-C as the command line does."""
    before = signal.signal(signal.SIGINT, interrupt)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a plugin "evil" of a kind, and return what is installed then."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("PFNMAP_PLUGINS", raising=False)

    def _install(kind: str, source: str) -> Registry:
        monkeypatch.delitem(sys.modules, "evil_package", raising=False)
        (tmp_path / "evil_package.py").write_text(PREAMBLE + source)
        info = tmp_path / "evil_package-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil-package\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[pfnmap.{kind}]\nevil = evil_package:Evil\n")
        return Registry()

    return _install


def of(base: str, door: str, deed: str) -> str:
    """A class that works but at one door."""
    return f"class Evil({base}):\n    {door.replace('DEED', DEEDS[deed][0])}\n"


def arch(door: str, deed: str) -> str:
    head = "from pfnmap.plugins import Registry\nBase = Registry().load('arch', 'loongarch64')\n"
    return head + of("Base", door, deed).replace("\n    ", '\n    name = "evil"\n    ', 1)


def answers(registry: Registry, warnings: list[str]) -> tuple[Any, Any]:
    """A plan and a run of a device that is another driver's."""
    kernel = KernelSpec(release="6.12.117").link(registry, warnings.append)
    planned = plan(kernel, [Request(0, 1 << 32, 4 << 20, **BAR)], registry=registry).as_json()["mappings"]
    run = Run(kernel, [GPU])
    warnings += [str(error) for error in run.machine.left_out.values()]
    return planned, [run.step(step).as_json() for step in STEPS]


def runs(registry: Registry, device: Device = EVIL, *steps: Step) -> None:
    run = Run(KernelSpec(release="6.12.117").link(registry), [device])
    for step in (*STEPS, *steps):
        run.step(step)


def plans(registry: Registry, **extra: Any) -> None:
    kernel = KernelSpec(release="6.12.117").link(registry)
    policy = extra.pop("policy", "aligned")
    driver = extra.pop("driver", "evil")
    plan(kernel, [Request(0, 1 << 32, 4 << 20, policy=policy, driver=driver)], registry=registry, **extra)


@pytest.fixture(scope="module")
def undisturbed() -> tuple[Any, Any]:
    return answers(Registry(), [])


def surveyed(registry: Registry, root: Path) -> tuple[Any, list[str]]:
    """What of a host is planned, and what is said of the rest."""
    found = survey(open_tree(str(root)), registry)
    return [row.as_json() for row in found.rows], [one.reason for one in found.skipped]


def caught(error: pytest.ExceptionInfo[PfnmapError], door: str, deed: str) -> None:
    """Check that a plugin is named with the method and what it did."""
    text = str(error.value)
    assert error.value.exit_code == 2
    assert "\n" not in text
    assert "evil" in text
    assert door in text
    assert ("is expected" if deed == USELESS else DEEDS[deed][1]) in text


@each([*DRIVER, *NEEDED, *PLANNED])
def test_a_driver_that_is_not_needed_harms_no_answer(install, undisturbed, door, deed):
    warnings: list[str] = []
    assert answers(install("driver", of("Works", {**DRIVER, **NEEDED, **PLANNED}[door], deed)), warnings) == undisturbed
    if door in DRIVER and DEEDS[deed][0][:5] == "raise" and door != "actions()":
        (warning,) = warnings
        assert f"plugin evil: {door} {DEEDS[deed][1]}" in warning


@each([*DRIVER, *NEEDED])
def test_a_driver_that_a_run_needs_is_named(install, door, deed):
    registry = install("driver", of("Works", {**DRIVER, **NEEDED}[door], deed))
    with pytest.raises(PfnmapError) as error:
        runs(registry, EVIL, Step("evil.act", {}, where="s"), Step("numa_maps", {"va": "m"}, where="s"))
    caught(error, door, deed)


@each(["__init__()", "kconfig()", *PLANNED])
def test_a_driver_that_a_plan_needs_is_named(install, door, deed):
    registry = install("driver", of("Works", {**DRIVER, **PLANNED}[door], deed))
    with pytest.raises(PfnmapError) as error:
        plans(registry, hypervisor="evil" if door in ("changes()", "guest()") else None)
    caught(error, door, deed)


@each(ARCH)
def test_an_architecture_is_named_where_it_is_needed_and_harms_no_other(install, undisturbed, door, deed):
    registry = install("arch", arch(ARCH[door], deed))
    assert answers(registry, []) == undisturbed
    with pytest.raises(PfnmapError) as error:
        Run(KernelSpec(arch="evil").link(registry), [])
    caught(error, "setup_arch()" if door in ("empty", "protection_map") else door, deed)
    assert list(failures(registry)) == [("arch", "evil")]


@each(["__init__()", "place()"])
def test_a_vmm_is_named_where_it_is_needed_and_harms_no_other(install, undisturbed, door, deed):
    registry = install("vmm", of("Places", f"def {door[:-2]}(self, *given, **named): DEED", deed))
    assert answers(registry, []) == undisturbed
    with pytest.raises(PfnmapError) as error:
        plans(registry, policy="evil", driver="vfio_pci")
    text = str(error.value)
    assert f"plugin evil: {door}" in text
    assert DEEDS[deed][1] in text or "not iterable" in text


@pytest.mark.parametrize("deed", [name for name, (what, _) in DEEDS.items() if what.startswith("raise")])
@pytest.mark.parametrize("kind", ["arch", "driver", "vmm", "command", "recording"])
def test_what_breaks_at_import_is_named_and_harms_nobody(install, undisturbed, kind, deed):
    registry = install(kind, DEEDS[deed][0])
    assert answers(registry, []) == undisturbed
    (probed,) = (registry.probe(plugin)[0] for plugin in registry.plugins(kind) if plugin.name == "evil")
    assert probed.status == "broken"
    assert probed.reason.startswith(DEEDS[deed][1].replace("raised ", "").partition(":")[0] + " at import")


@each(DRIVER)
def test_what_breaks_when_it_is_linked_or_booted_is_listed_as_broken(install, door, deed):
    failed = failures(install("driver", of("Works", DRIVER[door], deed)))
    assert list(failed) == [("driver", "evil")]
    assert door in str(failed["driver", "evil"])


# what it is asked of a host


@pytest.fixture(scope="module")
def host(hosts, tmp_path_factory):
    """A captured host, and what is planned of it."""
    root = tmp_path_factory.mktemp("hosts") / "host"
    hosts.write_directory(hosts.h200_host("9.2", count=1), root)
    return root, surveyed(Registry(), root)[0]


@each(HOST)
def test_a_driver_that_fails_to_say_what_of_a_host_is_its_harms_no_answer(install, tmp_path, host, door, deed):
    root, undisturbed = host
    registry = install("driver", of("Works", HOST[door], deed))
    rows, said = surveyed(registry, root)
    assert rows == undisturbed
    (failed,) = (text for text in said if "evil" in text)
    assert door in failed
    warnings: list[str] = []
    capture(open_tree(str(root)), registry, str(tmp_path / "captured.tar"), warn=warnings.append)
    assert failed in warnings
    assert surveyed(Registry(), tmp_path / "captured.tar")[0] == undisturbed


@deeds
def test_what_a_driver_fails_to_say_how_it_maps_is_skipped_on_a_host(install, host, deed):
    root, _ = host
    bound = "kernel_names = ('vfio-pci',)\n    "
    registry = install("driver", of("Works", bound + PLANNED["region()"], deed))
    rows, said = surveyed(registry, root)
    assert rows == []
    assert any("plugin evil: region()" in text for text in said), said


@deeds
def test_a_driver_that_fails_at_a_log_is_named_once_and_the_others_read_it(install, pfnmap, tmp_path, deed):
    log = tmp_path / "log"
    log.write_text(LOG * 3)
    undisturbed = pfnmap("log", log, "--json").stdout
    install("driver", of("Works", "@classmethod\n    def logged(cls, line): DEED", deed))
    done = pfnmap("log", log, "--json")
    assert (done.exit_code, done.stdout) == (0, undisturbed), done.output
    assert done.stderr.count("plugin evil: logged()") == 1


# what it says of itself

DECLARED = {
    "provides": "provides = 5",
    "consumes": "consumes = (5,)",
    "plan_options": "plan_options = ('--evil',)",
    "dma_backends": "dma_backends = (Backend,)",
    "hypervisor": "hypervisor = 'evil'",
    "kernel_names": "kernel_names = {1: 2}",
    "config_symbol": "config_symbol = None",
    "inputs": "inputs = []",
    "class": "class N:\n        def __get__(self, one, owner): raise SystemExit(0)\n    provides = N()",
}


@pytest.mark.parametrize("attribute", DECLARED)
def test_what_a_class_declares_in_other_types_than_the_contract_has_is_named(install, undisturbed, attribute):
    registry = install("driver", f"class Evil(Works):\n    {DECLARED[attribute]}\n")
    assert answers(registry, []) == undisturbed
    with pytest.raises(PfnmapError) as error:
        plans(registry)
    assert "evil" in str(error.value)
    assert attribute in str(error.value)


# answers of the right type that no such thing can have

IMPOSSIBLE = {
    "an errno that is none": ("def mmap(self, file, vma): return -99999", "mmap: gave -99999, which is no errno"),
    "no number": ("def act(self, run): return {'x': float('nan')}", "evil.act gave what JSON has not"),
    "itself": (
        "def act(self, run):\n        d = {}\n        d['d'] = d\n        return d",
        "evil.act gave what JSON has not",
    ),
    "an end before the start": (
        "@classmethod\n    def region(cls, kernel, request, others): return RegionRules(end=-5, huge_fault=True)",
        "region() gave end: -5",
    ),
    "fewer walks than none": (
        "class B(Backend):\n        def map(self, *given): return DmaMap('evil', -1)\n    dma_backends = (B(),)",
        "map() gave less than nothing",
    ),
    "another type for a symbol of the core": (
        "@hookimpl\n    def kconfig(self, has): return 'config TRANSPARENT_HUGEPAGE\\n\\tstring\\n'",
        "Kconfig of evil, line 2: error: couldn't parse 'string': TRANSPARENT_HUGEPAGE is of another type elsewhere",
    ),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_answer_that_cannot_be_is_named_where_it_is_needed_and_harms_no_other(install, undisturbed, what):
    source, said = IMPOSSIBLE[what]
    registry = install("driver", f"class Evil(Works):\n    {source}\n")
    assert answers(registry, []) == undisturbed
    with pytest.raises(PfnmapError) as error:
        plans(registry) if "RegionRules" in source or "DmaMap" in source else runs(
            registry, EVIL, Step("evil.act", {}, where="s")
        )
    assert said in str(error.value)
    assert "evil" in str(error.value)


def test_what_a_plugin_raises_chooses_no_exit_code_but_those_there_are(install, pfnmap):
    install(
        "command", "from pfnmap import PfnmapError\nclass E(PfnmapError): exit_code = 77\ndef Evil(): raise E('ouch')\n"
    )
    done = pfnmap("evil")
    assert (done.exit_code, done.stderr) == (2, "PRINTED at import\npfnmap: ouch\n")


def test_stdout_that_a_plugin_closes_stays_open(install, process, tmp_path):
    install("driver", "import sys\nsys.stdout.close()\nclass Evil(Works): pass\n")
    done = process("plan", "--bar", "8G", "--json", env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "PRINTED at import\n")
    assert json.loads(done.stdout)["mappings"]


# metadata

METADATA = {
    "an entry point without a value": (b"Metadata-Version: 2.1\nName: evil\nVersion: 1\n", b"[pfnmap.driver]\nevil\n"),
    "entry points that are not UTF-8": (b"Name: evil\nVersion: 1\n", b"[pfnmap.driver]\nevil = e\xff:D\n"),
    "an entry point that is no module": (b"Name: evil\nVersion: 1\n", b"[pfnmap.driver]\nevil = -e-:D\n"),
    "metadata that are not UTF-8": (b"Name: \xff\xfe\nVersion: 1\n", b"[pfnmap.driver]\nevil = nowhere:D\n"),
    "metadata without a name": (b"", b"[pfnmap.driver]\nevil = nowhere:D\n"),
    "escape codes": (b"Name: e\x1b[31m\nVersion: 1\n", b"[pfnmap.driver]\nevil\x1b]0;x\x07 = nowhere:D\n"),
}


@pytest.mark.parametrize("what", METADATA)
def test_metadata_that_cannot_be_read_harm_nobody_and_are_listed(tmp_path, monkeypatch, process, undisturbed, what):
    info = tmp_path / "evil-1.dist-info"
    info.mkdir()
    for name, content in zip(("METADATA", "entry_points.txt"), METADATA[what], strict=True):
        (info / name).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    assert answers(Registry(), []) == undisturbed
    listed = process("plugins", "--json", env={"PYTHONPATH": str(tmp_path)})
    assert listed.returncode == 0, listed.stderr
    (evil,) = (p for p in json.loads(listed.stdout)["plugins"] if p["name"].startswith("evil"))
    assert evil["status"] == "broken"
    shown = process("plugins", env={"PYTHONPATH": str(tmp_path)})
    assert (shown.returncode, "\x1b" in shown.stdout) == (0, False)


# the command line

PRINTS = """
class Evil(Works):
    def __init__(self): print("PRINTED in __init__")
    def boot(self, machine):
        print("PRINTED in boot")
        super().boot(machine)
    def probe(self, device):
        print("PRINTED in probe")
        return super().probe(device)
    def _fault(self, vmf, order):
        print("PRINTED in _fault")
        return super()._fault(vmf, order)
    @classmethod
    def region(cls, kernel, request, others):
        print("PRINTED in region")
        return super().region(kernel, request, others)
"""
SCENARIO = """
[kernel]
release = "6.12.117"
[[device]]
name = "gpu"
driver = "evil"
[[device.bar]]
index = 0
size = "4M"
phys = "0x100000000"
[[step]]
op = "mmap"
id = "m"
device = "gpu"
length = "4M"
prot = "rw"
shared = true
[[step]]
op = "touch"
va = "m"
access = "write"
"""


@pytest.mark.parametrize("command", [("plan",), ("run",), ("run", "--trace"), ("plan", "--json"), ("run", "--json")])
def test_what_a_plugin_prints_does_not_reach_stdout(install, pfnmap, tmp_path, command):
    install("driver", PRINTS)
    scenario = tmp_path / "s.toml"
    scenario.write_text(SCENARIO)
    done = pfnmap(command[0], str(scenario), *command[1:])
    assert done.exit_code == 0, done.output
    assert "PRINTED" not in done.stdout
    assert "PRINTED in __init__" in done.stderr
    assert "PRINTED in _fault" in done.stderr or command[0] == "plan"


@deeds
def test_a_check_of_it_fails_and_says_so(install, pfnmap, deed):
    install("driver", of("Works", NEEDED["probe()"], deed))
    done = pfnmap("check", "evil", "--json")
    assert done.exit_code in (1, 2), done.output


@deeds
def test_a_command_that_fails_is_named(install, pfnmap, deed):
    install("command", f"def Evil():\n    {DEEDS[deed][0]}\n")
    done = pfnmap("evil")
    if deed == "exits":
        assert done.exit_code == 0  # that is for a command to say
    elif DEEDS[deed][0].startswith("raise"):
        assert done.exit_code == 2
        assert f"plugin evil: {DEEDS[deed][1].removeprefix('raised ')}" in done.stderr
    assert "internal error" not in done.output


def test_a_command_prints_its_answer(install, pfnmap):
    install("command", "def Evil():\n    print('the answer')\n")
    done = pfnmap("evil")
    assert (done.exit_code, done.stdout) == (0, "the answer\n")


MAPS = "7f0000000000-7f0000400000 rw-s 10000000000 00:0e 1 anon_inode:[vfio-device]\n"
READER = """
import re
from pfnmap.host.reading import InputKind
def read(lines): DEED
class Evil(Works):
    inputs = {"evil": InputKind(re.compile(".*"), read)}
    @classmethod
    def mapped(cls, path, offset, has): DEED
"""


@deeds
def test_a_driver_that_cannot_tell_of_an_input_leaves_it_to_the_others(install, pfnmap, tmp_path, deed):
    maps = tmp_path / "maps"
    maps.write_text(MAPS)
    install("driver", READER.replace("DEED", DEEDS[deed][0]))
    done = pfnmap("plan", str(maps), "--release", "6.12.117", "--json")
    assert done.exit_code == 0, done.output
    (mapping,) = json.loads(done.stdout)["mappings"]
    assert (mapping["bar"], mapping["length"]) == (1, 4 << 20)
    assert "plugin evil: mapped()" in done.stderr


@each(["__init__()", "kconfig()"])
def test_a_plan_by_a_driver_that_was_left_out_says_what_it_did(install, pfnmap, door, deed):
    install("driver", of("Works", DRIVER[door], deed))
    done = pfnmap("plan", "--bar", "4M@0x100000000", "--driver", "evil")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"plugin evil: {door}" in done.stderr
    assert "internal error" not in done.stderr
