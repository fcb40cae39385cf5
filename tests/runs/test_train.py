"""Runs from a recipe: end to end on tiny backbones, every paper recipe included."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from glotfuse.api import FusedLM
from glotfuse.backbones import Encoder
from glotfuse.errors import CheckpointError, ConfigError, DataError, PromptError
from glotfuse.evaluation.report import EvaluationReport
from glotfuse.recipes.loading import load_recipe, recipe_from_dict, to_dict
from glotfuse.run_folder import read_config
from glotfuse.runs.data import task_of
from glotfuse.runs.measuring import measure_run
from glotfuse.runs.predicting import evaluate
from glotfuse.runs.train import train_run
from paths import ROOT
from small_runs import small_recipe, write_task
from tiny import encoder_folder, lm_folder

RECIPES = ROOT / "recipes"
PAPER = sorted((RECIPES / "paper").rglob("*.yaml"))


def measured(model: FusedLM, recipe: Any, folder: Path, **options: Any) -> EvaluationReport:
    weights = read_config(folder)["weights_sha256"]
    return evaluate(model, task_of(recipe.task), folder, run_name="run", weights_sha256=weights, **options)


def test_a_recipe_becomes_a_checkpoint_with_its_record(tmp_path: Path) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"))
    model = train_run(recipe, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "training.json").read_text("utf8"))
    assert record["num_train_examples"] == 24
    assert record["num_steps"] == 12
    assert record["best_step"] in {4, 8, 12}
    assert recipe_from_dict(record["recipe"]) == recipe
    assert not (tmp_path / "run" / "state").exists()
    loaded = FusedLM.from_pretrained(tmp_path / "run", device="cpu")
    texts = ["The team won.", "විද්‍යාව"]
    assert loaded.classify(texts) == model.classify(texts)


def test_training_separates_an_easy_task(tmp_path: Path) -> None:
    fusion = {"mixer": "mean", "mixer_options": {}, "summary": False, "state_dropout": 0.0, "token_dropout": 0.0}
    recipe = small_recipe(write_task(tmp_path / "data"), training={"epochs": 8}, fusion=fusion)
    report = measured(train_run(recipe, tmp_path / "run"), recipe, tmp_path / "run")
    english = report.results[0]
    assert english.language == "eng_Latn"
    assert english.accuracy.value == 1.0


def test_warm_start_is_recorded(tmp_path: Path) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"), fusion={"warm_start": "align"}, training={"epochs": 1})
    train_run(recipe, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "training.json").read_text("utf8"))
    assert 0.2 < record["warm_start"]["explained_variance"] < 1.0
    assert record["warm_start"]["num_tokens"] > 100


def count_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of texts that encoders will read from now on, without the reference texts of a checkpoint."""
    sizes: list[int] = []
    forward = Encoder.forward

    def counted(self: Encoder, input_ids: Tensor, *arguments: Any) -> Any:
        sizes.append(len(input_ids))
        return forward(self, input_ids, *arguments)

    monkeypatch.setattr(Encoder, "forward", counted)
    monkeypatch.setattr("glotfuse.model.self_check.reference", lambda _: None)
    return sizes


def test_a_second_run_encodes_nothing_and_gives_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOTFUSE_CACHE", str(tmp_path / "cache"))
    recipe = small_recipe(write_task(tmp_path / "data"), fusion={"warm_start": "align"})
    sizes = count_encoded(monkeypatch)
    first = train_run(recipe, tmp_path / "first").fusion.state_dict()
    assert 4 < sum(sizes) <= 24 + 8 + 4, "every text at most once, and the probes while loading"
    sizes.clear()
    second = train_run(recipe, tmp_path / "second").fusion.state_dict()
    assert sum(sizes) <= 4
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_states_are_not_kept_where_the_recipe_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLOTFUSE_CACHE", str(tmp_path / "cache"))
    sizes = count_encoded(monkeypatch)
    data = write_task(tmp_path / "data")
    train_run(small_recipe(data, encoder={"cache_gb": 0}), tmp_path / "none")
    assert sum(sizes) > 2 * 24
    assert not (tmp_path / "cache" / "features").exists()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1))
    train_run(small_recipe(data), tmp_path / "full")
    assert "computed anew every epoch" in " ".join(capsys.readouterr().err.split())
    monkeypatch.undo()
    monkeypatch.setenv("GLOTFUSE_CACHE", str(tmp_path / "other"))
    train_run(small_recipe(data), tmp_path / "kept")
    full, kept = (read_config(tmp_path / name)["weights_sha256"] for name in ("full", "kept"))
    assert full == kept, "weights should not depend on what is free on the disk"


