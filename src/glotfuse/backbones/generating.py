"""Generation from embeddings in LMs whose class names no such argument: hybrids, and text models inside vision models.

`generate` of transformers takes `inputs_embeds` where `prepare_inputs_for_generation` names it. Some classes pass it on
without naming it, so it is named for them; whether it then arrives is tried once, when the LM is loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_NUM_TRIED = 3


@torch.no_grad()
def refusal(model: Any, ids: Tensor, embed: Callable[[Tensor], Tensor]) -> str | None:
    """Lets an LM generate from embeddings, if need be; why it cannot, or None.

    Args:
        model: A causal LM of transformers; a class that does not name `inputs_embeds` gets it named on this instance.
        ids: A few ordinary tokens, (n,).
        embed: Their embeddings, as the LM makes them.
    """
    prepare = getattr(model, "prepare_inputs_for_generation", None)
    if prepare is None:
        return "its class has no generate"
    if "inputs_embeds" in inspect.signature(prepare).parameters:
        return None

    def named(input_ids: Any, inputs_embeds: Any = None, **kwargs: Any) -> Any:
        return prepare(input_ids, inputs_embeds=inputs_embeds, **kwargs)

    model.prepare_inputs_for_generation = named
    few = ids[1:4].unsqueeze(0)
    expected = few
    try:
        for _ in range(_NUM_TRIED):
            logits = model(input_ids=expected, use_cache=False, return_dict=True).logits[:, -1]
            expected = torch.cat([expected, logits.argmax(-1, keepdim=True)], dim=1)
        found = model.generate(
            inputs_embeds=embed(few),
            attention_mask=torch.ones_like(few),
            max_new_tokens=_NUM_TRIED,
            do_sample=False,
            pad_token_id=0,
        )
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        return str(error).strip().split("\n")[0] or type(error).__name__
    new = expected[:, few.shape[1] :]
    if found.tolist() != new[:, : max(1, found.shape[1])].tolist():  # it may have met the end
        return "from the embeddings of a few tokens it generates others than from the tokens themselves"
    return None
