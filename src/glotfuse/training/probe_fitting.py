"""Trains the probe of a model on English rows and their views; see `glotfuse.model.probe`.

Shapes: N rows, D encoder width, M landmarks, K labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from glotfuse import distributed
from glotfuse.errors import ConfigError
from glotfuse.inputs.batch import PreparedExample
from glotfuse.model.classification import classify
from glotfuse.model.fused_model import FusedModel
from glotfuse.model.probe import Probe, features_of
from glotfuse.model.sentence_embeddings import column_embeddings, of_all_labels
from glotfuse.training.data_parallel import spread

GAMMAS = (0.5, 1.0)
"""Inverse squared widths of the kernel that the development loss chooses from; the last without development rows."""
INVERSE_REGULARISATIONS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Values of scikit-learn's C that it chooses from; 10 without."""
SHARES = tuple(i / 10 for i in range(16))
"""Factors that the development loss chooses from, for the LM and for the probe."""
_MAX_ITERATIONS = 1000
_LANDMARKS = 1000
_LEAST_EIGENVALUE = 1e-6
_ABSENT = -30.0
"""Bias of labels that training lacked: they can hardly win, and the LM may still choose them."""


_CLEARLY = 0.1
"""By what part the development loss without views has to be lower for views to be left out."""


@dataclass(frozen=True)
class ProbeRows:
    """English rows for the probe."""

    examples: Sequence[PreparedExample]
    """N rows in token ids, without answers."""
    labels: Sequence[str]
    """Their label words."""
    num_views: int = 0
    """How many of them, the last, are code-switched views of the others."""


def fit_probe(model: FusedModel, train: ProbeRows, dev: ProbeRows | None, *, seed: int) -> tuple[Probe, dict[str, Any]]:
    """Fits the kernel classifier; how much it counts beside the LM is chosen afterwards, by `weigh`.

    Args:
        model: Whose encoder makes the embeddings and whose labels are learned.
        train: Training rows and views of them.
        dev: Rows that choose regularisation, kernel width, and whether views are learned from, which they are unless
            the rest is clearly better without; None takes the views.
        seed: Of the landmarks' choice.

    Returns:
        The probe, counting as much as the LM, and what was chosen.

    Raises:
        ConfigError: Training rows have fewer than two labels.
    """
    if len(set(train.labels)) < 2:
        raise ConfigError(f"Expected training rows with at least two labels; found {sorted(set(train.labels))}.")
    embeddings = _embed(model, train)
    dev_part = (_embed(model, dev), _gold(model, dev.labels)) if dev else None
    gold, num_rows = _gold(model, train.labels), len(train.labels) - train.num_views
    numbers = sorted({num_rows, len(train.labels)}) if dev else [len(train.labels)]
    gammas, regularisations = (GAMMAS, INVERSE_REGULARISATIONS) if dev else (GAMMAS[-1:], (10.0,))

    def candidates() -> Iterator[tuple[Probe, dict[str, Any]]]:
        for number in numbers:
            part = embeddings[:number], gold[:number]
            for probe, chosen in _fit(*part, len(model.labels), gammas, regularisations, seed):
                loss = _loss(probe.log_probabilities(dev_part[0]), dev_part[1]) if dev_part else None
                yield probe, {**chosen, "views": number - num_rows, "development_loss": loss}

    return distributed.once(lambda: _best(list(candidates())))


def _best(candidates: Sequence[tuple[Probe, dict[str, Any]]]) -> tuple[Probe, dict[str, Any]]:
    """The candidate with the lowest development loss; one without views has to be clearly better than all with them.

    English alone is a poor judge of what helps in other languages, so it decides only where it is sure.
    """

    def handicapped(found: tuple[Probe, dict[str, Any]]) -> float:
        loss = found[1]["development_loss"] or 0.0
        return loss if found[1]["views"] else loss * (1.0 + _CLEARLY)

    return min(candidates, key=handicapped)


