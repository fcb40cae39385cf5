"""Answers of several texts, token by token: texts join and leave between two steps.

Rows stand beside each other in one key-value cache, padded at the left, without gaps: new tokens come at the right end.
Shapes: B rows, M positions after the head, S cached positions, H LM width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.backbones.prefix_cache import continued
from glotfuse.inputs.batch import collate
from glotfuse.inputs.order import inference_batches
from glotfuse.serving.encoding import Query
from glotfuse.serving.local.sampling import Sampler

if TYPE_CHECKING:
    from glotfuse.api import FusedLM


@dataclass(eq=False)
class Row:
    """One answer in the making."""

    query: Query
    sampler: Sampler
    ids: list[int] = field(default_factory=list)
    """The answer's tokens so far."""
    num_prompt: int = 0
    """Positions before the answer, head included; known when the row has joined."""
    embeddings: Tensor | None = None
    """(S,H): everything read so far, for LMs without a cache."""


class Decoder:
    """Generates for several rows at once.

    Not thread-safe: one thread uses it.

    Args:
        model: The fused model.

    Attributes:
        rows: Those that have joined.
    """

    def __init__(self, model: FusedLM):
        self.rows: list[Row] = []
        self._model = model
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._mask: Tensor | None = None

    def join(self, rows: Sequence[Row]) -> None:
        """Reads the prompts of new rows and chooses their first tokens.

        A prompt that fails leaves the other rows as they are; none of the new ones has joined then.
        """
        by_prompt: dict[Any, list[Row]] = {}
        for row in rows:
            by_prompt.setdefault(row.query.prompt, []).append(row)
        parts = []
        with self._model.answering():
            for same in by_prompt.values():
                lengths = [len(row.query.example.encoder_ids) + len(row.query.example.text_ids) for row in same]
                for chosen in inference_batches(lengths, len(same), self._model.device):
                    parts.append(self._read([same[i] for i in chosen]))
            for part in parts:
                self._add(*part)

    def step(self) -> None:
        """Chooses the next token of every row."""
        if not self.rows:
            return
        with self._model.answering():
            logits = self._continue() if self._layers else self._anew()
        self._choose(self.rows, logits)

    def leave(self, rows: Sequence[Row]) -> None:
        """Takes rows out, with their keys and values."""
        gone = {id(row) for row in rows}
        kept = [i for i, row in enumerate(self.rows) if id(row) not in gone]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in kept]
        if not kept:
            self._layers, self._mask = [], None
        elif self._mask is not None:
            with torch.inference_mode():
                mask = self._mask[kept]
                longest = int(mask.sum(1).max())
                self._mask = mask[:, -longest:].clone()
                self._layers = [
                    (keys[kept][:, :, -longest:].clone(), values[kept][:, :, -longest:].clone())
                    for keys, values in self._layers
                ]

    def _read(self, rows: list[Row]) -> tuple[list[Row], Tensor | None, list[tuple[Tensor, Tensor]]]:
        """Mask (B,S) and keys and values of the rows' prompts, left-padded; None and none for LMs without a cache."""
        model, prompt = self._model, rows[0].query.prompt
        sequences = model.assemble(collate([row.query.example for row in rows], model.encoder.pad_token_id), prompt)
        logits, cache = model.run_lm(sequences, sequences.last(), prompt)
        num_head = len(prompt.head_ids)
        for row, length in zip(rows, sequences.lengths.tolist(), strict=True):
            row.num_prompt = num_head + length
        if cache is None:
            whole = model.with_head(sequences, prompt)
            for row, embeddings, mask in zip(rows, whole.embeddings, whole.mask, strict=True):
                row.embeddings = embeddings[mask]
            self._choose(rows, logits)
            return rows, None, []
        seen = F.pad(sequences.mask, (num_head, 0), value=True)
        order = seen.to(torch.uint8).argsort(dim=1, stable=True)
        layers = [(layer.keys, layer.values) for layer in continued(cache, order, 1).layers]
        self._choose(rows, logits)
        return rows, seen.take_along_dim(order, 1), layers

    def _add(self, rows: list[Row], mask: Tensor | None, layers: list[tuple[Tensor, Tensor]]) -> None:
        if mask is None:
            self.rows += rows
            return
        if self._mask is None:
            self.rows, self._mask, self._layers = rows, mask, layers
            return
        size = max(self._mask.shape[1], mask.shape[1])

        def join(one: Tensor, other: Tensor, dim: int) -> Tensor:
            return torch.cat([_pad(one, size, dim), _pad(other, size, dim)])

        self._layers = [
            (join(keys, more_keys, 2), join(values, more_values, 2))
            for (keys, values), (more_keys, more_values) in zip(self._layers, layers, strict=True)
        ]
        self._mask, self.rows = join(self._mask, mask, 1), [*self.rows, *rows]

    def _continue(self) -> Tensor:
        """Logits (B,V) after the rows' last tokens, from the cache, which takes them up."""
        from transformers import DynamicCache

        assert self._mask is not None
        model = self._model
        positions = self._mask.sum(1, keepdim=True)
        mask = F.pad(self._mask, (0, 1), value=True)
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self._layers):
            cache.update(keys, values, index)
        last = torch.tensor([[row.ids[-1]] for row in self.rows], device=model.device)
        logits = model.lm.run(
            model.lm.embed(last),
            torch.ones_like(last, dtype=torch.bool),
            cache=cache,
            attention_mask=mask.long(),
            position_ids=positions,
        )
        self._mask, self._layers = mask, [(layer.keys, layer.values) for layer in cache.layers]
        return logits

    def _anew(self) -> Tensor:
        """Logits after each row by reading it from its beginning, for LMs that keep more than keys and values."""
        model = self._model
        rows = []
        for row in self.rows:
            assert row.embeddings is not None
            last = model.lm.embed(torch.tensor(row.ids[-1:], device=model.device))
            row.embeddings = torch.cat([row.embeddings, last.to(row.embeddings.dtype)])
            rows.append(row.embeddings)
        lengths = torch.tensor([len(row) for row in rows], device=model.device)
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        keep = torch.arange(padded.shape[1], device=model.device) == lengths.unsqueeze(1) - 1
        return model.lm.run(padded, keep)

    def _choose(self, rows: Sequence[Row], logits: Tensor) -> None:
        most_probable = logits.argmax(-1).tolist()
        for i, row in enumerate(rows):
            plain = row.sampler.is_plain
            row.ids.append(most_probable[i] if plain else row.sampler.choose(row.ids, logits[i]))


def _pad(tensor: Tensor, size: int, dim: int) -> Tensor:
    """The tensor with zeros at the left end of one dimension, up to a size."""
    after = tensor.dim() - 1 - dim
    return F.pad(tensor, (0, 0) * after + (size - tensor.shape[dim], 0))
