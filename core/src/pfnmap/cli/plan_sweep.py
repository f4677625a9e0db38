"""``plan --sweep``: one question asked of many kernels or addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pfnmap.cli.plan_sides import Question, side_of
from pfnmap.cli.terminal import print_json, show

if TYPE_CHECKING:
    from pfnmap.plan import Plan, Request
    from pfnmap.spec import KernelSpec

__all__ = ["sweep_of"]


def sweep_of(question: Question, spec: KernelSpec, over: str, output: str | None, force: bool, json: bool) -> int:
    """Ask the question of every point of a sweep; show the costs, and draw them."""
    from pfnmap.output import check_writable, write_whole
    from pfnmap.release import facts
    from pfnmap.report.plot import render_sweep, sweep_svg
    from pfnmap.sweep import kind_of, sweep

    if output is not None:
        check_writable(output, force=force)

    def ask(spec: KernelSpec, requests: Sequence[Request] | None) -> tuple[Sequence[Request], Plan]:
        asked = question if requests is None else replace(question, scenario=None, requests=requests, va=None, vmm=())
        side = side_of(asked, spec)
        return side.requests, side.plan

    kind = kind_of(over)
    requests, here = ask(spec, None)
    points = sweep(kind, spec, facts(question.registry), ask)
    if output is not None:
        bars = len({(r.device, r.bar) for r in requests})
        title = f"{bars} BARs" if bars > 1 else "one BAR"
        write_whole(output, sweep_svg(kind, f"{title}, over {kind}", points).encode(), force=force)
    if json:
        print_json(
            "plan", {"kernel": dict(here.kernel), "sweep": {"over": kind, "points": [p.as_json() for p in points]}}
        )
    else:
        show(render_sweep(kind, points))
    return 0