def test_a_run_that_died_before_its_first_state_begins_with_the_warm_start(tmp_path: Path) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"), fusion={"warm_start": "align"}, training={"epochs": 1})
    whole = train_run(recipe, tmp_path / "whole").fusion.state_dict()
    (tmp_path / "died" / "state").mkdir(parents=True)
    again = train_run(recipe, tmp_path / "died").fusion.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_evaluation_measures_every_language_and_saves_predictions(tmp_path: Path) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"), training={"epochs": 1})
    folder = tmp_path / "run"
    model = train_run(recipe, folder)
    report = measured(model, recipe, folder, batch_size=4)
    assert [(r.language, r.num_examples) for r in report.results] == [("eng_Latn", 6), ("sin_Sinh", 2)]
    lines = (folder / "predictions" / "test" / "sin_Sinh.jsonl").read_text("utf8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["gold"] for row in rows] == ["science", "sports"]
    expected = model.classify([row["text"] for row in rows])
    assert [row["predicted"] for row in rows] == [c.label for c in expected]
    right = sum(row["gold"] == row["predicted"] for row in rows)
    assert report.results[1].accuracy.value == right / 2
    assert EvaluationReport.load(folder / "report-test.json") == report
    assert "Sinhala" in (folder / "report-test.md").read_text("utf8")


def test_an_interrupted_evaluation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from glotfuse.runs import predicting as runner

    recipe = small_recipe(write_task(tmp_path / "data"), training={"epochs": 1})
    folder = tmp_path / "run"
    model = train_run(recipe, folder)
    asked: list[str] = []
    plain = runner._predict

    def counting(model: Any, language: str, *rest: Any) -> Any:
        asked.append(language)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return plain(model, language, *rest)

    monkeypatch.setattr(runner, "_predict", counting)
    with pytest.raises(KeyboardInterrupt):
        measured(model, recipe, folder)
    report = measured(model, recipe, folder)
    assert asked == ["eng_Latn", "sin_Sinh", "sin_Sinh"]
    weights = read_config(folder)["weights_sha256"]
    again = evaluate(model, task_of(recipe.task), tmp_path / "new", run_name="run", weights_sha256=weights)
    assert again == report
    evaluate(model, task_of(recipe.task), folder, run_name="run", weights_sha256="other")
    assert asked[-2:] == ["eng_Latn", "sin_Sinh"], "predictions of other weights must not be used"


def test_rows_that_cannot_fit_count_as_invalid_and_wrong(tmp_path: Path) -> None:
    data = tmp_path / "data" / "eng_Latn"
    data.mkdir(parents=True)
    header = "premise\thypothesis\tlabel\n"
    rows = "".join(f"A team won {i}.\tA game {i}.\t{'yes' if i % 2 else 'no'}\n" for i in range(12))
    for split in ("train", "dev"):
        (data / f"{split}.tsv").write_text(header + rows, "utf8")
    long = "word " * 300
    (data / "test.tsv").write_text(f"{header}A team.\tA game.\tyes\nA.\t{long}\tno\n{long}\tA game.\tno\n", "utf8")
    recipe = small_recipe(tmp_path / "data", task={"text_columns": ["premise", "hypothesis"]}, training={"epochs": 1})
    report = measured(train_run(recipe, tmp_path / "run"), recipe, tmp_path / "run")
    result = report.results[0]
    assert (result.num_examples, result.num_truncated, result.num_invalid) == (3, 1, 1)


def test_a_trained_model_may_read_more_than_training_read(tmp_path: Path) -> None:
    data = write_task(tmp_path / "data")
    settings = {"encoder": {"max_length": 8}, "training": {"epochs": 1}, "evaluation": {"max_length": 40}}
    recipe = small_recipe(data, **settings)
    report = measured(train_run(recipe, tmp_path / "run"), recipe, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "training.json").read_text("utf8"))["num_truncated"] == 24
    assert [result.num_truncated for result in report.results] == [0, 0]
    assert FusedLM.from_pretrained(tmp_path / "run", device="cpu").reader.max_length == 40
    assert measure_run(tmp_path / "run", recipe).results[0].num_truncated == 0


def test_a_length_that_the_encoder_cannot_take_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glotfuse.runs.train.trainer.train", lambda *_, **__: pytest.fail("trained"))
    recipe = small_recipe(write_task(tmp_path / "data"), evaluation={"max_length": 100_000})
    with pytest.raises(PromptError, match="max_length of at most"):
        train_run(recipe, tmp_path / "run")


def test_a_finished_run_is_not_overwritten(tmp_path: Path) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"), training={"epochs": 1})
    train_run(recipe, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"holds a finished one.*--overwrite"):
        train_run(recipe, tmp_path / "run")
    train_run(replace(recipe, training=replace(recipe.training, seed=1)), tmp_path / "run", overwrite=True)


def test_an_interrupted_run_does_not_mix_with_another_recipe(tmp_path: Path) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"))
    folder = tmp_path / "run"
    (folder / "state").mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps(to_dict(recipe)))
    other = replace(recipe, training=replace(recipe.training, learning_rate=0.5))
    with pytest.raises(CheckpointError, match=r"differs in training\.learning_rate"):
        train_run(other, folder)


