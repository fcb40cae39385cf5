"""The baseline that a user would try first: sentence embeddings of the encoder and logistic regression.

States of the last layer, pooled as the encoder was trained to (the mean for the e5 family: Wang et al. 2024, arXiv
2402.05672) and scaled to length one; scikit-learn's logistic regression, whose inverse
regularisation is chosen by English development accuracy. No LM takes part.

Shapes: D width of the embeddings, N examples, K labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as arrays_to_bytes

from glotfuse.backbones import Encoder
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.files import to_json, write_files
from glotfuse.inputs.batch import PreparedExample
from glotfuse.inputs.reader import InputReader
from glotfuse.model.checkpoint import check_byte_fallback
from glotfuse.model.classification import Classification
from glotfuse.model.sentence_embeddings import embedding_as, of_all_labels, sentence_embeddings
from glotfuse.run_folder import EMBEDDING_CONFIG, EMBEDDING_WEIGHTS

INVERSE_REGULARISATIONS = (0.1, 1.0, 10.0, 100.0)
"""Values of scikit-learn's C that development accuracy chooses from; the smallest of equals is taken."""
_MAX_ITERATIONS = 2000
_ABSENT = -1e9
"""Bias of labels that training lacked, which can never win."""


@dataclass
class EmbeddingClassifier:
    """Sentence embeddings and a linear classifier; labels like a model, so that it can be measured like one.

    Attributes:
        encoder: The frozen encoder.
        reader: Template and length limit of its input.
        labels: (K,) label words.
        weights: (K,D), of the classifier.
        bias: (K,).
        settings: What the report names it by, as plain values.
    """

    encoder: Encoder
    reader: InputReader
    labels: tuple[str, ...]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    settings: Mapping[str, Any]

    def prepare(self, texts: Sequence[str | Mapping[str, str]], language: str | None = None) -> list[PreparedExample]:
        """Checks and tokenizes inputs of one language."""
        rows = [self.reader.fields(text) for text in texts]
        return [PreparedExample(ids, truncated=cut) for ids, cut in self.reader.read(rows, language)]

    def classify_prepared(self, examples: Sequence[PreparedExample], batch_size: int = 32) -> list[Classification]:
        """The most probable label of each input, with the probabilities of all."""
        scores = embed(self.encoder, [e.encoder_ids for e in examples], batch_size) @ self.weights.T + self.bias
        log_probabilities = torch.log_softmax(torch.from_numpy(scores), dim=-1).tolist()
        return [
            Classification.of(self.labels, row, example.truncated)
            for row, example in zip(log_probabilities, examples, strict=True)
        ]


def embed(encoder: Encoder, ids: Sequence[list[int]], batch_size: int = 32) -> NDArray[np.float64]:
    """Sentence embeddings of N inputs for scikit-learn, (N,D), each of length one."""
    return sentence_embeddings(encoder, ids, batch_size).double().numpy()


def fit(
    encoder: Encoder,
    reader: InputReader,
    labels: Sequence[str],
    train: tuple[Sequence[Mapping[str, str]], Sequence[str]],
    dev: tuple[Sequence[Mapping[str, str]], Sequence[str]] | None,
    *,
    language: str | None = None,
    seed: int = 0,
) -> tuple[EmbeddingClassifier, dict[str, Any]]:
    """Trains the classifier on English rows.

    Args:
        encoder: The frozen encoder.
        reader: Template and length limit.
        labels: (K,) label words.
        train: Fields and label words of the training rows.
        dev: Those of the development rows, which choose the regularisation; None takes 10, as is usual.
        language: Of all these rows.
        seed: Of the solver.

    Returns:
        The classifier, and what was chosen.

    Raises:
        ConfigError: Training rows have fewer than two labels.
    """
    from sklearn.linear_model import LogisticRegression

    index = {label: number for number, label in enumerate(labels)}
    gold = np.array([index[label] for label in train[1]])
    if len(set(gold.tolist())) < 2:
        raise ConfigError(f"Expected training rows with at least two labels; found {sorted(set(train[1]))}.")
    features = embed(encoder, [ids for ids, _ in reader.read(train[0], language)])
    candidates = INVERSE_REGULARISATIONS if dev else (10.0,)
    dev_features = embed(encoder, [ids for ids, _ in reader.read(dev[0], language)]) if dev else None
    chosen: tuple[float, float, Any] | None = None
    for value in candidates:
        model = LogisticRegression(C=value, max_iter=_MAX_ITERATIONS, random_state=seed).fit(features, gold)
        accuracy = float(model.score(dev_features, [index[label] for label in dev[1]])) if dev else 0.0
        if chosen is None or accuracy > chosen[1]:
            chosen = value, accuracy, model
    assert chosen is not None
    value, accuracy, model = chosen
    weights, bias = of_all_labels(model, len(labels), _ABSENT)
    settings = {"fusion": {"mixer": "embedding", "mixer_options": {"C": value}}}
    classifier = EmbeddingClassifier(encoder, reader, tuple(labels), weights, bias, settings)
    return classifier, {"C": value, "development_accuracy": accuracy if dev else None}


def save(model: EmbeddingClassifier, folder: Path, others: Mapping[str, bytes]) -> None:
    """Writes weights and config, and other files with them."""
    weights = arrays_to_bytes({"weights": model.weights, "bias": model.bias})
    values = {
        "encoder": {**model.encoder.identity.to_dict(), "byte_fallback": model.encoder.byte_fallback},
        "pooling": model.encoder.pooling.to_dict(),
        "labels": list(model.labels),
        "settings": dict(model.settings),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    write_files(folder, {EMBEDDING_WEIGHTS: weights, EMBEDDING_CONFIG: to_json(values), **others})


def load(folder: Path, encoder: Encoder, reader: InputReader) -> tuple[EmbeddingClassifier, str]:
    """Reads a saved classifier for an encoder, and the hash of its weights.

    Raises:
        CheckpointError: It is missing, damaged, or belongs to another encoder or to other embeddings of it.
    """
    try:
        config = json.loads((folder / EMBEDDING_CONFIG).read_text("utf8"))
        content = (folder / EMBEDDING_WEIGHTS).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != config["weights_sha256"] or config["encoder"]["sha256"] != encoder.identity.sha256:
            raise ValueError("weights or encoder are not those that it records")
        arrays = load_arrays(content)
        labels, settings = tuple(config["labels"]), config["settings"]
        pooling = config.get("pooling")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"Expected a saved embedding classifier in {folder}; found: {error}.") from None
    check_byte_fallback(encoder, config["encoder"].get("byte_fallback", False), folder)
    encoder = embedding_as(encoder, pooling, f"the classifier in {folder}")
    return EmbeddingClassifier(encoder, reader, labels, arrays["weights"], arrays["bias"], settings), found
