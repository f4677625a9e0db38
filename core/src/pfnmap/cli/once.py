"""An option that takes one value is given once: of two, none is taken in silence."""

from __future__ import annotations

from collections import Counter
from typing import Any

from typer.core import TyperCommand, TyperOption

from pfnmap.errors import BadInput

__all__ = ["OnceCommand"]


class OnceCommand(TyperCommand):
    """A command that refuses a second value for an option that takes one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, once it is clear that no option's value replaces another's."""
        end = args.index("--") if "--" in args else len(args)
        said = Counter(arg.partition("=")[0] for arg in args[:end] if arg.startswith("--"))
        for option in self.get_params(ctx):
            if isinstance(option, TyperOption) and not (option.multiple or option.is_flag or option.count):
                for name in option.opts:
                    if said[name] > 1:
                        raise BadInput(name, "given more than once, and it takes one value")
        return super().parse_args(ctx, args)
