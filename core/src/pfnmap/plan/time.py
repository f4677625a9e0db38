"""Seconds, as ranges: the counts of a plan times what walks took where somebody measured them, or the user did.

They are estimates: other machines, other memory. Counts are what the plan knows.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pfnmap.contract.dma import Published
from pfnmap.errors import BadInput, Unknown
from pfnmap.host.bounded import read_text

if TYPE_CHECKING:
    from pfnmap.kernel import Kernel
    from pfnmap.plan.document import MappingPlan

__all__ = ["Calibration", "Estimate", "Times", "estimate", "read_calibration", "times_of"]

Seconds = tuple[float, float]

_KEYS: Final = ("ns_per_walk", "ns_per_fault", "ns_per_table_page")
_TOGGLES: Final = (20, 40)
_TOGGLES_SOURCE: Final = (
    "20 to 40 slow writes of the command register while a guest boots, without batched BAR sizing: mail of 2024-11-25,"
    " DGX H100"
)
_BATCHED: Final = (1, 2)
_BATCHED_SOURCE: Final = (
    "1 or 2 with batched BAR sizing in the guest (4453f360862e, 6.14): decode is off once for all BARs and once for the"
    " ROM; read in the source, no count is published"
)


@dataclass(frozen=True)
class Calibration:
    """A user's own figures, in nanoseconds; None: not measured."""

    source: str
    ns_per_walk: float
    ns_per_fault: float | None = None
    ns_per_table_page: float | None = None


@dataclass(frozen=True)
class Estimate:
    """Seconds, least and most: of a DMA map while nothing is mapped (`dma_map`); of a boot, in which decode is toggled
    `toggles` times, each of which maps anew, and of one whose guest sizes BARs in a batch (None: `toggles` was said).
    `sources`: where the figures come from."""

    dma_map: Seconds
    boot: Seconds
    boot_batched: Seconds | None
    toggles: tuple[int, int]
    sources: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --time --json` prints."""
        batched = {} if self.boot_batched is None else {"boot_batched_sizing_s": _rounded(self.boot_batched)}
        return {
            "estimate": True,
            "dma_map_s": _rounded(self.dma_map),
            "toggle_s": _rounded(self.dma_map),
            "toggles": list(self.toggles),
            "boot_s": _rounded(self.boot),
            **batched,
            "sources": list(self.sources),
        }


def _rounded(seconds: Seconds) -> list[float]:
    """Return seconds with three digits that count: there is no more in an estimate."""
    return [float(f"{value:.3g}") for value in seconds]


def read_calibration(path: str) -> Calibration:
    """Read a calibration, a TOML file. Raises BadInput for a file that is none, and for what is no time."""
    try:
        said = tomllib.loads(read_text(path, 1 << 16))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(path, f"not TOML: {error}") from None
    for key, value in said.items():
        if key not in _KEYS:
            raise BadInput(path, str(Unknown("key", key, _KEYS)))
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise BadInput(path, f"{key} = {value!r}: nanoseconds were expected, 0 or more")
    if "ns_per_walk" not in said:
        raise BadInput(path, "ns_per_walk is not in it")
    return Calibration(path, **said)


def estimate(
    mappings: Iterable[MappingPlan],
    published: Mapping[str, Sequence[Published]],
    calibration: Calibration | None = None,
    toggles: int | None = None,
) -> Estimate | None:
    """Return what DMA maps of mappings take together, None where nothing is mapped for DMA or nobody measured it.

    `published`: by DMA backend. What is published is of walks; faults and page tables are counted with a calibration
    that has them. A decode toggle costs what the whole map costs where who maps does it anew, and nothing else.
    """
    low = high = again_low = again_high = 0.0
    sources: dict[str, None] = {}
    for one in mappings:
        dma = one.costs.dma_map
        if dma is None or dma.error:
            continue
        if calibration is not None:
            spent = dma.cold_walks * calibration.ns_per_walk
            spent += dma.cold_driver_calls * (calibration.ns_per_fault or 0)
            spent += one.costs.table_bytes / one.sizes["pte"] * (calibration.ns_per_table_page or 0)
            span = spent, spent
            sources[f"calibration {calibration.source}"] = None
        elif known := published.get(dma.backend):
            span = (
                dma.cold_walks * min(each.ns_per_walk[0] for each in known),
                dma.cold_walks * max(each.ns_per_walk[1] for each in known),
            )
            sources |= dict.fromkeys(f"{_range(each.ns_per_walk)} ns a walk: {each.source}" for each in known)
        else:
            continue
        low, high = low + span[0], high + span[1]
        if one.placed.redone is None or "dma" in one.placed.redone:
            again_low, again_high = again_low + span[0], again_high + span[1]
    if not sources:
        return None

    def boots(times: tuple[int, int]) -> Seconds:
        return again_low * times[0] * 1e-9, again_high * times[1] * 1e-9

    times, batched = (_TOGGLES, boots(_BATCHED)) if toggles is None else ((toggles, toggles), None)
    told = (_TOGGLES_SOURCE, _BATCHED_SOURCE) if toggles is None else (f"{toggles} toggles, as was said",)
    faults = (
        () if calibration is not None and calibration.ns_per_fault is not None else ("time of faults is not in it",)
    )
    return Estimate((low * 1e-9, high * 1e-9), boots(times), batched, times, (*sources, *told, *faults))


def _range(values: tuple[float, float]) -> str:
    low, high = (f"{value:.0f}" for value in values)
    return low if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Times:
    """The estimates of a plan: of what each policy places, over all devices; None where there is none."""

    policies: Mapping[str | None, Estimate | None]

    def as_json(self) -> dict[str, Any]:
        """Return it in the form that `plan --time --json` prints: that of the one policy, or of each."""
        found = [{"policy": policy, **(one.as_json() if one else {})} for policy, one in self.policies.items()]
        return found[0] if len(found) == 1 else {"estimate": True, "policies": found}


def times_of(
    mappings: Sequence[MappingPlan], kernel: Kernel, calibration: str | None = None, toggles: str | None = None
) -> Times:
    """Return the estimates of a plan; `calibration`: a file's path, `toggles`: a number as text. Raises BadInput."""
    own = None if calibration is None else read_calibration(calibration)
    count = None if toggles is None else _toggles(toggles)
    backends = (backend for module in kernel.drivers.values() for backend in module.dma_backends)
    published = {backend.name: backend.published for backend in backends}
    policies: dict[str | None, list[MappingPlan]] = {}
    for one in mappings:
        policies.setdefault(one.policy, []).append(one)
    return Times({policy: estimate(some, published, own, count) for policy, some in policies.items()})


def _toggles(text: str) -> int:
    if not (text.isdecimal() and text.isascii()) or len(text) > 9:
        raise BadInput("--toggles", f"{text!r} is not a number of toggles")
    return int(text)
