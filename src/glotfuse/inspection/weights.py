"""Layer weights: of given texts token by token, over a language's tokens, and while training goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from glotfuse.inputs import PreparedExample, collate
from glotfuse.inspection.readings import WeightMoments
from glotfuse.inspection.results import LanguageWeights, LayerWeights, TextWeights, WeightHistory
from glotfuse.inspection.tokens import special_ids, written_tokens
from glotfuse.model import FusedLM, Text

METRIC = "layer_weight_"
"""Beginning of a layer's name in the log of training; its number, counted from 1, follows."""


def shared_layer_weights(model: FusedLM) -> LayerWeights | None:
    """The weights of a mixer that gives every token the same; None where they differ between tokens."""
    with model.answering():
        weights = model.fusion.mixer.shared_weights()
    if weights is None:
        return None
    return LayerWeights(True, tuple(weights.tolist()), (0.0,) * len(weights), 0)


def mean_layer_weights(moments: WeightMoments) -> LayerWeights:
    """Weights that differ between tokens, as mean and standard deviation."""
    return LayerWeights(False, tuple(moments.mean.tolist()), tuple(moments.std.tolist()), moments.num_tokens)


def language_weights(language: str, num_texts: int, moments: WeightMoments) -> LanguageWeights:
    """The same for one language."""
    mean, std = tuple(moments.mean.tolist()), tuple(moments.std.tolist())
    return LanguageWeights(language, num_texts, moments.num_tokens, mean, std)


def text_weights(model: FusedLM, texts: Sequence[Text], language: str | None = None) -> list[TextWeights]:
    """Layer weights of each token of each text.

    Args:
        model: The model.
        texts: Strings, or mappings of columns for a task with several.
        language: Code of the texts' language; only NLLB-like encoders need it.

    Raises:
        PromptError: A text is empty or lacks a column.
    """
    found = []
    for text, example in zip(texts, model.prepare(texts, language), strict=True):
        ids = example.encoder_ids
        batch = collate([example], model.encoder.pad_token_id)
        with model.answering():
            states = model.hidden_states(batch.encoder_ids, batch.encoder_mask)
            weights = model.fusion.mix(states, batch.encoder_mask.to(model.device)).layer_weights
        rows = weights.cpu().expand(1, len(ids), -1)[0].tolist()
        rendered = model.reader.template.format_map(model.reader.fields(text))
        found.append(
            TextWeights(
                text=rendered,
                language=language,
                tokens=tuple(written_tokens(model.encoder, rendered, ids, language)),
                token_ids=tuple(ids),
                weights=tuple(map(tuple, rows)),
                truncated=example.truncated,
            )
        )
    return found


def layer_weight_metrics(
    model: FusedLM, examples: Sequence[PreparedExample], language: str | None = None, batch_size: int = 16
) -> dict[str, float]:
    """Mean layer weights over the tokens of prepared examples, for the log of training.

    Special tokens are left out. A mixer whose weights no token changes is not run.

    Args:
        model: The model.
        examples: The same few at every evaluation, at least one.
        language: Code of their language.
        batch_size: Examples per pass.

    Returns:
        `layer_weight_1` to `layer_weight_L`, the first encoder layer first; nothing for an LM that reads the plain
        text itself.
    """
    if not model.fusion.reads_encoder:
        return {}
    shared = shared_layer_weights(model)
    if shared is not None:
        return _named(shared.weights)
    moments = WeightMoments.zeros(model.encoder.num_layers)
    specials = torch.tensor(sorted(special_ids(model.encoder, language)))
    with model.answering():
        for start in range(0, len(examples), batch_size):
            batch = collate(examples[start : start + batch_size], model.encoder.pad_token_id)
            states = model.hidden_states(batch.encoder_ids, batch.encoder_mask)
            weights = model.fusion.mix(states, batch.encoder_mask.to(model.device)).layer_weights
            moments.add(weights, batch.encoder_mask & ~torch.isin(batch.encoder_ids, specials))
    return _named(moments.mean.tolist())


def weights_over_training(log: Iterable[Mapping[str, Any]]) -> WeightHistory | None:
    """Reads what `layer_weight_metrics` left in a training log; None where it holds none.

    Args:
        log: Entries with `step` and, some of them, `layer_weight_1` to `layer_weight_L`. Where a step occurs twice,
            as it may after an interrupt, the later entry counts.
    """
    found: dict[int, tuple[float, ...]] = {}
    for entry in log:
        if f"{METRIC}1" in entry:
            num_layers = sum(key.startswith(METRIC) for key in entry)
            found[int(entry["step"])] = tuple(float(entry[f"{METRIC}{i + 1}"]) for i in range(num_layers))
    steps = sorted(found)
    return WeightHistory(tuple(steps), tuple(found[step] for step in steps)) if steps else None


def _named(weights: Sequence[float]) -> dict[str, float]:
    return {f"{METRIC}{i + 1}": weight for i, weight in enumerate(weights)}
