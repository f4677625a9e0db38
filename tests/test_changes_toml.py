"""The changes.toml of the core and of every plugin say what was established, and nothing that contradicts itself."""

from pathlib import Path
from typing import Any

import pytest
import tomli

from pfnmap.changes import brought
from pfnmap.release import Change, parse_release, upstream_changes, upstream_trees

DATA = Path(__file__).parent / "data" / "changes"
CHANGES = upstream_changes()
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def established() -> dict[str, dict[str, Any]]:
    """What was established of each change, in two steps."""
    facts: dict[str, dict[str, Any]] = {}
    for name in ("upstream-facts.toml", "further-facts.toml"):
        for fact in tomli.loads((DATA / name).read_text())["change"]:
            facts.setdefault(fact["id"], {}).update(fact)
    return facts


FACTS = established()


def version(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))


def test_every_change_is_one_that_was_established():
    assert set(CHANGES) == set(FACTS)


@every_change
def test_releases_of_a_change_are_those_established(change: Change):
    fact = FACTS[change.id]
    for key in ("first", "sure", "fixes", "commit"):
        assert getattr(change, key) == fact.get(key, ""), key
    for key in ("backports", "present", "absent", "requires", "supersedes"):
        assert list(getattr(change, key)) == fact.get(key, []), key


@every_change
def test_nothing_is_named_that_nobody_brings(change: Change):
    assert change.not_known == ()


@every_change
def test_no_change_names_itself(change: Change):
    assert change.id not in {*change.requires, *change.supersedes, change.fixes}


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
        (written,) = [t for t in brought(tree.package).trees if t.name == tree.name]
        assert {*written.with_, *written.without} <= set(CHANGES)
        assert parse_release(tree.base).name == tree.base
