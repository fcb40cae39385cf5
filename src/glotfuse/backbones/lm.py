"""A frozen causal LM with its tokenizer.

Shapes: B batch, M positions after the prompt head, C head tokens, H width of the input embeddings, V vocabulary,
N positions whose logits are read.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glotfuse.backbones import generating
from glotfuse.backbones.adapter import Adapter
from glotfuse.backbones.attention import is_flash, masks_obeyed
from glotfuse.backbones.identity import BackboneIdentity
from glotfuse.backbones.placement import input_device, input_dtype, is_fixed, say_fixed
from glotfuse.backbones.prefix_cache import PrefixCache
from glotfuse.backbones.recompute import recomputing
from glotfuse.errors import BackboneError

logger = logging.getLogger(__name__)

_RMS_SAMPLE = 4096
_FORCE_GQA = "TRANSFORMERS_SDPA_FORCE_GQA"
_NOT_CACHEABLE = (BackboneError, AttributeError, IndexError, NotImplementedError, TypeError, ValueError)
"""What LMs with recurrent states or a cache of their own raise when given keys and values."""


@contextmanager
def _grouped_queries(device: torch.device) -> Iterator[None]:
    """Lets torch's attention on a CPU read shared keys and values as they are.

    With a mask transformers would copy them once per query head, which GPU kernels need and CPU kernels do not. It
    reads this variable at each call; versions that do not know it copy.
    """
    if device.type != "cpu" or _FORCE_GQA in os.environ:
        yield
        return
    os.environ[_FORCE_GQA] = "1"
    try:
        yield
    finally:
        os.environ.pop(_FORCE_GQA, None)


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
        takes_positions: Whether its forward takes `position_ids` (most ALiBi and recurrent LMs do not).
        selects_logits: Whether it computes logits at given positions only.
        no_generation: Why it cannot generate from embeddings, found out at once; None where it can.
        is_sharded: Whether its layers are split over processes, which then have to run it equally often.
        adapter: Trained tensors beside its weights, or None; see `glotfuse.backbones.lora`.
        merged: Whether an adapter was added to its weights, which are then not those of its identity.

    Raises:
        BackboneError: The model is not causal, or does not read embeddings as it reads tokens.
    """

    adapter: Adapter | None = None
    merged = False

    def __init__(self, model: nn.Module, tokenizer: Any, identity: BackboneIdentity):
        super().__init__()
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.identity = identity
        self.is_sharded = False
        self.takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        ids = self._ordinary_ids()
        sample = self.embed(ids)
        self.embedding_size = int(sample.shape[-1])
        self.embedding_rms = float(sample.float().pow(2).mean().sqrt())
        self._check(ids[[i % len(ids) for i in (1, 2, 3)]])
        self.no_generation = generating.refusal(self.model, ids, self.embed)
        if self.no_generation:
            logger.warning(
                "%s can be trained and can classify, but not generate: %s.",
                type(self.model).__name__,
                self.no_generation,
            )

    @property
    def device(self) -> torch.device:
        """Where the embeddings are, which are what it is given."""
        return input_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the embeddings, and of all weights that are not quantised."""
        return input_dtype(self.model)

    def shard(self) -> None:
        """Splits the layers' weights over all processes; see `glotfuse.backbones.sharding`."""
        from glotfuse.backbones.sharding import shard_layers

        shard_layers(self.model, self.device)
        self.is_sharded = True

    def train(self, mode: bool = True) -> LM:
        """Stays in evaluation mode, for frozen means frozen; only an adapter's dropout is switched."""
        super().train(False)
        if self.adapter is not None:
            self.adapter.train(mode)
        return self

    @property
    def plain(self) -> LM:
        """The LM without its adapter; itself, where it has none."""
        return self if self.adapter is None else cast(LM, self.adapter.base)

    @property
    def learning(self) -> bool:
        """Whether it has an adapter that is being trained."""
        return self.adapter is not None and self.adapter.learning

    def _apply(self, fn: Any, recurse: bool = True) -> LM:
        """Moves and casts it, where that is possible."""
        if is_fixed(self.model):
            say_fixed(self.model)
            return self
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

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
        recompute: bool = False,
    ) -> Tensor:
        """Runs right-padded embeddings and returns logits where they are read, (N,V) in float32.

        Padding at the right needs no mask in a causal LM: no real position can see it. The LM applies its own
        output layer, with whatever scaling or capping it has, to the kept positions only.

        Args:
            embeds: (B,M,H).
            keep: (B,M), true where logits are read; the result follows its row-major order.
            cache: Keys and values of what comes before; the new ones are appended to it.
            start: Position of the first column, the number of tokens before it.
            attention_mask: (B, cached + M), needed only where cached positions are to be hidden; or added to the
                attention's scores, (B,1,M, cached + M).
            position_ids: (B,M), where they do not simply count up from `start`.
            recompute: Whether layers are computed again in the backward pass, which saves memory and takes a third
                more time; not with a cache.
        """
        if position_ids is None:
            position_ids = torch.arange(start, start + embeds.shape[1], device=embeds.device).unsqueeze(0)
        options: dict[str, Any] = {"position_ids": position_ids} if self.takes_positions else {}
        if self.selects_logits:
            options["logits_to_keep"] = keep
        if cache is not None:
            options["past_key_values"] = cache
        # what the backward pass computes again is outside, so both passes leave the variable alone
        own_mask = attention_mask is not None and attention_mask.ndim == 4
        with (
            recomputing(self.model) if recompute else _grouped_queries(self.device),
            masks_obeyed(self.model) if own_mask else nullcontext(),
        ):
            output = self.model(
                inputs_embeds=embeds.to(self.dtype),
                attention_mask=attention_mask,
                use_cache=cache is not None,
                return_dict=True,
                **options,
            )
        logits: Tensor = output.logits if self.selects_logits else output.logits[keep]
        return logits.float()

    @torch.no_grad()
    def cache_prefix(self, prefix_ids: list[int]) -> PrefixCache | None:
        """Keys and values of a constant prompt head; None, with a logged reason, where they cannot be reused.

        The first use is checked by running it: a few tokens after the cached head must give the logits that they
        give after the head itself.
        """
        if not prefix_ids:  # an empty cache, if the LM fills it as it should
            return None if self.cache_prefix(self._ordinary_ids()[:2].tolist()) is None else PrefixCache([])
        prefix = self.embed(torch.tensor([prefix_ids], device=self.device))
        after = self.embed(self._ordinary_ids()[:3]).unsqueeze(0)
        last = torch.zeros(after.shape[:2], dtype=torch.bool, device=after.device)
        last[:, -1] = True
        try:
            prefix_cache = PrefixCache.compute(self.run, prefix)
            found = self.run(after, last, cache=prefix_cache.expand(1), start=len(prefix_ids))
        except _NOT_CACHEABLE as error:
            logger.warning(
                "Prompt head not cached, but read anew in every batch: %s keeps more than keys and values (%s).",
                type(self.model).__name__,
                error,
            )
            return None
        expected = self.run(torch.cat([prefix, after], dim=1), F.pad(last, (len(prefix_ids), 0)))
        difference = float((expected - found).abs().max() / expected.abs().max().clamp_min(1.0))
        if not difference <= self.tolerance:
            logger.warning(
                "Prompt head not cached, but read anew in every batch: from cached keys and values %s gives "
                "logits that differ by %.1e.",
                type(self.model).__name__,
                difference,
            )
            return None
        return prefix_cache

    @property
    def working_dtype(self) -> torch.dtype:
        """Dtype of its matrix products: that of the weights, or autocast's."""
        kind = self.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype

    @property
    def tolerance(self) -> float:
        """Relative difference of logits that rounding can explain."""
        exact = self.working_dtype == torch.float32 and self.identity.quantization == "none"
        if self.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest":  # TF32
            exact = False
        return 1e-3 if exact else 5e-2

    def obeys_mask(self, length: int) -> bool:
        """Whether a 4-D attention mask alone decides what is seen among so many positions.

        It does not with kernels that take none (for FlashAttention another runs such a pass), with positions that are
        derived from the mask, and in layers with a local window that is shorter.
        """
        config = self.model.config.get_text_config()
        windows = [
            value
            for name, value in config.to_dict().items()
            if name.endswith(("window", "window_size", "chunk_size")) and type(value) is int
        ]
        kernel = getattr(config, "_attn_implementation", None)
        simple = kernel in ("eager", "sdpa") or is_flash(kernel)
        return simple and self.takes_positions and all(length <= window for window in windows if window > 0)

    def _ordinary_ids(self) -> Tensor:
        """Up to 4,096 ordinary tokens, evenly spread over the vocabulary, (n,)."""
        size = min(self.model.get_input_embeddings().weight.shape[0], len(self.tokenizer))
        special = set(getattr(self.tokenizer, "all_special_ids", ()))
        ids = [i for i in range(0, size, max(1, size // _RMS_SAMPLE)) if i not in special]
        return torch.tensor(ids or [0], device=self.device)

    @torch.no_grad()
    def _check(self, ids: Tensor) -> None:
        """Finds out whether logits can be selected, and refuses an LM that is not causal or reads embeddings otherwise.

        Both are seen in one pass over three tokens (3,) and, in a second row, the same with the last two exchanged.
        """
        embeds = torch.stack([self.embed(ids), self.embed(ids[[0, 2, 1]])])
        keep = torch.tensor([[True, True, True], [True, False, False]], device=embeds.device)
        *found, exchanged = self._select(embeds, keep)
        if not self._alike(found[0], exchanged):
            raise BackboneError(
                f"Expected a causal LM; found {type(self.model).__name__} in {self.identity.name}, in which later "
                "tokens change earlier ones. Use it as the encoder, and a decoder-only model as the LM."
            )
        expected = self.model(input_ids=ids.unsqueeze(0), use_cache=False, return_dict=True).logits[0].float()
        if not self._alike(expected, torch.stack(found)):
            raise BackboneError(
                f"Expected an LM that reads embeddings as it reads tokens; found {type(self.model).__name__} in "
                f"{self.identity.name}, which gives other logits for the embeddings of the same tokens. It cannot "
                "read an encoder's span: choose another LM."
            )

    def _select(self, embeds: Tensor, keep: Tensor) -> Tensor:
        """Logits (N,V); whether `logits_to_keep` takes a mask is tried out: transformers 5.22 and newer, most families.

        Args:
            embeds: (B,M,H).
            keep: (B,M), true at N positions.

        Raises:
            BackboneError: It does not run at all.
        """
        self.selects_logits = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        selected = None
        if self.selects_logits:
            with suppress(IndexError, RuntimeError, TypeError, ValueError):
                selected = self.run(embeds, keep)
            if selected is not None and selected.ndim == 2:
                return selected
        asked, self.selects_logits = self.selects_logits, False
        try:
            logits = self.run(embeds, keep)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise BackboneError(
                f"Expected an LM that runs on {embeds.device} in {embeds.dtype}; found {type(self.model).__name__} in "
                f"{self.identity.name}, which fails: {str(error).strip().splitlines()[0]}. Try another "
                "attn_implementation, dtype or device."
            ) from error
        if asked and selected is None:
            logger.warning(
                "%s computes logits at all positions, for it cannot be told which are read. "
                "transformers 5.22 or newer may spare memory and time.",
                type(self.model).__name__,
            )
        return logits

    def _alike(self, expected: Tensor, found: Tensor) -> bool:
        return torch.allclose(expected, found, atol=self.tolerance, rtol=self.tolerance)
