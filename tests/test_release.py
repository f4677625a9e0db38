"""Releases as sets of changes: each rule of pfnmap.release with a witness from the established facts."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfnmap import release as releases
from pfnmap.errors import BadInput, LinkError, Unknown
from pfnmap.release import (
    Change,
    Release,
    difference,
    missing_fixes,
    newest,
    parse_release,
    picks,
    rules,
    upstream_changes,
    write_profile,
)
from pfnmap.release.facts import Version, version


def status(release: str, change: str) -> str:
    return parse_release(release).changes[change]


@pytest.mark.parametrize(
    ("release", "change", "expected"),
    [
        # seen in this line
        ("6.12.94", "thp-bypass-pfnmap", "no"),
        ("6.12.117", "thp-bypass-pfnmap", "yes"),
        ("6.12.50", "thp-bypass-pfnmap", "no"),
        ("6.12.130", "vfio-align-fault-to-order", "yes"),
        ("6.12.100", "vfio-align-fault-to-order", "yes"),
        ("6.12.50", "vfio-align-fault-to-order", "yes"),
        ("6.12.28", "vfio-align-fault-to-order", "no"),
        ("6.12.29", "vfio-align-fault-to-order", "yes"),
        ("6.12.9", "vfio-unaligned-pfn-fallback", "no"),
        ("6.12.10", "vfio-unaligned-pfn-fallback", "yes"),
        ("6.12.80", "follow-recheck-under-lock", "no"),
        ("6.12.81", "follow-recheck-under-lock", "yes"),
        ("6.15.11", "pud-insert-cachemode", "yes"),
        ("6.16.1", "pud-insert-cachemode", "no"),
        ("6.16.12", "pud-insert-cachemode", "yes"),
        ("6.12.100", "x86-huge-modify-saved-dirty", "unknown"),
        ("6.12.94", "arm64-table-entry-af", "no"),
        # backports to this line
        ("6.12.114", "thp-bypass-pfnmap", "no"),
        ("6.12.115", "thp-bypass-pfnmap", "yes"),
        ("7.2.7", "thp-bypass-pfnmap", "no"),
        ("7.2.8", "thp-bypass-pfnmap", "yes"),
        ("6.18.21", "follow-recheck-under-lock", "no"),
        ("6.18.22", "follow-recheck-under-lock", "yes"),
        ("6.19.3", "follow-recheck-under-lock", "unknown"),
        ("6.14.6", "vfio-align-fault-to-order", "no"),
        ("6.14.7", "vfio-align-fault-to-order", "yes"),
        # x.y.0 is mainline: no backport can be in it
        ("6.12", "vfio-align-fault-to-order", "no"),
        ("6.19", "follow-recheck-under-lock", "no"),
        # seen absent in this line, and stable lines take it
        ("6.18.15", "thp-bypass-pfnmap", "no"),
        ("6.18.20", "thp-bypass-pfnmap", "unknown"),
        ("6.18.14", "thp-bypass-pfnmap", "no"),
        # seen absent in this line, and no stable line is known to take it
        ("6.12.130", "type1-pfnmap-batch", "no"),
        # first mainline release
        ("6.14", "type1-pfnmap-batch", "no"),
        ("6.14.11", "type1-pfnmap-batch", "no"),
        ("6.15", "type1-pfnmap-batch", "yes"),
        ("6.15.2", "type1-pfnmap-batch", "yes"),
        ("6.11", "huge-pfnmap", "no"),
        ("6.12", "huge-pfnmap", "yes"),
        ("7.1", "thp-bypass-pfnmap", "no"),
        ("5.10.200", "mseal", "no"),
        ("8.0", "huge-pfnmap", "yes"),
        # not merged
        ("7.3.4", "get-mapping-order", "no"),
        ("7.4", "get-mapping-order", "unknown"),
        # not narrowed
        ("6.1.192", "arm64-table-entry-af", "no"),
        ("6.12.118", "arm64-table-entry-af", "unknown"),
        ("6.15", "arm64-table-entry-af", "unknown"),
        ("7.3", "arm64-table-entry-af", "yes"),
        ("7.2", "arm64-table-entry-af", "unknown"),
        ("7.3.4", "arm64-table-entry-af", "yes"),
        ("7.3.9", "arm64-table-entry-af", "yes"),
        ("7.4", "arm64-table-entry-af", "yes"),
        ("6.13", "x86-huge-modify-saved-dirty", "no"),
        ("6.13.4", "x86-huge-modify-saved-dirty", "unknown"),
        ("6.18.16", "x86-huge-modify-saved-dirty", "unknown"),
        # an unknown change cannot be there without what it requires
        ("6.1.192", "x86-huge-modify-saved-dirty", "no"),
    ],
)
def test_status_follows_the_evidence(release: str, change: str, expected: str):
    assert status(release, change) == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("6.12.117", "6.12.117"),
        ("v6.12", "6.12"),
        ("6.12.0", "6.12"),
        (" 7.3\n", "7.3"),
        ("6.12.117+deb12-amd64", "6.12.117"),
        ("6.12.94+deb13-amd64", "6.12.94"),
        ("6.8.12-4-pve", "6.8.12"),
        ("6.12.7-200.fc41.x86_64", "6.12.7"),
        ("6.12.0-65.fc42.x86_64", "6.12"),
        ("5.15.153.1-microsoft-standard-WSL2", "5.15.153"),
        ("6.1.0-56-amd64", "6.1.0-56-amd64"),
        ("5.15.0-91-generic", "5.15.0-91-generic"),
        ("6.8.0-40-generic", "6.8.0-40-generic"),
        ("5.14.0-503.el9.x86_64", "5.14.0-503.el9.x86_64"),
        ("6.4.0-150600.23.25-default", "6.4.0-150600.23.25-default"),
        ("Linux version 6.12.117+deb12-amd64 (debian-kernel@lists.debian.org) #1 SMP", "6.12.117"),
        ("Linux host 6.8.0-85-generic #85-Ubuntu SMP x86_64 GNU/Linux", "6.8.0-85-generic"),
        ("6.12.0-rc3", "6.12-rc3"),
        ("6.12-rc6-amd64", "6.12-rc6"),
        ("6.13.0-0.rc3.20241220git8faabc041a00.31.fc42.x86_64", "6.13-rc3"),
        ("posted-v2", "posted-v2"),
    ],
)
def test_names_are_read(text: str, name: str):
    assert parse_release(text).name == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "banana",
        "6",
        "6.12.y",
        "6.12.117x",
        "6.120",
        "6.21",
        "3.21",
        "99.1",
        "1.0",
        "6.12.117.3",
        "posted-v3",
        "6.12.123456",
        "-1.2",
        "6.12 117",
    ],
)
def test_a_name_that_is_no_release_is_unknown(text: str):
    with pytest.raises(Unknown, match=f"^unknown release {text!r}"):
        parse_release(text)


def test_a_misspelt_tree_is_answered_with_the_nearest():
    with pytest.raises(Unknown, match="posted-v2"):
        parse_release("posted-v3")


def test_a_uname_that_names_the_stable_release_says_what_it_is_taken_for():
    release = parse_release("6.12.117+deb12-amd64")
    assert release.changes == parse_release("6.12.117").changes
    assert any("taken as 6.12.117" in line for line in release.assumed)


def test_an_abi_number_leaves_what_the_line_took_unknown():
    release = parse_release("6.14.0-24-generic")
    assert release.changes["vfio-align-fault-to-order"] == "unknown"
    assert release.changes["huge-pfnmap"] == "yes"
    assert release.changes["pat-pfnmap-track"] == "unknown"  # Ubuntu may have taken it
    assert any("does not tell which stable release of 6.14.y" in line for line in release.assumed)


def test_an_abi_number_of_a_line_with_sightings_is_unknown_between_them():
    release = parse_release("6.12.0-1-amd64")
    assert release.changes["thp-bypass-pfnmap"] == "unknown"
    assert release.changes["vfio-unmap-mapping-range"] == "yes"
    assert release.changes["no-thp-align-without-get-unmapped-area"] == "no"


def test_an_abi_number_does_not_tell_the_mainline_release_from_those_that_took_a_backport():
    change = Change("c", "c", "6.13", "source", backports=("6.12.1",))
    newest = version("7.3.4")
    assert [rules.status(change, Version(6, 12, patch), newest) for patch in (0, 1, 2)] == ["no", "yes", "yes"]
    assert rules.status_line(change, Version(6, 12), newest) == "unknown"


@pytest.mark.parametrize("elsewhere", [{"backports": ("6.6.50",)}, {"present": ("6.6.60",)}])
def test_a_line_may_take_later_what_another_stable_line_took(elsewhere: dict[str, tuple[str, ...]]):
    change = Change("c", "c", "6.13", "source", absent=("6.12.5",), **elsewhere)
    newest = version("7.3.4")
    assert [rules.status(change, Version(6, 12, patch), newest) for patch in (5, 6)] == ["no", "unknown"]
    assert rules.status_line(change, Version(6, 12), newest) == "unknown"


def test_debians_6_1_has_at_most_what_a_stable_release_of_it_took():
    changes = parse_release("6.1.0-56-amd64").changes
    older = {"vfio-pci", "vfio-fault-mmaps"}
    assert {id for id, status in changes.items() if status == "yes"} == older
    modelled = {id for id, change in upstream_changes().items() if change.modelled}
    assert {id for id in modelled - older if changes[id] != "no"} == {
        "loongarch-wrprotect-keeps-dirty",
        "arm64-kvm-pfnmap-block",
        "fork-opens-before-copying",
        "pat-fork-failure",
        "pat-clear-only-in-fork",
        "vfio-unmap-mapping-range",  # 6.9.11 took it: a 6.1 newer than the one that was looked at may, too
    }


def test_an_enterprise_kernel_may_have_anything_that_was_merged_later():
    release = parse_release("6.12.0-55.9.1.el10_0.x86_64")
    assert release.changes["huge-pfnmap"] == "yes"
    assert release.changes["type1-pfnmap-batch"] == "unknown"
    assert release.changes["get-mapping-order"] == "no"
    assert any("enterprise" in line for line in release.assumed)


def test_a_release_candidate_is_unknown_for_what_came_in_its_release():
    assert status("6.12-rc3", "huge-pfnmap") == "unknown"
    assert status("6.13-rc1", "huge-pfnmap") == "yes"
    assert status("6.12-rc3", "type1-pfnmap-batch") == "no"
    assert status("6.12.115-rc1", "thp-bypass-pfnmap") == "unknown"
    assert status("6.12.116-rc1", "thp-bypass-pfnmap") == "yes"


def test_a_distributions_kernel_has_its_base_and_may_have_anything_merged_later():
    release, base = parse_release("6.12.57-200.fc42.x86_64"), parse_release("6.12.57")
    assert all(release.changes[id] == "yes" for id, state in base.changes.items() if state == "yes")
    assert release.changes["type1-pfnmap-batch"] == "unknown"
    assert release.changes["get-mapping-order"] == "no"
    assert any("what its distribution added is not known" in line for line in release.assumed)


@pytest.mark.parametrize("text", ["2.6.32", "4.14.68", "5.14.0-503.el9.x86_64"])
def test_a_release_older_than_all_that_was_looked_at_says_so(text: str):
    assert any("is older than 6.1.170, the oldest release looked at" in line for line in parse_release(text).assumed)
    assert not any("older" in line for line in parse_release("6.1").assumed)


def test_a_release_newer_than_all_known_says_so():
    assert any("newer than 7.3.4" in line for line in parse_release("8.0").assumed)
    assert parse_release("7.3.4").assumed == ()


def test_posted_v2_is_6_11_with_the_series_and_without_its_review():
    posted, base = parse_release("posted-v2"), parse_release("6.11")
    assert {d.change for d in difference(base, posted)} == {"huge-pfnmap"}
    assert not any(
        posted.has(change)
        for change in (
            "vm-normal-page-pmd-special",
            "vfio-unaligned-pfn-fallback",
            "vfio-align-fault-to-order",
            "follow-recheck-under-lock",
        )
    )
    assert not any(posted.known[id].modelled for id, state in posted.changes.items() if state == "unknown")


def test_a_tree_lacks_what_its_base_had_and_it_has_not():
    known = releases.facts()
    tree = replace(known.trees["posted-v2"], name="ours", base="6.12.117", with_=(), without=("thp-bypass-pfnmap",))
    ours = parse_release("ours", known=replace(known, trees={"ours": tree}))
    assert [(d.change, d.before, d.after) for d in difference(parse_release("6.12.117"), ours)] == [
        ("thp-bypass-pfnmap", "yes", "no")
    ]


def test_releases_are_listed_from_the_oldest_on_and_trees_after_them():
    *numbers, tree = releases.facts().releases
    assert tree == "posted-v2"
    assert numbers == sorted(numbers, key=lambda release: [int(part) for part in release.split(".")])


def test_the_newest_release_is_the_newest_that_was_seen():
    assert newest() == "7.3.4"
    assert {"6.12.117", "6.1.192", "7.2.8", "6.13", "posted-v2"} <= set(releases.facts().releases)


def test_unknown_counts_as_absent_and_is_assumed():
    release = parse_release("6.19.1")
    assert release.changes["follow-recheck-under-lock"] == "unknown"
    assert not release.has("follow-recheck-under-lock")
    assert any("taken as absent" in line and "follow-recheck-under-lock" in line for line in release.assumed)


def test_a_change_that_there_is_not_is_unknown():
    with pytest.raises(Unknown, match="did you mean 'huge-pfnmap'"):
        parse_release("6.12.117").has("huge-pfnmaps")
    with pytest.raises(Unknown, match="follow-addr-mask"):
        parse_release("6.12.117", with_=["follow-adr-mask"])


def test_with_and_without_settle_an_unknown_change():
    assert parse_release("6.14.0-24-generic", with_=["vfio-align-fault-to-order"]).has("vfio-align-fault-to-order")
    settled = parse_release("6.14.0-24-generic", without=["vfio-align-fault-to-order"])
    assert settled.changes["vfio-align-fault-to-order"] == "no"
    assert not any("vfio-align-fault-to-order" in line for line in settled.assumed)
    assert settled.settled == {"vfio-align-fault-to-order"}


def test_with_something_already_there_is_fine():
    assert parse_release("6.12.117", with_=["huge-pfnmap"]).changes == parse_release("6.12.117").changes


def test_a_change_both_with_and_without_is_refused():
    with pytest.raises(BadInput, match="'mseal'"):
        parse_release("6.12.117", with_=["mseal"], without=["mseal"])


def test_a_change_without_what_it_requires_names_both():
    with pytest.raises(LinkError, match=r"'type1-pfnmap-batch' requires 'follow-addr-mask', which 6\.12\.117 lacks"):
        parse_release("6.12.117", with_=["type1-pfnmap-batch"])
    assert parse_release("6.12.117", with_=["type1-pfnmap-batch", "follow-addr-mask"]).has("type1-pfnmap-batch")
    with pytest.raises(LinkError, match=r"requires 'huge-pfnmap', which 5\.14.* is not known to have"):
        parse_release("5.14.0-503.el9.x86_64", with_=["vfio-align-fault-to-order"])


def test_an_unknown_change_goes_with_what_it_requires():
    release = parse_release("5.14.0-503.el9.x86_64", without=["huge-pfnmap"])
    assert {release.changes[id] for id in ("follow-addr-mask", "type1-pfnmap-batch", "riscv-pgprot")} == {"no"}


def test_missing_fixes_are_those_of_what_is_there():
    assert {m.fix for m in missing_fixes(parse_release("posted-v2"))} == {
        "vfio-unaligned-pfn-fallback",
        "vfio-align-fault-to-order",
        "follow-recheck-under-lock",
    }
    assert missing_fixes(parse_release("6.1.192")) == ()
    assert missing_fixes(parse_release("7.3.4")) == ()


def test_nobody_misses_a_fix_that_is_superseded():
    changes = {
        c.id: c
        for c in (
            Change("feature", "", "6.1", "source"),
            Change("repair", "", "6.2", "source", fixes="feature"),
            Change("rewrite", "", "6.3", "source", supersedes=("repair",)),
        )
    }
    old = Release("old", {"feature": "yes", "repair": "no", "rewrite": "no"}, known=changes)
    new = Release("new", {"feature": "yes", "repair": "no", "rewrite": "yes"}, known=changes)
    assert [m.fix for m in missing_fixes(old)] == ["repair"]
    assert missing_fixes(new) == ()


def test_difference_lists_what_changed_between_two_releases():
    assert ("thp-bypass-pfnmap", "no", "yes") in [
        (d.change, d.before, d.after) for d in difference(parse_release("6.12.113"), parse_release("6.12.115"))
    ]
    assert difference(parse_release("7.3.4"), parse_release("7.3.4")) == ()


minor = st.integers(0, 19)
patch = st.integers(0, 250)
suffix = st.sampled_from(["", "-rc2", "-40-generic", "+deb13-amd64", "-1.el9.x86_64"])


@given(st.sampled_from([5, 6, 7]), minor, patch, suffix)
def test_no_release_contradicts_what_changes_require(major: int, minor: int, patch: int, suffix: str):
    release = parse_release(f"{major}.{minor}.{patch}{suffix}")
    for id, change in releases.upstream_changes().items():
        if release.has(id):
            assert all(release.has(required) for required in change.requires)


@given(st.sampled_from([5, 6, 7]), minor, patch)
def test_a_line_as_a_whole_never_says_more_than_its_releases(major: int, minor: int, patch: int):
    line = parse_release(f"{major}.{minor}.0-40-amd64")
    one = parse_release(f"{major}.{minor}.{patch}")
    for id, known in line.changes.items():
        assert known in ("unknown", one.changes[id])


# profiles


def test_a_profile_reads_as_what_was_written(tmp_path: Path):
    path = tmp_path / "ours.toml"
    changes = {**parse_release("6.12.94").changes, "thp-bypass-pfnmap": "yes"}
    write_profile(path, changes, "6.12.94")
    release = parse_release(str(path))
    assert release.changes == changes
    assert release.name == "ours.toml on 6.12.94"


def test_a_change_that_a_profile_does_not_name_is_as_in_its_base_or_unknown(tmp_path: Path):
    path = tmp_path / "p.toml"
    write_profile(path, {"mseal": "no"}, "6.12.117")
    assert (status(str(path), "mseal"), status(str(path), "huge-pfnmap")) == ("no", "yes")
    write_profile(path, {"mseal": "no"})
    assert (status(str(path), "mseal"), status(str(path), "huge-pfnmap")) == ("no", "unknown")


def test_a_profile_can_be_changed_by_with_and_without(tmp_path: Path):
    path = tmp_path / "p.toml"
    write_profile(path, {}, "6.12.117")
    assert not parse_release(str(path), without=["mseal"]).has("mseal")


PROFILE = 'schema = "pfnmap-profile/1"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = ", "not TOML"),
        ("x = " + "[" * 5000, "not TOML"),
        ("a\0b", "binary"),
        ('schema = "pfnmap-profile/2"\n[changes]\n', "pfnmap-profile/1"),
        ("[changes]\n", "pfnmap-profile/1"),
        (PROFILE, r"\[changes\]"),
        (PROFILE + "changes = 3\n", r"\[changes\]"),
        (PROFILE + "[change]\n", "did you mean 'changes'"),
        (PROFILE + '[changes]\nhuge-pfnmaps = "yes"\n', "did you mean 'huge-pfnmap'"),
        (PROFILE + '[changes]\nmseal = "maybe"\n', "changes.mseal = 'maybe'"),
        (PROFILE + "[changes]\nmseal = true\n", "yes, no or unknown"),
        (PROFILE + 'base = "banana"\n[changes]\n', "base = 'banana'"),
        (PROFILE + "base = 6.12\n[changes]\n", "base = 6.12"),
    ],
)
def test_a_profile_that_is_none_is_bad_input_of_one_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        parse_release(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_profile_that_is_missing_or_cannot_be_written_is_bad_input(tmp_path: Path):
    with pytest.raises(BadInput, match="no such file"):
        parse_release(str(tmp_path / "p.toml"))
    with pytest.raises(BadInput, match="cannot be written"):
        write_profile(tmp_path / "nowhere" / "p.toml", {})


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("before", "after"), [("6.11", "7.3.4"), ("6.12.113", "6.12.117"), ("7.3.4", "6.11")])
def test_picks_are_what_is_there_after_and_not_before_each_behind_what_it_requires(
    before: str, after: str, backwards: bool
):
    old, new = parse_release(before), parse_release(after)
    if backwards:
        new = replace(new, changes=dict(reversed(new.changes.items())))
    picked = [change.id for change in picks(old, new)]
    assert sorted(picked) == sorted(id for id, s in new.changes.items() if s == "yes" and old.changes[id] != "yes")
    place = list(new.changes).index
    for number, id in enumerate(picked):
        assert not {r for r in new.known[id].requires if r in picked} - set(picked[:number]), id
        later = picked[number + 1 :]
        asked = {required for other in later for required in new.known[other].requires}
        assert id in asked or all(place(id) < place(other) for other in later), f"{id} is out of order"
