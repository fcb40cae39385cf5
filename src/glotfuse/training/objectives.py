"""What a fusion can learn from English text without labels: continuation, reconstruction, instructions, distillation.

`continuation`: the encoder reads the first part of a document, the LM continues it. `reconstruction`: the LM writes
what the encoder read. `instructions`: it follows each row's own instruction. `distillation`: on the continuation's
tokens the LM, reading the span of the first part, learns to predict what the same LM predicts after reading the text.

An objective prepares examples from documents, and may bring a loss of its own; without one it is the prefix-LM loss of
`FusedModel.forward` on the answer tokens.

Shapes: B batch, X plain-text tokens, A answer tokens, N answer tokens of the whole batch, V vocabulary.

Sources: continuation, Yoon et al. 2024, arXiv 2401.10695 (LangBridge), which also draws the cut at random between two
bounds in LM tokens; distillation from the LM that reads the text itself is context distillation, Askell et al. 2021,
arXiv 2112.00861, with the span as the student's context.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.errors import DataError
from glotfuse.inputs.batch import Batch, PreparedExample
from glotfuse.inputs.padding import IGNORED
from glotfuse.inputs.prompts import Prompt
from glotfuse.inputs.reader import InputReader
from glotfuse.model.fused_model import FusedModel
from glotfuse.model.sequences import Sequences, pad_right

_PLAIN = {"add_special_tokens": False, "split_special_tokens": True}
"""Names of special tokens in a text are text."""


class Documents(NamedTuple):
    """Documents as training data."""

    examples: list[PreparedExample]
    """One per document that could be used."""
    fields: Sequence[Mapping[str, str]]
    """What the encoder reads of each."""
    num_left_out: int
    """Documents that could not be used."""


@dataclass(frozen=True)
class TextObjective:
    """One way to learn from documents."""

    instruction: str
    """English instruction before the span, where the recipe gives none."""
    prepare: Callable[..., Documents]
    """From reader, prompt and texts, with `cut`, `max_answer_tokens` and `seed`."""
    left_out: str
    """Why a document may be left out."""
    columns: tuple[str, ...] = ()
    """Columns that it reads beside the text; `prepare` then gets them as `asked`, and `prompt_for`."""
    whole: bool = False
    """Whether the encoder has to read to the end what it is given, for the answer repeats or follows it."""
    loss: Callable[[FusedModel, Batch, Tensor | int | None], dict[str, Tensor]] | None = None
    """None is the model's own."""


def prepare_continuations(
    reader: InputReader,
    prompt: Prompt,
    texts: Sequence[str],
    *,
    cut: tuple[int, int],
    max_answer_tokens: int,
    seed: int,
    keep_text: bool = False,
) -> Documents:
    """Cuts documents in two: the encoder reads the first part, the LM continues it.

    Args:
        reader: Reads the first parts.
        prompt: The prompt between the parts.
        texts: Documents.
        cut: Least and most LM tokens of the first part.
        max_answer_tokens: Most LM tokens of the second; an end follows only where the document ends.
        seed: Of the cuts; document i's cut depends on seed and i alone.
        keep_text: Also keep the LM's tokens of the first parts, for a teacher that reads them.

    Raises:
        DataError: No document is long enough, or the bounds are the wrong way round.
    """
    low, high = cut
    if low > high:
        raise DataError(f"Expected cut bounds with the lower first; found {low} and {high}.")
    column = reader.cut_column
    rows, answers, plain = [], [], []
    for index, text in enumerate(texts):
        encoded = prompt.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        if len(offsets) <= low:
            continue
        position = random.Random(f"{seed}:{index}").randint(low, min(high, len(offsets) - 1))
        start = offsets[position][0]
        ids = prompt.answer_ids(text[start:])
        whole = len(ids) <= max_answer_tokens
        rows.append({column: text[:start]})
        plain.append(prompt.tokenizer(text[:start], **_PLAIN)["input_ids"] if keep_text else [])
        answers.append([*ids[:max_answer_tokens], *(prompt.end_ids if whole else ())])
    if not rows:
        raise DataError(
            f"Expected documents of more than {low} LM tokens; found none among {len(texts)}. Lower training.cut."
        )
    prepared = [
        PreparedExample(ids, text_ids, answer, truncated)
        for (ids, truncated), text_ids, answer in zip(reader.read(rows), plain, answers, strict=True)
    ]
    return Documents(prepared, rows, len(texts) - len(prepared))


def prepare_reconstructions(
    reader: InputReader, prompt: Prompt, texts: Sequence[str], *, max_answer_tokens: int, **_: object
) -> Documents:
    """The LM is to write what the encoder read: as much of each document as fits both.

    Args:
        reader: Reads the documents.
        prompt: The prompt before the answer.
        texts: Documents.
        max_answer_tokens: Most LM tokens of a document; the rest is cut from what the encoder reads too, and an answer
            always ends.
        **_: Settings of other objectives.

    Raises:
        DataError: The encoder can read no document to its end.
    """
    column = reader.cut_column
    rows = []
    for text in texts:
        offsets = prompt.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        rows.append({column: text[: offsets[max_answer_tokens][0]] if len(offsets) > max_answer_tokens else text})
    known = [
        (PreparedExample(ids, [], [*prompt.answer_ids(row[column]), *prompt.end_ids]), row)
        for row, (ids, truncated) in zip(rows, reader.read(rows), strict=True)
        if not truncated and row[column].strip()
    ]
    if not known:
        raise DataError(
            f"Expected documents whose first {max_answer_tokens} LM tokens fit into {reader.max_length} encoder "
            f"tokens; found none among {len(texts)}. Lower training.max_answer_tokens or raise encoder.max_length."
        )
    return Documents([example for example, _ in known], [row for _, row in known], len(texts) - len(known))


