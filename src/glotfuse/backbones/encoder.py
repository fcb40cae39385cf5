"""A frozen multilingual encoder with its tokenizer.

Shapes: B batch, T tokens, L layers, D width.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from glotfuse.backbones.byte_fallback import BYTE_PIECE_PATTERN
from glotfuse.backbones.identity import BackboneIdentity
from glotfuse.backbones.layer_taps import find_taps, run_tapped, tapped
from glotfuse.backbones.placement import input_device, is_fixed, say_fixed
from glotfuse.backbones.pooling import Pooling
from glotfuse.errors import BackboneError, did_you_mean

logger = logging.getLogger(__name__)


class Encoder(nn.Module):
    """Hidden states of all layers, without gradient and in evaluation mode for good.

    Args:
        model: An encoder of transformers, or the encoder half of an encoder-decoder model.
        tokenizer: Its tokenizer.
        identity: Which model this is.
        prefix: Text put before every input (e5 models were trained with `query: `).
        src_lang: A fixed source language for tokenizers that need one (NLLB, M2M100, mBART); None takes the
            language of each text.
        byte_fallback: Whether the tokenizer was changed by `restore_byte_fallback`, for the record.
        pooling: How sentence embeddings are made of its last layer; None takes the mean.

    Attributes:
        num_layers: L, the embedding output left out.
        hidden_size: D.
        embedding_size: E, width of its sentence embeddings.
        max_length: Most tokens the model takes, None when it has no limit of its own.

    Raises:
        BackboneError: `src_lang` is not a language of the tokenizer, or the tokenizer takes none; the pooling is for
            another width.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        identity: BackboneIdentity,
        *,
        prefix: str = "",
        src_lang: str | None = None,
        byte_fallback: bool = False,
        pooling: Pooling | None = None,
    ):
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        config: Any = model.config
        if getattr(config, "use_cache", False):
            config.use_cache = False  # a decoder would keep keys and values that nobody reads
        self.tokenizer = tokenizer
        self.identity = identity
        self.prefix = prefix
        self.src_lang = src_lang
        self.byte_fallback = byte_fallback
        self._languages = _language_codes(tokenizer) if hasattr(tokenizer, "src_lang") else set()
        self._default_language = getattr(tokenizer, "src_lang", None)
        # `</s>` in a text is text. Telling the tokenizer so is not enough: Unigram vocabularies have it as a piece too.
        names = [re.escape(name) for name in getattr(tokenizer, "all_special_tokens", ()) if len(name) > 1]
        names = sorted(names, key=len, reverse=True) + ([BYTE_PIECE_PATTERN] if byte_fallback else [])
        self._special_names = re.compile("|".join(names) or "(?!)")
        if src_lang is not None and not self._languages:
            raise BackboneError(
                f"Expected no src_lang for {identity.name}, whose tokenizer takes no source language; "
                f"found {src_lang!r}. Leave it out."
            )
        probe = self.tokenize(["a"])
        hidden_states: list[Tensor] = []

        def run() -> list[Tensor]:
            hidden_states.extend(self.forward(torch.tensor(probe, device=self.device), None))
            return hidden_states

        self._taps = find_taps(self.model, run)
        self.num_layers = len(hidden_states)
        self.hidden_size = int(hidden_states[0].shape[-1])
        self.max_length = longest_input(model, tokenizer)
        self._pool_by(pooling or Pooling())
        if "lasttoken" in self.pooling.modes and probe[0][-1] not in special_ids(self):
            logger.warning(
                "The sentence embeddings of %s are the states of last tokens, and its tokenizer puts no end token "
                "after a text, so they are those of its last word. If the model was trained with an end token, name a "
                "folder whose tokenizer.json adds it.",
                identity.name,
            )

    def _pool_by(self, pooling: Pooling) -> None:
        self.embedding_size = pooling.size(self.hidden_size)
        self.pooling = pooling

    def with_pooling(self, pooling: Pooling) -> Encoder:
        """The same model and tokenizer with other sentence embeddings.

        Raises:
            BackboneError: The pooling is for another width.
        """
        found = copy.copy(self)
        found._pool_by(pooling)
        return found

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens of each text that its sentence embedding leaves out: none, or those of the prefix by itself."""
        if self.pooling.include_prompt or not self.prefix:
            return 0
        ids: list[int] = self.tokenizer(self.prefix, verbose=False)["input_ids"]
        return len(ids) - (ids[-1] in special_ids(self))

    @property
    def device(self) -> torch.device:
        """Where the embeddings are; ids go there."""
        return input_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.model.parameters()).dtype

    @property
    def pad_token_id(self) -> int:
        """Id that fills short rows; masked, so any id serves where the tokenizer names none."""
        pad: int | None = self.tokenizer.pad_token_id
        return 0 if pad is None else pad

    def _own_precision(self) -> torch.autocast:
        """Mixed precision is for what is trained; the encoder's states are the same in training and answering."""
        return torch.autocast(self.device.type, enabled=False)

    def train(self, mode: bool = True) -> Encoder:
        """Stays in evaluation mode: frozen means frozen."""
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> Encoder:
        """Moves and casts it, where that is possible."""
        if is_fixed(self.model):
            say_fixed(self.model)
            return self
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def tokenize(self, texts: Sequence[str], language: str | None = None) -> list[list[int]]:
        """Token ids with the model's special tokens, one list per text, never cut.

        Args:
            texts: What to encode; the prefix is added here. The names of special tokens (and, with
                `byte_fallback`, of bytes) are read as text, with a blank after their first letter.
            language: Flores-style code of the texts, for tokenizers that need a source language.

        Raises:
            BackboneError: The tokenizer needs a source language and has none for this one.
        """
        self.use_language(language)
        plain = [self._special_names.sub(lambda name: f"{name[0][0]} {name[0][1:]}", text) for text in texts]
        encoded = self.tokenizer([self.prefix + text for text in plain], add_special_tokens=True, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    @torch.no_grad()
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None, layers: Sequence[int] | None = None
    ) -> tuple[Tensor, ...]:
        """Encodes right-padded ids (B,T) under a mask (B,T) without gradient.

        Args:
            input_ids: (B,T).
            attention_mask: (B,T), true for real tokens; None where all are.
            layers: Indices of the layers to return, from 0; None returns all.

        Returns:
            One tensor (B,T,D) per layer.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        with self._own_precision():
            output = self.model(
                input_ids=input_ids.to(self.device),
                attention_mask=attention_mask.to(self.device, torch.long),
                output_hidden_states=True,
                return_dict=True,
            )
        hidden_states: tuple[Tensor, ...] = output.hidden_states[1:]
        return hidden_states if layers is None else tuple(hidden_states[layer] for layer in layers)

    @torch.no_grad()
    def sum_layers(
        self, input_ids: Tensor, attention_mask: Tensor, weights: Tensor, transform: Callable[[Tensor, int], Tensor]
    ) -> Tensor:
        """The weighted sum of all layers' states (B,T,D), added up while the model runs, without holding them all.

        Args:
            input_ids: (B,T).
            attention_mask: (B,T).
            weights: (L,); layers with weight zero are passed over.
            transform: Applied to each layer's state and its index before it is added.
        """
        total: Tensor | None = None

        def add(layer: int, states: Tensor) -> None:
            nonlocal total
            if chosen[layer]:
                term = transform(states.to(self.device), layer).mul(chosen[layer])
                total = term if total is None else total.add_(term)

        chosen = weights.tolist()
        if self._taps is None:
            for layer, states in enumerate(self.forward(input_ids, attention_mask)):
                add(layer, states)
        else:
            inputs = input_ids.to(self.device), attention_mask.to(self.device, torch.long)
            with self._own_precision():
                run_tapped(self._taps, add, lambda: self.model(input_ids=inputs[0], attention_mask=inputs[1]))
        assert total is not None, "some layer has weight"
        return total

    @contextmanager
    def watching_last_layer(self) -> Iterator[list[Tensor]]:
        """The last layer's states (B,T,D) of every pass inside; none, where that layer has no tap."""
        seen: list[Tensor] = []
        with tapped(self._taps[-1], seen.append) if self._taps else nullcontext():
            yield seen

    def use_language(self, language: str | None) -> None:
        """Sets the tokenizer's source language, where it has one, to the fixed one or the texts'.

        Raises:
            BackboneError: The language is not one of the tokenizer's.
        """
        if not self._languages:
            return
        wanted, known = self.src_lang or language, self._languages
        # a tokenizer keeps the language it was last set to, and texts without one must not depend on that
        code = self._default_language if wanted is None else _match_language(wanted, known)
        if wanted is not None and code is None:
            raise BackboneError(
                f"The tokenizer of {self.identity.name} needs a source language out of its {len(known)} codes "
                f"(such as {', '.join(sorted(known)[:5])}); found {wanted!r}.{did_you_mean(wanted, known)} "
                "Name it with the encoder option src_lang, or correct the language code."
            )
        if self.tokenizer.src_lang != code:
            self.tokenizer.src_lang = code


