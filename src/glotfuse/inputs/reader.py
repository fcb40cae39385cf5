"""From fields of text to token ids: what the encoder reads, cut where it must be, and the answer to learn.

The text is cut, never the template around it, the other columns, or the answer's end.
"""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from glotfuse.backbones import Encoder
from glotfuse.errors import PromptError
from glotfuse.inputs.prompts import Prompt

Text = str | Mapping[str, str]
"""One input: a string, or a mapping of columns for a task with several."""
_LOOK_AHEAD = 24
_JOINERS = "\u200c\u200d"
_VIRAMA = 9
"""Combining class of the signs that stack the next consonant under or into the one before."""


class InputReader:
    """Turns fields of text into encoder ids.

    Args:
        encoder: The frozen encoder.
        template: What the encoder reads, with `{column}` fields.
        cut_column: The column that is shortened when the whole is too long.
        max_length: Most encoder tokens, special tokens included.
        max_text_tokens: Most LM tokens of the plain text in span-plus-text mode.

    Attributes:
        columns: The template's columns, in their order.

    Raises:
        PromptError: The template is malformed, `cut_column` is not in it, or `max_length` is more than the
            encoder takes.
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
        self.columns = _columns(template)
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
                f"Expected max_length of at most {encoder.max_length}, which {encoder.identity.name} can "
                f"take; found {max_length}."
            )

    def fields(self, text: Text) -> Mapping[str, str]:
        """Checks one input: a string for a one-column template, else a mapping with every column.

        Raises:
            PromptError: A column is missing, empty or no text.
        """
        if isinstance(text, str):
            if len(self.columns) != 1:
                raise PromptError(
                    f"Expected the columns {', '.join(self.columns)} for each input; found one text: {text[:40]!r}."
                )
            text = {self.columns[0]: text}
        if not isinstance(text, Mapping):
            raise PromptError(f"Expected a text, or a mapping of columns to texts; found {type(text).__name__}.")
        for column in self.columns:
            if column not in text:
                raise PromptError(f"Expected the column {column!r}; found {', '.join(text) or 'none'}.")
            if not isinstance(text[column], str):
                raise PromptError(f"Expected text in the column {column!r}; found {text[column]!r}.")
            if not text[column].strip():
                raise PromptError(f"Expected text in the column {column!r}; found it empty.")
        return text

    def read(self, rows: Sequence[Mapping[str, str]], language: str | None = None) -> list[tuple[list[int], bool]]:
        """Encoder ids of every row and whether its text was cut.

        Args:
            rows: Fields by column.
            language: Of all rows, for tokenizers that need it.

        Raises:
            PromptError: A row's template and other columns alone do not fit.
        """
        if not rows:
            return []

        def tokenize(text: str) -> list[int]:
            return self.encoder.tokenize([text], language)[0]

        whole = self.encoder.tokenize([self.template.format_map(row) for row in rows], language)
        limit = (self.max_length, "max_length")
        return [
            (self._cut(row, tokenize, *limit), True) if len(ids) > self.max_length else (ids, False)
            for row, ids in zip(rows, whole, strict=True)
        ]

    def read_columns(
        self, rows: Sequence[Mapping[str, str]], language: str | None = None
    ) -> list[tuple[list[int], ...]]:
        """Encoder ids of each column by itself, for every row; none, where the template has one column."""
        if len(self.columns) == 1:
            return [() for _ in rows]
        readers = [
            InputReader(self.encoder, template=f"{{{column}}}", cut_column=column, max_length=self.max_length)
            for column in self.columns
        ]
        return list(zip(*([ids for ids, _ in reader.read(rows, language)] for reader in readers), strict=True))

    def read_plain(self, row: Mapping[str, str], prompt: Prompt) -> tuple[list[int], bool]:
        """LM ids of one row for the span-plus-text mode (none in others), and whether its text was cut."""
        if prompt.text_separator is None:
            return [], False
        ids = prompt.text_ids(self.template.format_map(row))
        if len(ids) <= self.max_text_tokens:
            return ids, False
        return self._cut(row, prompt.text_ids, self.max_text_tokens, "max_text_tokens"), True

    def _cut(self, row: Mapping[str, str], tokenize: Callable[[str], list[int]], limit: int, setting: str) -> list[int]:
        """Tokens of the longest beginning of the cut column with which everything fits into `limit`."""
        text = row[self.cut_column]

        def ids_with(end: int) -> list[int]:
            return tokenize(self.template.format_map({**row, self.cut_column: text[:end]}))

        def fits(end: int) -> bool:
            return len(ids_with(end)) <= limit

        # Anywhere, where even the first written character has more tokens than there is room for.
        for ends in ([end for end in range(1, len(text)) if not _joins(text, end)], range(1, len(text))):
            end = _last_that_fits(ends, fits)
            if end is not None:
                return ids_with(end)
        others = [column for column in self.columns if column != self.cut_column]
        raise PromptError(
            f"Expected room for {self.cut_column!r} within {setting} {limit}; the template"
            f"{' and ' + ', '.join(others) if others else ''} alone take {len(ids_with(0))} tokens. "
            f"Raise {setting}."
        )


def _columns(template: str) -> tuple[str, ...]:
    """Names of the template's fields, each once."""
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(template)]
    except ValueError as error:
        raise PromptError(f"Expected a template with {{column}} fields; found {template!r}: {error}.") from None
    named = [(name, spec or conversion) for name, spec, conversion in fields if name is not None]
    for name, extra in named:
        if not name or extra or set(".[") & set(name):
            raise PromptError(f"Expected plain {{column}} fields in the template; found {template!r}.")
    return tuple(dict.fromkeys(name for name, _ in named))


def _last_that_fits(ends: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The last of the ascending ends that fits, None when none does; the first ends are the likeliest to fit."""
    low, high = -1, len(ends)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(ends[middle]):
            low = middle
        else:
            high = middle
    # One character more may mean fewer tokens, where it completes a word of the vocabulary.
    while ahead := [i for i in range(low + 1, min(low + 1 + _LOOK_AHEAD, len(ends))) if fits(ends[i])]:
        low = ahead[-1]
    return ends[low] if low >= 0 else None


def _joins(text: str, end: int) -> bool:
    """Whether a cut at `end` would split a written character: at a combining mark, joiner or stacked letter."""
    before, after = text[end - 1], text[end]
    return (
        unicodedata.category(after).startswith("M")
        or after in _JOINERS
        or before in _JOINERS
        or unicodedata.combining(before) == _VIRAMA
    )
