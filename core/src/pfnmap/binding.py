"""Hooks and ops of one linked kernel: who implements which with pluggy, and each entry op bound to its owner."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pluggy

from pfnmap.contract.arch import Arch
from pfnmap.contract.pgtable_ops import OPTIONAL_OPS, Ops, Owner
from pfnmap.errors import LinkError, Refused
from pfnmap.generic import Generic
from pfnmap.hookspecs import ENTRY_HOOKS, PROJECT, EntryHooks, LinkHooks

if TYPE_CHECKING:
    from pfnmap.config import Config
    from pfnmap.contract.module import Module

__all__ = ["ABSTRACT_OPS", "bind", "hooks_of"]

_NOT_OPS = frozenset({"setup_arch", "mmu_access", "protection_map"})
ABSTRACT_OPS: Final = frozenset(Arch.__abstractmethods__) - _NOT_OPS
"""The entry ops that every architecture has."""
_GATED = {
    f"{level}_{op}": symbol
    for level, symbol in (
        ("pte", "ARCH_HAS_PTE_SPECIAL"),
        ("pmd", "ARCH_SUPPORTS_PMD_PFNMAP"),
        ("pud", "ARCH_SUPPORTS_PUD_PFNMAP"),
    )
    for op in ("special", "mkspecial")
}
"""What the kernel's headers ask before they look for an architecture's special bit at a level."""


class _Hooks:
    """The hooks of a plugin alone: pluggy looks at each attribute of an object in a way that takes half of the time of
    a link."""

    def __init__(self, plugin: object) -> None:
        kind: Any = type(plugin)
        vars(self).update({name: getattr(plugin, name) for name in _marked(kind)})


@cache
def _marked(plugin: type) -> list[str]:
    """Return the names of the hooks of a class."""
    return [name for name in dir(plugin) if hasattr(getattr(plugin, name, None), f"{PROJECT}_impl")]


class _Manager(pluggy.PluginManager):
    """Looks for hooks where they are marked."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        return getattr(getattr(plugin, name), f"{PROJECT}_impl", None)

    def parse_hookspec_opts(self, module_or_class: object, name: str) -> pluggy.HookspecOpts | None:
        return getattr(getattr(module_or_class, name, None), f"{PROJECT}_spec", None)


def hooks_of(arch: Arch, drivers: list[Module]) -> pluggy.PluginManager:
    """Return the hooks that an architecture and drivers implement. Raises LinkError for those that do not fit."""
    manager = _Manager(PROJECT)
    manager.add_hookspecs(EntryHooks)
    manager.add_hookspecs(LinkHooks)
    plugins: list[Arch | Module] = [arch, *drivers]
    for plugin in plugins:
        try:
            manager.register(_Hooks(plugin), name=plugin.name)
            manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise LinkError(f"plugin {plugin.name}: {' '.join(str(error).split())}").of(plugin.name) from error
    return manager


def _absent(arch: str, op: str, *_: object) -> NoReturn:
    raise Refused(op, f"absent on {arch} with this configuration and release")


def bind(manager: pluggy.PluginManager, arch: Arch, config: Config) -> Ops:
    """Return the ops of a kernel, each a plain function of its owner's. Raises LinkError where it has no one owner."""
    manager.register(_Hooks(Generic(arch, config)), name="generic")
    ops = Ops()
    owners: dict[str, Owner] = {}
    for name in ENTRY_HOOKS:
        function, owners[name] = _owner(manager, name, arch, config)
        setattr(ops, name, function)
    for name in ABSTRACT_OPS:
        setattr(ops, name, getattr(arch, name))
        owners[name] = "arch"
    for name in OPTIONAL_OPS:
        present = hasattr(arch, name) and name not in arch.undefined
        setattr(ops, name, getattr(arch, name) if present else partial(_absent, arch.name, name))
        owners[name] = "arch" if present else "absent"
    ops.owners = owners
    return ops


def _takes(impl: pluggy.HookImpl, names: tuple[str, ...]) -> bool:
    """Tell whether a bound op can be called with all arguments; pluggy lets an implementation leave some out."""
    function: Any = impl.function
    if impl.argnames == names and not function.__code__.co_kwonlyargcount:
        return True
    try:
        signature(function).bind(*names)
    except TypeError:
        return False
    return True


def _owner(manager: pluggy.PluginManager, name: str, arch: Arch, config: Config) -> tuple[Callable[..., Any], Owner]:
    """Settle who owns an entry hook, and return its plain function."""
    generic: Callable[..., Any] | None = None
    claims: list[tuple[str, Callable[..., Any]]] = []
    caller = getattr(manager.hook, name)
    for impl in caller.get_hookimpls():
        if impl.hookwrapper or impl.wrapper:
            text = f"plugin {impl.plugin_name}: {name} is an entry hook and takes no wrapper"
            raise LinkError(text).of(impl.plugin_name)
        if not _takes(impl, caller.spec.argnames):
            called = ", ".join(caller.spec.argnames)
            raise LinkError(f"plugin {impl.plugin_name}: {name} is called with ({called})").of(impl.plugin_name)
        if impl.plugin_name == "generic":
            generic = impl.function
        elif impl.plugin_name != arch.name or name not in arch.undefined:
            claims.append((impl.plugin_name, impl.function))
    if len(claims) > 1:
        owners = sorted(who for who, _ in claims)
        raise LinkError(f"entry hook {name} has two owners: {' and '.join(owners)}").of(
            next(who for who in owners if who != arch.name)
        )
    gate = _GATED.get(name)
    if claims and (gate is None or config.enabled(gate)):
        return claims[0][1], "arch"
    assert generic is not None, name
    return generic, "generic"
