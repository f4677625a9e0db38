"""What each program makes of options, versions and capabilities, from docs/evidence/VMM.md."""

from __future__ import annotations

import itertools
from importlib.metadata import entry_points

import pytest
from asking import ask, linked

from pfnmap import BadInput, Unknown
from pfnmap.contract.placement import Vmm
from pfnmap.contract.region import Msix, Span
from pfnmap.plan import MappingPlan
from pfnmap.plan.placement import vmm_named
from pfnmap.plugins import environment

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MELLANOX = Msix(0, 0x2000, 64, 0, 0x3000)
KIOXIA = Msix(0, 0x5200, 129, 0, 0xD600)

PROGRAMS = {e.name: e for e in entry_points(group="pfnmap.vmm") if e.value.startswith("pfnmap_vmms.")}


def areas(mappings: list[MappingPlan]) -> list[tuple[int, int]]:
    return [(m.area.offset, m.area.length) for m in mappings if m.area]


def slots(mappings: list[MappingPlan]) -> list[tuple[int, int]]:
    return [(s["gpa_offset"], s["length"]) for s in mappings[0].as_json()["slots"]]


def dma(mappings: list[MappingPlan]) -> list[tuple[int, int]]:
    return [(s["offset"], s["length"]) for s in mappings[0].as_json()["dma"]]


def unmapped(mappings: list[MappingPlan]) -> str:
    return "; ".join(part.reason for part in mappings[0].placed.unmapped)


# versions


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_called_as_its_entry_point(name: str) -> None:
    program = PROGRAMS[name].load()
    assert issubclass(program, Vmm)
    assert program.name == name
    assert bool(program.versions) != bool(program.state)


@pytest.mark.parametrize(
    ("version", "grain"),
    [
        ("qemu-2.8", 4096),
        ("qemu-8.2.2+ds-0ubuntu1.4", 4096),
        ("qemu-1:8.2.2", 4096),
        ("qemu-9", 4096),
        ("qemu-9.1.3", 4096),
        ("qemu-9.1.92", GIB),
        ("qemu-9.2.0-rc1", GIB),
        ("qemu-10", GIB),
        ("qemu-10.2.1", GIB),
        ("qemu-10.2.91", GIB),
        ("qemu-11.0.0", GIB),
        ("qemu-kvm-9.1.0-29.el9_7", GIB),
        ("qemu-kvm-9.1.0-29.el9_7.3", GIB),
        ("qemu-kvm-9.1.0-29.el9", GIB),
        ("qemu_kvm-9.1.0-15.el9_6.1", 4096),
        ("qemu-9.1.0-29.el9_8", GIB),
        ("qemu-kvm-9.1.0-12.el10", 4096),
        ("qemu-kvm-9.0.0-10.el9", 4096),
        ("pve-qemu-kvm-9.1.2-3", 4096),
        ("pve-qemu-kvm-9.2.0-1", GIB),
        ("pve-qemu-kvm-11.0.0-1", GIB),
        ("cloud-hypervisor-52.0", 4096),
        ("cloud_hypervisor-53", GIB),
        ("cloud-hypervisor-v53.0.1", GIB),
        ("cloud-hypervisor v52.0.0", 4096),
        ("pve-qemu-kvm_9.2.0-5", GIB),
        ("pve-qemu-kvm: 9.0.2-4", 4096),
        ("QEMU emulator version 9.0.2 (Debian 1:9.0.2+ds-4)", 4096),
        ("QEMU emulator version 10.0.3", GIB),
        ("qemu-system-x86 1:8.2.2+ds-0ubuntu1.7", 4096),
        ("qemu-system-x86_1:10.0.2+ds-2+deb13u1_amd64", GIB),
        ("qemu-system-x86_64 9.0.1", 4096),
        ("qemu-system-aarch64", GIB),
        ("qemu-kvm-core-9.1.0-15.el9_6.7", 4096),
        ("qemu-kvm-core-17:9.1.0-29.el9_7.3.x86_64", GIB),
        ("lkvm", 4096),
        ("QEMU emulator version 9.2.0 (pve-qemu-kvm_9.2.0-5)", GIB),
        ("QEMU emulator version 9.1.0 (qemu-kvm-9.1.0-15.el9_7.2)", GIB),
        ("QEMU emulator version 9.1.0 (qemu-kvm-9.1.0-15.el9_6.1)", 4096),
    ],
)
def test_a_version_says_what_is_guaranteed(version: str, grain: int) -> None:
    (mapping,) = ask(version, 4 * GIB)
    assert mapping.area
    assert mapping.area.alignment == grain


