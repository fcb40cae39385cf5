"""How the encoder's tokenizer cuts each language."""

from __future__ import annotations

from collections.abc import Sequence

from glotfuse.backbones import Encoder
from glotfuse.inspection.results import LanguageTokenisation
from glotfuse.tasks import Example


def language_tokenisation(
    encoder: Encoder,
    language: str,
    rows: Sequence[Example],
    truncated: Sequence[bool],
    pivot_tokens: int | None,
) -> LanguageTokenisation:
    """Counts tokens and characters of one language's texts.

    Args:
        encoder: Whose tokenizer is asked.
        language: Code of the rows.
        rows: The rows; all their text columns count.
        truncated: Whether each row is cut to the length limit.
        pivot_tokens: Tokens of the same sentences in the pivot language; None where rows are not parallel.
    """
    texts = [text for row in rows for text in row.fields.values()]
    tokens = count_tokens(encoder, language, rows)
    num_characters = sum(map(len, texts))
    num_tokens = sum(map(len, tokens))
    unknown = encoder.tokenizer.unk_token_id
    num_unknown = sum(ids.count(unknown) for ids in tokens) if unknown is not None else 0
    return LanguageTokenisation(
        language=language,
        num_texts=len(rows),
        num_characters=num_characters,
        num_tokens=num_tokens,
        tokens_per_character=num_tokens / max(1, num_characters),
        relative_to_pivot=num_tokens / pivot_tokens if pivot_tokens else None,
        unknown_rate=num_unknown / max(1, num_tokens),
        truncation_rate=sum(truncated) / max(1, len(rows)),
    )


def count_tokens(encoder: Encoder, language: str, rows: Sequence[Example]) -> list[list[int]]:
    """Token ids of every text column of every row, without template, prefix and special tokens."""
    texts = [text for row in rows for text in row.fields.values()]
    if not texts:
        return []
    encoder.use_language(language)
    ids: list[list[int]] = encoder.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
