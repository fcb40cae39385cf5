"""Generated answers through the LM's own `generate`: greedy, sampling or beam search, with its key-value cache.

New tokens are appended at the right end, so batches are left-padded here, head included: the padding stands before
the BOS and there is no gap anywhere, whatever the LM's positions or attention windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glotfuse.errors import BackboneError, PromptError
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.inputs.prompts import Prompt
from glotfuse.model.sequences import pad_left

if TYPE_CHECKING:
    from glotfuse.model.fused_model import FusedModel


def generate(
    model: FusedModel,
    examples: Sequence[PreparedExample],
    prompt: Prompt,
    max_new_tokens: int,
    batch_size: int,
    options: dict[str, Any],
) -> list[str]:
    """Answers prepared examples; batches hold texts of similar length, results keep the given order."""
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].encoder_ids) - len(examples[i].text_ids))
    merged = _options(model, prompt, max_new_tokens, options)
    answers: dict[int, str] = {}
    with model.answering():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            ids = model.lm.model.generate(**left_padded(model, [examples[i] for i in chosen], prompt), **merged)
            texts = model.lm.tokenizer.batch_decode(ids, skip_special_tokens=True)
            answers.update(zip(chosen, (text.strip() for text in texts), strict=True))
    return [answers[i] for i in range(len(examples))]


def stream(
    model: FusedModel,
    examples: Sequence[PreparedExample],
    prompt: Prompt,
    max_new_tokens: int,
    options: dict[str, Any],
) -> Iterator[str]:
    """Yields the answer to one prepared example piece by piece, while a thread generates it."""
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    merged = _options(model, prompt, max_new_tokens, options)
    abandoned = Event()

    def is_abandoned(ids: Tensor, _: Any) -> Tensor:
        return torch.full((len(ids),), abandoned.is_set(), device=ids.device)

    criteria = StoppingCriteriaList([*merged.pop("stopping_criteria", ()), is_abandoned])
    streamer = TextIteratorStreamer(model.lm.tokenizer, skip_special_tokens=True)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with model.answering():
                inputs = left_padded(model, examples, prompt)
                model.lm.model.generate(**inputs, **merged, streamer=streamer, stopping_criteria=criteria)
        except BaseException as error:
            failures.append(error)
            streamer.end()

    thread = Thread(target=work, daemon=True)
    thread.start()
    try:
        yield from (piece for piece in streamer if piece)
    finally:  # also when the reader stops early
        abandoned.set()
        thread.join()
    if failures:
        raise failures[0]


def left_padded(model: FusedModel, examples: Sequence[PreparedExample], prompt: Prompt) -> dict[str, Tensor]:
    """Head and sequences of a batch with the padding at the left.

    Returns:
        `inputs_embeds` (B,C+M,H), `attention_mask` (B,C+M) and explicit `position_ids` (B,C+M).
    """
    sequences = model.assemble(collate(examples, model.encoder.pad_token_id), prompt)
    padded = pad_left(model.with_head(sequences, prompt))
    mask = padded.mask.long()
    inputs = {"inputs_embeds": padded.embeddings.to(model.lm.dtype), "attention_mask": mask}
    if model.lm.takes_positions:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
    return inputs


def _options(model: FusedModel, prompt: Prompt, max_new_tokens: int, options: dict[str, Any]) -> dict[str, Any]:
    if options.get("num_return_sequences", 1) != 1:
        raise PromptError(
            f"Expected one answer per text; found num_return_sequences={options['num_return_sequences']}. "
            "Give a text several times to sample several answers."
        )
    if model.lm.no_generation:
        raise BackboneError(
            f"Expected an LM that generates from embeddings; found {model.lm.identity.architecture}: "
            f"{model.lm.no_generation}. It can classify; to generate, choose another LM or a newer transformers."
        )
    tokenizer = model.lm.tokenizer
    ends = {*prompt.end_ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])}
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends)
    return {
        "max_new_tokens": max_new_tokens,
        "eos_token_id": sorted(ends),
        "pad_token_id": pad,
        "do_sample": False,
        **({"no_repeat_ngram_size": model.no_repeat_ngram_size} if model.no_repeat_ngram_size else {}),
        **options,
    }


def end_ids(model: FusedModel, prompt: Prompt) -> frozenset[int]:
    """Tokens that end an answer, as in `FusedLM.generate`."""
    end = model.lm.tokenizer.eos_token_id
    return frozenset({*prompt.end_ids, *([] if end is None else [end])})
