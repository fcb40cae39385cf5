"""Layer weights: of given texts token by token, over a language's tokens, and while training goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glotfuse.backbones.encoder import special_ids
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.inputs.reader import Text
from glotfuse.inspection.results import LanguageWeights, LayerWeights, TextWeights, WeightHistory
from glotfuse.inspection.tokens import written_tokens
from glotfuse.model.fused_model import FusedModel
from glotfuse.model.layer_weights import METRIC, WeightMoments, shared_weights


def shared_layer_weights(model: FusedModel) -> LayerWeights | None:
    """The weights of a mixer that gives every token the same; None where they differ between tokens."""
    weights = shared_weights(model)
    if weights is None:
        return None
    return LayerWeights(True, tuple(weights.tolist()), (0.0,) * len(weights), 0)


def mean_layer_weights(moments: WeightMoments) -> LayerWeights:
    """Weights that differ between tokens, as mean and standard deviation."""
    return LayerWeights(False, tuple(moments.mean.tolist()), tuple(moments.std.tolist()), moments.num_tokens)


def language_weights(language: str, num_texts: int, moments: WeightMoments) -> LanguageWeights:
    """Mean and standard deviation of the layer weights over the tokens of one language's texts."""
    mean, std = tuple(moments.mean.tolist()), tuple(moments.std.tolist())
    return LanguageWeights(language, num_texts, moments.num_tokens, mean, std)


def text_weights(model: FusedModel, texts: Sequence[Text], language: str | None = None) -> list[TextWeights]:
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
        rendered = model.reader.template.format_map(model.reader.fields(text))
        found.append(
            TextWeights(
                text=rendered,
                language=language,
                tokens=tuple(written_tokens(model.encoder, rendered, example.encoder_ids, language)),
                token_ids=tuple(example.encoder_ids),
                weights=example_weights(model, example).weights,
                truncated=example.truncated,
            )
        )
    return found


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


@dataclass(frozen=True)
class TokenWeights:
    """What the LM reads of each layer."""

    text: str
    """The text alone, without the template around it."""
    tokens: tuple[str, ...]
    """(T,), as they are written in the text; special tokens by their names."""
    special: tuple[bool, ...]
    """(T,), true for tokens that stand for no text."""
    weights: tuple[tuple[float, ...], ...]
    """(T,L), fractions that sum to one over L."""
    shared: bool
    """Whether every token has the same weights, whatever the text."""

    @property
    def mean(self) -> tuple[float, ...]:
        """(L,), over the tokens that are no special ones, or over all where there are no others."""
        rows = [row for row, special in zip(self.weights, self.special, strict=True) if not special] or self.weights
        return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))


@dataclass(frozen=True)
class ExampleWeights:
    """The weights of a prepared text."""

    weights: tuple[tuple[float, ...], ...]
    """(T,L)."""
    shared: bool
    """Whether the mixer gives every token the same."""


def example_weights(model: FusedModel, example: PreparedExample) -> ExampleWeights:
    """Runs encoder and mixer, and no tokenizer, over one text."""
    batch = collate([example], model.encoder.pad_token_id)
    with model.answering():
        shared = model.mixing.mixer.shared_weights() is not None
        layer_weights = model.span(batch).layer_weights
    rows = layer_weights.cpu().expand(1, len(example.encoder_ids), -1)[0].tolist()
    return ExampleWeights(tuple(map(tuple, rows)), shared)


def token_weights(
    model: FusedModel, text: Text, language: str | None, example: PreparedExample, found: ExampleWeights
) -> TokenWeights:
    """Writes the tokens beside their weights; uses the encoder's tokenizer, and no weights.

    Args:
        model: The model.
        text: What `example` was prepared from.
        language: Code of the text's language.
        example: The text in token ids.
        found: Its weights.
    """
    ids, fields = example.encoder_ids, model.reader.fields(text)
    specials = special_ids(model.encoder, language)
    return TokenWeights(
        text=" ".join(fields[column] for column in model.reader.columns),
        tokens=tuple(written_tokens(model.encoder, model.reader.template.format_map(fields), ids, language)),
        special=tuple(token in specials for token in ids),
        weights=found.weights,
        shared=found.shared,
    )
