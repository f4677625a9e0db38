"""QEMU, and the two distributions of it whose versions say more than upstream's.

Read and not run: hw/vfio/helpers.c (until the split of 2025-03-26, then hw/vfio/region.c), hw/vfio/pci.c,
pci-quirks.c, listener.c, accel/kvm/kvm-all.c; a master of 2026-02-15 (10.2.50). That 11.0 is the first release with
one reservation a region is inferred: 3863e47828d5 was merged while master was 10.2.50.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Final

from pfnmap.contract.placement import AddressSpace, Area, Placed, Vmm
from pfnmap.contract.plan import Request
from pfnmap.contract.region import Span, covering, without
from pfnmap.errors import BadInput
from pfnmap_vmms.areas import (
    GIB,
    at_once,
    each_aligned,
    each_alone,
    is_sparse,
    msix_pages,
    nothing,
    offered,
    power_of_two,
    rest,
)

__all__ = ["PveQemuKvm", "Qemu", "QemuKvm"]

ALIGNED: Final = (9, 2)
"""First with 00b519c0bca0: each area at a multiple of the lowest bit of its length."""
AT_ONCE: Final = (11, 0)
"""First with 3863e47828d5: one reservation a region. And with 8cfaf22668c7: a dma-buf of it for iommufd."""
MSIX_MAPPABLE: Final = (2, 12)
"""First with ae0215b2bb56; before, the table's pages were always cut out."""
DMABUF: Final = "iommufd-dmabuf-bar"

_NVIDIA: Final = "10de"
_MIRROR: Final = Span(0x88000, 4096)
"""Where NVIDIA's BAR 0 mirrors configuration space: emulated for VGA devices (vfio_probe_nvidia_bar0_quirk)."""
_VGA_MIRROR: Final = Span(0x1800, 256)


