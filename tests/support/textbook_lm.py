"""What an LM says after the span by the plainest computation, and which LMs read label words as a tree."""

from __future__ import annotations

import torch
from torch import Tensor

from glotfuse.api import FusedLM
from glotfuse.inputs.batch import PreparedExample


def textbook_logits(model: FusedLM, example: PreparedExample, answer: list[int]) -> Tensor:
    """Logits (A,V) before each answer token: one example, no padding, no cache, all positions computed."""
    prompt, lm = model.prompt, model.lm.model
    embed = lm.get_input_embeddings()
    ids = torch.tensor([example.encoder_ids])
    with torch.no_grad():
        states = model.encoder.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True
        ).hidden_states[1:]
    span = model.fusion(states, torch.ones_like(ids, dtype=torch.bool)).embeddings[0]
    before, after = torch.tensor(prompt.head_ids, dtype=torch.long), [*example.text_ids, *prompt.tail_ids, *answer]
    row = torch.cat([embed(before), span, embed(torch.tensor(after, dtype=torch.long))])
    logits = lm(inputs_embeds=row.unsqueeze(0), use_cache=False).logits[0]
    return logits[len(row) - len(answer) - 1 : -1]


BRANCHING = ("llama", "qwen3", "gemma", "gpt-neox", "opt", "gpt2")
