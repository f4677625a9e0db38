"""What is known of distributions' kernels, told by their uname -r."""

import re

import pytest

from pfnmap.changes import Flavour
from pfnmap.release import facts, parse_release

BATCH = "type1-pfnmap-batch"
ALIGN = "vfio-align-fault-to-order"


@pytest.mark.parametrize(
    ("release", "change", "expected"),
    [
        ("6.14.0-26-generic", BATCH, "yes"),
        ("6.14.0-24-generic", BATCH, "yes"),
        ("6.14.0-24-generic-64k", BATCH, "yes"),
        ("6.14.0-23-generic", BATCH, "unknown"),
        ("6.14.0-27-generic", ALIGN, "unknown"),
        ("6.14.0-28-generic", ALIGN, "yes"),
        ("Ubuntu 6.14.0-23.23-generic 6.14.6", BATCH, "unknown"),
        ("Ubuntu 6.14.0-24.24~24.04.3-generic 6.14.6", BATCH, "yes"),
        ("6.14.0-1007-aws", BATCH, "unknown"),
        ("6.14.0-1009-aws", BATCH, "yes"),
        ("6.14.0-1009-gcp", BATCH, "unknown"),
        ("6.14.0-1010-gcp", BATCH, "yes"),
        ("6.14.0-1008-nvidia-64k", BATCH, "yes"),
        ("6.14.0-1008-nvidia-64k", "arm64-kvm-cacheable-pfnmap", "yes"),
        ("6.14.0-1007-nvidia", BATCH, "unknown"),
        ("6.14.8-2-pve", BATCH, "yes"),
        ("6.14.8-2-pve", ALIGN, "yes"),
        ("6.14.11-1-bpo12-pve", BATCH, "yes"),
        ("6.14.5-1-pve", BATCH, "unknown"),
        ("6.11.0-1010-nvidia", "huge-pfnmap", "yes"),
        ("6.11.0-1002-nvidia", "huge-pfnmap", "unknown"),
        ("6.11.0-29-generic", "huge-pfnmap", "unknown"),
        ("6.17.0-1011-nvidia-64k", "nvgrace-huge-fault", "yes"),
        ("6.17.0-1010-nvidia-64k", "nvgrace-huge-fault", "unknown"),
        ("6.17.0-1011-nvidia-64k", "iommufd-dmabuf-bar", "unknown"),
        ("7.0.0-40-generic", "thp-bypass-pfnmap", "unknown"),
        ("7.0.0-42-generic", "thp-bypass-pfnmap", "yes"),
        ("7.0.0-1017-aws", "thp-bypass-pfnmap", "yes"),
        ("6.8.0-149-generic", "arm64-kvm-pfnmap-block", "yes"),
        ("6.8.0-148-generic-64k", "arm64-kvm-pfnmap-block", "unknown"),
        ("6.12.117+deb13-amd64", BATCH, "no"),
        ("6.12.94+deb12-arm64-16k", BATCH, "no"),
        ("6.12.0-1-cloud-amd64", BATCH, "no"),
        ("6.12.57+deb13-amd64", BATCH, "no"),
        ("6.12.57+bpo-cloud-amd64", BATCH, "no"),
        ("6.1.0-0.deb11.35-amd64", BATCH, "no"),
        ("6.14-rc6-amd64", BATCH, "no"),
        ("6.14.0-061400-generic", BATCH, "no"),
        ("6.14.7-061407-generic-64k", ALIGN, "yes"),
        ("6.14.0-061400rc3-generic", BATCH, "no"),
        ("6.14.0-0.rc3.31.fc42.x86_64", BATCH, "unknown"),
        ("6.14.0-rc3-next-20250220", BATCH, "unknown"),
        ("6.12.57-200.fc42.x86_64", BATCH, "unknown"),
        ("6.12.57-talos", BATCH, "unknown"),
        ("6.4.0-150600.23.25-default", "huge-pfnmap", "unknown"),
        ("6.12.0-124.8.1.el10_1.x86_64", BATCH, "unknown"),
    ],
)
def test_what_a_distribution_added_is_known_or_unknown_and_never_absent(release: str, change: str, expected: str):
    assert parse_release(release).changes[change] == expected


def test_what_a_distribution_is_known_to_have_is_said_with_its_source():
    assert any("LP: #2111861" in sentence for sentence in parse_release("6.14.0-26-generic").assumed)


def first_of(flavour: Flavour) -> str:
    """The name of the first kernel that a flavour's expression is about."""
    name = re.sub(r"\(\?:[^()]*\)\?", "", flavour.match)
    name = re.sub(r"\(\?:([^()|]*)[^()]*\)", r"\1", name)
    for number in flavour.since.split("."):
        name = re.sub(r"\(\\d\+\)|\(\\d\{1,4\}\)", number, name, count=1)
    return name.replace("\\", "")


@pytest.mark.parametrize("flavour", [f for f in facts().flavours if f.since], ids=lambda f: f.name)
def test_the_first_kernel_of_each_flavour_has_what_is_said_and_what_that_requires(flavour: Flavour):
    changes = parse_release(first_of(flavour)).changes
    for change in flavour.with_:
        assert changes[change] == "yes"
        assert all(changes[required] == "yes" for required in facts().changes[change].requires)