def prepare_instructions(
    reader: InputReader,
    prompt: Prompt,
    texts: Sequence[str],
    *,
    asked: Sequence[tuple[str, str]],
    prompt_for: Callable[[str], Prompt],
    max_answer_tokens: int,
    **_: object,
) -> Documents:
    """The LM is to follow each row's own instruction about the text that the encoder read.

    Args:
        reader: Reads the texts.
        prompt: The prompt that rows with its instruction share.
        texts: N texts.
        asked: Instruction and answer of each.
        prompt_for: From an instruction to the prompt around it.
        max_answer_tokens: Most LM tokens of an answer, its end included; longer ones are left out.
        **_: Settings of other objectives.

    Raises:
        DataError: No row can be read to its end and answered.
    """
    prompts = {instruction: prompt_for(instruction) for instruction in {instruction for instruction, _ in asked}}
    heads = {
        instruction: () if found.head_ids == prompt.head_ids else found.head_ids
        for instruction, found in prompts.items()
    }
    column = reader.cut_column
    rows = [{column: text} for text in texts]
    answers = prompt.all_answer_ids([answer for _, answer in asked])
    known = [
        (PreparedExample(ids, [], [*answer, *prompt.end_ids], head_ids=heads[instruction]), row)
        for row, (ids, truncated), answer, (instruction, _) in zip(rows, reader.read(rows), answers, asked, strict=True)
        if not truncated and answer and len(answer) + len(prompt.end_ids) <= max_answer_tokens
    ]
    if not known:
        raise DataError(
            f"Expected texts within {reader.max_length} encoder tokens and answers within {max_answer_tokens} LM "
            f"tokens; found none among {len(texts)}. Raise encoder.max_length or training.max_answer_tokens."
        )
    return Documents([example for example, _ in known], [row for _, row in known], len(texts) - len(known))


def prepare_distillation(
    reader: InputReader,
    prompt: Prompt,
    texts: Sequence[str],
    *,
    cut: tuple[int, int],
    max_answer_tokens: int,
    seed: int,
) -> Documents:
    """Continuations whose first part the teacher reads as plain text; arguments as in `prepare_continuations`.

    Raises:
        DataError: The encoder can read no first part to its end.
    """
    found = prepare_continuations(
        reader, prompt, texts, cut=cut, max_answer_tokens=max_answer_tokens, seed=seed, keep_text=True
    )
    whole = [i for i, example in enumerate(found.examples) if not example.truncated]  # or the teacher would know more
    if not whole:
        raise DataError("Expected first parts that the encoder can read; found none. Lower training.cut.")
    return Documents([found.examples[i] for i in whole], [found.fields[i] for i in whole], len(texts) - len(whole))


def distillation_loss(
    model: FusedModel, batch: Batch, num_items_in_batch: Tensor | int | None = None
) -> dict[str, Tensor]:
    """KL divergence from the LM that reads the plain text to the LM that reads the span, per continuation token.

    Both read head, tail and continuation; where the teacher has the plain text, the student has the span. No gradient
    reaches the teacher.

    Args:
        model: The student with the LM that is its teacher.
        batch: With the first parts as text_ids (B,X) and the continuations as answer_ids (B,A).
        num_items_in_batch: Continuation tokens over all accumulated batches; None takes this batch's.

    Returns:
        `loss` (scalar, in nats) and the student's `logits` (N,V).
    """
    with torch.no_grad():
        teacher = _answer_logits(model, _plain_sequences(model, batch))
    nothing = batch.text_ids.new_zeros(len(batch.text_ids), 0)
    student = _answer_logits(model, model.assemble(replace(batch, text_ids=nothing)))
    expected = torch.log_softmax(teacher, dim=-1)
    total = F.kl_div(torch.log_softmax(student, dim=-1), expected, reduction="sum", log_target=True)
    count = num_items_in_batch if num_items_in_batch is not None else len(student)
    return {"loss": total / count, "logits": student}


def _plain_sequences(model: FusedModel, batch: Batch) -> Sequences:
    """What the teacher reads after the head: plain text | tail | continuation."""
    tail = torch.tensor(model.prompt.tail_ids, dtype=torch.long, device=model.device).expand(len(batch.text_ids), -1)
    answer = batch.answer_ids.to(model.device)
    ids = torch.cat([batch.text_ids.to(model.device), tail, answer], dim=1)
    targets = F.pad(answer, (ids.shape[1] - answer.shape[1], 0), value=IGNORED)
    return pad_right(model.lm.embed(ids.clamp_min(0)), ids != IGNORED, targets)


def _answer_logits(model: FusedModel, sequences: Sequences) -> Tensor:
    """Logits (N,V) that predict the answer tokens, row by row."""
    logits, _ = model.run_lm(sequences, sequences.next_targets() != IGNORED)
    return logits


OBJECTIVES: Mapping[str, TextObjective] = {
    "continuation": TextObjective("Continue the text.", prepare_continuations, "too short to cut"),
    "reconstruction": TextObjective(
        "Repeat the text in English.", prepare_reconstructions, "longer than the encoder reads", whole=True
    ),
    "instructions": TextObjective(
        "Translate the text into English.",
        prepare_instructions,
        "longer than the encoder reads, or their answers longer than training.max_answer_tokens",
        columns=("instruction", "answer"),
        whole=True,
    ),
    "distillation": TextObjective(
        "Continue the text.",
        prepare_distillation,
        "too short to cut, or longer than the encoder reads",
        whole=True,
        loss=distillation_loss,
    ),
}
