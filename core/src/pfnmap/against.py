"""The other side of a comparison: what ``plan --against SPEC`` says, and what of a kernel it changes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from pfnmap.errors import BadInput, Unknown
from pfnmap.spec import KernelSpec

__all__ = ["Against", "parse_against"]


@dataclass(frozen=True, slots=True)
class Against:
    """What is otherwise on the other side; None is as on this one. `vmm`: who places everything there."""

    release: str | None = None
    config: str | None = None
    thp: str | None = None
    vmm: str | None = None
    arch: str | None = None

    def over(self, spec: KernelSpec) -> KernelSpec:
        """Return what is said of the other side's kernel."""
        said = {name: getattr(self, name) for name in ("release", "config", "thp", "arch")}
        return replace(spec, **{name: value for name, value in said.items() if value is not None})


def parse_against(text: str) -> Against:
    """Return what ``KEY=VALUE[,KEY=VALUE...]`` says. Raises BadInput for what is not of that form and for a key that is
    not known or stands there twice."""
    keys = [field.name for field in fields(Against)]
    said: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not (key and equals and value):
            raise BadInput("--against", f"{part!r} is not KEY=VALUE; the keys are {', '.join(keys)}")
        if key not in keys:
            raise BadInput("--against", str(Unknown("key", key, keys)))
        if key in said:
            raise BadInput("--against", f"{key} stands there twice")
        said[key] = value
    return Against(**said)
