"""What a user says of a kernel, and the kernel that is linked from it.

The common options of the command line and the ``[kernel]`` table of a scenario say the same things. What neither says
is what the head of the .config says (architecture, release), or else a default, and stands in `Kernel.assumed`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pfnmap.errors import BadInput, PluginError, Unknown
from pfnmap.host.dotconfig import DotConfig, read_dotconfig
from pfnmap.kconfig import DEFAULTS, Conflict, declared
from pfnmap.kernel import DEFAULT_ARCH, Kernel
from pfnmap.plugins import Registry
from pfnmap.release import newest, parse_release
from pfnmap.sizes import format_size, parse_size

__all__ = ["KernelSpec", "cpu_value"]

DEFAULT_THP: Final = "always"

_SWITCH: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("on", "yes", "y", "true", "1"), True),
    **dict.fromkeys(("off", "no", "n", "false", "0"), False),
}
_SHOWN_CONFLICTS = 3


@dataclass(frozen=True)
class KernelSpec:
    """What somebody says of a kernel; None, or nothing, is what nobody said.

    `config`: path of a real .config; `set`: symbol -> value, as a user sets it; `resolved`: symbol -> value that is
    taken as it is, whatever depends on what; `page_size`: a size such as "16K"; `cpu`: boot-time state,
    its values as text or as they are.
    """

    arch: str | None = None
    release: str | None = None
    with_: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    config: str | None = None
    set: Mapping[str, str] = field(default_factory=dict)
    resolved: Mapping[str, str] = field(default_factory=dict)
    page_size: str | None = None
    thp: str | None = None
    cpu: Mapping[str, Any] = field(default_factory=dict)

    def link(self, registry: Registry | None = None, warn: Callable[[str], None] = lambda text: None) -> Kernel:
        """Link this kernel with every driver that is installed; `warn` is told what is not as it was said.

        Raises what `Kernel.link` raises, and BadInput for a .config, a page size or a cpu value that cannot be read.
        """
        registry = registry or Registry()
        file = read_dotconfig(self.config) if self.config is not None else None
        arch = self.arch or _arch_of(file, registry) or DEFAULT_ARCH
        release = parse_release(self.release or _release_of(file) or newest(), self.with_, self.without)
        defaults = getattr(registry.load("arch", arch), "cpu_defaults", {})
        page_size = format_size(parse_size(self.page_size, "page size")) if self.page_size else None
        kernel = Kernel.link(
            arch,
            _drivers(registry, warn),
            config=self.resolved,
            release=release,
            cpu={key: cpu_value(key, value, defaults) for key, value in self.cpu.items()},
            given={name.removeprefix("CONFIG_"): value for name, value in self.set.items()},
            file=file.values if file else None,
            defaults=DEFAULTS,
            known=_declared_by_all(registry),
            page_size=page_size,
            config_source=self.config or "",
            thp=self.thp or DEFAULT_THP,
            registry=registry,
        )
        got = format_size(kernel.geometry.PAGE_SIZE)
        if page_size not in (None, got):
            raise BadInput("page size", f"{page_size} was asked for, the configuration gives {got}")
        kernel = replace(kernel, assumed=(*self._assumed(kernel, file), *kernel.assumed))
        for text in kernel.config.warnings:
            warn(text)
        if file:
            self._warn_of_file(file, kernel, warn)
        return kernel

    def _assumed(self, kernel: Kernel, file: DotConfig | None) -> list[str]:
        """Return in sentences which defaults were taken."""
        why = f"as {self.config} says" if _release_of(file) else "the newest that was looked at"
        said = {
            f"architecture: {kernel.arch.name}": self.arch,
            f"release: {kernel.release.name}, {why}": self.release,
            f"page size: {format_size(kernel.geometry.PAGE_SIZE)}": self.page_size or self.config,
            f"THP: {kernel.thp}": self.thp,
        }
        return [sentence for sentence, source in said.items() if not source]

    def _warn_of_file(self, file: DotConfig, kernel: Kernel, warn: Callable[[str], None]) -> None:
        if file.arch and kernel.arch.name not in file.arch_names:
            warn(f"{self.config}: a configuration of {file.arch_names[-1]}, read as one of {kernel.arch.name}")
        if conflicts := kernel.config.conflicts:
            warn(f"{self.config}: {_conflicts_text(conflicts)}")


def _arch_of(file: DotConfig | None, registry: Registry) -> str | None:
    """Return the installed architecture that a .config says it is of."""
    names = file.arch_names if file else ()
    return next((name for name in reversed(names) if name in registry.names("arch")), None)


def _release_of(file: DotConfig | None) -> str | None:
    """Return the release that a .config says it is of, if that is one."""
    if file is None or file.release.endswith(".toml"):
        return None
    try:
        parse_release(file.release)
    except Unknown:
        return None
    return file.release


def _conflicts_text(conflicts: tuple[Conflict, ...]) -> str:
    shown = [f"{c.symbol}={c.file or 'no value'} where {c.derived or 'no value'} follows" for c in conflicts]
    more = len(shown) - _SHOWN_CONFLICTS
    return ", ".join(shown[:_SHOWN_CONFLICTS]) + (f", and {more} more" if more > 0 else "")


def _drivers(registry: Registry, warn: Callable[[str], None]) -> list[str]:
    """Return the names of the drivers that can be linked; tell of each that cannot."""
    usable = []
    for name in registry.names("driver"):
        try:
            registry.load("driver", name)
        except PluginError as error:
            warn(f"{error}; it is left out")
        else:
            usable.append(name)
    return usable


def _declared_by_all(registry: Registry) -> frozenset[str]:
    """Return the symbols that any installed plugin declares in any release; nothing is imported."""
    return declared(*{plugin.entry_point.module.partition(".")[0] for plugin in registry.plugins()})


def cpu_value(key: str, value: Any, defaults: Mapping[str, object]) -> Any:
    """Return a cpu value in the type of its default; one of a key that nobody has is left for `Kernel.link` to refuse.

    Raises BadInput for a value of another type.
    """
    if key not in defaults:
        return value
    where, default = f"cpu {key}", defaults[key]
    if isinstance(default, bool):
        if isinstance(value, str) and value.lower() in _SWITCH:
            return _SWITCH[value.lower()]
        if not isinstance(value, bool):
            raise BadInput(where, f"{value!r} is neither on nor off")
    elif isinstance(value, str) and not isinstance(default, str):
        try:
            return int(value, 0)
        except ValueError:
            raise BadInput(where, f"{value!r} is not a number") from None
    return value
