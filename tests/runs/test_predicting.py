"""What a measurement counts beside its scores: the unknown tokens of every language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from glotfuse.api import FusedLM
from glotfuse.evaluation.report import EvaluationReport
from glotfuse.run_folder import read_config
from glotfuse.runs.data import task_of
from glotfuse.runs.measuring import measure_run
from glotfuse.runs.predicting import evaluate
from glotfuse.runs.train import train_run
from small_runs import small_recipe, write_task
from tiny import byte_encoder_folder


def measured(model: FusedLM | None, recipe: Any, folder: Path, **options: Any) -> EvaluationReport:
    assert model is not None
    weights = read_config(folder)["weights_sha256"]
    return evaluate(model, task_of(recipe.task), folder, run_name="run", weights_sha256=weights, **options)


def odia(data: Path, num_unknown: int) -> Path:
    """Adds a test of 60 words that goes for Odia; so many of them are Odia, whose letters no tiny vocabulary has."""
    words = ["ଖେଳ"] * num_unknown + ["game"] * (60 - num_unknown)
    rows = "".join(f"{word} {word}\t{('science', 'sports')[i % 2]}\n" for i, word in enumerate(words))
    (data / "ory_Orya").mkdir()
    (data / "ory_Orya" / "test.tsv").write_text(f"text\tlabel\n{rows}", "utf8")
    return data


@pytest.mark.parametrize(("num_unknown", "warned"), [(6, True), (1, False)])
def test_the_share_of_unknown_tokens_is_reported_and_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], num_unknown: int, warned: bool
) -> None:
    recipe = small_recipe(odia(write_task(tmp_path / "data"), num_unknown), training={"epochs": 0})
    model = train_run(recipe, tmp_path / "run")
    assert model is not None
    capsys.readouterr()
    rates = {"sin_Sinh": 0.0, "ory_Orya": 0.0}
    report = measured(model, recipe, tmp_path / "run", languages=list(rates))
    tokenizer = model.encoder.tokenizer
    for code in rates:
        lines = (tmp_path / "data" / code / "test.tsv").read_text("utf8").splitlines()[1:]
        texts = [line.split("\t")[0] for line in lines]
        ids = [number for row in tokenizer(texts, add_special_tokens=False)["input_ids"] for number in row]
        rates[code] = ids.count(tokenizer.convert_tokens_to_ids("<unk>")) / len(ids)
    assert rates["sin_Sinh"] == 0
    assert (rates["ory_Orya"] > 0.01) == warned
    assert rates["ory_Orya"] > 0
    found = {result.language: result.unknown_rate for result in report.results}
    assert found == pytest.approx(rates)
    saved = json.loads((tmp_path / "run" / "report-test.json").read_text("utf8"))["results"]
    assert {result["language"]: result["unknown_rate"] for result in saved} == found
    said = " ".join(capsys.readouterr().err.split())
    assert ("Odia (ory_Orya)" in said) == warned
    assert "Sinhala (sin_Sinh)" not in said
    again = measured(model, recipe, tmp_path / "run", languages=list(rates))  # from the saved predictions
    assert again == report
    assert f"| {100 * rates['ory_Orya']:.1f} |" in (tmp_path / "run" / "report-test.md").read_text("utf8")


def test_unknown_tokens_are_gone_with_byte_fallback_and_of_no_matter_to_an_lm_that_reads_the_text(
    tmp_path: Path,
) -> None:
    data = odia(write_task(tmp_path / "data"), 30)
    rates = {}
    for name, sections in {
        "with": {"encoder": {"name": byte_encoder_folder()}},
        "without": {"encoder": {"name": byte_encoder_folder(), "byte_fallback": False}},
        "text": {"prompt": {"include_span": False}},
    }.items():
        recipe = small_recipe(data, training={"epochs": 0}, **sections)
        report = measured(train_run(recipe, tmp_path / name), recipe, tmp_path / name)
        [rates[name]] = [result.unknown_rate for result in report.results if result.language == "ory_Orya"]
    assert rates["with"] == 0
    assert rates["without"] > 0.1
    assert rates["text"] is None


def test_the_baseline_counts_them_too(tmp_path: Path) -> None:
    recipe = small_recipe(odia(write_task(tmp_path / "data"), 30), method="embedding")  # type: ignore[arg-type]
    train_run(recipe, tmp_path / "run")
    found = {result.language: result.unknown_rate for result in measure_run(tmp_path / "run", recipe).results}
    assert found["sin_Sinh"] == 0
    assert found["ory_Orya"] is not None
    assert found["ory_Orya"] > 0.1


def test_what_a_reader_had_to_guess_of_test_data_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_task(tmp_path / "data")
    rows = 'text\tlabel\n"ආර්ථිකය\tවර්ධනය"\tscience\nතරගය\tsports\n'  # a quoted tab: the rows fit in one way alone
    (data / "sin_Sinh" / "test.tsv").write_text(rows, "utf8")
    recipe = small_recipe(data, training={"epochs": 0})
    model = train_run(recipe, tmp_path / "run")
    assert "quot" not in capsys.readouterr().err
    measured(model, recipe, tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert "sin_Sinh/test.tsv" in said.replace(" ", "")
    assert "quot" in said
