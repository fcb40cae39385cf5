"""The probe: a kernel classifier of sentence embeddings beside the LM."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression

from glotfuse import checkpoint, scoring
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.inputs import PreparedExample
from glotfuse.model import FusedLM
from glotfuse.probe import Probe
from glotfuse.probe_training import ProbeRows, fit_probe, weigh
from glotfuse.sentence_embeddings import sentence_embeddings
from tiny import TEXTS, tiny_model

LABELS = ("science", "politics", "sports")


@pytest.fixture(scope="module")
def rows() -> tuple[FusedLM, ProbeRows]:
    model = tiny_model(labels=LABELS)
    texts = [f"{text} {number}" for number in range(6) for text in TEXTS]
    ids = [example.encoder_ids for example in model.prepare(texts)]
    return model, ProbeRows(ids, [LABELS[number % 3] for number in range(len(ids))])


def test_probabilities_are_those_of_scikit_learn(rows: tuple[FusedLM, ProbeRows]) -> None:
    model, train = rows
    probe, chosen = fit_probe(model, train, None, seed=0)
    assert chosen == {"C": 10.0, "development_loss": None}
    embeddings = sentence_embeddings(model.encoder, train.ids)
    centred = torch.nn.functional.normalize(embeddings - embeddings.mean(0), dim=-1).numpy()
    kernel = Nystroem(gamma=1.0, n_components=len(centred), random_state=0).fit(centred)
    gold = [LABELS.index(label) for label in train.labels]
    reference = LogisticRegression(C=10.0, max_iter=1000).fit(kernel.transform(centred), gold)
    expected = reference.predict_log_proba(kernel.transform(centred))
    np.testing.assert_allclose(probe.log_probabilities(embeddings).numpy(), expected, atol=2e-3)


def test_embeddings_are_mean_pooled_and_of_length_one(rows: tuple[FusedLM, ProbeRows]) -> None:
    model, train = rows
    found = sentence_embeddings(model.encoder, train.ids[:5], batch_size=2)
    for ids, row in zip(train.ids[:5], found, strict=True):
        states = model.encoder(torch.tensor([ids]), None)[-1][0].float().mean(0)
        torch.testing.assert_close(row, states / states.norm(), atol=1e-5, rtol=1e-4)


def test_development_rows_choose_the_better_reader(rows: tuple[FusedLM, ProbeRows]) -> None:
    model, train = rows
    probe, _ = fit_probe(model, train, None, seed=0)
    right, figures = weigh(model, probe, train)  # the LM is random, the probe has learned these rows
    assert right.shares[1] > 0
    assert figures["both"]["development_loss"] <= min(figures[name]["development_loss"] for name in ("lm", "probe"))
    lm = [found.label for found in scoring.classify(model, [PreparedExample(ids) for ids in train.ids], 8)]
    trusted, figures = weigh(model, probe, ProbeRows(train.ids, lm))
    assert trusted.shares[0] > right.shares[0]
    assert figures["lm"]["development_accuracy"] == 1.0


def _with(model: FusedLM, probe: Probe | None) -> FusedLM:
    model.probe = probe
    return model


def test_labels_are_those_of_both_readers_together(rows: tuple[FusedLM, ProbeRows]) -> None:
    model, train = rows
    probe, _ = fit_probe(model, train, None, seed=0)
    examples = [PreparedExample(ids) for ids in train.ids]

    def scores(shares: tuple[float, float] | None) -> torch.Tensor:
        used = replace(probe, shares=torch.tensor(shares)) if shares else None
        try:
            found = _with(model, used).classify_prepared(examples, 4)
        finally:
            model.probe = None
        return torch.tensor([[row.log_probabilities[label] for label in LABELS] for row in found])

    alone, own = scores(None), probe.log_probabilities(sentence_embeddings(model.encoder, train.ids))
    torch.testing.assert_close(scores((1.0, 0.0)), alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores((0.0, 1.0)), own, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores((0.5, 0.7)), torch.log_softmax(0.5 * alone + 0.7 * own, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("watched", [True, False])
def test_the_encoder_runs_once_where_its_last_layer_can_be_watched(
    rows: tuple[FusedLM, ProbeRows], watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, train = rows
    probe, _ = fit_probe(model, train, None, seed=0)
    examples = [PreparedExample(ids) for ids in train.ids[:4]]
    expected = probe.log_probabilities(sentence_embeddings(model.encoder, train.ids[:4]))
    if not watched:
        monkeypatch.setattr(model.encoder, "_taps", None)
    passes = []
    handle = model.encoder.model.register_forward_hook(lambda *_: passes.append(1))
    try:
        found = _with(model, replace(probe, shares=torch.tensor([0.0, 1.0]))).classify_prepared(examples, 4)
    finally:
        handle.remove()
        model.probe = None
    assert len(passes) == (1 if watched else 2)
    scores = torch.tensor([[row.log_probabilities[label] for label in LABELS] for row in found])
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_keeps_the_probe(rows: tuple[FusedLM, ProbeRows], tmp_path: Path) -> None:
    train = rows[1]
    model = tiny_model(labels=LABELS)
    probe, _ = fit_probe(model, train, None, seed=0)
    path = tmp_path / "probe.safetensors"
    checkpoint.save(_with(model, probe), tmp_path)
    config = checkpoint.read_config(tmp_path)
    kept = checkpoint.read_probe(tmp_path, config)
    assert kept is not None
    assert all(torch.equal(a, kept.to_tensors()[name]) for name, a in probe.to_tensors().items())
    assert checkpoint.weights_identity(config) != config["weights_sha256"]
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match=r"probe\.safetensors"):
        checkpoint.read_probe(tmp_path, config)
    config = json.loads((tmp_path / checkpoint.CONFIG).read_text("utf8"))
    config.pop("probe_sha256")
    assert checkpoint.read_probe(tmp_path, config) is None


def test_one_label_is_refused(rows: tuple[FusedLM, ProbeRows]) -> None:
    model, train = rows
    with pytest.raises(ConfigError, match="at least two labels"):
        fit_probe(model, ProbeRows(train.ids, ["sports"] * len(train.ids)), None, seed=0)
