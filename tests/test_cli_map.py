"""`plan --map` and `run --map`: the stretches that are drawn are those that are answered."""

from __future__ import annotations

import re

ROW = re.compile(r"^ +([#=.-]?) +\+(0x[0-9a-f]+) +(0x[0-9a-f]+)? +(\S+)", re.MULTILINE)


def test_plan_draws_each_placement_with_its_stretches(pfnmap):
    out = pfnmap(
        "plan", "--bar", "8G@0x800000000", "--offset", "1M", "--length", "4G", "--vmm", "aligned", "--map"
    ).stdout
    drawn = [found.groups() for found in ROW.finditer(out)]
    assert drawn == [
        (".", "0x0", None, "not"),
        ("-", "0x100000", "0x100000100000", "256x4K"),
        ("=", "0x200000", "0x100000200000", "511x2M"),
        ("#", "0x40000000", "0x100040000000", "3x1G"),
        ("-", "0x100000000", "0x100100000000", "256x4K"),
        (".", "0x100100000", None, "not"),
    ]


def test_plan_draws_both_sides_of_a_comparison_below_each_other(pfnmap):
    out = pfnmap("plan", "--bar", "1G@0x800000000", "--vmm", "aligned", "--map", "--against", "release=6.1.192").stdout
    sides = re.findall(r"^  aligned, (.*)\n  \|(.)", out, re.MULTILINE)
    assert sides == [("this side", "#"), ("release=6.1.192", "-")]


def test_run_draws_what_the_page_tables_hold_at_the_end(pfnmap, root):
    out = pfnmap("run", root / "examples" / "scenarios" / "split-2m-from-1g.toml", "--map").stdout
    drawn = [found.groups() for found in ROW.finditer(out)]
    assert drawn == [
        (".", "0x0", None, "not"),
        ("=", "0x40000000", "0x100040000000", "1x2M"),
        (".", "0x40200000", None, "not"),
    ]


def test_run_says_that_nothing_is_left_to_draw(pfnmap, root):
    out = pfnmap("run", root / "examples" / "scenarios" / "fork-shared-pud.toml", "--map").stdout
    assert out.splitlines()[-1] == "nothing of a BAR is mapped at the end"
