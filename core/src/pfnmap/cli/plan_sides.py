"""What ``plan`` asks of each side, and the answer of one: a kernel, what is mapped on it, and the plan."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pfnmap.cli.desk import Desk
from pfnmap.errors import BadInput

if TYPE_CHECKING:
    from pfnmap.contract.module import Driver
    from pfnmap.contract.option import Asked
    from pfnmap.host.input import Input
    from pfnmap.inputs import Wanted
    from pfnmap.kernel import Kernel
    from pfnmap.plan import Advice, Plan, Request
    from pfnmap.plugins import Registry
    from pfnmap.scenario import Scenario
    from pfnmap.spec import KernelSpec

__all__ = ["Question", "Side", "advice_on", "check_drivers", "how", "of_host", "read", "side_of", "where"]


@dataclass(frozen=True)
class Question:
    """What is asked of each side: the command line but what it says of the kernel."""

    desk: Desk
    registry: Registry
    read: Sequence[Input]
    scenario: Scenario | None
    requests: Sequence[Request]
    slots: Sequence[str]
    ids: Sequence[str]
    va: int | None
    vmm: Sequence[str]
    mmap_base: int | None
    asked: Asked
    vmm_options: Sequence[str]
    newest_vmm: bool
    msix: Sequence[str]
    sparse: Sequence[str]
    msix_mappable: bool


@dataclass(frozen=True)
class Side:
    """A kernel, what is planned on it, and the answer; `wanted`: what of that inputs ask for."""

    image: Kernel
    requests: Sequence[Request]
    wanted: Wanted | None
    plan: Plan

    def as_json(self) -> dict[str, Any]:
        """Return the document."""
        skipped = [{"device": one.device, "reason": one.reason} for one in self.wanted.skipped] if self.wanted else []
        return {**self.plan.as_json(), "skipped": skipped}


def side_of(question: Question, spec: KernelSpec) -> Side:
    """Link a kernel, and plan on it what is asked; what is not as it was said is warned of."""
    from pfnmap.plan import plan
    from pfnmap.requests import of_scenario

    said: list[str] = []
    image = question.desk.link(spec, said.append)
    requests, wanted = question.requests, None
    if question.scenario is not None:
        requests = of_scenario(question.scenario, image)
    elif not requests:
        wanted = _of_inputs(question, image)
        requests = wanted.requests
    for text in (*_not_built(image, requests), *said, *(_left_out(wanted) if wanted else ())):
        question.desk.warn(text)
    requests = where(question, requests)
    return Side(image, requests, wanted, plan(image, requests, **how(question)))


def where(question: Question, requests: Sequence[Request]) -> Sequence[Request]:
    """Return requests with what is said of their regions and of where they go."""
    from pfnmap.requests import at_guest_address, described, placed

    requests = described(requests, question.msix, question.sparse, question.msix_mappable)
    requests = placed(requests, question.va, question.vmm)
    return requests if question.asked.gpa is None else at_guest_address(requests, question.asked.gpa)


def how(question: Question) -> dict[str, Any]:
    """Return what `plan` is told besides the kernel and the requests."""
    asked = question.asked
    return {
        "mmap_base": question.mmap_base,
        "dma": asked.dma,
        "hypervisor": asked.hypervisor,
        "registry": question.registry,
        "vmm_options": question.vmm_options,
        "newest_vmm": question.newest_vmm,
    }


def advice_on(question: Question, side: Side) -> list[Advice]:
    from pfnmap.plan import advise

    return advise(side.image, side.requests, **how(question))


def read(files: Sequence[str], registry: Registry) -> list[Input]:
    """Read files of the kinds that the core and the drivers know."""
    from pfnmap.host.input import KINDS, read_input
    from pfnmap.inputs import kinds_of

    kinds = {**KINDS, **kinds_of(_drivers(registry))}
    return [read_input(file, kinds) for file in files]


def _of_inputs(question: Question, image: Kernel) -> Wanted:
    """Return what inputs ask for, less what a driver does not say how it maps."""
    from pfnmap.contract.defaults import DEFAULT_DRIVER
    from pfnmap.contract.module import Driver
    from pfnmap.contract.plan import by_device
    from pfnmap.errors import Refused
    from pfnmap.host.pci import Skipped
    from pfnmap.inputs import Selection, of_inputs
    from pfnmap.plan.planner import region_rules

    drivers = {name: type(driver) for name, driver in image.drivers.items() if isinstance(driver, Driver)}
    if not drivers:  # so that no mapping is anybody's
        check_drivers(question.registry, [DEFAULT_DRIVER])
    only = Selection(tuple(question.slots), tuple(question.ids))
    wanted = of_inputs(question.read, drivers, image.has, only)
    check_drivers(question.registry, [request.driver for request in wanted.requests])
    refused: list[Refused] = []
    asked, wanted.requests = wanted.requests, []
    beside = by_device(asked)
    for request in asked:
        try:
            region_rules(image, request, beside[request.device], question.registry)
            wanted.requests.append(request)
        except Refused as error:
            refused.append(error)
            wanted.skipped.append(Skipped(request.device, str(error)))
    if not wanted.requests:
        raise refused[0]
    return wanted


def _left_out(wanted: Wanted) -> list[str]:
    """What of inputs is left out, and what was taken."""
    return [f"{one.device}: {one.reason}" if one.device else f"not used: {one.reason}" for one in wanted.skipped] + [
        *wanted.notes
    ]


def _not_built(image: Kernel, requests: Sequence[Request]) -> list[str]:
    """Which drivers the configuration does not build."""
    found = []
    for name in dict.fromkeys(request.driver for request in requests):
        symbol = getattr(image.drivers.get(name), "config_symbol", "")
        if image.config.value(symbol) == "n":
            found.append(
                f"this kernel has no {name}: {symbol} is not set in {image.config.source or 'its configuration'}"
            )
    return found


def _drivers(registry: Registry) -> list[type[Driver]]:
    """The classes of the drivers that can be used."""
    from pfnmap.contract.module import Driver
    from pfnmap.errors import PluginError

    found = []
    for name in registry.names("driver"):
        with suppress(PluginError):  # told where the kernel is linked
            loaded = registry.load("driver", name)
            if issubclass(loaded, Driver):
                found.append(loaded)
    return found


def check_drivers(registry: Registry, names: Sequence[str]) -> None:
    """Say of a driver that cannot be used which distribution brings it, before anything is linked without it."""
    from pfnmap.plugins import why_unusable

    registry.architectures()
    for name in dict.fromkeys(names):
        if why := why_unusable(registry, "driver", name):
            raise BadInput("", why)


def of_host(root: str, registry: Registry) -> tuple[KernelSpec, Input]:
    """Return what a captured host says of its kernel, and its devices: those that a driver of the plugins' is bound to,
    or all where there is none."""
    from pfnmap.host.input import Input
    from pfnmap.host.machine import read_host
    from pfnmap.host.tree import open_tree
    from pfnmap.survey import spec_of

    host = read_host(open_tree(root))
    names = {name for driver in _drivers(registry) for name in driver.kernel_names}
    devices = [function.device for function in host.functions]
    bound = [device for device in devices if device.driver in names]
    return spec_of(host, registry, []), Input(root, "host", tuple(bound or devices), (), host.skipped)
