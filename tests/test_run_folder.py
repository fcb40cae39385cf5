"""A run folder's files have one reader each, with one error for damage."""

from __future__ import annotations

import errno
import os
import time
from functools import partial
from pathlib import Path

import pytest

from deaths import forked
from glotfuse.errors import CheckpointError, DataError
from glotfuse.files import complete, to_json, write_file, write_files
from glotfuse.run_folder import (
    CONFIG,
    EMBEDDING_CONFIG,
    RECORD,
    is_trained,
    read_config,
    read_log,
    read_record,
    reported_splits,
    runs_in,
)


def test_a_record_is_empty_where_there_is_none_and_damage_is_an_error(tmp_path: Path) -> None:
    assert read_record(tmp_path) == {}
    for damaged in ("{", "[1]"):
        (tmp_path / RECORD).write_text(damaged)
        with pytest.raises(DataError, match=r"training\.json.*Restore the file"):
            read_record(tmp_path)
    write_file(tmp_path / RECORD, to_json({"seconds": 2, "name": "ආ"}))
    assert read_record(tmp_path) == {"seconds": 2, "name": "ආ"}


def test_what_a_folder_holds_is_told_by_its_files(tmp_path: Path) -> None:
    assert not is_trained(tmp_path)
    (tmp_path / "report-dev.json").write_text("{}")
    assert reported_splits(tmp_path) == ["dev"]
    (tmp_path / EMBEDDING_CONFIG).write_text("{}")
    assert is_trained(tmp_path)


def test_a_torn_line_of_a_log_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"epoch": 1}\n{"step": 2, "lo')
    assert read_log(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_of_several_files_all_or_none_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"a": b"old", "deep/b": b"old"})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(DataError, match=r"No space left.*Nothing there was changed\. Buy a disk\."):
        write_files(tmp_path, {"a": b"new", "deep/b": b"new"}, error=DataError, advice="Buy a disk.")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == ["a", "deep/b"]
    assert {p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == {b"old"}


OLD, NEW = {"a": b"old", "deep/b": b"old"}, {"a": b"new", "deep/b": b"new"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_death_at_any_operation_leaves_all_old_or_all_new_files(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    write_files(whole, OLD)
    code, operations = forked(lambda: write_files(whole, NEW), tmp_path / "log", watched=whole)
    assert code == 0
    found = []
    for moment in range(1, len(operations) + 1):
        folder = tmp_path / str(moment)
        write_files(folder, OLD)
        code, _ = forked(
            lambda folder=folder: write_files(folder, NEW), tmp_path / "log", watched=folder, die_at=moment
        )
        assert code == -9
        complete(folder)
        kept = {name: content for name, content in contents(folder).items() if not name.startswith(".partial-")}
        assert kept in (OLD, NEW)
        found.append(kept == NEW)
    assert found == sorted(found), "once they are on the disk they stay"
    assert len(set(found)) == 2


def test_a_reader_finds_the_set_of_a_writer_that_died_between_its_files(tmp_path: Path) -> None:
    files = {"config.json": b'{"format": 1, "weights_sha256": "0"}', "training.json": b'{"seconds": 2}'}
    moments = forked(lambda: write_files(tmp_path / "run", files), tmp_path / "log", watched=tmp_path / "run")[1]
    second = next(n for n, line in enumerate(moments, start=1) if line.endswith("/training.json") and "rename" in line)
    work = partial(write_files, tmp_path / "dead", files)
    assert forked(work, tmp_path / "log", watched=tmp_path / "dead", die_at=second)[0] == -9
    assert not (tmp_path / "dead" / "training.json").exists()
    assert read_record(tmp_path / "dead") == {"seconds": 2}
    assert read_config(tmp_path / "dead")["weights_sha256"] == "0"


def test_what_died_half_written_is_cleared_away_by_a_later_writer(tmp_path: Path) -> None:
    for name, age in ((".partial-old", 3600), (".partial-young", 0)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    write_file(tmp_path / "a", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-young", "a"]


def test_a_folder_of_runs_is_told_from_a_run_and_names_them(tmp_path: Path) -> None:
    for place in ("quick/default", "quick/embedding", "many/one/seed-10", "many/one/seed-2", "run/stages/general"):
        write_file(tmp_path / place / "recipe.json", "{}")
    assert runs_in(tmp_path / "quick") == [tmp_path / "quick" / "default", tmp_path / "quick" / "embedding"]
    assert [run.name for run in runs_in(tmp_path / "many")] == ["seed-2", "seed-10"]
    assert runs_in(tmp_path / "run") == []
    with pytest.raises(CheckpointError, match=r"the runs default, embedding: give one of them, such as .*default\."):
        read_config(tmp_path / "quick")
    with pytest.raises(CheckpointError, match=r"unfinished: finish it with the same `glotfuse train`"):
        read_config(tmp_path / "quick" / "default")


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000])
def test_json_nested_without_end_is_damage(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD).write_text(content)
    (tmp_path / CONFIG).write_text(content)
    with pytest.raises(DataError, match=r"training\.json; it cannot be read"):
        read_record(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json; it is damaged"):
        read_config(tmp_path)


@pytest.mark.parametrize("sha256", ["5", "null", "[]", "{}"])
def test_a_config_whose_hash_is_no_text_is_not_ours(tmp_path: Path, sha256: str) -> None:
    (tmp_path / CONFIG).write_text(f'{{"format": 1, "weights_sha256": {sha256}}}')
    with pytest.raises(CheckpointError, match=r"config\.json; found another JSON file"):
        read_config(tmp_path)
