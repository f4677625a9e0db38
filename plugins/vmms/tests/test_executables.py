"""Which VMM a process is, by its executable and the packages that are installed."""

from importlib.metadata import entry_points

import pytest

from pfnmap.host.machine import Host
from pfnmap.host.processes import Process
from pfnmap.plugins import Registry
from pfnmap.survey.running import running_vmms


class Packages:
    """A host's files, of which only dpkg's are looked at."""

    def __init__(self, versions):
        rows = (f"Package: {n}\nStatus: install ok installed\nVersion: {v}\n\n" for n, v in versions.items())
        self.status = "".join(rows)

    def kind(self, path):
        return None

    def text(self, path, limit):
        return self.status


def vmm_of(executable, versions, command=""):
    process = Process(1, command, executable, None, None, None)
    host = Host(*(None,) * 6, (), {}, None, (), (), (), (process,))
    return next(iter(running_vmms(host, Packages(versions), Registry(), [])), None)


@pytest.mark.parametrize(
    ("executable", "versions", "name", "version"),
    [
        ("/usr/bin/qemu-system-x86_64", {"qemu-system-x86": "1:8.2.2+ds-0ubuntu1.7"}, "qemu", "8.2"),
        ("/usr/bin/qemu-system-aarch64", {"qemu-system-arm": "1:10.0.2+ds-2"}, "qemu", "10.0"),
        ("/usr/bin/qemu-system-x86_64", {"pve-qemu-kvm": "9.2.0-7"}, "pve_qemu_kvm", "9.2"),
        ("/usr/bin/qemu-system-x86_64", {}, "qemu", None),
        ("/usr/libexec/qemu-kvm", {}, "qemu", None),
        ("/usr/libexec/qemu-kvm", {"qemu-kvm-core": "9.1.0-15.el9_7"}, "qemu_kvm", "9.1"),
        ("/usr/bin/cloud-hypervisor", {}, "cloud_hypervisor", None),
        ("/opt/firecracker-v1.9.0", {}, "firecracker", None),
        ("/usr/bin/qemu-img", {}, None, None),
        ("/usr/bin/python3", {}, None, None),
    ],
)
def test_executable_and_package_tell_the_vmm(executable, versions, name, version):
    found = vmm_of(executable, versions)
    assert (found and found.name, found and found.version) == (name, version)


def test_process_that_must_not_be_looked_into_is_told_by_its_name():
    assert vmm_of(None, {}, "qemu-system-x86").name == "qemu"
    assert vmm_of(None, {}, "bash") is None


def test_version_is_none_that_is_not_known():
    assert vmm_of("/usr/bin/qemu-system-x86_64", {"qemu-system-x86": "nonsense"}).policy is None


def test_every_vmm_says_how_it_is_called_but_for_those_that_are_libraries():
    silent = {e.name for e in entry_points(group="pfnmap.vmm") if not e.load().executables}
    assert silent == {"dragonball", "vfio_selftest"}