def _fit(
    embeddings: Tensor,
    gold: Tensor,
    num_labels: int,
    gammas: Sequence[float],
    regularisations: Sequence[float],
    seed: int,
) -> Iterator[tuple[Probe, dict[str, Any]]]:
    """A probe for each width and regularisation, from embeddings (N,C,D) and numbers of labels (N,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics.pairwise import rbf_kernel

    centre = embeddings.flatten(0, 1).mean(0)
    compared = features_of(embeddings, centre).double().numpy()
    landmarks = _landmarks(compared, seed)
    for gamma in gammas:
        normalisation = _inverse_root(rbf_kernel(landmarks, gamma=gamma))
        features = rbf_kernel(compared, landmarks, gamma=gamma) @ normalisation
        base = {
            "centre": centre,
            "landmarks": _tensor(landmarks),
            "normalisation": _tensor(normalisation),
            "gamma": torch.tensor(gamma),
            "shares": torch.tensor([1.0, 1.0]),
        }
        for value in regularisations:
            classifier = LogisticRegression(C=value, max_iter=_MAX_ITERATIONS).fit(features, gold.numpy())
            weights, bias = of_all_labels(classifier, num_labels, _ABSENT)
            yield Probe(**base, weights=_tensor(weights), bias=_tensor(bias)), {"C": value, "gamma": gamma}


def weigh(model: FusedModel, probe: Probe, dev: ProbeRows, batch_size: int = 32) -> tuple[Probe, dict[str, Any]]:
    """Chooses how much the LM and the probe count, by the loss of both together on development rows.

    Args:
        model: The trained model, without a probe.
        probe: The fitted probe.
        dev: English rows, and views of them, that neither was trained on.
        batch_size: Rows per forward pass.

    Returns:
        The probe with its shares, and the figures: accuracy and loss of each alone and of both.
    """
    alone = spread(model, dev.examples, lambda part: classify(model, part, batch_size))
    lm = torch.tensor([[found.log_probabilities[label] for label in model.labels] for found in alone])
    own = probe.log_probabilities(_embed(model, dev))
    gold = _gold(model, dev.labels)
    return distributed.once(lambda: _choose_shares(probe, lm, own, gold))


def _choose_shares(probe: Probe, lm: Tensor, own: Tensor, gold: Tensor) -> tuple[Probe, dict[str, Any]]:
    """Chooses the shares by log-probabilities (N,K) of the LM and the probe and the gold labels' numbers (N,)."""
    pairs = [(a, b) for a in SHARES for b in SHARES if a + b > 0]
    chosen = min(pairs, key=lambda pair: _loss(torch.log_softmax(pair[0] * lm + pair[1] * own, -1), gold))
    weighed = replace(probe, shares=torch.tensor(chosen))
    both = weighed.together(lm, own)
    figures: dict[str, Any] = {"shares": list(chosen)}
    for name, scores in (("lm", lm), ("probe", own), ("both", both)):
        accuracy = float((scores.argmax(1) == gold).float().mean())
        figures[name] = {"development_loss": _loss(scores, gold), "development_accuracy": accuracy}
    return weighed, figures


def _landmarks(compared: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """At most 1,000 of the features (N,F), chosen by a seed: (M,F), each once."""
    _, first = np.unique(compared.astype(np.float32).round(4), axis=0, return_index=True)
    chosen = np.random.RandomState(seed).permutation(np.sort(first))[:_LANDMARKS]
    landmarks: NDArray[np.float64] = compared[chosen]
    return landmarks


def _inverse_root(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse square root of a kernel matrix (M,M), where it has any size.

    What is left out would magnify the rounding of single precision: landmarks that are nearly equal differ in it alone.
    """
    values, vectors = np.linalg.eigh(kernel)
    values, vectors = values[values > _LEAST_EIGENVALUE], vectors[:, values > _LEAST_EIGENVALUE]
    root: NDArray[np.float64] = (vectors / np.sqrt(values)) @ vectors.T
    return root


def _embed(model: FusedModel, rows: ProbeRows) -> Tensor:
    """Embeddings (N,C,D) of the rows, of which every process makes its share."""

    def embed(examples: Sequence[PreparedExample]) -> list[Tensor]:
        return list(column_embeddings(model.encoder, examples)) if examples else []

    return torch.stack(distributed.spread(rows.examples, embed))


def _gold(model: FusedModel, labels: Sequence[str]) -> Tensor:
    return torch.tensor([model.labels.index(label) for label in labels])


def _loss(log_probabilities: Tensor, gold: Tensor) -> float:
    return float(F.nll_loss(log_probabilities, gold))


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
