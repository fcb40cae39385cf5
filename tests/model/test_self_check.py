"""A checkpoint that answers otherwise under other library versions says so when it is loaded."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from built import built
from glotfuse.api import FusedLM
from glotfuse.inputs.reader import InputReader
from glotfuse.model import self_check
from tiny import tiny_model, with_labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    built().save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def change(folder: Path, **values: Any) -> dict[str, Any]:
    path = folder / "config.json"
    config = json.loads(path.read_text("utf8"))
    config["reference"] = {**config["reference"], **values}
    path.write_text(json.dumps(config), "utf8")
    return dict(config["reference"])


OLDER = {"torch": "2.0.0", "transformers": "5.0.0"}


def test_the_same_versions_compute_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "_scores", lambda *_: pytest.fail("computed"))
    FusedLM.from_pretrained(folder, device="cpu")


def test_other_versions_with_the_same_answers_are_no_matter(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = change(folder, versions=OLDER)
    with caplog.at_level(logging.INFO, "glotfuse"):
        model = FusedLM.from_pretrained(folder, device="cpu")
    (record,) = [each for each in caplog.records if "when it was saved" in each.getMessage()]
    assert record.levelno == logging.INFO
    difference = self_check.compare(model, kept, folder)
    assert difference is not None
    assert difference < 1e-3


def test_other_answers_are_a_warning_that_names_the_versions(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = change(folder, versions=OLDER)
    change(folder, log_probabilities=[[value - 0.5 for value in row] for row in kept["log_probabilities"]])
    with caplog.at_level(logging.WARNING, "glotfuse"):
        FusedLM.from_pretrained(folder, device="cpu")
    (message,) = [each.getMessage() for each in caplog.records if "answers otherwise" in each.getMessage()]
    assert "differ by up to 0.5, and their tokens are the same" in message
    assert "transformers 5.0.0 then" in message
    assert "torch 2.0.0 then" in message


def test_other_tokens_are_a_warning_too(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(folder, versions=OLDER, tokens_sha256="0" * 64)
    with caplog.at_level(logging.WARNING, "glotfuse"):
        FusedLM.from_pretrained(folder, device="cpu")
    assert "their tokens are others" in caplog.text


def test_half_precision_is_allowed_its_rounding(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = change(folder, versions=OLDER)
    nearly = [[value * 1.05 for value in row] for row in kept["log_probabilities"]]
    change(folder, log_probabilities=nearly, precision={"encoder": "float32", "lm": "bfloat16"})
    with caplog.at_level(logging.WARNING, "glotfuse"):
        FusedLM.from_pretrained(folder, device="cpu")
    assert "answers otherwise" not in caplog.text


def test_an_older_checkpoint_has_nothing_to_compare(folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text("utf8"))
    del config["reference"]
    path.write_text(json.dumps(config), "utf8")
    model = FusedLM.from_pretrained(folder, device="cpu")
    assert self_check.compare(model, None, folder) is None


def test_a_malformed_reference_is_said_and_no_reason_not_to_load(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for malformed in ({"versions": OLDER, "log_probabilities": [["a"]]}, {"versions": [1]}, {"precision": None}):
        change(folder, **{"versions": OLDER, **malformed})
        FusedLM.from_pretrained(folder, device="cpu")
    assert caplog.text.count("were not compared: they are malformed") == 3


@pytest.mark.parametrize("lm", ["llama", "bloom", "mamba"])
def test_every_kind_of_model_has_a_reference(lm: str) -> None:
    without_labels = tiny_model("m2m100", lm, style="plain")
    without_labels.label_ids = []
    found = self_check.reference(without_labels)
    assert found is not None
    assert [len(row) for row in found["log_probabilities"]] == [1] * len(self_check.TEXTS)
    assert self_check.reference(without_labels) == found
    many = with_labels(tiny_model("xlm-r", lm), tuple(f"topic {i}" for i in range(20)), style="plain")
    assert [len(row) for row in (self_check.reference(many) or {})["log_probabilities"]] == [8] * 4


def test_a_model_without_room_for_a_text_has_none() -> None:
    model = built()
    model.reader = InputReader(model.encoder, max_length=1)
    assert self_check.reference(model) is None
