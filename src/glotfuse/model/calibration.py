"""Labels that were never trained, without the LM's liking for some of their words.

An LM that is asked for a label prefers some words whatever the text says. What it says on average of English sentences
about many topics is taken off (calibration with a known input: Zhao et al. 2021, arXiv 2102.09690; by the mean over a
batch: Zhou et al. 2024, arXiv 2309.17249). The sentences are 64 of the quickstart's, in the package, so no text of the
user's language is needed.

Shapes: R label words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch

from glotfuse.model.classification import Classification, classify
from glotfuse.model.fused_model import FusedModel
from glotfuse.tasks import get_task, sample

_SENTENCES, _SEED = 64, 0


@lru_cache(1)
def _english() -> tuple[str, ...]:
    task = get_task("quickstart")
    return tuple(row.fields["text"] for row in sample(task.load("train", "eng_Latn").examples, _SENTENCES, _SEED))


def label_prior(model: FusedModel, batch_size: int = 32) -> list[float]:
    """Logarithms of the mean probabilities (R,) of the model's label words over the English sentences."""
    examples = model.prepare([dict.fromkeys(model.reader.columns, text) for text in _english()])
    found = classify(model, examples, batch_size)
    table = torch.tensor([[answer.probabilities[label] for label in model.labels] for answer in found])
    return [math.log(max(mean, 1e-30)) for mean in table.double().mean(0).tolist()]


def calibrated(found: Sequence[Classification], labels: Sequence[str], prior: Sequence[float]) -> list[Classification]:
    """The same answers with the prior taken off, normalised again."""
    results = []
    for answer in found:
        scores = [answer.log_probabilities[label] - before for label, before in zip(labels, prior, strict=True)]
        total = math.log(sum(math.exp(score - max(scores)) for score in scores)) + max(scores)
        results.append(Classification.of(labels, [score - total for score in scores], answer.truncated))
    return results
