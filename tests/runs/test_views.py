"""Runs that read code-switched views and have a probe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from glotfuse import FusedLM
from glotfuse.backbones.identity import hash_module
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.inputs.batch import PreparedExample
from glotfuse.recipes.loading import load_recipe
from glotfuse.runs import run as run_module
from glotfuse.runs import train as runs
from glotfuse.runs import views as augmentation
from glotfuse.runs.data import load_rows, task_of
from glotfuse.runs.measuring import measure_run
from glotfuse.runs.run import Run
from glotfuse.runs.train import train_run
from glotfuse.runs.views import Purpose
from glotfuse.training import trainer as training
from glotfuse.training.code_switching import SwitchedExamples, part_of
from glotfuse.training.lexicon import Lexicon
from glotfuse.training.state import TrainingInterruptedError
from paths import ROOT
from small_runs import small_recipe, write_task
from small_training import InterruptAt
from tiny import tiny_model

FOREIGN = tuple("вагд"[n % 4] * 2 + "ежзи"[n // 4] + "кл" for n in range(16))
WORDS = ("scientists", "planet", "distant", "team", "match", "last", "game", "number")
LEXICON = Lexicon({"CYRILLIC": dict.fromkeys(WORDS, FOREIGN)}, {"CYRILLIC": 4.0}, 1.0)
SWITCHED: dict[str, Any] = {
    "augmentation": {"code_switching": 0.6, "switched_words": 0.9},
    "probe": {"kind": "kernel", "views": 2},
    "encoder": {"cache_gb": 0, "max_length": 96},
}


@pytest.fixture
def lexicon(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Gives every encoder the same translations; the English words that were asked for."""
    asked: list[list[str]] = []

    def known(model: FusedLM, english: list[str]) -> Lexicon:
        asked.append(english)
        return LEXICON

    monkeypatch.setattr(augmentation, "lexicon_for", known)
    return asked


def text_of(model: FusedLM, example: PreparedExample) -> str:
    return str(model.encoder.tokenizer.decode(example.encoder_ids, skip_special_tokens=True))


def is_switched(text: str) -> bool:
    return any("\u0400" <= letter <= "\u04ff" for letter in text)


def run_of(tmp_path: Path, num_train: int, **sections: Any) -> Run:
    recipe = small_recipe(write_task(tmp_path / "data", num_train=num_train), **{**SWITCHED, **sections})
    task, model = task_of(recipe.task), tiny_model(labels=("science", "sports"))
    return Run(recipe, tmp_path / "run", task, load_rows(task, recipe), model)


def test_every_epoch_has_other_views_and_the_same_answers(tmp_path: Path, lexicon: list[list[str]]) -> None:
    run = run_of(tmp_path, 100)
    found = run.train
    assert isinstance(found, SwitchedExamples)
    plain = found.plain
    assert len(found) == len(plain) == 100
    first = found[:]
    found.set_epoch(1)
    second = found[:]
    assert [e.answer_ids for e in first] == [e.answer_ids for e in second] == [e.answer_ids for e in plain]
    changed = [[a != b for a, b in zip(part, plain, strict=True)] for part in (first, second)]
    assert changed[0] != changed[1]
    # the rows have four or five words with translations; a view draws its share evenly from 0 to 0.9
    untouched = sum((1 - 0.1 ** (k + 1)) / (0.9 * (k + 1)) for k in (4, 5)) / 2
    assert sum(map(sum, changed)) / 200 == pytest.approx(0.6 * (1 - untouched), abs=0.1)
    assert not any(is_switched(text_of(run.model, example)) for example in plain)
    assert "planet" in lexicon[0]


def test_a_view_depends_on_seed_epoch_and_row_alone(tmp_path: Path, lexicon: list[list[str]]) -> None:
    found, again = run_of(tmp_path, 40).train, run_of(tmp_path, 40).train
    other = run_of(tmp_path, 40, training={"seed": 1}).train
    assert isinstance(found, SwitchedExamples)
    assert isinstance(again, SwitchedExamples)
    in_order = found[:]
    again.set_epoch(3)
    assert again[7] != again.plain[7] or again[8] != again.plain[8]
    again.set_epoch(0)
    assert [again[i] for i in reversed(range(40))] == in_order[::-1], "whatever was drawn before, and in any order"
    assert other[:] != in_order