@pytest.mark.parametrize(
    ("said", "name", "version"),
    [
        ("qemu", "qemu", ""),
        ("qemu-9.2.0-5", "qemu", "9.2.0-5"),
        ("pve-qemu-kvm_9.2.0-5", "pve_qemu_kvm", "9.2.0-5"),
        ("pve-qemu-kvm: 9.0.2-4", "pve_qemu_kvm", "9.0.2-4"),
        ("cloud-hypervisor v52.0.0-1", "cloud_hypervisor", "52.0.0-1"),
        ("QEMU emulator version 10.0.3", "qemu", "10.0.3"),
        ("QEMU emulator version 9.0.2 (Debian 1:9.0.2+ds-4)", "qemu", "9.0.2"),
        ("QEMU emulator version 9.2.0 (pve-qemu-kvm_9.2.0-5)", "pve_qemu_kvm", "9.2.0-5"),
    ],
)
def test_what_a_program_or_a_package_is_called_has_its_name_and_version(said: str, name: str, version: str) -> None:
    vmm = vmm_named(said, environment())
    assert (vmm.name, vmm.version) == (name, version)


def test_a_build_that_may_lack_the_backport_is_told() -> None:
    assert any("RHEL-88533" in note for note in ask("qemu-kvm-9.1.0-29.el9", MIB)[0].notes)
    assert not any("RHEL" in note for note in ask("qemu-kvm-9.1.0-29.el9_7", MIB)[0].notes)


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("qemu-11.1", "2.8 to 9.1, 9.2 to 10.2, 11.0"),
        ("qemu-2.7", "2.8 to 9.1"),
        ("cloud-hypervisor-60", "15 to 52, 53 to 54"),
        ("firecracker-1.13", "its branch feature/vfio"),
        ("crosvm-2026-08-22", "2025-07-30 to 2026-08-21"),
        ("dpdk-17.11", "18.11 to 23.03"),
        ("vpp-25.02", "26.10"),
        ("vfio-selftest-6.18", "7.0 to 7.3"),
    ],
)
def test_a_version_that_is_not_known_is_refused_with_what_is(version: str, known: str) -> None:
    with pytest.raises(Unknown, match=f"known: .*{known}"):
        ask(version, MIB)


@pytest.mark.parametrize("name", ["qemu-img 8.2.2", "qemu-system", "libvirt-10.0.0", "kata-3.20"])
def test_what_is_no_vmm_is_none(name: str) -> None:
    with pytest.raises(Unknown, match="placement policy"):
        ask(name, MIB)


def test_a_state_between_releases_is_none() -> None:
    with pytest.raises(BadInput, match="a state between two releases"):
        ask("qemu-9.1.50", MIB)


def test_what_is_taken_of_a_version_is_told() -> None:
    assert ask("qemu", MIB)[0].notes[0] == "no version of qemu is given: taken as 11.0"
    assert ask("firecracker", MIB)[0].notes[0].startswith("firecracker as in its branch feature/vfio")


# areas, slots and DMA maps


def test_qemu_cuts_the_table_where_it_must_and_has_no_slot_there() -> None:
    split = [(0, 0x2000), (0x3000, 32 * MIB - 0x3000)]
    whole = ask("qemu-11.0", 32 * MIB, msix=MELLANOX)
    assert (areas(whole), slots(whole), dma(whole)) == ([(0, 32 * MIB)], split, split)
    cut = ask("qemu-11.0", 32 * MIB, msix=MELLANOX, msix_mappable=False)
    assert (areas(cut), slots(cut), unmapped(cut)) == (split, split, "the MSI-X table")
    # before ae0215b2bb56 the capability was not read
    assert areas(ask("qemu-2.11", 32 * MIB, msix=MELLANOX)) == split
    # sparse areas stay as they are
    sparse = [Span(0, 8 * KIB), Span(16 * KIB, MIB)]
    kept = ask("qemu-11.0", 32 * MIB, msix=Msix(0, 0x4000, 4), sparse=sparse, msix_mappable=False)
    assert areas(kept) == [(0, 0x2000), (0x4000, MIB)]
    assert slots(kept) == [(0, 0x2000), (0x5000, MIB - 0x1000)]


def test_qemu_options() -> None:
    off = ask("qemu", 32 * MIB, options=["x-no-mmap=on"])
    assert (areas(off), slots(off), unmapped(off)) == ([], [], "x-no-mmap=on")
    moved = ask("qemu", 32 * MIB, msix=MELLANOX, options=["x-msix-relocation=bar2"])
    assert slots(moved) == [(0, 32 * MIB)]
    for option, why in (
        ("x-msix-relocation=auto", "always fails"),
        ("x-msix-relocation=bar6", "is not off, auto or bar0 to bar5"),
        ("x-no-mmap=maybe", "on or off"),
        ("x-mmap", "takes no option 'x-mmap'"),
    ):
        with pytest.raises(BadInput, match=why):
            ask("qemu", 32 * MIB, options=[option])
    with pytest.raises(BadInput, match="x-vga is given twice"):
        ask("qemu", MIB, options=["x-vga=on", "x-vga=off"])


