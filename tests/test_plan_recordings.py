"""Plans agree with what real kernels did: levels, faults, page-table bytes, and the walks of type1 maps."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pfnmap.kernel import Kernel
from pfnmap.plan import MappingPlan, Request, plan

DATA = Path(__file__).parent / "data" / "plan"
FILES = sorted(path.name for path in DATA.glob("*.json.gz"))
ORDERS = {9: "pmd", 11: "pmd", 18: "pud", 0: "pte"}

Leaves = set[tuple[int, int]]


@cache
def recording(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gzip.decompress((DATA / name).read_bytes()))
    return document


@cache
def linked(name: str, thp: str) -> Kernel:
    machine, kernel = recording(name)["machine"], recording(name)["kernel"]
    return Kernel.link(kernel["arch"], ["vfio_pci"], machine["config"], machine["release"], machine["cpu"], thp=thp)


def planned(name: str, record: dict[str, Any]) -> MappingPlan:
    """Plan the mapping that a record begins with."""
    mapped = record["steps"][0]
    device = next(d for d in recording(name)["devices"] if d["name"] == mapped["device"])
    bar = next(b for b in device["bars"] if b["index"] == mapped["bar"])
    request = Request(
        bar["index"],
        int(bar["phys"], 0),
        bar["size"],
        device["bdf"],
        mapped["offset"],
        mapped["length"],
        int(mapped["expect"]["addr"], 0),
        mmapable=bool(bar["vfio_region_flags"] & 4),
    )
    return plan(linked(name, record["thp_enabled"]), [request]).mappings[0]


def leaf(mapping: MappingPlan, va: int) -> tuple[int, int]:
    """The run and the leaf in it that map an address."""
    return next(
        (n, (va - run.va) // (run.length // run.count)) for n, run in enumerate(mapping.runs) if run.va <= va < run.end
    )


def leaves(mapping: MappingPlan, va: int, length: int) -> Leaves:
    found: Leaves = set()
    for n, run in enumerate(mapping.runs):
        size = run.length // run.count
        low, high = max(va, run.va) - run.va, min(va + length, run.end) - run.va
        found |= {(n, i) for i in range(low // size, -(-high // size))}
    return found


def compare(name: str, record: dict[str, Any]) -> Counter[str]:
    """Compare every step of a record with its plan, and count what was compared."""
    mapping = planned(name, record)
    huge = linked(name, "always").has("huge-pfnmap")
    seen: Leaves = set()
    calls = table_bytes = last = 0
    ascending = True
    compared: Counter[str] = Counter()
    for step in record["steps"][1:]:
        expect = step["expect"]
        if step["op"] == "dma_map":
            compared += compare_dma(step, mapping, seen, huge)
            seen |= leaves(mapping, int(step["va"], 0), step["length"]) if expect["result"] == "ok" else set()
            ascending = False
            continue
        touches = scanned(step) if step["op"] == "scan" else touched(step)
        table_bytes += expect["table_bytes"]
        calls += expect["faults_total"] if step["op"] == "scan" else len(expect["faults"])
        for va, level in touches:
            if not mapping.va <= va < mapping.va + mapping.length:
                continue
            run, index = leaf(mapping, va)
            if level is not None:
                assert level == mapping.runs[run].level, (record["id"], hex(va))
                compared["levels"] += 1
            ascending = ascending and ((run, index) in seen or va >= last)
            seen.add((run, index))
            last = max(last, va)
    # A chosen address lies where the process has tables of its own.
    complete = len(seen) == sum(mapping.costs.counts.values()) or (not huge and seen)
    if complete and ascending and record["steps"][0]["fixed"]:
        assert (calls, table_bytes) == (mapping.costs.driver_calls, mapping.costs.table_bytes), record["id"]
        compared["costs"] += 1
    return compared


def touched(step: dict[str, Any]) -> list[tuple[int, str | None]]:
    ok = step["expect"]["result"] == "ok"
    return [(int(step["va"], 0), step["expect"]["entry"]["level"])] if ok else []


def scanned(step: dict[str, Any]) -> list[tuple[int, str | None]]:
    """The touches of a scan with their levels: of the first of each run, and of all that installed something."""
    found: list[tuple[int, str | None]] = []
    for run in step["expect"]["runs"]:
        if run["result"] != "ok":
            continue
        installed = [ORDERS[order] for order, answer in run["per_touch"] if answer == "NOPAGE"]
        every = installed[-1] if installed and run["level"] == installed[-1] else None
        first = int(step["start"], 0) + run["off"]
        found.append((first, run["level"]))
        found += [(first + n * step["step"], every) for n in range(1, run["touches"])]
    return found


def compare_dma(step: dict[str, Any], mapping: MappingPlan, seen: Leaves, huge: bool) -> Counter[str]:
    expect, va, length = step["expect"], int(step["va"], 0), step["length"]
    if expect["result"] != "ok":
        return Counter()
    cost = mapping.dma_map(va, length)
    there = len(leaves(mapping, va, length) & seen) if huge else min(len(seen), cost.cold_fixups)
    fixups = cost.cold_fixups - there
    calls = expect["calls"]
    walks = calls.get("follow_pfnmap_start", calls.get("follow_pte"))
    assert (walks, calls.get("fixup_user_fault", 0)) == (cost.warm_walks + fixups, fixups)
    assert expect["follow_returns"]["ok"] == cost.warm_walks
    if not seen:
        assert expect.get("faults_total", len(expect["faults"])) == cost.cold_driver_calls
        return Counter({"dma": 1, "cold dma": 1})
    return Counter({"dma": 1, "warm dma": not fixups})


@pytest.mark.parametrize("name", FILES)
def test_every_record_agrees_with_its_plan(name: str) -> None:
    compared: Counter[str] = Counter()
    for record in recording(name)["records"]:
        compared += compare(name, record)
    assert compared["levels"] or compared["dma"]


def test_the_records_pin_every_kind_of_answer() -> None:
    compared: Counter[str] = Counter()
    for name in FILES:
        for record in recording(name)["records"]:
            compared += compare(name, record)
    assert compared["levels"] > 3000
    assert compared["costs"] > 400
    assert compared["cold dma"] > 60
    assert compared["warm dma"] >= 10


def test_null_mappings_are_aligned_where_the_plan_says_so() -> None:
    chosen = 0
    for name in FILES:
        for record in recording(name)["records"]:
            mapped = record["steps"][0]
            if mapped["fixed"] or int(mapped["addr"], 0):
                continue
            kernel = linked(name, record["thp_enabled"])
            mapping = planned(name, record)
            request = Request(
                mapping.bar,
                mapping.phys - mapping.offset,
                mapping.bar_size,
                offset=mapping.offset,
                length=mapping.length,
                policy="kernel",
            )
            pmd = kernel.geometry.size("pmd")
            aligned = (plan(kernel, [request]).mappings[0].va - mapping.offset) % pmd == 0
            assert (mapping.va - mapping.offset) % pmd == 0 or not aligned, record["id"]
            chosen += aligned
    assert chosen > 5
