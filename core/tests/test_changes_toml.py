"""changes.toml says what was established, and nothing that contradicts itself."""

import re
from pathlib import Path

import pytest
import tomli

from pfnmap.release import Change, parse_release, upstream_changes, upstream_trees

DATA = Path(__file__).parent / "data"
FACTS = {fact["id"]: fact for fact in tomli.loads((DATA / "upstream-facts.toml").read_text())["change"]}
CHANGES = upstream_changes()
RELEASE = re.compile(r"\d+\.\d+\.\d+")
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def version(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def test_every_established_change_is_there():
    assert set(CHANGES) >= set(FACTS)


@pytest.mark.parametrize("fact", FACTS.values(), ids=FACTS)
def test_releases_of_a_change_are_those_established(fact: dict[str, object]):
    change = CHANGES[str(fact["id"])]
    assert (change.first, change.sure, change.fixes) == (fact["first"], fact["sure"], fact.get("fixes", ""))
    for key in ("backports", "present", "absent"):
        assert list(getattr(change, key)) == fact.get(key, []), key
    assert set(change.requires) >= set(fact.get("requires", []))  # type: ignore[call-overload]
    if "commit" in fact:
        assert change.commit == fact["commit"]


@every_change
def test_fields_are_of_their_form(change: Change):
    assert change.title
    assert change.sure in {"source", "recorded", "commit list", "inferred", "memory"}
    assert re.fullmatch(r"\d+\.\d+|-|\?", change.first)
    assert re.fullmatch(r"([0-9a-f]{12})?", change.commit)
    assert all(RELEASE.fullmatch(r) for r in (*change.present, *change.absent))
    assert all(re.fullmatch(r"\d+\.\d+\.(\d+|y)", r) for r in change.backports)


@every_change
def test_named_changes_exist(change: Change):
    assert {*change.requires, *change.supersedes, *filter(None, [change.fixes])} <= set(CHANGES) - {change.id}


@every_change
def test_within_a_line_a_change_comes_and_stays(change: Change):
    for seen in change.present:
        assert all(version(seen) > version(a) for a in change.absent if version(a)[:2] == version(seen)[:2])


@every_change
def test_what_was_seen_is_what_the_release_says(change: Change):
    assert all(parse_release(release).changes[change.id] == "yes" for release in change.present)
    assert all(parse_release(release).changes[change.id] == "no" for release in change.absent)


def test_commits_and_subjects_name_one_change_each():
    commits = [c.commit for c in CHANGES.values() if c.commit]
    subjects = [c.subject.casefold() for c in CHANGES.values() if c.subject]
    assert len({c[:7] for c in commits}) == len(commits)
    assert len(set(subjects)) == len(subjects)


def test_trees_are_made_of_known_changes():
    for tree in upstream_trees().values():
        assert {*tree.with_, *tree.without} <= set(CHANGES)
        assert parse_release(tree.base).name == tree.base
