"""Labels of texts: what the LM says of each label word, together with the probe where there is one.

Shapes: B batch, C columns of a text, E width of sentence embeddings, R label words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.errors import PromptError
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.inputs.order import inference_batches
from glotfuse.model.fused_model import FusedModel
from glotfuse.model.scoring import score_labels
from glotfuse.model.sentence_embeddings import column_embeddings


@dataclass(frozen=True)
class Classification:
    """A text's label."""

    label: str
    """The most probable label word."""
    probabilities: dict[str, float]
    """Probability of every label word, normalised over the label words."""
    log_probabilities: dict[str, float]
    """Logarithms of the same."""
    truncated: bool
    """Whether the text was cut to the length limit."""

    @classmethod
    def of(cls, labels: Sequence[str], log_probabilities: Sequence[float], truncated: bool) -> Classification:
        """Makes it from R label words and their normalised log-probabilities."""
        by_label = dict(zip(labels, log_probabilities, strict=True))
        probabilities = {label: math.exp(value) for label, value in by_label.items()}
        return cls(max(by_label, key=by_label.__getitem__), probabilities, by_label, truncated)


def with_probe(model: FusedModel, scores: Tensor, embeddings: Tensor | None) -> Tensor:
    """Log-probabilities (B,R), normalised over the label words, of the LM and the probe together.

    Args:
        model: Whose probe it is, if it has one.
        scores: (B,R), the LM's.
        embeddings: (B,C,E), of the texts' C columns; None without a probe.
    """
    normalised = torch.log_softmax(scores, dim=-1)
    if model.probe is None or embeddings is None:
        return normalised
    return model.probe.together(normalised, model.probe.log_probabilities(embeddings))


def embed_for_probe(model: FusedModel, examples: Sequence[PreparedExample]) -> Tensor | None:
    """Sentence embeddings (B,C,E) of the examples' columns, where the model has a probe that reads them."""
    return None if model.probe is None else column_embeddings(model.encoder, examples)


def _score_and_embed(model: FusedModel, examples: Sequence[PreparedExample]) -> tuple[Tensor, Tensor | None]:
    """The LM's scores (B,R), and embeddings (B,C,E) for the probe, if any; if C is 1, of the encoder's same pass."""
    batch = collate(examples, model.encoder.pad_token_id)
    if model.probe is None or model.state_cache is not None or any(example.column_ids for example in examples):
        return score_labels(model, batch), embed_for_probe(model, examples)
    with model.encoder.watching_last_layer() as seen:
        scores = score_labels(model, batch)
    if len(seen) != 1:  # an encoder whose last layer cannot be watched
        return scores, embed_for_probe(model, examples)
    encoder = model.encoder
    embeddings = encoder.pooling(seen[0], batch.encoder_mask, encoder.num_prefix_tokens)
    return scores, F.normalize(embeddings, dim=-1).unsqueeze(1)


def classify(model: FusedModel, examples: Sequence[PreparedExample], batch_size: int) -> list[Classification]:
    """Labels prepared examples; batches hold texts of similar length, results keep the given order.

    Raises:
        PromptError: The model has no labels.
    """
    if not model.labels:
        raise PromptError("Expected a model with labels; found one trained without. Use generate instead.")
    lengths = [len(example.encoder_ids) + len(example.text_ids) for example in examples]
    results: dict[int, Classification] = {}
    with model.answering():
        for chosen in inference_batches(lengths, batch_size, model.device):
            chunk = [examples[i] for i in chosen]
            log_probabilities = with_probe(model, *_score_and_embed(model, chunk)).tolist()
            for index, row in zip(chosen, log_probabilities, strict=True):
                results[index] = Classification.of(model.labels, row, examples[index].truncated)
    return [results[i] for i in range(len(examples))]