class Qemu(Vmm):
    """Where QEMU puts the BARs of a vfio-pci device."""

    name = "qemu"
    executables: ClassVar[tuple[str, ...]] = ("qemu-system-*", "qemu-kvm", "kvm")
    packages: ClassVar[tuple[str, ...]] = (
        "qemu-system-x86",
        "qemu-system-arm",
        "qemu-system-ppc",
        "qemu-system-s390x",
        "qemu-system-misc",
    )
    versions = ("2.8 to 9.1", "9.2 to 10.2", "11.0")
    takes = (
        "iommufd",
        "x-intx-mmap-timeout-ms",
        "x-msix-relocation",
        "x-no-geforce-quirks",
        "x-no-kvm-msix",
        "x-no-mmap",
        "x-vga",
    )
    changes = (DMABUF,)

    backported = False
    """The version is one before ALIGNED with that commit."""

    def upstream(self, version: str) -> str:
        """Return QEMU's own version in a distribution's (``1:8.2.2+ds-0ubuntu1.4``) and of a candidate (``9.1.92``).

        RHEL 9.7's and CentOS Stream 9's 9.1 have 00b519c0bca0 (RHEL-88533, merge request 366 of
        redhat/centos-stream/src/qemu-kvm); which build is the first is not known. Of Debian, Ubuntu and Proxmox no
        backport was found. Raises BadInput for a version between two releases.
        """
        version = re.sub(r"^\d+:", "", version)
        rhel = re.match(r"9\.1\..*\.el9(?:_([0-9]{1,9}))?", version)
        if rhel:
            self.backported = rhel[1] is None or int(rhel[1]) >= 7
            if rhel[1] is None:
                self.assumed = "taken as RHEL 9.7's 9.1, which aligns areas (RHEL-88533); from which build is not known"
        found = re.match(r"(\d+)\.(\d+)\.([5-9]\d)(?!\d)", version)
        if found is None:
            return version
        major, minor, micro = map(int, found.groups())
        if micro < 90:
            raise BadInput(f"{self.name}-{version}", "a state between two releases; give the release")
        return f"{major}.{minor + 1}" if minor < 2 else f"{major + 1}.0"

    def place(self, space: AddressSpace, requests: Sequence[Request]) -> list[Placed]:
        """Place the BARs, each by itself."""
        placed, top = [], space.base
        for request in requests:
            placed.append(self._placed(space, request, top))
            top = min((area.va for area in placed[-1].areas), default=top)
        return placed

    def _placed(self, space: AddressSpace, request: Request, top: int) -> Placed:
        if self.switched_on("x-no-mmap"):
            return nothing(request, "x-no-mmap=on")
        cut = self._cut(request, space.page)
        spans = without(offered(request), cut)
        areas = self._areas(space, request, spans, top)
        holes = self._emulated(space, request)
        slots = without(spans, holes)
        dma, notes = self._dma(space)
        return Placed(
            areas,
            slots,
            slots if dma else (),
            rest(request, spans, cut),
            (*notes, *self._said(request, spans, holes)),
            redone=("slots", "dma") if dma else ("slots",),
        )

    def _cut(self, request: Request, page: int) -> dict[Span, str]:
        """The pages that vfio_pci_fixup_msix_region leaves out of a region with one area, which is all of it."""
        mappable = request.msix_mappable and self.number >= MSIX_MAPPABLE
        return {} if mappable or is_sparse(request) else msix_pages(request, page, pba=False)

    def _areas(self, space: AddressSpace, request: Request, spans: Sequence[Span], top: int) -> tuple[Area, ...]:
        if self.number >= AT_ONCE:
            return at_once(space, request, spans, top, min(power_of_two(request.bar_size), GIB))
        if self.number >= ALIGNED or self.backported:
            return each_aligned(space, request, spans, top, lambda length: length & -length)
        return each_alone(space, request, spans, top)

    def _emulated(self, space: AddressSpace, request: Request) -> dict[Span, str]:
        """The pages of a BAR that lie under something that QEMU emulates, and so are in no slot. The PBA is not among
        them: its memory region is enabled only while a masked vector is pending."""
        found: dict[Span, str] = {}
        relocation = self.options.get("x-msix-relocation", "off")
        if relocation != "off" and not re.fullmatch("bar[0-5]", relocation):
            why = "is not off, auto or bar0 to bar5"
            if relocation == "auto":
                why = "always fails: its list of devices is empty"
            raise BadInput("--vmm-opt", f"x-msix-relocation={relocation} {why}")
        # pseries guests take MSI-X by hypercalls: vfio-no-msix-emulation.
        if relocation == "off" and space.kernel.arch.name != "powerpc64":
            found |= msix_pages(request, space.page, pba=False)
        if request.bar == 0 and _is_nvidia_vga(request) and not self.switched_on("x-no-geforce-quirks"):
            mirrors = (_MIRROR, _VGA_MIRROR) if self.switched_on("x-vga") else (_MIRROR,)
            found |= {covering(mirror, space.page): "a mirror of configuration space" for mirror in mirrors}
        return found

    def _dma(self, space: AddressSpace) -> tuple[bool, tuple[str, ...]]:
        """Whether the areas are mapped for DMA by their addresses, and what is to be said."""
        if "iommufd" not in self.options:
            return True, ()
        if self.number < AT_ONCE:
            return False, ("iommufd maps no BAR: QEMU before 11.0 warns that peer-to-peer DMA is not supported",)
        if not space.kernel.has(DMABUF):
            return False, (f"iommufd maps no BAR: {space.kernel.lacks(DMABUF)}",)
        return False, ("iommufd maps BARs by a dma-buf (IOMMU_IOAS_MAP_FILE), which walks no page table",)

    def _said(self, request: Request, spans: Sequence[Span], holes: dict[Span, str]) -> tuple[str, ...]:
        inside = [what for hole, what in holes.items() if any(s.offset <= hole.offset < s.end for s in spans)]
        emulated = " and ".join(dict.fromkeys(inside))
        notes = [f"no slot has the pages of {emulated}, which QEMU emulates"] if inside else []
        if _is_vga(request) and not _is_nvidia_vga(request):
            notes.append("QEMU may emulate more of this VGA device's BARs, by quirks that are not modelled")
        return tuple(notes)


def _is_vga(request: Request) -> bool:
    name = (request.class_name or "").lower()
    return name.startswith("vga") or name == "0300"


def _is_nvidia_vga(request: Request) -> bool:
    return _is_vga(request) and (request.pci_id or "").startswith(_NVIDIA)


class QemuKvm(Qemu):
    """qemu-kvm of RHEL and CentOS Stream, by ``VERSION-RELEASE.elN``."""

    name = "qemu_kvm"
    executables = ("qemu-kvm",)
    packages = ("qemu-kvm-core", "qemu-kvm")


class PveQemuKvm(Qemu):
    """pve-qemu-kvm of Proxmox; 9.2.0-1 and 11.0.0-1 are the first with each rule, as upstream."""

    name = "pve_qemu_kvm"
    executables = ("qemu-system-*", "kvm")
    packages = ("pve-qemu-kvm",)
