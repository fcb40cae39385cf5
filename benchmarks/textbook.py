"""The opponent: the published procedure, written straightforwardly.

Every epoch encodes anew; the states of all layers are stacked; `nn.TransformerEncoder` runs over the L+1 positions of
every token; the whole prompt passes through the LM with gradient; logits are computed at all positions; rows are padded
to the longest of a random batch; labels are found by greedy generation and string match. It takes its trained weights
from a glotfuse model, so both start alike, and it reaches the same loss on the same batches.

Shapes: B batch, T encoder tokens, L encoder layers, D encoder width, H LM width, M positions of the whole row.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glotfuse.api import FusedLM
from glotfuse.fusion.mixers import TransformerSoftmax
from glotfuse.inputs.batch import PreparedExample, collate


class TextbookMixer(nn.Module):
    """Transformer Softmax by `nn.TransformerEncoder` over [cls, x_1 + p_1, ..., x_L + p_L] of every token.

    Args:
        source: Where the weights come from; they are copied.
    """

    def __init__(self, source: TransformerSoftmax):
        super().__init__()
        self.encoder = nn.TransformerEncoder(copy.deepcopy(source.layer), num_layers=1, enable_nested_tensor=False)
        self.cls = nn.Parameter(source.cls.detach().clone())
        self.positions = nn.Parameter(source.positions.detach().clone())
        self.to_weights = copy.deepcopy(source.to_weights)

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Mixes L tensors (B,T,D) under a mask (B,T) into (B,T,D)."""
        states = torch.stack(list(hidden_states), dim=2)  # (B,T,L,D)
        batch, length, layers, width = states.shape
        tokens = (states + self.positions).view(batch * length, layers, width)
        cls = self.cls.expand(batch * length, 1, width)
        out = self.encoder(torch.cat([cls, tokens], dim=1))[:, 0]
        weights = torch.softmax(self.to_weights(out), dim=-1).view(batch, length, layers, 1)
        mixed: Tensor = (states * weights).sum(2) * mask.unsqueeze(-1)
        return mixed


class TextbookModel(nn.Module):
    """Encoder, textbook mixer, linear projector, boundary and LM.

    Args:
        model: A glotfuse model with `transformer_softmax`, the linear projector and neither summary nor dropout of
            states and positions; its trained weights are copied, its frozen models shared.
    """

    def __init__(self, model: FusedLM):
        super().__init__()
        fusion: Any = model.fusion
        if fusion.summary or fusion.state_dropout or fusion.token_dropout or fusion.layer_norm != "none":
            raise ValueError("Expected a model without summary, layer norms, and dropout of states and positions.")
        self.model = [model]  # in a list: its weights are not this module's
        self.mixer = TextbookMixer(fusion.mixer)
        self.projector = copy.deepcopy(fusion.projector.map)
        self.boundary = nn.Parameter(fusion.boundary.detach().clone())

    def rows(self, examples: Sequence[PreparedExample]) -> tuple[Tensor, Tensor]:
        """Embeddings (B,M,H) of head, span, tail and answer, and their mask; padding stands inside, after the span."""
        model = self.model[0]
        device = model.device
        batch = collate(examples, model.encoder.pad_token_id, answers=bool(examples[0].answer_ids))
        encoder_ids, encoder_mask = batch.encoder_ids.to(device), batch.encoder_mask.to(device)
        with torch.no_grad():
            output = model.encoder.model(
                input_ids=encoder_ids, attention_mask=encoder_mask.long(), output_hidden_states=True
            )
        mixed = self.mixer(output.hidden_states[1:], encoder_mask)
        span = self.projector(mixed)
        if model.fusion.match_scale is not None:
            span = F.rms_norm(span, span.shape[-1:], eps=1e-12) * model.fusion.match_scale
        size = len(examples)
        span = torch.cat([span * encoder_mask.unsqueeze(-1), self.boundary.expand(size, 1, -1)], dim=1)
        span_mask = F.pad(encoder_mask, (0, 1), value=True)
        embed = model.lm.model.get_input_embeddings()
        head = embed(torch.tensor(model.prompt.head_ids, device=device)).expand(size, -1, -1)
        tail_ids = torch.tensor(model.prompt.tail_ids, device=device).expand(size, -1)
        after_ids = torch.cat([tail_ids, batch.answer_ids.to(device)], dim=1)
        after = embed(after_ids.clamp_min(0))
        head_mask = torch.ones(head.shape[:2], dtype=torch.bool, device=device)
        mask = torch.cat([head_mask, span_mask, after_ids >= 0], dim=1)
        return torch.cat([head, span.to(head.dtype), after], dim=1), mask

    def loss(self, examples: Sequence[PreparedExample]) -> Tensor:
        """Mean cross-entropy of the answer tokens, from logits at all positions."""
        model = self.model[0]
        embeds, mask = self.rows(examples)
        answers = collate(examples, model.encoder.pad_token_id, answers=True).answer_ids.to(model.device)
        labels = F.pad(answers, (embeds.shape[1] - answers.shape[1], 0), value=-100)
        logits = model.lm.model(
            inputs_embeds=embeds, attention_mask=mask.long(), position_ids=_positions(mask), use_cache=False
        ).logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)

    def classify(self, examples: Sequence[PreparedExample], batch_size: int = 32, max_tokens: int = 10) -> list[str]:
        """Greedy generation, then the label word that the answer is, or nothing."""
        labels = self.model[0].labels
        return [text if text in labels else "" for text in self.generate(examples, batch_size, max_tokens)]

    @torch.no_grad()
    def generate(self, examples: Sequence[PreparedExample], batch_size: int = 32, max_tokens: int = 10) -> list[str]:
        """Greedy generation behind the whole prompt."""
        model = self.model[0]
        tokenizer, found = model.lm.tokenizer, []
        for start in range(0, len(examples), batch_size):
            embeds, mask = self.rows(examples[start : start + batch_size])
            order = mask.to(torch.uint8).argsort(dim=1, stable=True)  # generate needs padding at the left
            ids = model.lm.model.generate(
                inputs_embeds=embeds.take_along_dim(order.unsqueeze(-1), 1),
                attention_mask=mask.take_along_dim(order, 1).long(),
                max_new_tokens=max_tokens,
                do_sample=False,
                eos_token_id=list(model.prompt.end_ids[:1]),
                pad_token_id=tokenizer.eos_token_id,
            )
            found += [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return found


def _positions(mask: Tensor) -> Tensor:
    return (mask.long().cumsum(1) - 1).clamp_min(0)
