"""A run folder, a baseline and a comparison of version 0.1.0, from before the modules moved, work as they did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glotfuse import FusedLM
from glotfuse.evaluation.comparison_data import load_comparison
from glotfuse.html_report import build_report
from glotfuse.hub.card import card_of_run
from glotfuse.run_folder import predictions_file, read_record
from glotfuse.runs.folder import finished, read_recipe
from glotfuse.runs.measuring import measure_run
from paths import ROOT

BEFORE = ROOT / "tests" / "fixtures" / "run_before_the_house"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, where its relative paths lead to its backbones and data: fusion, adapter, probe and a general stage."""
    copy = tmp_path / "before"
    shutil.copytree(BEFORE, copy)
    monkeypatch.chdir(copy)
    return copy


def test_its_checkpoint_gives_the_same_probabilities(folder: Path) -> None:
    pytest.importorskip("peft")
    expected = json.loads((folder / "expected.json").read_text("utf8"))
    model = FusedLM.from_pretrained("run", device="cpu")
    found = model.classify([line["text"] for line in expected])
    assert [a.probabilities for a in found] == [pytest.approx(line["probabilities"], abs=1e-6) for line in expected]


@pytest.mark.parametrize("name", ["run", "embedding"])
def test_it_is_measured_again_with_the_same_predictions(folder: Path, name: str) -> None:
    pytest.importorskip("peft")
    run, lines = folder / name, {}
    recipe = read_recipe(run)
    assert finished(run, recipe)
    for code in ("eng_Latn", "sin_Sinh"):
        path = predictions_file(run, "test", code)
        lines[code] = [json.loads(line) for line in path.read_text("utf8").splitlines()]
        path.unlink()
    before = json.loads((run / "report-test.json").read_text("utf8"))
    report = measure_run(Path(name), recipe)
    results = json.loads(json.dumps(report.to_dict()))["results"]
    assert all(result.pop("unknown_rate") < 1 for result in results)  # which nobody counted before
    assert results == before["results"]
    for code, expected in lines.items():
        found = [json.loads(line) for line in predictions_file(run, "test", code).read_text("utf8").splitlines()]
        for line, old in zip(found, expected, strict=True):
            assert line.pop("probabilities") == pytest.approx(old.pop("probabilities"), abs=2e-6)  # six digits are kept
            assert line == old


def test_card_and_pages_are_made_of_it(folder: Path) -> None:
    assert read_record(folder / "run")["stages"]["general"]["num_steps"] == 6
    assert "transformer_softmax" in str(card_of_run(folder / "run"))
    assert "Sinhala" in build_report(folder / "run")
    assert "Sinhala" in build_report(folder / "embedding")
    assert "Sinhala" in build_report(folder / "comparison")
    found = load_comparison(folder / "comparison" / "comparison.json")
    assert [recipe.name for recipe in found.recipes] == ["run", "embedding"]
