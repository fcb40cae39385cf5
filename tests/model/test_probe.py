"""The probe: a kernel classifier of sentence embeddings beside the LM."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel

from glotfuse.api import FusedLM
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.inputs.batch import prepare
from glotfuse.inputs.reader import InputReader
from glotfuse.model import checkpoint, classification
from glotfuse.model.probe import Probe, features_of
from glotfuse.model.sentence_embeddings import column_embeddings, sentence_embeddings
from glotfuse.model.state_cache import StateCache
from glotfuse.run_folder import CONFIG, read_config
from glotfuse.training import probe_fitting as probe_training
from glotfuse.training.probe_fitting import ProbeRows, fit_probe, weigh
from tiny import TEXTS, tiny_model

LABELS = ("science", "politics", "sports")


@pytest.fixture(scope="module")
def rows() -> tuple[FusedLM, ProbeRows]:
    model = tiny_model(labels=LABELS)
    texts = [f"{word} {text}" for word in ("law", "team", "planet", "vote", "goal", "star") for text in TEXTS]
    return model, ProbeRows(model.prepare(texts), [LABELS[number // len(TEXTS) % 3] for number in range(len(texts))])


def ids_of(rows: ProbeRows) -> list[list[int]]:
    return [example.encoder_ids for example in rows.examples]


def test_probabilities_are_those_of_scikit_learn(rows: tuple[FusedLM, ProbeRows]) -> None:
    model, train = rows
    probe, chosen = fit_probe(model, train, None, seed=0)
    assert chosen == {"C": 10.0, "gamma": 1.0, "views": 0, "development_loss": None}
    embeddings = sentence_embeddings(model.encoder, ids_of(train))
    centred = torch.nn.functional.normalize(embeddings - embeddings.mean(0), dim=-1).numpy()
    kernel = Nystroem(gamma=1.0, n_components=len(centred), random_state=0).fit(centred)
    gold = [LABELS.index(label) for label in train.labels]
    reference = LogisticRegression(C=10.0, max_iter=1000).fit(kernel.transform(centred), gold)
    expected = reference.predict_log_proba(kernel.transform(centred))
    assert expected.std() > 0.2, "a classifier that has learned something"
    np.testing.assert_allclose(probe.log_probabilities(embeddings.unsqueeze(1)).numpy(), expected, atol=2e-3)


def test_development_rows_choose_whether_views_are_learned_from(rows: tuple[FusedLM, ProbeRows]) -> None:
    model, train = rows
    wrong = [LABELS[(LABELS.index(label) + 1) % 3] for label in train.labels]
    misleading = ProbeRows([*train.examples] * 2, [*train.labels, *wrong], len(train.examples))
    _, without = fit_probe(model, misleading, train, seed=0)
    assert without["views"] == 0
    half = len(train.examples) // 2  # with the words that the others lack
    helpful = ProbeRows(train.examples, train.labels, len(train.examples) - half)
    _, chosen = fit_probe(model, helpful, train, seed=0)
    assert chosen["views"] == half


def test_rows_that_repeat_each_other_do_not_magnify_rounding(rows: tuple[FusedLM, ProbeRows]) -> None:
    """As views do in which no word was switched."""
    model, train = rows
    noise = 1e-7 * torch.randn(len(train.examples) * 6, model.encoder.hidden_size, generator=torch.manual_seed(0))
    probe, _ = fit_probe(model, ProbeRows(list(train.examples) * 6, list(train.labels) * 6), None, seed=0)
    assert len(probe.landmarks) == len(set(map(tuple, ids_of(train))))
    embeddings = sentence_embeddings(model.encoder, ids_of(train) * 6)
    exact, moved = (probe.log_probabilities(x.unsqueeze(1)) for x in (embeddings, embeddings + noise))
    torch.testing.assert_close(moved, exact, atol=1e-3, rtol=0)


def test_landmarks_that_are_nearly_equal_do_not_either() -> None:
    points = np.random.default_rng(0).normal(size=(20, 5))
    kernel = rbf_kernel(np.concatenate([points, points + 1e-5]), gamma=1.0)
    root = probe_training._inverse_root(kernel)
    assert np.abs(root).max() < 1e3
    np.testing.assert_allclose(root @ kernel @ root @ kernel, kernel, atol=1e-4)  # a pseudo-inverse


def test_two_columns_are_read_by_themselves_and_compared() -> None:
    model = tiny_model(labels=LABELS[:2])
    model.reader = InputReader(model.encoder, template="{a} / {b}", cut_column="a", max_length=100)
    same, other = ("The team won.", "A new planet."), ("Rain fell.", "A law was passed.")
    pairs = [{"a": a, "b": b} for a in (*same, *other) for b in (*same, *other)]
    labels = [LABELS[pair["a"] == pair["b"]] for pair in pairs]
    examples = prepare(model.reader, model.prompt, pairs, columns=True)
    assert [model.encoder.tokenize([pair["a"]])[0] for pair in pairs] == [e.column_ids[0] for e in examples]
    embeddings = column_embeddings(model.encoder, examples)
    assert embeddings.shape == (16, 2, model.encoder.hidden_size)
    centre = embeddings.flatten(0, 1).mean(0)
    for row, features in zip(embeddings, features_of(embeddings, centre), strict=True):
        a, b = ((column - centre) / (column - centre).norm() for column in row)
        whole = torch.cat([a, b, (a - b).abs(), model.encoder.hidden_size**0.5 * a * b])
        torch.testing.assert_close(features, whole / whole.norm())
    probe, _ = fit_probe(model, ProbeRows(examples, labels), None, seed=0)
    model.probe = replace(probe, shares=torch.tensor([0.0, 1.0]))
    assert [found.label for found in model.classify(pairs)] == labels


def test_embeddings_are_mean_pooled_and_of_length_one(rows: tuple[FusedLM, ProbeRows]) -> None:
    model, train = rows
    found = sentence_embeddings(model.encoder, ids_of(train)[:5], batch_size=2)
    for ids, row in zip(ids_of(train), found, strict=False):
        states = model.encoder(torch.tensor([ids]), None)[-1][0].float().mean(0)
        torch.testing.assert_close(row, states / states.norm(), atol=1e-5, rtol=1e-4)


def test_development_rows_choose_the_better_reader(rows: tuple[FusedLM, ProbeRows]) -> None:
    model, train = rows
    probe, _ = fit_probe(model, train, None, seed=0)
    right, figures = weigh(model, probe, train)  # the LM is random, the probe has learned these rows
    assert right.shares[1] > 0
    assert figures["both"]["development_loss"] <= min(figures[name]["development_loss"] for name in ("lm", "probe"))
    lm = [found.label for found in classification.classify(model, train.examples, 8)]
    trusted, figures = weigh(model, probe, ProbeRows(train.examples, lm))
    assert trusted.shares[0] > right.shares[0]
    assert figures["lm"]["development_accuracy"] == 1.0


def _with(model: FusedLM, probe: Probe | None) -> FusedLM:
    model.probe = probe
    return model


def test_labels_are_those_of_both_readers_together(rows: tuple[FusedLM, ProbeRows]) -> None:
    model, train = rows
    probe, _ = fit_probe(model, train, None, seed=0)

    def scores(shares: tuple[float, float] | None) -> torch.Tensor:
        used = replace(probe, shares=torch.tensor(shares)) if shares else None
        try:
            found = _with(model, used).classify_prepared(train.examples, 4)
        finally:
            model.probe = None
        return torch.tensor([[row.log_probabilities[label] for label in LABELS] for row in found])

    alone, own = scores(None), probe.log_probabilities(column_embeddings(model.encoder, train.examples))
    torch.testing.assert_close(scores((1.0, 0.0)), alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores((0.0, 1.0)), own, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores((0.5, 0.7)), torch.log_softmax(0.5 * alone + 0.7 * own, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("watched", [True, False])
def test_the_encoder_runs_once_where_its_last_layer_can_be_watched(
    rows: tuple[FusedLM, ProbeRows], watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, train = rows
    probe, _ = fit_probe(model, train, None, seed=0)
    examples = train.examples[:4]
    expected = probe.log_probabilities(column_embeddings(model.encoder, examples))
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


def test_states_that_were_kept_are_not_taken_for_a_pass_of_all_texts(
    rows: tuple[FusedLM, ProbeRows], tmp_path: Path
) -> None:
    model, train = rows
    probe, _ = fit_probe(model, train, None, seed=0)
    examples = train.examples[:5]
    model.probe = replace(probe, shares=torch.tensor([0.0, 1.0]))
    try:
        expected = [found.log_probabilities for found in model.classify_prepared(examples)]
        with StateCache(model.encoder, model.fusion.mixer.layers, tmp_path, 10**7) as cache:
            cache.make_room([example.encoder_ids for example in examples])
            with model.reading_states(cache):
                model.classify_prepared(examples[:3])
                found = [each.log_probabilities for each in model.classify_prepared(examples)]
    finally:
        model.probe = None
    assert found == [pytest.approx(row, abs=1e-4) for row in expected]


def test_a_checkpoint_keeps_the_probe(rows: tuple[FusedLM, ProbeRows], tmp_path: Path) -> None:
    train = rows[1]
    model = tiny_model(labels=LABELS)
    probe, _ = fit_probe(model, train, None, seed=0)
    path = tmp_path / "probe.safetensors"
    checkpoint.save(_with(model, probe), tmp_path)
    config = read_config(tmp_path)
    kept = checkpoint.read_probe(tmp_path, config)
    assert kept is not None
    assert all(torch.equal(a, kept.to_tensors()[name]) for name, a in probe.to_tensors().items())
    assert checkpoint.weights_identity(config) != config["weights_sha256"]
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match=r"probe\.safetensors"):
        checkpoint.read_probe(tmp_path, config)
    config = json.loads((tmp_path / CONFIG).read_text("utf8"))
    config.pop("probe_sha256")
    assert checkpoint.read_probe(tmp_path, config) is None


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("weights", lambda x: x[:, :-1], "weights of"),
        ("normalisation", lambda x: x[:-1], "normalisation of"),
        ("bias", lambda x: x.to(torch.int64), "bias of torch.int64"),
        ("gamma", lambda x: x.repeat(2), "gamma of"),
        ("landmarks", lambda x: x.flatten(), "landmarks of|normalisation of|weights of"),
    ],
)
def test_tensors_that_do_not_fit_are_no_probe(
    rows: tuple[FusedLM, ProbeRows], name: str, change: Callable[[torch.Tensor], torch.Tensor], message: str
) -> None:
    tensors = fit_probe(*rows, None, seed=0)[0].to_tensors()
    Probe.from_tensors(tensors)
    with pytest.raises(ValueError, match=message):
        Probe.from_tensors({**tensors, name: change(tensors[name]).contiguous()})


def test_one_label_is_refused(rows: tuple[FusedLM, ProbeRows]) -> None:
    model, train = rows
    with pytest.raises(ConfigError, match="at least two labels"):
        fit_probe(model, ProbeRows(train.examples, ["sports"] * len(train.examples)), None, seed=0)
