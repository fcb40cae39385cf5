"""The next token of one answer: the most probable one, or sampled with the answer's own settings and seed.

Shapes: V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glotfuse.serving.requests import GenerateRequest

if TYPE_CHECKING:
    from glotfuse.api import FusedLM


class Sampler:
    """Chooses the tokens of one answer.

    The checkpoint may ask for no repeated n-grams, and an LM's generation config for a repetition penalty, banned
    n-grams or suppressed tokens; they apply as in `generate`. Its own temperature, top-p and top-k do not: the request
    decides.

    Args:
        model: For the LM's generation config.
        request: Temperature, top-p and seed.
    """

    def __init__(self, model: FusedLM, request: GenerateRequest):
        self._processors = _processors(model, request)
        self._generator: torch.Generator | None = None
        if request.is_sampled:
            self._generator = torch.Generator()
            if request.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(request.seed)

    @property
    def is_plain(self) -> bool:
        """Whether the most probable token is all it takes."""
        return self._generator is None and not self._processors

    def choose(self, ids: list[int], logits: Tensor) -> int:
        """The next token after the answer's tokens so far, from logits (V,) in float32."""
        scores = logits.unsqueeze(0)
        if self._processors:
            scores = self._processors(torch.tensor([ids], dtype=torch.long, device=logits.device), scores.clone())
        if self._generator is None:
            return int(scores.argmax())
        probabilities = torch.softmax(scores[0], dim=-1).cpu()
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def _processors(model: FusedLM, request: GenerateRequest) -> Any:
    from transformers import (
        LogitsProcessorList,
        NoRepeatNGramLogitsProcessor,
        RepetitionPenaltyLogitsProcessor,
        SuppressTokensLogitsProcessor,
        TemperatureLogitsWarper,
        TopPLogitsWarper,
    )

    config = getattr(model.lm.model, "generation_config", None)
    chosen: list[Any] = []
    if (penalty := getattr(config, "repetition_penalty", None)) not in (None, 1.0):
        chosen.append(RepetitionPenaltyLogitsProcessor(penalty=penalty))
    if size := model.no_repeat_ngram_size or getattr(config, "no_repeat_ngram_size", None):
        chosen.append(NoRepeatNGramLogitsProcessor(size))
    if tokens := getattr(config, "suppress_tokens", None):
        chosen.append(SuppressTokensLogitsProcessor(tokens, device=str(model.device)))
    if request.is_sampled:
        chosen.append(TemperatureLogitsWarper(float(request.temperature)))
        if request.top_p < 1:
            chosen.append(TopPLogitsWarper(float(request.top_p)))
    return LogitsProcessorList(chosen)
