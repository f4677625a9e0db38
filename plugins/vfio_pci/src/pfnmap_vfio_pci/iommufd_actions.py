"""What scenarios may do with iommufd: IOASes, maps by address and by dma-buf, attaching a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from errno import EBADF, EINVAL, ENOTTY, EOPNOTSUPP, errorcode
from typing import Any

from pfnmap import Action, BadInput, Machine, Refused, ScenarioRun, Unknown
from pfnmap.sizes import parse_size

from .dma_buf import DmaBuf, Range, feature_dma_buf, has_dma_bufs
from .iommufd import IoPagetable

__all__ = ["IommufdActions"]


def _result(error: int) -> dict[str, Any]:
    """The result of a system call; `errorcode` has another name for Linux's EOPNOTSUPP."""
    name = "EOPNOTSUPP" if error == -EOPNOTSUPP else errorcode.get(-error, "ok")
    return {"result": name}


class IommufdActions:
    """One IOAS at a time, which a device is attached to unless `iommufd_ioas` made it; the dma-bufs by name.
    `memory_enabled` tells whether a device's memory decode is on."""

    def __init__(self, memory_enabled: Callable[[str], bool]) -> None:
        self._memory_enabled = memory_enabled

    def boot(self, machine: Machine) -> None:
        """Begin with nothing mapped."""
        self._machine = machine
        self.iopt = IoPagetable(machine, attached=True)
        self._dma_bufs: dict[str, DmaBuf] = {}

    def actions(self) -> Mapping[str, Action]:
        """Return the actions by name."""
        place = {"iova": "address", "length": "size"}
        by_file = {"device": "str", "bar": "bar", "offset": "size", "file": "str", "start": "size", "prot": "str"}
        dma_buf = {"id": "str", "device": "str", "bar": "int", "ranges": "list", "flags": "int"}
        return {
            "dma_buf": Action(self._dma_buf, dma_buf, frozenset({"id", "flags"})),
            "iommufd_ioas": Action(self._ioas, {}),
            "iommufd_attach": Action(self._attach, {}),
            "iommufd_detach": Action(self._detach, {}),
            "iommufd_map": Action(self._map, {**place, "va": "address", "prot": "str"}),
            "iommufd_map_file": Action(self._map_file, {**place, **by_file}, frozenset(by_file)),
            "iommufd_unmap": Action(self._unmap, place),
        }

    def _dma_buf(
        self, run: ScenarioRun, device: str, bar: int, ranges: Sequence[str], id: str = "", flags: int = 0
    ) -> dict[str, Any]:
        """VFIO_DEVICE_FEATURE_DMA_BUF of ranges ("offset+length") of a region of a device."""
        if device not in run.devices:
            raise Unknown("device", device, run.devices)
        parts = [_range(text) for text in ranges]
        made = feature_dma_buf(self._machine.kernel, run.devices[device], bar, parts, flags)
        if isinstance(made, int):
            return _result(made)
        self._dma_bufs[id] = made
        return _result(0)

    def _ioas(self, run: ScenarioRun) -> dict[str, Any]:
        """IOMMU_IOAS_ALLOC: what follows is about a new IOAS, to which no device is attached."""
        self.iopt.detach()
        self.iopt = IoPagetable(self._machine, attached=False)
        return {}

    def _attach(self, run: ScenarioRun) -> dict[str, Any]:
        """VFIO_DEVICE_ATTACH_IOMMUFD_PT of a device."""
        if self.iopt.attached:
            raise BadInput("iommufd_attach", "a device is attached already")
        return self._counted(self.iopt.attach())

    def _detach(self, run: ScenarioRun) -> dict[str, Any]:
        """VFIO_DEVICE_DETACH_IOMMUFD_PT."""
        self.iopt.detach()
        return {}

    def _map(self, run: ScenarioRun, iova: int, va: int, length: int, prot: str) -> dict[str, Any]:
        """IOMMU_IOAS_MAP of the acting process's memory; `prot`: what the device may do, of r and w (-EINVAL for
        nothing: domain.untouched)."""
        if not _may(prot):
            return _result(-EINVAL)
        return self._counted(self.iopt.map_user_pages(run.current, iova, va, length, "w" in prot))

    def _map_file(
        self,
        run: ScenarioRun,
        iova: int,
        length: int,
        device: str = "",
        bar: int = 0,
        offset: int = 0,
        file: str = "",
        start: int = 0,
        prot: str = "rw",
    ) -> dict[str, Any]:
        """IOMMU_IOAS_MAP_FILE of a dma-buf: from `start` on of one that `dma_buf` made, or of a new one of a part of a
        BAR of `device`. Other files: "memfd", "vfio" (a device's), "none" (fd -1)."""
        if bool(device) == bool(file):
            raise BadInput("iommufd_map_file", "either a device (with bar and offset) or a file is needed")
        if not has_dma_bufs(self._machine.kernel):
            return _result(-ENOTTY)  # what there may be for a memfd already is not modelled
        if not _may(prot):
            return _result(-EINVAL)
        if file in _NO_DMA_BUF:
            return _result(-_NO_DMA_BUF[file])
        if file == "memfd":
            raise Refused("iommufd_map_file", "a memfd")
        if file and file not in self._dma_bufs:
            raise Unknown("dma-buf", file, [*self._dma_bufs, *_NO_DMA_BUF, "memfd"])
        if device:
            run.bar(device, bar)
            made = feature_dma_buf(self._machine.kernel, run.devices[device], bar, [(offset, length)], 0)
            if isinstance(made, int):
                return _result(made)
        else:
            made = self._dma_bufs[file]
        enabled = self._memory_enabled(made.device)
        return self._counted(self.iopt.map_dma_buf(made, iova, start, length, memory_enabled=enabled))

    def _counted(self, error: int) -> dict[str, Any]:
        """The result, and in `dma_calls` how often pin_user_pages_fast and iommu_map were called."""
        calls = dict(self.iopt.calls)
        self.iopt.calls.clear()
        return {**_result(error), **({"dma_calls": calls} if calls else {})}

    def _unmap(self, run: ScenarioRun, iova: int, length: int) -> dict[str, Any]:
        """IOMMU_IOAS_UNMAP; `bytes` is the length field on return, which an error leaves alone."""
        error, unmapped = self.iopt.unmap(iova, length)
        return {**_result(error), "bytes": length if error else unmapped}


_NO_DMA_BUF = {"vfio": EINVAL, "none": EBADF}
"""What a map of another file gives: the one is no file of memory, the other none at all."""


def _may(prot: str) -> bool:
    """Tell whether a protection allows anything. Raises BadInput for one that there is not."""
    if prot not in ("", "r", "w", "rw"):
        raise BadInput("iommufd", f"prot {prot!r} is none of r, w, rw")
    return bool(prot)


def _range(text: str) -> Range:
    offset, plus, length = text.partition("+")
    if not plus:
        raise BadInput("ranges", f"{text!r:.40} is no offset+length")
    return parse_size(offset, "ranges"), parse_size(length, "ranges")
