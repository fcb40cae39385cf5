"""What chooses a training's checkpoint: English development examples and their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from glotfuse import distributed
from glotfuse.inputs.batch import PreparedExample, training_inputs
from glotfuse.inputs.padding import IGNORED
from glotfuse.model.classification import classify
from glotfuse.model.fused_model import FusedModel
from glotfuse.training.data_parallel import is_sharded, spread


@dataclass(frozen=True)
class DevExamples:
    """What chooses the checkpoint: English only."""

    examples: Sequence[PreparedExample]
    """Prepared with their answers."""
    labels: Sequence[str]
    """Their label words; empty for unlabelled text."""


@torch.inference_mode()
def development_metrics(model: FusedModel, dev: DevExamples, batch_size: int) -> dict[str, float]:
    """`eval_loss` and, with labels, `eval_accuracy`.

    With labels the loss is the negative log-probability of the right label word among the label words, per example;
    without, that of the answer tokens, per token. Of several processes each takes a share of the examples.
    """
    if dev.labels:
        results = spread(model, dev.examples, lambda examples: classify(model, examples, batch_size))
        pairs = list(zip(results, dev.labels, strict=True))
        loss = -sum(result.log_probabilities[label] for result, label in pairs) / len(pairs)
        return {"eval_loss": loss, "eval_accuracy": sum(r.label == label for r, label in pairs) / len(pairs)}
    total, count = 0.0, 0
    own = dev.examples if is_sharded(model) else distributed.own_part(dev.examples)
    for start in range(0, len(own), batch_size):
        inputs = training_inputs(own[start : start + batch_size], model.encoder.pad_token_id)
        num_tokens = int((inputs["labels"] != IGNORED).sum())
        loss_now = model(**inputs)["loss"]
        total, count = total + float(loss_now) * num_tokens, count + num_tokens
    totals, counts = zip(*distributed.gather((total, count)), strict=True)
    return {"eval_loss": sum(totals) / sum(counts)}
