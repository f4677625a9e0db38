"""`plan --against`: two sides and the difference."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pfnmap.plan import Request, difference, plan
from pfnmap.spec import KernelSpec

BAR = ("plan", "--bar", "8G@0x800000000", "--release", "6.12.94", "--thp", "never", "--vmm", "kernel")
ARM = "examples/configs/config-6.12.117+deb13-arm64.gz"


def document(pfnmap: Any, *arguments: str) -> Any:
    result = pfnmap(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_other_side_is_what_a_plan_of_its_own_says(pfnmap) -> None:
    found = document(pfnmap, *BAR, "--against", "release=6.12.117,vmm=aligned")
    alone = document(pfnmap, *BAR[:3], "--release", "6.12.117", "--thp", "never", "--vmm", "aligned")
    assert found["against"] == {key: value for key, value in alone.items() if key != "schema"}
    assert {"kernel", "mappings", "undetermined", "skipped"} <= found["against"].keys()


def test_the_difference_names_the_kernels_the_changes_and_the_costs(pfnmap) -> None:
    found = document(pfnmap, *BAR, "--against", "release=6.12.117,vmm=aligned")["difference"]
    assert found["kernel"] == {"release": ["6.12.94", "6.12.117"]}
    assert found["changes"] == {"thp-bypass-pfnmap": ["no", "yes"]}
    (row,) = found["mappings"]
    assert row["policy"] == ["kernel", "aligned"]
    assert row["counts"] == [{"pud": 0, "pmd": 0, "pte": 2_097_152}, {"pud": 8, "pmd": 0, "pte": 0}]
    assert (row["driver_calls"], row["dma_walks"]) == ([2_097_152, 8], [4_194_304, 2_097_160])


@pytest.mark.parametrize(
    ("spec", "kernel"),
    [
        ("thp=always", {"thp": ["never", "always"]}),
        ("arch=arm64", {"arch": ["x86_64", "arm64"]}),
        ("release=7.3.4 , thp=madvise", {"release": ["6.12.94", "7.3.4"], "thp": ["never", "madvise"]}),
    ],
)
def test_any_of_them_may_be_otherwise(pfnmap, spec, kernel) -> None:
    found = document(pfnmap, *BAR, "--against", spec)["difference"]["kernel"]
    assert {name: values for name, values in found.items() if name != "cpu"} == kernel


def test_sides_that_answer_alike_have_no_difference_in_their_bars(pfnmap) -> None:
    found = document(pfnmap, *BAR, "--against", "thp=madvise")["difference"]
    assert (found["changes"], found["mappings"]) == ({}, [])


def test_the_text_has_both_sides_and_the_difference(pfnmap) -> None:
    output = pfnmap(*BAR, "--against", "thp=always").output
    assert "Against thp=always" in output
    assert "thp: never / always" in output
    assert "2,097,152x4K / 4,096x2M" in output


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("kernel=6.12", "unknown key 'kernel'"),
        ("release", "'release' is not KEY=VALUE"),
        ("release=6.12,,thp=never", "'' is not KEY=VALUE"),
        ("thp=never,thp=always", "thp stands there twice"),
        ("thp=sometimes", "none of always, madvise, never"),
        ("release=6.99.y", "unknown release"),
        ("vmm=nobody", "unknown placement policy 'nobody'"),
        ("arch=vax", "unknown architecture 'vax'"),
        ("config=/nowhere", "/nowhere"),
    ],
)
def test_what_cannot_be_the_other_side_is_one_line_and_exit_2(pfnmap, spec, said) -> None:
    result = pfnmap(*BAR, "--against", spec)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_bar_that_the_other_side_alone_has_stands_beside_none() -> None:
    kernel = KernelSpec(arch="x86_64", release="6.12.117").link()
    here, more = Request(0, 1 << 35, 1 << 30, policy="aligned"), Request(2, 1 << 36, 1 << 21, policy="kernel")
    (row,) = difference(plan(kernel, [here]), plan(kernel, [here, more])).mappings
    assert (row.bar, row.policies, row.sides[0]) == (2, (None, "kernel"), None)
    assert row.sides[1] is not None
