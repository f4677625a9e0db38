"""`plan --time`: seconds as ranges, from published measurements or the user's own."""

from __future__ import annotations

import json

import pytest

H100 = ("--bar", "128G", "--release", "6.8", "--vmm", "qemu-8.2", "--time")


def test_published_machines_are_within_their_own_range(answer):
    """A map of 128G of base pages took 3.2 to 3.5 s in one place and 2 s in another; a boot about two minutes."""
    time = answer("plan", *H100)["time"]
    low, high = time["dma_map_s"]
    assert low <= 2.02
    assert high >= 3.471
    assert time["boot_s"][0] <= 120 <= time["boot_s"][1]
    assert time["toggles"] == [20, 40]
    assert any("topofmind.dev" in source for source in time["sources"])
    assert {source.partition(" ns a walk")[0] for source in time["sources"][:4]} == {"60", "94 to 103", "95", "119"}
    assert time["estimate"] is True


def test_seconds_are_counts_times_nanoseconds(answer):
    document = answer("plan", *H100)
    walks = document["mappings"][0]["dma_map"]["cold"]["walks"]
    assert document["time"]["dma_map_s"] == [pytest.approx(walks * ns * 1e-9, rel=0.01) for ns in (60, 119)]


def test_devices_are_added_up(answer):
    one, two = (answer("plan", *H100, *more)["time"]["dma_map_s"] for more in ((), ("--bar", "128G")))
    assert two == [pytest.approx(2 * seconds, rel=0.02) for seconds in one]


def test_toggles_that_are_said_replace_the_published(answer):
    time = answer("plan", *H100, "--toggles", "3")["time"]
    assert time["boot_s"] == [pytest.approx(3 * seconds, rel=0.02) for seconds in time["toggle_s"]]
    assert "boot_batched_sizing_s" not in time


def test_a_boot_is_as_many_maps_as_decode_is_toggled(answer):
    """Least toggles of the fastest map, most of the slowest; a guest that sizes BARs in a batch does one or two."""
    time = answer("plan", *H100)["time"]
    low, high = time["dma_map_s"]
    assert time["boot_s"] == [pytest.approx(20 * low, rel=0.02), pytest.approx(40 * high, rel=0.02)]
    assert time["boot_batched_sizing_s"] == [pytest.approx(low, rel=0.02), pytest.approx(2 * high, rel=0.02)]


def test_a_billion_toggles_are_too_many(answer, refused):
    assert answer("plan", *H100, "--toggles", "999999999")["time"]["toggles"] == [999_999_999] * 2
    assert "'1000000000' is not a number of toggles" in refused("plan", *H100, "--toggles", "1000000000")


def test_boot_takes_no_time_where_a_vmm_keeps_its_maps(answer):
    document = answer("plan", "--bar", "128G", "--vmm", "cloud_hypervisor-53", "--time")
    assert "dma" not in document["mappings"][0]["redone"]
    assert document["time"]["boot_s"] == [0, 0]
    assert document["time"]["dma_map_s"][1] > 0


def test_own_figures_count_walks_faults_and_table_pages(answer, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("ns_per_walk = 100\nns_per_fault = 1000\nns_per_table_page = 50\n")
    document = answer("plan", "--bar", "1G@0x40000000", "--va", "0x7f0000001000", "--time", "--calibrate", path)
    (row,) = document["mappings"]
    cold = row["dma_map"]["cold"]
    spent = cold["walks"] * 100 + cold["driver_calls"] * 1000 + row["table_bytes"] // 4096 * 50
    assert document["time"]["dma_map_s"] == [pytest.approx(spent * 1e-9, rel=0.01)] * 2
    assert str(path) in document["time"]["sources"][0]


def test_own_figures_count_nothing_where_the_map_fails(answer, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("ns_per_walk = 99.5\nns_per_table_page = 50\n")
    refused_by_iommufd = ("--dma", "iommufd", "--time", "--calibrate", path)
    assert answer("plan", "--bar", "1G", "--vmm", "aligned", *refused_by_iommufd)["time"] == {"policy": "aligned"}


@pytest.mark.parametrize(
    ("text", "left_out"), [("ns_per_walk = 100", True), ("ns_per_walk = 100\nns_per_fault = 0", False)]
)
def test_that_faults_are_not_counted_is_said_where_nobody_measured_them(answer, tmp_path, text, left_out):
    path = tmp_path / "own.toml"
    path.write_text(text)
    assert "time of faults is not in it" in answer("plan", *H100)["time"]["sources"]
    own = answer("plan", *H100, "--calibrate", path)["time"]["sources"]
    assert ("time of faults is not in it" in own) is left_out


def test_a_calibration_has_64_kib_at_most(answer, refused, tmp_path):
    path = tmp_path / "own.toml"
    text = "ns_per_walk = 100\n#"
    path.write_text(text.ljust(1 << 16, "x"))
    assert answer("plan", *H100, "--calibrate", path)["time"]["dma_map_s"]
    path.write_text(text.ljust((1 << 16) + 1, "x"))
    assert str(path) in refused("plan", *H100, "--calibrate", path)


def test_two_policies_have_an_estimate_each(answer):
    time = answer("plan", "--bar", "1G", "--time")["time"]
    assert [one["policy"] for one in time["policies"]] == ["kernel", "aligned"]


def test_what_is_not_mapped_for_dma_takes_no_time(answer, pfnmap):
    time = answer("plan", "--bar", "1G", "--vmm", "aligned", "--dma", "iommufd", "--time")["time"]
    assert time == {"policy": "aligned"}
    assert answer("plan", "--bar", "1G", "--vmm", "aligned", "--driver", "pci_sysfs", "--time")["time"] == time
    assert "nothing is mapped for DMA" in pfnmap("plan", "--bar", "1G", "--dma", "iommufd", "--time").stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ns_per_walk = -1", "0 or more"),
        ("ns_per_walk = nan", "0 or more"),
        ("ns_per_walk = inf", "0 or more"),
        ("ns_per_walk = true", "0 or more"),
        ('ns_per_walk = "5"', "0 or more"),
        ("ns_per_fault = 5", "ns_per_walk is not in it"),
        ("ns_per_walks = 5", "ns_per_walk"),
        ("ns_per_walk = ", "not TOML"),
        ("\0", "binary"),
    ],
)
def test_calibration_that_is_no_time_is_one_line(refused, tmp_path, text, said):
    path = tmp_path / "own.toml"
    path.write_text(text)
    line = refused("plan", "--bar", "1G", "--time", "--calibrate", path)
    assert said in line
    assert str(path) in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--toggles", "3"), "--toggles: goes with --time"),
        (("--calibrate", "x"), "--calibrate: goes with --time"),
        (("--time", "--toggles", "-1"), "--toggles"),
        (("--time", "--toggles", "x"), "--toggles"),
        (("--time", "--toggles", "٣"), "--toggles"),
    ],
)
def test_bad_usage_is_one_line(refused, words, said):
    assert said in refused("plan", "--bar", "1G", *words)


def test_text_shows_ranges_and_sources(pfnmap):
    shown = pfnmap("plan", *H100).stdout
    assert "boot with 20 to 40 toggles" in shown
    assert "linux-pci mail of 2024-11-25" in shown


def test_batch_has_it_too(pfnmap):
    result = pfnmap("plan", "--batch", "--time", input=json.dumps({"bar": "1G", "vmm": "qemu-9.2"}))
    assert json.loads(result.stdout)["time"]["dma_map_s"]
