"""The baselines: the LM on the text itself, and sentence embeddings with logistic regression."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from glotfuse.api import FusedLM
from glotfuse.backbones import BackboneOptions, load_encoder
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.inputs.reader import InputReader
from glotfuse.model.assembly import build_model
from glotfuse.recipes.config import FusionConfig, PromptConfig, Recipe
from glotfuse.recipes.loading import load_recipe
from glotfuse.run_folder import EMBEDDING_CONFIG, EMBEDDING_WEIGHTS, RECORD
from glotfuse.runs.backbones import load_backbones
from glotfuse.runs.measuring import measure_run
from glotfuse.runs.train import train_run
from glotfuse.training import baseline as embedding
from paths import ROOT
from small_runs import small_recipe, write_task
from tiny import byte_encoder_folder, encoder_folder

RECIPES = ROOT / "recipes" / "baselines"
TEXTS = ["The team won the match.", "විද්‍යාව ගැන පොතක්"]


def text_model(boundary: str) -> FusedLM:
    encoder, lm = load_backbones(small_recipe(Path("unused")))
    torch.manual_seed(0)
    return build_model(
        FusedLM,
        encoder,
        lm,
        fusion=FusionConfig(boundary=boundary),
        prompt=PromptConfig(include_span=False),
        max_length=32,
        template="{text}",
        cut_column="text",
        instruction="Which topic?",
        labels=["sports", "science"],
    ).eval()


def test_without_span_and_boundary_the_lm_scores_the_plain_prompt() -> None:
    model = text_model("none")
    assert not list(model.fusion.parameters())
    for text, found in zip(TEXTS, model.classify(TEXTS), strict=True):
        prompt = model.prompt
        before = [*prompt.head_ids, *prompt.text_ids(text), *prompt.tail_ids]
        scores = []
        for answer in model.label_ids:
            logits = model.lm.model(input_ids=torch.tensor([[*before, *answer]])).logits[0].log_softmax(-1)
            scores.append(sum(float(logits[len(before) - 1 + i, token]) for i, token in enumerate(answer)))
        expected = torch.tensor(scores).softmax(0).tolist()
        assert list(found.probabilities.values()) == pytest.approx(expected, abs=1e-4)


def test_the_boundary_is_all_that_is_trained_and_it_is_read() -> None:
    model = text_model("zeros")
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["fusion.boundary"]
    before = model.classify(TEXTS)
    with torch.no_grad():
        model.fusion.boundary.add_(torch.randn_like(model.fusion.boundary))
    assert model.classify(TEXTS) != before


def test_the_encoder_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = text_model("zeros")
    monkeypatch.setattr(model.encoder.model, "forward", None)
    assert len(model.classify(TEXTS)) == 2


def text_recipe(folder: Path, boundary: str, epochs: int) -> Recipe:
    fusion = {"boundary": boundary, "warm_start": "align"}
    recipe = small_recipe(write_task(folder / "data"), fusion=fusion, training={"epochs": epochs})
    return replace(recipe, prompt=PromptConfig(include_span=False))


@pytest.mark.parametrize(("boundary", "epochs", "steps"), [("zeros", 1, 6), ("none", 0, 0)])
def test_text_runs_train_save_and_load(tmp_path: Path, boundary: str, epochs: int, steps: int) -> None:
    recipe = text_recipe(tmp_path, boundary, epochs)
    model = train_run(recipe, tmp_path / "run")
    assert model is not None
    record = json.loads((tmp_path / "run" / RECORD).read_text("utf8"))
    assert record["num_steps"] == steps
    assert record["warm_start"] is None
    loaded = FusedLM.from_pretrained(tmp_path / "run", device="cpu")
    assert loaded.classify(TEXTS) == model.classify(TEXTS)
    assert len(measure_run(tmp_path / "run", recipe).results) == 2


def test_a_span_without_boundary_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "no data", fusion={"boundary": "none"})
    with pytest.raises(ConfigError, match="include_span"):
        train_run(recipe, tmp_path / "run")


def clusters(num_rows: int) -> tuple[list[dict[str, str]], list[str]]:
    labels = [("a", "b", "c")[i % 3] for i in range(num_rows)]
    words = {"a": "game team match", "b": "planet star science", "c": "bank money trade"}
    return [{"text": f"{words[label]} {i}"} for i, label in enumerate(labels)], labels


def classifier() -> tuple[embedding.EmbeddingClassifier, dict[str, object]]:
    encoder = load_encoder(encoder_folder("xlm-r"), BackboneOptions(device="cpu"), prefix="query: ")
    return embedding.fit(encoder, InputReader(encoder, max_length=32), ["a", "b", "c", "d"], clusters(30), clusters(9))


def test_embeddings_are_mean_pooled_states_of_length_one() -> None:
    encoder = load_encoder(encoder_folder("xlm-r"), BackboneOptions(device="cpu"))
    ids = encoder.tokenize(["one", "a longer text of several words"])
    found = embedding.embed(encoder, ids)
    for row, one in zip(found, ids, strict=True):
        states = encoder.model(input_ids=torch.tensor([one])).last_hidden_state[0].double().mean(0)
        np.testing.assert_allclose(row, (states / states.norm()).detach().numpy(), atol=1e-5)


def test_the_classifier_equals_scikit_learn_and_never_says_a_label_without_examples() -> None:
    from sklearn.linear_model import LogisticRegression

    found, chosen = classifier()
    rows, labels = clusters(30)
    ids = [e.encoder_ids for e in found.prepare([row["text"] for row in rows])]
    features = embedding.embed(found.encoder, ids)
    expected = LogisticRegression(C=chosen["C"], max_iter=2000).fit(features, labels)
    results = found.classify_prepared(found.prepare([row["text"] for row in rows]))
    for result, probabilities in zip(results, expected.predict_proba(features), strict=True):
        assert list(result.probabilities.values())[:3] == pytest.approx(probabilities.tolist(), abs=1e-4)
        assert result.probabilities["d"] < 1e-9
    assert sum(r.label == label for r, label in zip(results, labels, strict=True)) >= 28


def test_it_is_saved_without_pickle_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    found, _ = classifier()
    embedding.save(found, tmp_path, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [EMBEDDING_CONFIG, EMBEDDING_WEIGHTS]
    again, _ = embedding.load(tmp_path, found.encoder, found.reader)
    texts = found.prepare(TEXTS)
    assert again.classify_prepared(texts) == found.classify_prepared(texts)
    other = load_encoder(encoder_folder("bert"), BackboneOptions(device="cpu"))
    with pytest.raises(CheckpointError, match="not those that it records"):
        embedding.load(tmp_path, other, found.reader)
    (tmp_path / EMBEDDING_WEIGHTS).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="not those that it records"):
        embedding.load(tmp_path, found.encoder, found.reader)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_baseline_recipes_load(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.task.name == "sib200"
    assert recipe.prompt.include_span == (not path.stem.startswith("text_"))


@pytest.mark.parametrize("trained_with", [True, False])
def test_the_baseline_is_measured_with_the_ids_that_it_was_trained_with(tmp_path: Path, trained_with: bool) -> None:
    encoders = {
        wanted: load_encoder(byte_encoder_folder(), BackboneOptions(device="cpu"), byte_fallback=wanted)
        for wanted in (True, False)
    }
    own = encoders[trained_with]
    reader = InputReader(own, max_length=32)
    found, _ = embedding.fit(own, reader, ["a", "b", "c"], clusters(30), None)
    embedding.save(found, tmp_path, {})
    embedding.load(tmp_path, own, reader)
    with pytest.raises(CheckpointError, match="Expected an encoder with byte_fallback"):
        embedding.load(tmp_path, encoders[not trained_with], reader)