def test_development_views_have_words_that_training_has_not(tmp_path: Path, lexicon: list[list[str]]) -> None:
    held_out = set(part_of(LEXICON, held_out=True).translations["CYRILLIC"]["planet"])
    assert 0 < len(held_out) < len(FOREIGN)
    run = run_of(tmp_path, 60)
    foreign = {}
    for purpose in (Purpose.PROBE, Purpose.DEVELOPMENT):
        found = run.probe_rows(run.rows.train, purpose)
        assert found.labels == [row.label for row in run.rows.train] * 3
        texts = [text_of(run.model, example) for example in found.examples]
        assert not any(map(is_switched, texts[:60]))
        assert sum(map(is_switched, texts[60:])) > 80
        draw = run.views.drawn(purpose, 1.0)
        views = [draw(row.fields, 9, number)["text"] for number, row in enumerate(run.rows.train)]
        foreign[purpose] = {word for view in views for word in view.replace(".", "").split() if is_switched(word)}
    assert foreign[Purpose.DEVELOPMENT] <= held_out
    assert not foreign[Purpose.PROBE] & held_out


@pytest.mark.parametrize("step", [2, 4])
def test_an_interrupted_run_with_views_ends_in_the_same_weights(
    tmp_path: Path, lexicon: list[list[str]], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    own = {key: SWITCHED[key] for key in ("augmentation", "encoder")}
    recipe = small_recipe(write_task(tmp_path / "data", num_train=12), **own)
    whole = train_run(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(training, "Schedule", InterruptAt)
        patch.setattr(InterruptAt, "step", step)
        with pytest.raises(TrainingInterruptedError):
            train_run(recipe, tmp_path / "parts")
    parts = train_run(recipe, tmp_path / "parts")
    assert hash_module(whole.fusion) == hash_module(parts.fusion)


def test_a_run_with_views_and_probe(tmp_path: Path, lexicon: list[list[str]]) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"), **SWITCHED)
    model = train_run(recipe, tmp_path / "run")
    assert model is not None
    assert model.probe is not None
    record = json.loads((tmp_path / "run" / "training.json").read_text("utf8"))
    assert record["num_steps"] == 12  # two epochs of 24 rows in batches of 4
    chosen = record["probe"]
    assert chosen["both"]["development_loss"] <= chosen["lm"]["development_loss"] + 1e-6
    report = measure_run(tmp_path / "run", recipe)
    assert {result.language for result in report.results} == {"eng_Latn", "sin_Sinh"}
    again = FusedLM.from_pretrained(tmp_path / "run")
    texts = ["The team won the game.", "A new planet."]
    assert [a.log_probabilities for a in again.classify(texts)] == [
        pytest.approx(b.log_probabilities, abs=1e-5) for b in model.classify(texts)
    ]
    same = train_run(recipe, tmp_path / "same")
    assert same is not None
    weights = same.fusion.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.fusion.state_dict().items())
    assert model.with_labels(["x", "y"]).probe is None
    turned = model.with_labels(model.labels[::-1])
    assert turned.probe is not None
    assert torch.equal(turned.probe.weights, model.probe.weights.flip(0))
    assert model.with_labels(None, "Which topic?").probe is model.probe
    model.probe = replace(model.probe, landmarks=model.probe.landmarks[:, :-1])
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"features of '\{text\}' in .*train again"):
        FusedLM.from_pretrained(tmp_path / "other")