def test_unlabelled_text_trains_and_generates(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_task(data)
    task = {"label_column": None}
    recipe = small_recipe(data, task=task, training={"epochs": 1, "cut": [3, 6], "max_answer_tokens": 12})
    model = train_run(recipe, tmp_path / "run")
    assert model.labels == ()
    assert isinstance(model.generate(["The team"], max_new_tokens=3)[0], str)


def test_a_task_without_development_data_keeps_the_last_weights(tmp_path: Path) -> None:
    data = write_task(tmp_path / "data")
    (data / "eng_Latn" / "dev.tsv").unlink()
    train_run(small_recipe(data, training={"epochs": 1}), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "training.json").read_text("utf8"))
    assert record["best_step"] is None
    assert record["num_steps"] == 6


def test_bad_data_stops_before_anything_is_trained(tmp_path: Path) -> None:
    data = write_task(tmp_path / "data")
    with (data / "eng_Latn" / "train.tsv").open("a", encoding="utf8") as handle:
        handle.write("A text without label\n \tsports\n")
    with pytest.raises(DataError, match=r"(?s)train\.tsv.*26.*27"):
        train_run(small_recipe(data), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_own_files_need_a_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.path"):
        task_of(small_recipe(tmp_path, task={"path": None}).task)


def test_own_mixer_in_a_recipe(tmp_path: Path) -> None:
    from glotfuse.fusion import MIXERS, Mixer, MixerOutput, register_mixer

    @register_mixer("first")
    class FirstLayer(Mixer):
        def forward(self, hidden_states: Any, mask: Any) -> MixerOutput:
            weights = torch.zeros(self.num_layers)
            weights[0] = 1.0
            return MixerOutput(hidden_states[0] * mask.unsqueeze(-1), weights)

    try:
        fusion = {"mixer": "first", "mixer_options": {}}
        train_run(small_recipe(write_task(tmp_path / "data"), fusion=fusion, training={"epochs": 1}), tmp_path / "run")
        assert FusedLM.from_pretrained(tmp_path / "run", device="cpu").classify(["The team won."])
    finally:
        MIXERS._classes.pop("first")


def test_paper_recipes_cover_mixers_tasks_and_encoders() -> None:
    recipes = [load_recipe(path) for path in PAPER]
    found = {(r.fusion.mixer, r.task.name, r.encoder.name.rpartition("/")[2]) for r in recipes}
    mixers = ("last", "global_softmax", "transformer_softmax")
    tasks = ("xnli", "indicxnli", "sinhala-news", "amazon-reviews")
    assert found == {(m, t, e) for m in mixers for t in tasks for e in ("mt5-large", "mt5-xl")}


@pytest.mark.parametrize("path", PAPER, ids=lambda p: str(p.relative_to(RECIPES / "paper").with_suffix("")))
def test_every_paper_recipe_runs_end_to_end_on_tiny_models(path: Path, tmp_path: Path) -> None:
    """The same recipe with a tiny mT5 and a tiny Llama in place of the real ones, and a few rows of data."""
    recipe = load_recipe(path)
    _write_rows(tmp_path / "data", recipe)
    recipe = replace(
        recipe,
        encoder=replace(recipe.encoder, name=encoder_folder("mt5")),
        lm=replace(recipe.lm, name=lm_folder("llama")),
        task=replace(recipe.task, path=str(tmp_path / "data")),
        training=replace(recipe.training, epochs=1, evaluations=1),
        device="cpu",
    )
    folder = tmp_path / "run"
    train_run(recipe, folder)
    loaded = FusedLM.from_pretrained(folder, device="cpu")
    assert not loaded.prompt.tail_ids
    report = measured(loaded, recipe, folder)
    assert sum(result.num_examples for result in report.results) == 2 * len(loaded.labels)


def _write_rows(folder: Path, recipe: Any) -> None:
    task = task_of(replace(recipe.task, path=str(folder)))
    target = "sin_Sinh" if task.train_language != "sin_Sinh" else "eng_Latn"
    for language, split in (
        (task.train_language, "train"),
        (task.train_language, "dev"),
        (task.train_language, "test"),
        (target, "test"),
    ):
        (folder / language).mkdir(parents=True, exist_ok=True)
        columns = [*task.text_columns, task.label_column]
        rows = [
            [*(f"{column} number {i} of {split}." for column in task.text_columns), raw]
            for i, raw in enumerate(task.label_words)
        ]
        lines = ["\t".join(map(str, row)) for row in [columns, *rows]]
        (folder / language / f"{split}.tsv").write_text("\n".join(lines) + "\n", "utf8")


def test_centring_is_measured_on_the_training_text(tmp_path: Path) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"), fusion={"centre": True, "mixer": "mean", "mixer_options": {}})
    model = train_run(recipe, tmp_path / "run")
    assert model is not None
    centring = model.fusion.centring
    assert (centring.mean.abs().amax(1) > 0).all()
    assert (centring.scale != 1).all()
