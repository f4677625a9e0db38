"""`pfnmap replay` of directories."""

from __future__ import annotations

import json
import shutil


def test_a_directory_stands_for_the_recordings_in_it(pfnmap, root, tmp_path):
    for name in ("b.json", "a.json"):
        shutil.copy(root / "tests/data/cli/recording.json", tmp_path / name)
    (tmp_path / "README.md").write_text("not a recording")
    result = pfnmap("replay", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    assert [f["file"] for f in json.loads(result.stdout)["files"]] == [f"{tmp_path}/a.json", f"{tmp_path}/b.json"]


def test_recordings_are_replayed_in_processes_in_their_order(answer, refused, root, tmp_path):
    for name in ("b.json", "a.json", "c.json"):
        shutil.copy(root / "tests/data/cli/recording.json", tmp_path / name)
    assert answer("replay", tmp_path, "--jobs", 2) == answer("replay", tmp_path)
    (tmp_path / "b.json").write_text("{")
    assert refused("replay", tmp_path, "--jobs", 2) == refused("replay", tmp_path)


def test_a_directory_without_recordings_is_bad_input(refused, tmp_path):
    assert refused("replay", tmp_path) == f"pfnmap: {tmp_path}: a directory without recordings (*.json, *.json.gz)"
