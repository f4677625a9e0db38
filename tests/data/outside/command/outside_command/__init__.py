import typer

from pfnmap.cli.options import JsonOption, KernelOptions, kernel_options, linked
from pfnmap.cli.terminal import print_json


@kernel_options()
def command(context: typer.Context, kernel: KernelOptions, json: JsonOption = False) -> int:
    """Tell at which levels a pfnmap can have leaves."""
    image = linked(kernel.over(), context.obj.registry)
    print_json("levels", {"arch": image.arch.name, "levels": [x for x in ("pte", "pmd", "pud") if image.pfnmap(x)]})
    return 0
