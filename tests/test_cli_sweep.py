"""`plan --sweep`: each point is what a plan of it says, and the picture has them all."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

BAR = ("--bar", "128G@0x84000000000")


def points(answer: Any, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer("plan", *BAR, *arguments)["sweep"]["points"]
    return found


@pytest.mark.parametrize("release", ["6.10", "6.12", "6.15"])
def test_a_point_over_releases_is_the_plan_of_that_release(answer, release):
    swept = [p for p in points(answer, "--sweep", "release") if p["at"] == release]
    planned = answer("plan", *BAR, "--release", release)["mappings"]
    assert [
        (p["placement"], p["leaves"], p["driver_calls"], p["table_bytes"], p["dma_walks"], p["warnings"]) for p in swept
    ] == [
        (
            m["policy"],
            sum(m["counts"].values()),
            m["driver_calls"],
            m["table_bytes"],
            m["dma_map"]["cold"]["walks"],
            m["warnings"],
        )
        for m in planned
    ]


def test_over_releases_it_is_seen_where_the_leaves_become_large_and_wrong(answer):
    by_release = {(p["at"], p["placement"]): p for p in points(answer, "--sweep", "release")}
    assert by_release["6.10", "aligned"]["leaves"] == 33_554_432
    assert by_release["6.12", "aligned"]["leaves"] == 128
    assert "WRONG MEMORY" in by_release["6.12", "kernel"]["warnings"][0]
    assert by_release["6.13", "kernel"]["warnings"] == []


def test_over_addresses_leaves_grow_with_the_alignment(answer):
    swept = {p["at"]: p["leaves"] for p in points(answer, "--sweep", "va", "--release", "6.12.117")}
    assert (swept["0x1000"], swept["0x100000"], swept["0x200000"], swept["0x0"]) == (
        33_554_432,
        33_554_432,
        65_536,
        128,
    )


def test_over_thp_the_setting_gates_before_its_fix_alone(answer):
    old, new = (
        [p["leaves"] for p in points(answer, "--vmm", "aligned", "--sweep", "thp", "--release", release)]
        for release in ("6.12.94", "6.12.117")
    )
    assert old == [33_554_432, 33_554_432, 128]
    assert new == [128, 128, 128]


def test_the_picture_has_every_point_and_is_not_written_over(pfnmap, answer, refused, tmp_path):
    picture = tmp_path / "p.svg"
    arguments = ("plan", *BAR, "--sweep", "thp", "--release", "6.12.94")
    assert pfnmap(*arguments, "-o", picture).exit_code == 0
    titles = [one.text for one in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}title")]
    for point in answer(*arguments)["sweep"]["points"]:
        assert f"{point['placement']}, {point['at']}: {point['leaves']:,}" in titles
    assert "is there already" in refused(*arguments, "-o", picture)
    assert pfnmap(*arguments, "-o", picture, "--force").exit_code == 0


@pytest.mark.parametrize("arguments", [("--sweep", "vaa"), ("-o", "x.svg"), ("--sweep", "thp", "-o", "/none/x.svg")])
def test_bad_use_is_one_line(refused, arguments):
    refused("plan", *BAR, *arguments)
