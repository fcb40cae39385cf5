"""Tiny backbones, saved to a folder so that the package loads them as any other, and models made of them.

    model = tiny_model("mt5", "qwen3", labels=("sports", "politics"))
    encoder, lm = tiny_encoder("xlm-r"), load_lm(lm_folder("llama"))

Weights are seeded. A folder is made once per process and never written to by the package.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from glotfuse.api import FusedLM
from glotfuse.backbones import LM, BackboneOptions, Encoder, load_encoder, load_lm
from glotfuse.fusion import Fusion
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.inputs.prompts import build_prompt
from glotfuse.inputs.reader import InputReader
from glotfuse.model import scoring
from tiny_models import ENCODERS, LMS
from tiny_tokenizers import SENTENCES, TEXTS, mt5_tokenizer, new_folder

__all__ = [
    "CHAT",
    "ENCODERS",
    "LMS",
    "SENTENCES",
    "SOURCE_LANGUAGES",
    "TEXTS",
    "byte_encoder_folder",
    "encoder_folder",
    "lm_folder",
    "new_folder",
    "score_labels",
    "tiny_encoder",
    "tiny_lm",
    "tiny_model",
    "with_labels",
]

DEVICE = os.environ.get("GLOTFUSE_TEST_DEVICE", "cpu")
"""Where tiny models stand. Most tests expect a CPU; `python -m benchmarks.gpu` runs one that does not on the GPU."""

CHAT = ("llama", "qwen3", "gemma", "gemma2", "gemma3", "mistral", "mistral-short")
"""LMs whose tokenizer has a chat template."""

SOURCE_LANGUAGES = ("m2m100", "nllb")
"""Encoders whose tokenizer takes a source language."""


@functools.cache
def encoder_folder(family: str) -> str:
    """Folder with a tiny encoder (or encoder-decoder) of a family in `ENCODERS`."""
    return _save(*ENCODERS[family], seed=11)


@functools.cache
def byte_encoder_folder() -> str:
    """Folder with a tiny mT5 whose vocabulary has a piece for each byte."""
    return _save(ENCODERS["mt5"][0], mt5_tokenizer, seed=11)


@functools.cache
def lm_folder(family: str, seed: int = 5) -> str:
    """Folder with a tiny LM of a family in `LMS`."""
    return _save(*LMS[family], seed=seed)


def _save(make_model: Callable[[int], Any], make_tokenizer: Callable[[Path], Any], seed: int) -> str:
    folder = new_folder()
    tokenizer = make_tokenizer(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make_model(len(tokenizer))
        for weights in model.parameters():
            if weights.ndim == 1:  # fresh biases and norms are zeros and ones, which would hide mistakes
                weights.data += 0.1 * torch.randn_like(weights)
    model.save_pretrained(folder)
    return str(folder)


def tiny_encoder(family: str = "xlm-r", **options: Any) -> Encoder:
    """A loaded tiny encoder; keyword options as in `load_encoder` and `BackboneOptions`."""
    load = {name: options.pop(name) for name in ("dtype", "attn_implementation") if name in options}
    return load_encoder(encoder_folder(family), BackboneOptions(device=DEVICE, **load), **options)


def tiny_lm(family: str = "llama", **options: Any) -> LM:
    """A loaded tiny LM; keyword options as in `BackboneOptions`."""
    return load_lm(lm_folder(family), BackboneOptions(device=DEVICE, **options))


def tiny_model(
    encoder: str = "xlm-r",
    lm: str = "llama",
    *,
    labels: Sequence[str] = ("science", "politics", "sports"),
    style: str | None = None,
    dtype: str = "auto",
    **fusion: Any,
) -> FusedLM:
    """A fused model of tiny backbones in evaluation mode.

    Args:
        encoder: A family in `ENCODERS`.
        lm: A family in `LMS`.
        labels: Label words.
        style: Of the prompt; None takes `chat` where the LM has a template.
        dtype: Of both backbones.
        **fusion: Options of `Fusion`.
    """
    loaded_encoder, loaded_lm = tiny_encoder(encoder, dtype=dtype), tiny_lm(lm, dtype=dtype)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = Fusion(
            loaded_encoder.num_layers,
            loaded_encoder.hidden_size,
            loaded_lm.embedding_size,
            **{"layer_norm": "rms", "match_scale": loaded_lm.embedding_rms, "boundary": "normal", **fusion},
        )
    style = style or ("chat" if lm in CHAT else "plain")
    return assemble(loaded_encoder, module, loaded_lm, labels, style)


def with_labels(model: FusedLM, labels: Sequence[str], style: str | None = None, **options: Any) -> FusedLM:
    """The same weights with other label words; keyword options as in `build_prompt`."""
    style = style or model.settings["prompt"]["style"]
    return assemble(model.encoder, model.fusion, model.lm, labels, style, **options)


def assemble(encoder: Encoder, fusion: Fusion, lm: LM, labels: Sequence[str], style: str, **options: Any) -> FusedLM:
    """A model with a short English instruction, and a tail in the plain style."""
    settings = {"style": style, "tail": "\nLabel: " if style == "plain" else ""}
    prompt = build_prompt(
        lm.tokenizer, instruction="Answer with one of: {labels}.", labels=labels, **settings, **options
    )
    reader = InputReader(encoder, max_length=100)
    return FusedLM(encoder, fusion, lm, prompt, reader, labels, {"prompt": settings}).eval()


def score_labels(model: FusedLM, examples: Sequence[PreparedExample]) -> torch.Tensor:
    """Log-probability of each label word, (B,R), of prepared examples."""
    return scoring.score_labels(model, collate(examples, model.encoder.pad_token_id))
