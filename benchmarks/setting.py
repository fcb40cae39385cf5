"""What the cases share: the bundled models, English training texts, and models with given labels."""

from __future__ import annotations

import logging
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from glotfuse.api import FusedLM
from glotfuse.backbones import BackboneOptions, load_encoder, load_lm
from glotfuse.inputs.batch import PreparedExample, prepare
from glotfuse.model.assembly import build_model
from glotfuse.model.state_cache import StateCache
from glotfuse.recipes.config import FusionConfig, PromptConfig
from glotfuse.tasks import get_task

SIB200 = Path(__file__).parents[2] / "shared" / "data" / "sib200"
TOPICS = ("entertainment", "geography", "health", "politics", "technology", "sports", "travel")
INSTRUCTION = "Which topic is this text about? Answer with one word out of: {labels}."


def english(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """So many English texts with labels: SIB-200's training data where it is, else the quickstart's."""
    task = get_task("sib200", path=SIB200) if SIB200.exists() else get_task("quickstart")
    rows = [(e.fields["text"], e.label or "") for e in task.load("train", task.train_language).examples]
    random.Random(seed).shuffle(rows)
    return [rows[i % len(rows)] for i in range(count)]


def build(
    labels: Sequence[str],
    *,
    dropout: float = 0.0,
    instruction: str = INSTRUCTION,
    fusion: FusionConfig | None = None,
    prefix: str = "",
) -> FusedLM:
    """The bundled models with fresh fusion weights, the same for every call."""
    logging.disable(logging.WARNING)
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    fusion = fusion or FusionConfig(summary=False, mixer_options={"dropout": dropout})
    return build_model(
        FusedLM,
        load_encoder("bundled:e5-small", BackboneOptions(device="cpu"), prefix=prefix),
        load_lm("bundled:smollm2-135m", BackboneOptions(device="cpu")),
        fusion=fusion,
        prompt=PromptConfig(),
        max_length=128,
        template="{text}",
        cut_column="text",
        instruction=instruction,
        labels=list(labels),
    )


def prepared(model: FusedLM, rows: Sequence[tuple[str, str]]) -> list[PreparedExample]:
    """Training examples in token ids."""
    return prepare(model.reader, model.prompt, [{"text": t} for t, _ in rows], answers=[label for _, label in rows])


@contextmanager
def cached(model: FusedLM) -> Iterator[StateCache]:
    """The model with an empty cache of encoder states in a folder of its own."""
    layers = model.fusion.mixer.layers
    with (
        tempfile.TemporaryDirectory() as folder,
        StateCache(model.encoder, layers, Path(folder), 8 << 30) as cache,
        model.reading_states(cache),
    ):
        yield cache
