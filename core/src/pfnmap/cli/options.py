"""The options that say which kernel is meant, shared by the commands that link one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache, cached_property
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pfnmap.cli.terminal import warn
from pfnmap.contract.defaults import DEFAULT_ARCH
from pfnmap.errors import BadInput, Unknown
from pfnmap.records import dataclass

if TYPE_CHECKING:
    from pfnmap.contract.arch import Arch
    from pfnmap.kernel import Kernel
    from pfnmap.plugins import Registry
    from pfnmap.spec import KernelSpec

__all__ = ["JsonOption", "KernelOptions", "LimitOption", "Settings", "cpu_values", "kernel_options", "linked"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="KEY=VAL",
        help="What a run or a record may take: ops=4M events, bytes=1G of page tables, seconds=300; repeatable.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Settings:
    """The global options."""

    no_plugins: bool = False

    @cached_property
    def registry(self) -> Registry:
        """The plugins that are installed and allowed."""
        from pfnmap.plugins import Registry

        return Registry(disabled=self.no_plugins)


def _option(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel="Which kernel", show_default=False)


@dataclass(frozen=True)
class KernelOptions:
    """What the command line says of the kernel; None where it says nothing."""

    arch: Annotated[str | None, _option("--arch", "NAME", f"Architecture plugin; {DEFAULT_ARCH} if left out.")] = None
    release: Annotated[
        str | None,
        _option("--release", "R", "6.12.117, 7.3, posted-v2, a uname -r, or a PROFILE.toml; else the newest known."),
    ] = None
    with_: Annotated[
        list[str] | None, _option("--with", "CHANGE", "The release has this upstream change; repeatable.")
    ] = None
    without: Annotated[
        list[str] | None, _option("--without", "CHANGE", "The release lacks this upstream change; repeatable.")
    ] = None
    config: Annotated[
        str | None,
        _option("--config", "FILE", "A real .config, plain or packed; else the documented defaults."),
    ] = None
    set_: Annotated[list[str] | None, _option("--set", "SYM=VAL", "Set a Kconfig symbol; repeatable.")] = None
    page_size: Annotated[
        str | None, _option("--page-size", "4K|16K|64K", "Page size, by the architecture's own symbols.")
    ] = None
    thp: Annotated[
        str | None, _option("--thp", "never|madvise|always", "transparent_hugepage/enabled in sysfs; else always.")
    ] = None
    cpu: Annotated[
        list[str] | None, _option("--cpu", "KEY=VAL", "Boot-time state, such as pdpe1gb=off; repeatable.")
    ] = None

    def over(self, base: KernelSpec | None = None, arch: str | None = None) -> KernelSpec:
        """Return what a scenario says of the kernel (`base`) with what the command line says put over it.

        `arch`: an architecture that the command line names in another place. Raises BadInput for a malformed pair.
        """
        from pfnmap.spec import KernelSpec

        base = base or KernelSpec()
        return KernelSpec(
            arch=arch or self.arch or base.arch,
            release=self.release or base.release,
            with_=(*base.with_, *(self.with_ or ())),
            without=(*base.without, *(self.without or ())),
            config=self.config or base.config,
            set={**base.set, **_pairs(self.set_, "--set", "SYM=VAL")},
            page_size=self.page_size or base.page_size,
            thp=self.thp or base.thp,
            cpu={**base.cpu, **_pairs(self.cpu, "--cpu", "KEY=VAL")},
            file=None if self.config else base.file,
        )


def _pairs(items: list[str] | None, option: str, form: str) -> Mapping[str, str]:
    pairs = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise BadInput(option, f"{item!r} is not {form}")
        pairs[name] = value
    return pairs


def cpu_values(arch: type[Arch], items: Sequence[str]) -> dict[str, Any]:
    """Return what ``--cpu KEY=VAL`` says of an architecture's boot. Raises BadInput and Unknown."""
    from pfnmap.spec import cpu_value

    said = _pairs(list(items), "--cpu", "KEY=VAL")
    for key in said:
        if key not in arch.cpu_defaults:
            raise Unknown(f"cpu key of {arch.name}", key, arch.cpu_defaults)
    return {key: cpu_value(key, value, arch.cpu_defaults) for key, value in said.items()}


def kernel_options(*left_out: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command the options of `KernelOptions` in place of its parameter ``kernel``, but those `left_out`."""

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        hints = _hints()
        names = [field.name for field in fields(KernelOptions) if field.name not in left_out]
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hints[name])
            for name in names
        ]
        signature = inspect.signature(command, eval_str=True)
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in signature.parameters.values() if p.name != "kernel"]

        def expanded(**arguments: Any) -> int:
            said = {name: arguments.pop(name) for name in names}
            return command(kernel=KernelOptions(**said), **arguments)

        parameters = [*own, *options]
        expanded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        expanded.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": int}
        expanded.__doc__ = command.__doc__
        return expanded

    return decorate


@cache
def _hints() -> Mapping[str, Any]:
    return get_type_hints(KernelOptions, include_extras=True)


def linked(spec: KernelSpec, registry: Registry) -> Kernel:
    """Link a kernel, and warn of what in its plugins and its configuration is not as it was said."""
    return spec.link(registry, warn)
