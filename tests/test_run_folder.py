"""A run folder's files have one reader each, with one error for damage."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from glotfuse.errors import CheckpointError, DataError
from glotfuse.files import to_json, write_file, write_files
from glotfuse.run_folder import (
    CONFIG,
    EMBEDDING_CONFIG,
    RECORD,
    is_trained,
    read_config,
    read_log,
    read_record,
    reported_splits,
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
