"""Which architecture is meant: by a name that another tool uses, by a configuration, by the name of a kernel.

What an architecture is called elsewhere its plugin says (`pfnmap.Arch.aliases`, `config_symbol`, `release_suffixes`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pfnmap.errors import PluginError
from pfnmap.plugins import Registry

if TYPE_CHECKING:
    from pfnmap.host.dotconfig import DotConfig

__all__ = ["KernelName", "arch_of_config", "arch_of_release", "canonical_arch"]

_HAS_LETTERS_AND_DIGITS: Final = re.compile(r"(?=\w*[a-z])(?=\w*[0-9])\w{3,}")

_SIXTY_FOUR: Final = re.compile(r"_?64I?$")
_PAGE_SIZE: Final = re.compile(r"\d+kb?$")


def canonical_arch(name: str, registry: Registry) -> str:
    """Return the plugin that a name means: its own, ``amd64``, ``AMD64`` or ``x86-64``; any other name as it is."""
    plain = name.lower().replace("-", "_")
    for wanted in (name, plain):
        if wanted in registry.names("arch"):
            return wanted
    return next((known for known, arch in _loaded(registry) if plain in arch.aliases), name)


def arch_of_config(file: DotConfig, registry: Registry) -> str | None:
    """Return the architecture that a .config is of: the installed one whose own symbol it sets, else what its first
    lines name, which may not be installed, else the one whose name most of its symbols begin with (``ARM64_64K_PAGES``
    in an excerpt); None where there is none of these."""
    for name, arch in _loaded(registry):
        if file.values.get(arch.config_symbol) == "y":
            return name
    named = [canonical_arch(name, registry) for name in file.arch_names]
    installed = registry.names("arch")
    if named:
        return next((name for name in reversed(named) if name in installed), named[0])
    begin = {name: _prefixes(name, arch.config_symbol) for name, arch in _loaded(registry)}
    votes = {name: sum(symbol.startswith(words) for symbol in file.values) for name, words in begin.items()}
    return max(votes, key=votes.__getitem__) if any(votes.values()) else None


def _prefixes(name: str, config_symbol: str) -> tuple[str, ...]:
    """Return what symbols of an architecture begin with: its own symbol and its name, with 64 and without."""
    words = {name.upper(), config_symbol} - {""}
    return tuple(f"{word}_" for word in sorted(words | {_SIXTY_FOUR.sub("", word) for word in words}))


class KernelName(NamedTuple):
    """What the name of a kernel (``uname -r``) says of the machine; None where it does not say."""

    arch: str | None = None
    page_size: str | None = None


def arch_of_release(release: str, registry: Registry) -> KernelName:
    """Return what ``6.12.0-55.el10.aarch64`` or ``6.14.0-1015-nvidia-64k`` says of architecture and page size.

    Looked at are the words after the version: names of architectures, and suffixes (`pfnmap.Arch.release_suffixes`),
    which may stand at the end of a word (Oracle's ``el9uek64k``).
    """
    said = re.sub(r"^Linux \S+ ", "", release).lower()  # uname -a has the host's name in front
    words = [word for word in re.split(r"[.+~\s-]", said)[1:] if _HAS_LETTERS_AND_DIGITS.fullmatch(word)]
    if not words:
        return KernelName()
    ends = [found[0] for word in words if (found := _PAGE_SIZE.search(word))]
    known = next((name for word in words if (name := canonical_arch(word, registry)) in registry.names("arch")), None)
    for name, arch in _loaded(registry):
        sizes: Mapping[str, str] = arch.release_suffixes
        if known in (None, name) and (size := next((sizes[end] for end in ends if end in sizes), None)):
            return KernelName(name, size)
    return KernelName(known)


def _loaded(registry: Registry) -> Iterator[tuple[str, Any]]:
    """Yield the architectures that can be loaded, with their names."""
    for name in registry.names("arch"):
        try:
            yield name, registry.load("arch", name)
        except PluginError:  # `pfnmap plugins` tells of it
            continue
