"""`dataclass` of the standard library, made in half the time.

The library writes and compiles the source of up to eight methods for each class, and the hundred classes that a short
command imports took a fifth of its CPU time. Here it writes ``__init__`` alone, and what refuses changes where a class
is frozen; comparing, hashing and showing are ordinary functions over the fields, which all classes share. For modules
that every command imports; elsewhere the library's own will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:
    from dataclasses import dataclass as _dataclass
    from dataclasses import fields
    from functools import cache
    from operator import attrgetter
    from reprlib import recursive_repr

    def dataclass(cls: type | None = None, /, *, eq: bool = True, frozen: bool = False, **options: Any) -> Any:
        """Make a dataclass; with other options (`order`, ...) than here and `slots`, `kw_only` it is the library's."""
        if options.keys() - {"slots", "kw_only"}:
            return _dataclass(cls, eq=eq, frozen=frozen, **options)

        def make(cls: type) -> type:
            made = _dataclass(eq=False, repr=False, frozen=frozen, **options)(cls)
            own = cls.__dict__
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
