"""A frozen causal LM with its tokenizer.

Shapes: B batch, M positions after the prompt head, C head tokens, H width of the input embeddings, V vocabulary,
N positions whose logits are read.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import torch
from torch import Tensor, nn

from glotfuse.backbones.identity import BackboneIdentity
from glotfuse.backbones.prefix_cache import PrefixCache
from glotfuse.errors import BackboneError

logger = logging.getLogger(__name__)

_RMS_SAMPLE = 4096


class LM(nn.Module):
    """A causal LM of transformers that reads embeddings; no gradient reaches its weights.

    Args:
        model: A causal LM of transformers.
        tokenizer: Its tokenizer.
        identity: Which model this is.

    Attributes:
        embedding_size: H, the width of what the LM takes as `inputs_embeds`.
        embedding_rms: Root mean square of its embeddings of ordinary tokens, measured by running the embedding
            module (some families scale there, so the weight table alone would not tell).

    Raises:
        BackboneError: The model is not causal.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, identity: BackboneIdentity):
        super().__init__()
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.identity = identity
        self.takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        sample = self._ordinary_embeddings()
        self.embedding_size = int(sample.shape[-1])
        self.embedding_rms = float(sample.float().pow(2).mean().sqrt())
        self._check_causal(sample)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.model.parameters()).dtype

    def train(self, mode: bool = True) -> LM:
        """Stays in evaluation mode: frozen means frozen."""
        return super().train(False)

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings (..., H) of token ids (...), as the LM's own forward would make them."""
        embeddings: Tensor = self.model.get_input_embeddings()(ids.to(self.device))
        return embeddings

    def run(
        self,
        embeds: Tensor,
        keep: Tensor,
        *,
        cache: Any = None,
        start: int = 0,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Runs right-padded embeddings and returns logits where they are read, (N,V) in float32.

        Padding at the right needs no mask in a causal LM: no real position can see it. The LM applies its own
        output layer, with whatever scaling or capping it has, to the kept positions only.

        Args:
            embeds: (B,M,H).
            keep: (B,M), true where logits are read; the result follows its row-major order.
            cache: Keys and values of what comes before; the new ones are appended to it.
            start: Position of the first column, the number of tokens before it.
            attention_mask: (B, cached + M), needed only where cached positions are to be hidden.
            position_ids: (B,M), where they do not simply count up from `start`.
        """
        if position_ids is None:
            position_ids = torch.arange(start, start + embeds.shape[1], device=embeds.device).unsqueeze(0)
        positions = {"position_ids": position_ids} if self.takes_positions else {}
        output = self.model(
            inputs_embeds=embeds.to(self.dtype),
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=keep,
            return_dict=True,
            **positions,
        )
        logits: Tensor = output.logits.float()
        return logits

    @torch.no_grad()
    def cache_prefix(self, prefix_ids: list[int]) -> PrefixCache | None:
        """Keys and values of a constant prompt head; None, with a logged reason, where they cannot be reused.

        The first use is checked by running it: a few tokens after the cached head must give the logits that they
        give after the head itself.
        """
        prefix = self.embed(torch.tensor([prefix_ids], device=self.device))
        try:
            prefix_cache = PrefixCache.compute(self.model, prefix)
        except (BackboneError, TypeError) as error:
            logger.warning("Prompt head not cached: %s", error)
            return None
        after = self._ordinary_embeddings()[:3].unsqueeze(0).to(prefix.dtype)
        whole = torch.cat([prefix, after], dim=1)
        last = torch.zeros(whole.shape[:2], dtype=torch.bool, device=whole.device)
        last[:, -1] = True
        expected = self.run(whole, last)
        found = self.run(after, last[:, -3:], cache=prefix_cache.expand(1), start=len(prefix_ids))
        tolerance = 1e-3 if self.dtype == torch.float32 else 5e-2
        difference = float((expected - found).abs().max() / expected.abs().max().clamp_min(1.0))
        if difference > tolerance:
            logger.warning(
                "Prompt head not cached: with cached keys and values %s gives logits that differ by %.1e.",
                type(self.model).__name__,
                difference,
            )
            return None
        return prefix_cache

    def sliding_window(self) -> int | None:
        """The smallest attention window of any layer, in tokens; None when all layers see everything."""
        config = self.model.config.get_text_config(decoder=True)
        layer_types = getattr(config, "layer_types", None)
        if layer_types is not None and not any("sliding" in t or "chunked" in t for t in layer_types):
            return None
        windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
        found = [window for window in windows if window]
        return min(found) if found else None

    @torch.no_grad()
    def _ordinary_embeddings(self) -> Tensor:
        """Embeddings of up to 4,096 ordinary tokens, evenly spread over the vocabulary, (n,H)."""
        size = self.model.get_input_embeddings().weight.shape[0]
        special = set(getattr(self.tokenizer, "all_special_ids", ()))
        step = max(1, size // _RMS_SAMPLE)
        ids = [i for i in range(0, min(size, len(self.tokenizer)), step) if i not in special]
        return self.embed(torch.tensor(ids or [0], device=self.device))

    @torch.no_grad()
    def _check_causal(self, sample: Tensor) -> None:
        """A later token must not change an earlier position's logits."""
        first, second, third = (sample[i % len(sample)] for i in (1, 2, 3))
        embeds = torch.stack([torch.stack([first, second]), torch.stack([first, third])])
        keep = torch.tensor([[True, False]] * 2, device=embeds.device)
        logits = self.run(embeds, keep)
        if not torch.allclose(logits[0], logits[1], atol=1e-3, rtol=1e-3):
            raise BackboneError(
                f"Expected a causal LM; found {type(self.model).__name__} in {self.identity.name}, in which later "
                "tokens change earlier ones. Use it as the encoder, and a decoder-only model as the LM."
            )
