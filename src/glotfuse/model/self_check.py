"""Reference answers that a checkpoint keeps, to notice when other library versions change what it does.

A checkpoint has weights and settings, but tokenizers, attention and the order of operations are the libraries'. So the
log-probabilities of a few fixed texts are kept with it, and compared where it is loaded under other versions.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glotfuse.errors import PromptError
from glotfuse.model.scoring import score_answers
from glotfuse.provenance import installed

if TYPE_CHECKING:
    from glotfuse.inputs.batch import PreparedExample
    from glotfuse.model.fused_model import FusedModel

logger = logging.getLogger(__name__)

TEXTS = (
    "The match ended two to one after a late goal.",
    "நேற்று பெய்த மழையால் பள்ளிகள் மூடப்பட்டன.",
    "Le prix du pain a augmenté de 12 % en 2023 !",
    "今天的会议讨论了 COVID-19 疫苗。",
)
"""What the encoder reads, in every column."""
ANSWER = "The weather is good today."
"""What is scored where a model has no label words."""
_MOST_LABELS = 8
_LANGUAGE = "eng_Latn"
_PACKAGES = ("glotfuse", "peft", "tokenizers", "torch", "transformers")
_ROUNDING, _HALF_ROUNDING = 0.01, 0.1
"""Share of a log-probability (at least of 1) that rounding may change it by; where half precision is in play."""


def reference(model: FusedModel) -> dict[str, Any] | None:
    """What a checkpoint keeps: versions, dtypes, token ids and log-probabilities.

    Args:
        model: Any but one whose LM is sharded, which no process can run alone.

    Returns:
        Plain values; None where the model cannot be asked, for its template leaves no room for a text.
    """
    if model.lm.is_sharded:
        return None
    try:
        examples = _examples(model)
    except PromptError:
        return None
    return {
        "versions": installed(_PACKAGES),
        "precision": _precision(model),
        "tokens_sha256": _digest(examples),
        "log_probabilities": [[round(value, 4) for value in row] for row in _scores(model, examples)],
    }


def compare(model: FusedModel, kept: Mapping[str, Any] | None, folder: Path) -> float | None:
    """Warns where a model that was just loaded answers otherwise than when it was saved.

    Nothing is computed under the versions that it was saved under.

    Args:
        model: As loaded.
        kept: What `reference` gave when it was saved; None in older checkpoints.
        folder: Where it is, for the warning.

    Returns:
        The greatest difference of a log-probability, in nats; None where nothing was compared.
    """
    here = installed(_PACKAGES)
    if not kept or kept.get("versions") == here or model.lm.is_sharded:
        return None
    try:
        return _compare(model, kept, here, folder)
    except PromptError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        logger.warning("Reference answers in %s were not compared: they are malformed (%r).", folder, error)
        return None


def _compare(model: FusedModel, kept: Mapping[str, Any], here: Mapping[str, str], folder: Path) -> float:
    examples = _examples(model)
    exact = kept["precision"] == _precision(model) and set(kept["precision"].values()) == {"float32"}
    rounding = _ROUNDING if exact else _HALF_ROUNDING
    pairs: list[tuple[float, float]] = [
        (was, now)
        for before, after in zip(kept["log_probabilities"], _scores(model, examples), strict=True)
        for was, now in zip(before, after, strict=True)
    ]
    difference = max(abs(was - now) for was, now in pairs)
    changed = ", ".join(
        f"{name} {kept['versions'].get(name, 'none')} then, {here.get(name, 'none')} now"
        for name in sorted({*kept["versions"], *here})
        if kept["versions"].get(name) != here.get(name)
    )
    same_tokens = kept["tokens_sha256"] == _digest(examples)
    if same_tokens and all(abs(was - now) <= rounding * max(1.0, abs(was)) for was, now in pairs):
        logger.info("%s answers as when it was saved (%s).", folder, changed)
        return difference
    logger.warning(
        "%s answers otherwise than when it was saved: log-probabilities of reference texts differ by up to %.2g, and "
        "%s. Library versions changed: %s. Install those of then, or measure it again with `glotfuse eval`.",
        folder,
        difference,
        "their tokens are the same" if same_tokens else "their tokens are others",
        changed,
    )
    return difference


def _examples(model: FusedModel) -> list[PreparedExample]:
    rows = [dict.fromkeys(model.reader.columns, text) for text in TEXTS]
    return model.prepare(rows, language=_LANGUAGE)


def _scores(model: FusedModel, examples: Sequence[PreparedExample]) -> list[list[float]]:
    """Log-probabilities of each text's answers, (4, R)."""
    answers = list(model.label_ids)[:_MOST_LABELS] or [model.prompt.answer_ids(ANSWER)]
    with model.answering():
        scores = score_answers(model, examples, [answers] * len(examples))
    return [[score.log_probability for score in row] for row in scores]


def _digest(examples: Sequence[PreparedExample]) -> str:
    ids = [[list(map(int, part)) for part in (each.encoder_ids, each.text_ids, each.head_ids)] for each in examples]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def _precision(model: FusedModel) -> dict[str, str]:
    found = {"encoder": str(model.encoder.dtype), "lm": str(model.lm.dtype)}
    named = {role: name.removeprefix("torch.") for role, name in found.items()}
    if model.lm.identity.quantization != "none":
        named["lm"] = model.lm.identity.quantization
    return named
