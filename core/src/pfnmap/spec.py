"""What a user says of a kernel, and the kernel that is linked from it.

The common options of the command line and the ``[kernel]`` table of a scenario say the same things. What neither says
is what the .config says (architecture, page size, THP, release), what the kernel's name says (architecture, page size),
or else a default, and stands in `Kernel.assumed`. Where two of them contradict each other, that is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

from pfnmap.archnames import KernelName, arch_of_config, arch_of_release, canonical_arch
from pfnmap.config import Conflict
from pfnmap.contract.defaults import DEFAULT_ARCH
from pfnmap.contract.kernel import THP_SETTINGS
from pfnmap.errors import BadInput, PfnmapError, Unknown
from pfnmap.kconfig import DEFAULTS, declared
from pfnmap.kernel import Kernel
from pfnmap.plugins import Registry, environment
from pfnmap.records import dataclass
from pfnmap.release import Facts, facts, parse_release
from pfnmap.sizes import format_size, parse_size

if TYPE_CHECKING:
    from pfnmap.host.dotconfig import DotConfig

__all__ = ["KernelSpec", "cpu_value", "with_drivers"]


_SWITCH: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("on", "yes", "y", "true", "1"), True),
    **dict.fromkeys(("off", "no", "n", "false", "0"), False),
}
_SHOWN_CONFLICTS = 3
_PAGES: Final = re.compile(r"(?:^|_)\d+KB?(?:_|$)")


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
    file: DotConfig | None = None
    """The .config, where `config` names one that has been read."""

    def link(self, registry: Registry | None = None, warn: Callable[[str], None] = lambda text: None) -> Kernel:
        """Link this kernel with every driver that is installed; `warn` is told what is not as it was said.

        A driver that fails is left out, and stands in `Kernel.left_out`.

        Raises what `Kernel.link` raises, and BadInput for a .config, a page size or a cpu value that cannot be read.
        """
        registry = registry or environment()
        file = _read(self.config) if self.config is not None and self.file is None else self.file
        name = arch_of_release(self.release, registry) if self.release else KernelName()
        of_file = arch_of_config(file, registry) if file else None
        arch = canonical_arch(self.arch, registry) if self.arch else of_file or name.arch or DEFAULT_ARCH
        known = facts(registry)
        named = self.release or _release_of(file, known) or str(known.newest)
        release = parse_release(named, self.with_, self.without, known)
        defaults = getattr(registry.load("arch", arch), "cpu_defaults", {})
        page_size = format_size(parse_size(self.page_size, "page size")) if self.page_size else None
        if page_size is None and name.arch == arch and not (file and _says_page_size(file)):
            page_size = name.page_size
        link = partial(
            Kernel.link,
            arch,
            config=self.resolved,
            release=release,
            cpu={key: cpu_value(key, value, defaults) for key, value in self.cpu.items()},
            given={name.removeprefix("CONFIG_"): value for name, value in self.set.items()},
            file=file.values if file else None,
            whole=file is None or file.complete,
            defaults=DEFAULTS,
            known=_DeclaredByAll(registry),
            page_size=page_size,
            config_source=self.config or "",
            thp=self.thp,
            registry=registry,
        )
        kernel, left_out = with_drivers(link, registry.names("driver"))
        kernel.try_ops()
        for error in left_out.values():
            warn(f"{error}; it is left out")
        got = format_size(kernel.geometry.PAGE_SIZE)
        if page_size not in (None, got):
            raise BadInput("page size", f"{page_size} was asked for, the configuration gives {got}")
        said = {
            f"architecture: {arch}": self.arch or of_file or name.arch,
            f"release: {kernel.release.name}, {self._why_this_release(file, known)}": self.release,
            f"page size: {got}": self.page_size or self.config or name.page_size,
            f"THP: {kernel.thp}": self.thp or (file and _says_thp(file)),
        }
        new = (sentence for sentence, source in said.items() if not source)
        reasons = {name: str(error) for name, error in left_out.items()}
        kernel = replace(kernel, assumed=(*new, *kernel.assumed), left_out=reasons)
        for text in kernel.config.warnings:
            warn(text)
        for text in self._contradictions(kernel, name, of_file, file):
            warn(text)
        if conflicts := kernel.config.conflicts:
            told = self.release or _release_of(file, known)
            hint = "" if told else f"; nothing says its release, and {release.name} is taken: give --release"
            warn(f"{self.config}: {_conflicts_text(conflicts)}{hint}")
        return kernel

    def _why_this_release(self, file: DotConfig | None, known: Facts) -> str:
        return f"as {self.config} says" if _release_of(file, known) else "the newest that was looked at"

    def _contradictions(
        self, kernel: Kernel, name: KernelName, of_file: str | None, file: DotConfig | None
    ) -> Iterator[str]:
        """Yield where the command line, the .config and the kernel's name say different things, and what was taken."""
        arch, size = kernel.arch.name, format_size(kernel.geometry.PAGE_SIZE)
        if of_file not in (None, arch):
            yield f"{self.config}: a configuration of {of_file}, read as one of {arch}"
        if file and self.page_size:
            other = [
                symbol for symbol in kernel.config.given if symbol not in self.set and file.values.get(symbol) != "y"
            ]
            if other:
                yield f"{self.config}: {other[0]} is not set there, and pages of {size} are taken, as was asked for"
        if file and self.release and _differ(file.release, self.release):
            yield f"{self.config}: a configuration of {file.release}, used for {self.release}"
        if name.arch not in (None, arch):
            yield f"{self.release}: the name of a kernel of {name.arch}, taken for one of {arch}"
        elif name.page_size not in (None, size):
            yield f"{self.release}: the name of a kernel with pages of {name.page_size}, and pages of {size} are taken"


