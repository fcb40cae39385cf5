"""The vLLM engine against a real server with bundled:smollm2-135m, whose address is in GLOTFUSE_VLLM_URL."""

from __future__ import annotations

import asyncio
import os

import pytest

from glotfuse.api import FusedLM

pytest.importorskip("httpx")

from benchmarks.serving.vllm_parity import TOLERANCE, compare

from glotfuse.backbones import load_encoder, load_lm
from glotfuse.recipes.config import FusionConfig, PromptConfig

URL = os.environ.get("GLOTFUSE_VLLM_URL")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not URL,
        reason="GLOTFUSE_VLLM_URL is not set: start vLLM with bundled:smollm2-135m as docs/deploy.md says",
    ),
]


@pytest.mark.timeout(1200)
def test_the_same_text_and_label_scores_as_in_process() -> None:
    import torch

    from glotfuse.model.assembly import build_model

    torch.manual_seed(0)
    model = build_model(
        FusedLM,
        load_encoder("bundled:e5-small"),
        load_lm("bundled:smollm2-135m"),
        fusion=FusionConfig(),
        prompt=PromptConfig(),
        max_length=128,
        template="{text}",
        cut_column="text",
        instruction="What is the topic? Answer with one of: {labels}.",
        labels=["entertainment", "geography", "health", "politics", "technology", "sports", "travel"],
    ).eval()
    assert URL
    parity, _ = asyncio.run(compare(model, URL, 8, 8))
    assert parity.multi_token_labels > 0
    assert parity.largest_difference <= TOLERANCE
    assert parity.same_label == parity.texts
    assert parity.same_text == parity.texts
    assert parity.same_alone
    assert parity.freed_after_hang_up
