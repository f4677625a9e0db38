"""`dataclass` of the standard library, made without compiling anything.

The library writes and compiles the source of up to eight methods for each class, and the hundred classes that a short
command imports took a third of its CPU time. Here comparing, hashing, showing and refusing changes are ordinary
functions over the fields, and ``__init__`` alone is compiled, when somebody asks for it: most classes that a command
imports it never makes one of. For modules that every command imports; elsewhere the library's own will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:
    import sys
    from dataclasses import MISSING, FrozenInstanceError, fields
    from dataclasses import dataclass as _dataclass
    from functools import cache
    from operator import attrgetter
    from reprlib import recursive_repr
    from types import MemberDescriptorType

    def dataclass(cls: type | None = None, /, *, eq: bool = True, frozen: bool = False, **options: Any) -> Any:
        """Make a dataclass; with other options (`order`, ...) than here and `slots`, `kw_only` it is the library's.

        There is no InitVar.
        """
        if options.keys() - {"slots", "kw_only"}:
            return _dataclass(cls, eq=eq, frozen=frozen, **options)

        def make(cls: type) -> type:
            root = not any(hasattr(base, "__dataclass_params__") for base in cls.__bases__)
            made = _dataclass(init=False, eq=False, repr=False, frozen=frozen and not root, **options)(cls)
            own = cls.__dict__
            if frozen and root:  # of one with bases the library looks at whether those are, too
                _freeze(made)
            if "__init__" not in own:
                made.__init__ = _Init(made, frozen)
            if "__repr__" not in own:
                made.__repr__ = _repr
            if eq:
                names = [field.name for field in fields(made) if field.compare]
                made._compared = staticmethod(attrgetter(*names) if names else _nothing)
                if "__eq__" not in own:
                    made.__eq__ = _eq
                if own.get("__hash__") is None:  # an own __eq__ alone has made it None
                    made.__hash__ = _hash if frozen else None
            return made

        return make if cls is None else make(cls)

    class _Init:
        """An ``__init__`` that is not written yet; whoever looks it up gets the written one, which takes its place."""

        def __init__(self, cls: type, frozen: bool) -> None:
            self.cls = cls
            self.frozen = frozen

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            self.cls.__init__ = init = _written(self.cls, self.frozen)
            return init.__get__(instance, owner)

    def _written(cls: type, frozen: bool) -> Any:
        names: dict[str, Any] = {"_made": MISSING}
        positional, named, body = ["self"], ["*"], ["  pass"]
        if frozen and not all(_is_slot(cls, field.name) for field in fields(cls)):
            body = ["  _held = self.__dict__"]
        for field in fields(cls):
            name, default, factory = field.name, field.default, field.default_factory
            value = name
            if factory is not MISSING:
                names[f"_new_{name}"] = factory
                value = f"_new_{name}() if {name} is _made else {name}" if field.init else f"_new_{name}()"
            elif default is not MISSING:
                names[f"_default_{name}"] = default
                value = name if field.init else f"_default_{name}"
            elif not field.init:
                continue
            if field.init:
                otherwise = f" = _default_{name}" if default is not MISSING else " = _made"
                optional = default is not MISSING or factory is not MISSING
                (named if field.kw_only else positional).append(name + otherwise * optional)
            if not frozen:
                body.append(f"  self.{name} = {value}")
            elif _is_slot(cls, name):
                names[f"_set_{name}"] = getattr(cls, name).__set__
                body.append(f"  _set_{name}(self, {value})")
            else:
                body.append(f"  _held[{name!r}] = {value}")
        if hasattr(cls, "__post_init__"):
            body.append("  self.__post_init__()")
        parameters = ", ".join([*positional, *(named if len(named) > 1 else ())])
        lines = [f"def make({', '.join(names)}):", f" def __init__({parameters}):", *body, " return __init__"]
        made: dict[str, Any] = {}
        exec("\n".join(lines), vars(sys.modules[cls.__module__]), made)  # what its annotations name is there
        init = made["make"](**names)
        init.__qualname__ = f"{cls.__qualname__}.__init__"
        init.__annotations__ = {field.name: field.type for field in fields(cls) if field.init} | {"return": None}
        return init

    def _is_slot(cls: type, name: str) -> bool:
        return isinstance(getattr(cls, name, None), MemberDescriptorType)

    def _freeze(cls: type) -> None:
        """Refuse to change what is made of a class, as the library does."""
        held = frozenset(field.name for field in fields(cls))

        def __setattr__(self: Any, name: str, value: Any) -> None:
            if type(self) is cls or name in held:
                raise FrozenInstanceError(f"cannot assign to field {name!r}")
            super(cls, self).__setattr__(name, value)

        def __delattr__(self: Any, name: str) -> None:
            if type(self) is cls or name in held:
                raise FrozenInstanceError(f"cannot delete field {name!r}")
            super(cls, self).__delattr__(name)

        cls.__setattr__, cls.__delattr__ = __setattr__, __delattr__
        cls.__dataclass_params__.frozen = True  # the library asks it of the bases of a class
        if "__slots__" in cls.__dict__:  # copying and pickling would set attributes
            cls.__getstate__, cls.__setstate__ = _getstate, _setstate

    def _getstate(self: Any) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]

    def _setstate(self: Any, state: list[Any]) -> None:
        for field, value in zip(fields(self), state, strict=True):
            object.__setattr__(self, field.name, value)

    def _nothing(self: Any) -> tuple[()]:
        return ()

    def _eq(self: Any, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self._compared(self) == self._compared(other)

    def _hash(self: Any) -> int:
        return hash(self._compared(self))

    @recursive_repr()
    def _repr(self: Any) -> str:
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.repr)
        return f"{self.__class__.__qualname__}({', '.join(shown)})"

    def replace(instance: Any, /, **changes: Any) -> Any:
        """Return a copy with other values of some fields, a fifth as long as it takes the library; for classes whose
        ``__init__`` takes every field."""
        names, values = _values(type(instance))
        return type(instance)(**dict(zip(names, values(instance), strict=True)) | changes)

    @cache
    def _values(cls: type) -> Any:
        """The names of a class's fields, and what gets their values."""
        names = [field.name for field in fields(cls)]
        return names, attrgetter(*names) if len(names) > 1 else lambda instance: (getattr(instance, names[0]),)


__all__ = ["dataclass", "replace"]