def _read(path: str) -> DotConfig:
    from pfnmap.host.dotconfig import read_dotconfig

    return read_dotconfig(path)


def _says_thp(file: DotConfig) -> bool:
    """Tell whether a .config says which THP setting the kernel boots with."""
    return any(file.values.get(f"TRANSPARENT_HUGEPAGE_{setting.upper()}") == "y" for setting in THP_SETTINGS)


def _says_page_size(file: DotConfig) -> bool:
    """Tell whether a .config says the size of its pages: ARM64_64K_PAGES, PAGE_SIZE_16KB, 16KB_3LEVEL."""
    return file.complete or any(value == "y" and _PAGES.search(symbol) for symbol, value in file.values.items())


def _differ(one: str, other: str) -> bool:
    """Tell whether two releases are of different versions, as far as both say: 6.1.0-56 is some 6.1."""
    versions = [re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release) for release in (one, other)]
    if not all(versions):
        return False
    (major, minor, patch), (other_major, other_minor, other_patch) = (found.groups("0") for found in versions if found)
    return (major, minor) != (other_major, other_minor) or ("0" not in (patch, other_patch) and patch != other_patch)


def _release_of(file: DotConfig | None, known: Facts) -> str | None:
    """Return the release that a .config says it is of, if that is one."""
    for name in file.release_names if file else ():
        if name.endswith(".toml"):
            continue
        try:
            parse_release(name, known=known)
        except Unknown:
            continue
        return name
    return None


def _conflicts_text(conflicts: tuple[Conflict, ...]) -> str:
    shown = [f"{c.symbol}={c.file or 'no value'} where {c.derived or 'no value'} follows" for c in conflicts]
    more = len(shown) - _SHOWN_CONFLICTS
    return ", ".join(shown[:_SHOWN_CONFLICTS]) + (f", and {more} more" if more > 0 else "")


def with_drivers(link: Callable[..., Kernel], drivers: Iterable[str]) -> tuple[Kernel, dict[str, PfnmapError]]:
    """Link a kernel with those of some drivers that can be linked; return it, and what each other one did."""
    drivers, left_out = list(drivers), dict[str, PfnmapError]()
    while True:
        try:
            return link(drivers=drivers), left_out
        except PfnmapError as error:
            if error.plugin not in drivers:
                raise
            drivers.remove(error.plugin)
            left_out[error.plugin] = error


class _DeclaredByAll(Collection[str]):
    """The symbols that any installed plugin declares in any release: read when one is looked up, without imports."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @cached_property
    def _symbols(self) -> frozenset[str]:
        return declared(*{plugin.package for plugin in self._registry.plugins()})

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._symbols

    def __iter__(self) -> Iterator[str]:
        return iter(self._symbols)

    def __len__(self) -> int:
        return len(self._symbols)


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
    elif isinstance(value, str) and value.isascii() and not isinstance(default, str):
        try:
            return int(value, 0)
        except ValueError:
            raise BadInput(where, f"{value!r} is not a number") from None
    return value
