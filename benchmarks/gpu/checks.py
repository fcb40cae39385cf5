"""What is expected to agree, how far it is apart, and how far it may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from glotfuse.api import FusedLM
from glotfuse.inputs.batch import PreparedExample, collate, training_inputs
from glotfuse.model import scoring


@dataclass(frozen=True)
class Bounds:
    """How far a result may be from the one that it is compared with."""

    log_probability: float
    """Greatest difference of a label's log-probability, per token of the label, in nats."""
    logit: float
    """Greatest difference of a logit, in units of the logits' standard deviation."""
    gradient: float
    """Norm of the difference of a trained tensor's gradients, relative to the gradient's norm."""


BOUNDS = {
    torch.float32: Bounds(log_probability=1e-3, logit=1e-3, gradient=2e-3),
    torch.bfloat16: Bounds(log_probability=0.15, logit=0.2, gradient=0.25),
}
"""By the backbones' dtype; trained weights are in float32. On a CPU the real widths gave at most 0.05, 0.08 and 0.08 in
bfloat16."""


@dataclass(frozen=True)
class Check:
    """One comparison."""

    name: str
    """What was compared with what."""
    found: float
    """How far apart, or how often."""
    bound: float
    """At most so much."""

    @property
    def passed(self) -> bool:
        """Whether it is within the bound, which what is not a number never is."""
        return self.found <= self.bound

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class Outcome:
    """What a model makes of a batch, on the CPU in float32."""

    scores: Tensor
    """(B,R), log-probabilities of R labels."""
    logits: Tensor
    """(N,V), at the answers' positions."""
    gradients: Mapping[str, Tensor]
    """Of all trained weights."""


def outcome(model: FusedLM, examples: list[PreparedExample]) -> Outcome:
    """Label scores, logits, and the gradients of the training loss."""
    with model.answering():
        scores = scoring.score_labels(model, collate(examples, model.encoder.pad_token_id))
    model.fusion.zero_grad(set_to_none=True)
    found = model(**training_inputs(examples, model.encoder.pad_token_id))
    found["loss"].backward()
    gradients = {name: _plain(w.grad) for name, w in model.fusion.named_parameters() if w.grad is not None}
    return Outcome(_plain(scores), _plain(found["logits"]), gradients)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu()


def compare(name: str, found: Outcome, expected: Outcome, bounds: Bounds, label_lengths: list[int]) -> list[Check]:
    """Three checks: label scores, logits, and the gradient that differs most.

    Args:
        name: What is compared with what.
        found: What is judged.
        expected: What is taken as right.
        bounds: How far they may be apart.
        label_lengths: (R,), tokens of each label.
    """
    missing = set(expected.gradients) ^ set(found.gradients)
    if missing:
        raise ValueError(f"Expected gradients of the same trained weights; found {sorted(missing)} on one side only.")
    per_token = (found.scores - expected.scores).abs() / torch.tensor(label_lengths)
    logits = (found.logits - expected.logits).abs().max() / expected.logits.std()
    apart = {weights: _distance(found.gradients[weights], grad) for weights, grad in expected.gradients.items()}
    worst = max(apart, key=lambda weights: (apart[weights] != apart[weights], apart[weights]))
    return [
        Check(f"{name}: log-probability of a label, per token", float(per_token.max()), bounds.log_probability),
        Check(f"{name}: logits", float(logits), bounds.logit),
        Check(f"{name}: gradients, worst {worst}", apart[worst], bounds.gradient),
    ]


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def fast_paths(name: str, model: FusedLM) -> Check:
    """Whether the prompt head is read from its cache and labels as a tree, as many of the two as were not."""
    slow = [model.head_cache(model.prompt) is None, not model.branching]
    return Check(f"{name}: prompt head cached, labels read as a tree (ways not taken)", float(sum(slow)), 0.0)