def _language_codes(tokenizer: Any) -> set[str]:
    """Codes that `tokenizer.src_lang` takes: NLLB `sin_Sinh`, mBART `si_LK`, M2M100 `si`."""
    for attribute in ("lang_code_to_id", "lang_code_to_token"):
        table = getattr(tokenizer, attribute, None)
        if table:
            return {str(code) for code in table}
    specials = getattr(tokenizer, "additional_special_tokens", None)  # its name before transformers 5
    specials = specials or getattr(tokenizer, "extra_special_tokens", None) or ()
    codes = {str(token).strip("_") for token in specials}
    return {code for code in codes if 2 <= len(code.split("_")[0]) <= 3}


def _match_language(wanted: str, known: set[str]) -> str | None:
    """`sin_Sinh`, `sin`, `si` and `si_LK` find one another where the tokenizer has just one of them."""
    if wanted in known:
        return wanted
    from glotfuse.languages.names import TWO_LETTER_CODES

    base = wanted.split("_")[0]
    bases = {base, TWO_LETTER_CODES.get(base, base)}
    bases |= {three for three, two in TWO_LETTER_CODES.items() if two == base}
    matches = sorted(code for code in known if code.split("_")[0] in bases)
    return matches[0] if len(matches) == 1 else None


def longest_input(model: nn.Module, tokenizer: Any) -> int | None:
    """Most tokens that an encoder takes, None without a limit; its weights are not looked at."""
    limits = [getattr(tokenizer, "model_max_length", None)]
    config: Any = model.config
    # Relative positions (T5) have no limit; XLM-R's table keeps positions up to its padding index for itself.
    table = getattr(config, "max_position_embeddings", None)
    if table is not None:
        reserved = (getattr(config, "pad_token_id", None) or 0) + 1 if _counts_from_padding(model) else 0
        limits.append(table - reserved)
    usable = [limit for limit in limits if limit is not None and 0 < limit < 1_000_000]
    return min(usable) if usable else None


def _counts_from_padding(model: nn.Module) -> bool:
    """Whether position ids start after the padding index, as in RoBERTa and XLM-R."""
    return any(
        isinstance(module, nn.Embedding) and name.endswith("position_embeddings") and module.padding_idx is not None
        for name, module in model.named_modules()
    )


def special_ids(encoder: Encoder, language: str | None = None) -> set[int]:
    """Ids of tokens that stand for no text: begin, end, language and the like, but not the unknown token."""
    encoder.use_language(language)
    tokenizer = encoder.tokenizer
    added = tokenizer("", add_special_tokens=True)["input_ids"]
    return {*tokenizer.all_special_ids, *added} - {tokenizer.unk_token_id}