def test_qemu_emulates_a_mirror_in_nvidia_s_vga_devices() -> None:
    vga = {"pci_id": "10de:2684", "class_name": "VGA compatible controller"}
    assert slots(ask("qemu", 16 * MIB, **vga)) == [(0, 0x88000), (0x89000, 16 * MIB - 0x89000)]
    assert slots(ask("qemu", 16 * MIB, options=["x-vga=on"], **vga))[:2] == [(0, 0x1000), (0x2000, 0x86000)]
    assert slots(ask("qemu", 16 * MIB, options=["x-no-geforce-quirks=on"], **vga)) == [(0, 16 * MIB)]
    assert slots(ask("qemu", 16 * MIB, **{**vga, "class_name": "3D controller"})) == [(0, 16 * MIB)]
    assert slots(ask("qemu", (1, 16 * MIB), **vga)) == [(0, 16 * MIB)]
    assert "quirks that are not modelled" in ask("qemu", MIB, **{**vga, "pci_id": "1002:73bf"})[0].notes[-1]


def test_pseries_has_no_hole_for_the_table() -> None:
    power = linked("7.3.4", "powerpc64")
    assert slots(ask("qemu", 32 * MIB, msix=Msix(0, 0x20000, 64), kernel=power)) == [(0, 32 * MIB)]


def test_pages_of_64k_make_larger_holes() -> None:
    arm = linked("7.3.4", "arm64", "ARM64_64K_PAGES")
    both = ask("qemu-11.0", 32 * MIB, msix=MELLANOX, kernel=arm, msix_mappable=False)
    assert areas(both) == [(0x10000, 32 * MIB - 0x10000)]
    trapped = ask("openvmm", 16 * KIB, kernel=arm)
    assert (areas(trapped), unmapped(trapped)) == ([], "it is less than a page, and is trapped")
    assert areas(ask("cloud_hypervisor-52", 16 * KIB, kernel=arm)) == [(0, 64 * KIB)]
    assert areas(ask("cloud_hypervisor-51", 16 * KIB, kernel=arm)) == []


def test_iommufd_maps_bars_by_a_dma_buf_or_not_at_all() -> None:
    for policy, release, said in (
        ("qemu-10.2", "7.3.4", "before 11.0"),
        ("qemu-11.0", "7.3.4", "walks no page table"),
        ("qemu-11.0", "6.12.117", "lacks iommufd-dmabuf-bar"),
    ):
        (mapping,) = ask(policy, 32 * MIB, release=release, options=["iommufd=iommufd0"])
        assert mapping.costs.dma_map is None
        assert any(said in note for note in mapping.notes)


def test_cloud_hypervisor_moves_an_unaligned_table() -> None:
    cut = [(0, 0x5000), (0x6000, 0x7000), (0xE000, 0x2000)]
    assert areas(ask("cloud_hypervisor-51", 64 * KIB, msix=KIOXIA)) == cut
    assert areas(ask("cloud_hypervisor-52", 64 * KIB, msix=KIOXIA)) == [(0, 64 * KIB)]
    assert areas(ask("cloud_hypervisor-52", 64 * KIB, msix=KIOXIA, bits=32)) == cut
    # So many pages as the size fills: the second page of a table that crosses a page's end stays mapped.
    crossing = Msix(0, 0x2800, 200)
    assert areas(ask("cloud_hypervisor-53", 64 * KIB, msix=crossing, bits=32)) == [(0, 0x2000), (0x3000, 0xD000)]


def test_cloud_hypervisor_options() -> None:
    out = ask("cloud_hypervisor-53", (0, MIB), (2, MIB), options=["x_exclude_mmap_bars=[0,4]"])
    assert (areas(out), unmapped(out)) == ([(0, MIB)], "x_exclude_mmap_bars")
    for options, said in ((["iommu=on"], ""), (["vfio_p2p_dma=off"], ""), (["iommufd=on"], "EFAULT")):
        (mapping,) = ask("cloud_hypervisor-53", MIB, options=options)
        assert mapping.costs.dma_map is None
        assert said in " ".join(mapping.notes)
    (mapping,) = ask("cloud_hypervisor-53", MIB)
    assert mapping.costs.dma_map
    for options, why in (
        (["x_exclude_mmap_bars=7"], "is not a list of BARs"),
        (["vfio_p2p_dma=no"], "on or off"),
    ):
        with pytest.raises(BadInput, match=why):
            ask("cloud_hypervisor-53", MIB, options=options)
    with pytest.raises(BadInput, match="came with 52"):
        ask("cloud_hypervisor-51", MIB, options=["vfio_p2p_dma=off"])


