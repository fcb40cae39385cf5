"""Inspects a model: given texts token by token, and rows of a task language by language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from glotfuse.errors import ConfigError
from glotfuse.inputs.batch import PreparedExample
from glotfuse.inputs.reader import Text
from glotfuse.inspection.readings import Readings, read_rows
from glotfuse.inspection.results import (
    Alignment,
    Inspection,
    LanguageAlignment,
    LanguageTokenisation,
    LanguageWeights,
    LayerWeights,
    Projection,
    TextWeights,
)
from glotfuse.inspection.rows import ChosenRows
from glotfuse.inspection.similarity import MIN_ROWS, principal_components, similarity
from glotfuse.inspection.tokenisation import count_tokens, language_tokenisation
from glotfuse.inspection.weights import (
    language_weights,
    mean_layer_weights,
    shared_layer_weights,
    text_weights,
    weights_over_training,
)
from glotfuse.model.fused_model import FusedModel
from glotfuse.model.layer_weights import WeightMoments
from glotfuse.progress import Bar

STAGES = ("last encoder layer", "mixed states", "span")
_SHOWN_LANGUAGES = 8


def inspect_model(
    model: FusedModel,
    *,
    run: str,
    chosen: ChosenRows | None = None,
    split: str | None = None,
    texts: Sequence[Text] = (),
    log: Iterable[Mapping[str, Any]] = (),
    batch_size: int = 32,
) -> Inspection:
    """Reads what the fusion does.

    Args:
        model: The model.
        run: Its name in titles.
        chosen: Rows of a task by language; None inspects the texts alone.
        split: Where the rows are from.
        texts: To show token by token; none shows one row in the pivot and up to seven other languages.
        log: The log of training.
        batch_size: Rows per forward pass.

    Raises:
        ConfigError: The model reads nothing of an encoder.
        PromptError: A text or row is empty, lacks a column, or leaves no room for its text.
    """
    if not model.fusion.reads_encoder:
        raise ConfigError(
            f"Expected a model whose LM reads an encoder; in {run} the LM reads the plain text itself, so there are no "
            "layers to inspect. Give another run."
        )
    notes = list(chosen.notes) if chosen else []
    shown = text_weights(model, texts) if texts else _example_rows(model, chosen)
    weights, tokenisation, alignment = _Rows(model, chosen, batch_size).read() if chosen else ((), (), None)
    if chosen and chosen.parallel and alignment is None:
        notes.append(f"Alignment needs at least {MIN_ROWS} parallel rows; fewer were chosen.")
    history = weights_over_training(log)
    if history is None:
        notes.append("The run's record holds no layer weights of earlier steps.")
    mixer = model.settings.get("fusion", {}).get("mixer", type(model.mixing.mixer).__name__)
    return Inspection(
        run=run,
        encoder=model.encoder.identity.name,
        mixer=str(mixer),
        num_layers=model.encoder.num_layers,
        split=split,
        layer_weights=shared_layer_weights(model) or _averaged(weights),
        texts=tuple(shown),
        languages=weights,
        history=history,
        alignment=alignment,
        tokenisation=tokenisation,
        notes=tuple(notes),
    )


def _example_rows(model: FusedModel, chosen: ChosenRows | None) -> list[TextWeights]:
    """The first row of the pivot and of the languages that are parallel to it, else of any."""
    if chosen is None:
        return []
    first = [code for code in chosen.rows if code == chosen.pivot]
    others = [code for code in chosen.rows if code != chosen.pivot]
    codes = [*first, *(chosen.parallel or others)][:_SHOWN_LANGUAGES]
    return [found for code in codes for found in text_weights(model, [chosen.rows[code][0].fields], code)]


def _averaged(languages: Sequence[LanguageWeights]) -> LayerWeights | None:
    """Weights over the tokens of all languages together."""
    if not languages:
        return None
    moments = WeightMoments.zeros(len(languages[0].mean))
    for found in languages:
        mean, std = torch.tensor(found.mean).double(), torch.tensor(found.std).double()
        moments.total += found.num_tokens * mean
        moments.squares += found.num_tokens * (std.pow(2) + mean.pow(2))
        moments.num_tokens += found.num_tokens
    return mean_layer_weights(moments)


class _Rows:
    """The pass over all languages; keeps no more of each than is drawn."""

    def __init__(self, model: FusedModel, chosen: ChosenRows, batch_size: int):
        self.model, self.chosen, self.batch_size = model, chosen, batch_size
        self.aligned: list[LanguageAlignment] = []
        self.points: list[list[Tensor]] = [[] for _ in STAGES]
        self.languages: list[str] = []
        self.labels: list[str | None] = []

    def read(self) -> tuple[tuple[LanguageWeights, ...], tuple[LanguageTokenisation, ...], Alignment | None]:
        chosen, weights, tokenisation = self.chosen, [], []
        pivot: Readings | None = None
        prepared = {code: self.model.prepare([row.fields for row in rows], code) for code, rows in chosen.rows.items()}
        with Bar("inspecting", sum(map(len, prepared.values()))) as bar:
            for code, examples in prepared.items():
                readings = read_rows(self.model, examples, code, self.batch_size, bar.advance)
                weights.append(language_weights(code, len(examples), readings.weights))
                tokenisation.append(self._tokenisation(code, examples))
                if code == chosen.pivot and chosen.parallel and len(examples) >= MIN_ROWS:
                    pivot = readings
                    self._keep(code, readings)
                elif pivot is not None and code in chosen.parallel:
                    self.aligned.append(_aligned(code, readings, pivot))
                    self._keep(code, readings)
        return tuple(weights), tuple(tokenisation), self._alignment(pivot)

    def _tokenisation(self, code: str, examples: Sequence[PreparedExample]) -> LanguageTokenisation:
        chosen, encoder = self.chosen, self.model.encoder
        same_sentences = code == chosen.pivot or code in chosen.parallel
        pivot_rows = chosen.rows[chosen.pivot] if same_sentences else []
        pivot_tokens = sum(map(len, count_tokens(encoder, chosen.pivot, pivot_rows)))
        truncated = [example.truncated for example in examples]
        return language_tokenisation(encoder, code, chosen.rows[code], truncated, pivot_tokens or None)

    def _keep(self, code: str, readings: Readings) -> None:
        for kept, vectors in zip(self.points, (readings.layers[:, -1], readings.mixed, readings.span), strict=True):
            kept.append(vectors)
        self.languages += [code] * len(readings.mixed)
        self.labels += [row.label for row in self.chosen.rows[code]]

    def _alignment(self, pivot: Readings | None) -> Alignment | None:
        if pivot is None or not self.aligned:
            return None
        projections = []
        for stage, vectors in zip(STAGES, self.points, strict=True):
            points, explained = principal_components(torch.cat(vectors))
            pairs = tuple((float(x), float(y)) for x, y in points.tolist())
            projections.append(Projection(stage, pairs, tuple(self.languages), tuple(self.labels), explained))
        return Alignment(self.chosen.pivot, len(pivot.mixed), tuple(self.aligned), tuple(projections))


def _aligned(language: str, readings: Readings, pivot: Readings) -> LanguageAlignment:
    return LanguageAlignment(
        language=language,
        layers=tuple(
            similarity(readings.layers[:, layer], pivot.layers[:, layer]) for layer in range(readings.layers.shape[1])
        ),
        mixed=similarity(readings.mixed, pivot.mixed),
        span=similarity(readings.span, pivot.span),
    )
