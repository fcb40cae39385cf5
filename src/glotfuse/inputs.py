"""From fields of text to token ids: what the encoder reads, cut where it must be, and the answer to learn.

The text is cut, never the template around it, the other columns, or the answer's end.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from glotfuse.backbones import Encoder
from glotfuse.errors import PromptError
from glotfuse.prompts import Prompt

IGNORED = -100
"""Label id of positions without loss."""


@dataclass(frozen=True)
class PreparedExample:
    """One example in token ids."""

    encoder_ids: list[int]
    """What the encoder reads."""
    text_ids: list[int] = field(default_factory=list)
    """What the LM reads after the span, in span-plus-text mode."""
    answer_ids: list[int] = field(default_factory=list)
    """What the LM learns to say, its end included."""
    truncated: bool = False
    """Whether text was cut."""


@dataclass(frozen=True)
class Batch:
    """Right-padded tensors of B examples."""

    encoder_ids: Tensor
    """(B,T)."""
    encoder_mask: Tensor
    """(B,T), true for real tokens."""
    text_ids: Tensor
    """(B,X), padded with -100; X is zero without span-plus-text."""
    answer_ids: Tensor
    """(B,A), padded with -100; A is zero at inference."""


class InputReader:
    """Turns fields of text into encoder ids.

    Args:
        encoder: The frozen encoder.
        template: What the encoder reads, with `{column}` fields.
        cut_column: The column that is shortened when the whole is too long.
        max_length: Most encoder tokens, special tokens included.
        max_text_tokens: Most LM tokens of the plain text in span-plus-text mode.

    Raises:
        PromptError: `cut_column` is not in the template, or `max_length` is more than the encoder takes.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        template: str = "{text}",
        cut_column: str = "text",
        max_length: int = 256,
        max_text_tokens: int = 256,
    ):
        self.encoder = encoder
        self.template = template
        self.columns = tuple(name for _, name, _, _ in string.Formatter().parse(template) if name)
        self.cut_column = cut_column
        self.max_length = max_length
        self.max_text_tokens = max_text_tokens
        if cut_column not in self.columns:
            raise PromptError(
                f"Expected the column to shorten, {cut_column!r}, in the template {template!r}; found "
                f"{', '.join(self.columns) or 'no columns'}."
            )
        if encoder.max_length is not None and max_length > encoder.max_length:
            raise PromptError(
                f"Expected max_length of at most {encoder.max_length}, which {encoder.identity.name} can take; "
                f"found {max_length}."
            )

    def fields(self, text: str | Mapping[str, str]) -> Mapping[str, str]:
        """Checks one input: a string for a one-column template, else a mapping with every column.

        Raises:
            PromptError: A column is missing or empty.
        """
        if isinstance(text, str):
            if len(self.columns) != 1:
                raise PromptError(
                    f"Expected the columns {', '.join(self.columns)} for each input; found one text: {text[:40]!r}."
                )
            text = {self.columns[0]: text}
        for column in self.columns:
            if column not in text:
                raise PromptError(f"Expected the column {column!r}; found {', '.join(text) or 'none'}.")
            if not text[column].strip():
                raise PromptError(f"Expected text in the column {column!r}; found it empty.")
        return text

    def read(
        self, rows: Sequence[Mapping[str, str]], language: str | None = None
    ) -> list[tuple[list[int], bool]]:
        """Encoder ids of every row and whether its text was cut.

        Args:
            rows: Fields by column.
            language: Of all rows, for tokenizers that need it.

        Raises:
            PromptError: A row's template and other columns alone do not fit.
        """
        rendered = [self.template.format_map(row) for row in rows]
        tokenised = self.encoder.tokenize(rendered, language)
        result = []
        for row, ids in zip(rows, tokenised, strict=True):
            too_long = len(ids) > self.max_length
            result.append((self._cut(row, language) if too_long else ids, too_long))
        return result

    def _cut(self, row: Mapping[str, str], language: str | None) -> list[int]:
        """The longest beginning of the cut column with which everything fits."""
        text = row[self.cut_column]

        def ids_with(num_chars: int) -> list[int]:
            shortened = self.template.format_map({**row, self.cut_column: text[:num_chars]})
            return self.encoder.tokenize([shortened], language)[0]

        fixed = len(ids_with(0))
        if fixed >= self.max_length:
            others = [c for c in self.columns if c != self.cut_column]
            raise PromptError(
                f"Expected room for {self.cut_column!r} within max_length {self.max_length}; the template"
                f"{' and ' + ', '.join(others) if others else ''} alone take {fixed} tokens. Raise max_length."
            )
        low, high = 0, len(text)
        while high - low > 1:
            middle = (low + high) // 2
            if len(ids_with(middle)) <= self.max_length:
                low = middle
            else:
                high = middle
        while low > 1 and _joins(text, low):
            low -= 1
        return ids_with(low)


def _joins(text: str, end: int) -> bool:
    """Whether a cut at `end` would split a written character: before a combining mark or after a joiner."""
    return unicodedata.category(text[end]).startswith("M") or text[end - 1] in "\u200c\u200d"


def prepare(
    reader: InputReader,
    prompt: Prompt,
    rows: Sequence[Mapping[str, str]],
    *,
    answers: Sequence[str] | None = None,
    language: str | None = None,
) -> list[PreparedExample]:
    """Tokenises rows of one language, with their answers where given (training)."""
    known = {answer: [*prompt.answer_ids(answer), *prompt.end_ids] for answer in set(answers or ())}
    prepared = []
    for index, (row, (ids, cut)) in enumerate(zip(rows, reader.read(rows, language), strict=True)):
        plain = reader.template.format_map(row) if prompt.text_separator is not None else ""
        text_ids, text_cut = prompt.text_ids(plain, reader.max_text_tokens)
        answer = known[answers[index]] if answers is not None else []
        prepared.append(PreparedExample(ids, text_ids, answer, cut or text_cut))
    return prepared


def collate(examples: Sequence[PreparedExample], pad_token_id: int, *, answers: bool = False) -> Batch:
    """Pads examples at the right into one batch, with their answers for training only."""
    encoder_ids = _pad([e.encoder_ids for e in examples], IGNORED)
    mask = encoder_ids != IGNORED
    return Batch(
        encoder_ids=encoder_ids.masked_fill(~mask, pad_token_id),
        encoder_mask=mask,
        text_ids=_pad([e.text_ids for e in examples], IGNORED),
        answer_ids=_pad([e.answer_ids if answers else [] for e in examples], IGNORED),
    )


def _pad(rows: Sequence[list[int]], value: int) -> Tensor:
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value)
