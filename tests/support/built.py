"""Models that are put together from settings, as a recipe's are, and the scores of their labels."""

from __future__ import annotations

from typing import Any

import torch

from glotfuse.api import FusedLM
from glotfuse.model.assembly import build_model
from glotfuse.recipes.config import FusionConfig, PromptConfig
from tiny import TEXTS, score_labels, tiny_encoder, tiny_lm

TASK: dict[str, Any] = {
    "max_length": 64,
    "template": "{text}",
    "cut_column": "text",
    "instruction": "Which topic out of {labels}?",
    "labels": ["science", "health news"],
}


def built(encoder: str = "xlm-r", lm: str = "llama", *, prompt: dict[str, Any] | None = None, **fusion: Any) -> FusedLM:
    torch.manual_seed(0)
    model = build_model(
        FusedLM,
        tiny_encoder(encoder),
        tiny_lm(lm),
        fusion=FusionConfig(**fusion),
        prompt=PromptConfig(**(prompt or {})),
        **TASK,
    )
    for parameter in model.fusion.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def scores(model: FusedLM) -> torch.Tensor:
    with torch.inference_mode():
        return score_labels(model, model.prepare(TEXTS))
