"""From texts to the embeddings that an LM reads: encoder, fusion and prompt, in batches on a worker thread.

Both engines use it. Shapes: M positions (head, span, plain text, tail), H LM width.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glotfuse.errors import PromptError
from glotfuse.inputs import PreparedExample, collate
from glotfuse.prompts import Prompt
from glotfuse.serving.engine import ModelDescription
from glotfuse.serving.requests import Text

if TYPE_CHECKING:
    from torch import Tensor

    from glotfuse.model import FusedLM

_MOST_HEADS = 16
"""Most prompt heads whose keys and values are kept: instructions come from clients."""


@dataclass(frozen=True)
class Query:
    """A text with the prompt around it, prepared for a batch."""

    example: PreparedExample
    prompt: Prompt


@dataclass(frozen=True)
class PromptEmbeddings:
    """One row as the LM reads it."""

    embeddings: Tensor
    """(M,H), in the LM's dtype, head included."""
    truncated: bool
    """Whether the text was cut."""


def prepare(model: FusedLM, text: Text, language: str | None, prompt: Prompt) -> Query:
    """Tokenises one text; cheap enough for any thread, and the place where bad input is found.

    Raises:
        PromptError: The text is empty or lacks a column, or text and instruction are longer than what the LM reads.
        BackboneError: The encoder does not know the language.
    """
    (example,) = model.prepare([text], language, prompt)
    context = context_length(model)
    num_prompt = len(prompt.head_ids) + len(example.encoder_ids) + len(example.text_ids) + len(prompt.tail_ids)
    if context is not None and num_prompt >= context:
        raise PromptError(
            f"Expected text and instruction within the {context} positions that the LM reads; found about "
            f"{num_prompt}. Shorten the instruction."
        )
    return Query(example, prompt)


def context_length(model: FusedLM) -> int | None:
    """Most positions that the LM reads and writes, where its config says so."""
    found = getattr(model.lm.model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def embed(model: FusedLM, queries: Sequence[Query]) -> list[PromptEmbeddings]:
    """Embeddings of a batch of queries with the same prompt, each without padding.

    Raises:
        ValueError: The queries have different prompts.
    """
    prompt = queries[0].prompt
    if any(query.prompt != prompt for query in queries):
        raise ValueError("Expected queries with one prompt; found several. Batch them by `prompt.head_ids`.")
    with model.answering():
        sequences = model.assemble(collate([q.example for q in queries], model.encoder.pad_token_id), prompt)
        whole = model.with_head(sequences, prompt)
        rows = [embeddings[mask].to(model.lm.dtype) for embeddings, mask in zip(*whole[:2], strict=True)]
    return [PromptEmbeddings(row, q.example.truncated) for row, q in zip(rows, queries, strict=True)]


def with_labels(model: FusedLM, labels: Sequence[str] | None, instruction: str | None) -> FusedLM:
    """The same model, whose weights it shares, with other label words or another instruction.

    `prompt`, `labels` and `label_ids` of the result belong together; the instruction that was trained is filled with
    the new label words.

    Raises:
        PromptError: The label words cannot be told apart, or there are none at all.
    """
    if labels is None and not model.labels:
        raise PromptError("Expected label words in `labels`, for the model was trained without; found none.")
    if labels is None and instruction is None:
        return model
    view = copy.copy(model)
    view.labels = tuple(labels) if labels is not None else model.labels
    view.prompt = view.prompt_for(trained_instruction(model) if instruction is None else instruction)
    view.label_ids = view.prompt.label_ids(view.labels)
    view.branching = None
    if model.probe is not None and view.labels != model.labels:  # it knows the labels that were trained alone
        known = sorted(view.labels) == sorted(model.labels)
        view.probe = model.probe.for_labels([model.labels.index(label) for label in view.labels]) if known else None
    return view


def trained_instruction(model: FusedLM) -> str | None:
    """The instruction of the prompt that was trained, with `{labels}` where it has label words; None without one."""
    settings: dict[str, Any] = dict(model.settings.get("prompt", {}))
    own: str | None = settings.get("instruction")
    if own is not None:
        return own or None
    return (model.settings.get("instruction") or None) if settings.get("style", "chat") == "chat" else None


def keep_few_heads(model: FusedLM) -> None:
    """Bounds the memory of cached prompt heads, of which clients' instructions would make ever more."""
    model._head_caches = _Recent(_MOST_HEADS)


class LabelViews:
    """Remembers the views of `with_labels` that were asked for last, so that equal requests share one.

    Args:
        model: The fused model.
    """

    def __init__(self, model: FusedLM):
        self._model = model
        self._views = _Recent(_MOST_HEADS)

    def __call__(self, labels: Sequence[str] | None, instruction: str | None) -> FusedLM:
        """The view for these label words and this instruction; see `with_labels`."""
        key = (None if labels is None else tuple(labels), instruction)
        if key not in self._views:
            self._views[key] = with_labels(self._model, labels, instruction)
        view: FusedLM = self._views[key]
        return view


def end_ids(model: FusedLM, prompt: Prompt) -> frozenset[int]:
    """Tokens that end an answer, as in `FusedLM.generate`."""
    end = model.lm.tokenizer.eos_token_id
    return frozenset({*prompt.end_ids, *([] if end is None else [end])})


def describe(model: FusedLM, name: str, engine: str) -> ModelDescription:
    """What clients may know about a served model."""
    return ModelDescription(
        name=name,
        encoder=model.encoder.identity.name,
        lm=model.lm.identity.name,
        labels=model.labels,
        columns=model.reader.columns,
        max_length=model.reader.max_length,
        engine=engine,
    )


class _Recent(OrderedDict[Any, Any]):
    """A dictionary of the entries that were used last."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    def __getitem__(self, key: Any) -> Any:
        self.move_to_end(key)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        while len(self) > self.most:
            self.popitem(last=False)