@pytest.mark.parametrize(("version", "bits", "leaves"), [("33", 64, 0), ("37", 64, 0), ("37", 32, 16), ("38", 64, 16)])
def test_cloud_hypervisor_did_not_always_align_guest_addresses(version: str, bits: int, leaves: int) -> None:
    """What the process has in 2M leaves (6.12 aligns), the guest has not."""
    (mapping,) = ask(f"cloud_hypervisor-{version}", 32 * MIB, release="6.12.117", hypervisor="kvm", bits=bits)
    assert mapping.guest
    assert (mapping.costs.counts["pmd"], mapping.guest.counts["pmd"]) == (16, leaves)


@pytest.mark.parametrize("policy", ["vpp", "kvmtool", "vfio_selftest", "dpdk-23.03"])
def test_who_maps_regions_whole_cannot_map_sparse_ones(policy: str) -> None:
    found = ask(policy, 32 * MIB, sparse=[Span(0, MIB)])
    assert (areas(found), slots(found)) == ([], [])
    assert "mmap fails" in unmapped(found)


def test_sparse_areas_are_mapped_as_they_are() -> None:
    two = [Span(0, MIB), Span(4 * MIB, 2 * MIB)]
    for policy in ("qemu", "cloud_hypervisor", "firecracker", "crosvm", "openvmm", "stratovirt", "dpdk"):
        found = ask(policy, 32 * MIB, sparse=two)
        assert areas(found) == [(0, MIB), (4 * MIB, 2 * MIB)]
        assert unmapped(found) == "; ".join(["the region's sparse-mmap areas leave it out"] * 2)
    first = ask("dragonball", 32 * MIB, sparse=two)
    assert areas(first) == [(0, MIB)]
    assert "the first sparse-mmap area only" in unmapped(first)


def test_dragonball_can_miss_the_last_page_of_a_table() -> None:
    assert areas(ask("dragonball", 64 * KIB, msix=Msix(0, 0x2800, 200))) == [(0, 0x2000), (0x3000, 0xD000)]
    assert areas(ask("stratovirt", 64 * KIB, msix=Msix(0, 0x2800, 200))) == [(0, 0x2000), (0x4000, 0xC000)]


@pytest.mark.parametrize("policy", ["dpdk", "vpp", "vfio_selftest"])
def test_a_user_space_driver_has_no_guest(policy: str) -> None:
    (mapping,) = ask(policy, 32 * MIB, hypervisor="kvm")
    assert (mapping.guest, mapping.costs.dma_map, slots([mapping])) == (None, None, [])


def test_dpdk_begins_where_its_memory_ends() -> None:
    assert ask("dpdk", 128 * GIB)[0].costs.counts["pmd"] == 65536
    assert ask("dpdk", 128 * GIB, options=["hugepage-sz=1G"])[0].costs.counts["pud"] == 128
    with pytest.raises(BadInput, match="no size of huge pages"):
        ask("dpdk", MIB, options=["hugepage-sz=3M"])


def test_the_selftests_advise_huge_pages() -> None:
    """Where THP's setting gates pfnmaps, advice is what opens the gate."""
    kernel = linked("6.12.94", thp="madvise")
    assert ask("vfio_selftest", 4 * GIB, kernel=kernel)[0].costs.counts["pud"] == 4
    assert ask("qemu-11.0", 4 * GIB, kernel=kernel)[0].costs.counts["pud"] == 0
    never = linked("6.12.94", thp="never")
    assert ask("vfio_selftest", 4 * GIB, kernel=never)[0].costs.counts["pud"] == 0


def test_what_cannot_be_mapped_is_left_out_by_everyone() -> None:
    arm = linked("7.3.4", "arm64", "ARM64_64K_PAGES")
    for policy in PROGRAMS:
        found = ask(policy, 16 * KIB, 16 * KIB, kernel=arm)
        assert not areas(found[:1])
        assert "shares its 64K page" in unmapped(found)


@pytest.mark.parametrize("policy", PROGRAMS)
def test_areas_do_not_overlap_and_are_no_luckier_than_guaranteed(policy: str) -> None:
    bars = (16 * KIB, 32 * MIB, 64 * MIB, 4 * GIB, 16 * MIB)
    for kernel in (linked("7.3.4"), linked("6.12.117"), linked("7.3.4", "arm64"), linked("7.3.4", "riscv64")):
        mappings = ask(policy, *bars, msix=Msix(1, 0x2000, 64, 1, 0x3000), kernel=kernel)
        spans = sorted((m.va or 0, (m.va or 0) + m.length) for m in mappings if m.area)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
        for mapping in mappings:
            if mapping.area is None or mapping.area.congruent:
                continue
            off = mapping.phys - mapping.area.va
            leaves = [mapping.sizes[level] for level in ("pmd", "pud")]
            guaranteed = [size for size in leaves if size <= mapping.area.alignment]
            assert all(off % size for size in leaves if size not in guaranteed)