def test_unlabelled_text_is_chosen_by_views_too(
    tmp_path: Path, lexicon: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[PreparedExample] = []
    train = training.train

    def watched(model: FusedLM, examples: Any, dev: Any, *arguments: Any, **options: Any) -> Any:
        seen.extend(dev.examples)
        return train(model, examples, dev, *arguments, **options)

    monkeypatch.setattr(training, "train", watched)
    own = {key: SWITCHED[key] for key in ("augmentation", "encoder")}
    recipe = small_recipe(write_task(tmp_path / "data"), **own)
    recipe = replace(recipe, objective="reconstruction")
    model = train_run(recipe, tmp_path / "run")
    assert model is not None
    assert model.probe is None
    texts = [text_of(model, example) for example in seen]
    assert len(texts) == 16  # the eight rows and a view of each
    assert not any(map(is_switched, texts[:8]))
    assert sum(map(is_switched, texts[8:])) > 3
    assert json.loads((tmp_path / "run" / "training.json").read_text("utf8"))["num_steps"] == 12


def test_a_lexicon_of_english_words_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    synonyms = Lexicon({"LATIN": {"said": ("told",)}}, {"LATIN": 1.0}, 1.0)
    monkeypatch.setattr(augmentation, "read_vocabulary", lambda *_: None)
    monkeypatch.setattr(augmentation, "read_lexicon", lambda *_: synonyms)
    with pytest.raises(
        ConfigError, match=r"in LATIN\. .*XLMRobertaModel, with .*Set augmentation\.code_switching to 0"
    ):
        augmentation.lexicon_for(tiny_model(), ["said"])
    with pytest.raises(ConfigError, match=r"left to right, .*pooling 'lasttoken'.*encoder\.pooling to the pooling"):
        augmentation.lexicon_for(tiny_model("qwen3-embedding"), ["said"])


def test_without_epochs_there_are_still_texts_to_centre_on(tmp_path: Path, lexicon: list[list[str]]) -> None:
    own = {key: SWITCHED[key] for key in ("augmentation", "encoder")}
    fusion = {"mixer": "mean", "mixer_options": {}, "centre": True, "warm_start": "none"}
    recipe = small_recipe(write_task(tmp_path / "data"), fusion=fusion, training={"epochs": 0}, **own)
    model = train_run(recipe, tmp_path / "run")
    assert model is not None
    assert model.fusion.centring.mean.abs().max() > 0


def test_a_probe_needs_labels(tmp_path: Path) -> None:
    recipe = replace(small_recipe(write_task(tmp_path / "data"), probe={"kind": "kernel"}), objective="reconstruction")
    with pytest.raises(ConfigError, match=r"probe\.kind none with the objective 'reconstruction'"):
        train_run(recipe, tmp_path / "run")


@pytest.mark.parametrize("prompt", [{"include_text": True}, {"include_span": False}])
def test_a_probe_needs_an_lm_that_reads_the_span_alone(tmp_path: Path, prompt: dict[str, bool]) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"), probe={"kind": "kernel"}, prompt=prompt)
    with pytest.raises(ConfigError, match=r"probe\.kind none where the LM reads the text"):
        train_run(recipe, tmp_path / "run")


def test_a_probe_needs_labels_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "load_backbones", lambda recipe: pytest.fail("loaded"))
    recipe = small_recipe(write_task(tmp_path / "data"), probe={"kind": "kernel"}, task={"label_column": None})
    with pytest.raises(ConfigError, match="fewer than two labels"):
        train_run(recipe, tmp_path / "run")


def test_many_probe_rows_are_sampled_from_all_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, 60, augmentation={"code_switching": 0})
    rows = run.rows.train
    assert [row.label for row in rows[::2]] == [rows[0].label] * 30  # labels take turns in the file
    monkeypatch.setattr(run_module, "_MOST_PROBE_ROWS", 30)
    found = run.probe_rows(rows, Purpose.PROBE)
    assert len(found.labels) == 30
    assert 8 <= found.labels.count("science") <= 22


def test_baseline_and_default_differ_in_layers_alone() -> None:
    recipes = ROOT / "recipes"
    default, last = load_recipe(recipes / "default.yaml"), load_recipe(recipes / "default-last.yaml")
    assert default.fusion.layers != [11]
    start = replace(default.general, from_run=last.general.from_run)  # which has its layers too
    assert replace(default, fusion=replace(default.fusion, layers=[11]), general=start) == last
