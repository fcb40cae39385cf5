"""Tokens as they are written in the text, whatever the tokenizer calls them.

A token is the stretch of text that it covers. A character of several tokens (bytes) appears with each of them and a
count, such as `අ 1/3`; where a token begins or ends within a character, `…` stands for that end; a token that covers a
space alone is `▁`; special tokens go by their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glotfuse.backbones import Encoder
from glotfuse.backbones.encoder import special_ids

SPACE = "▁"
_SPACES = (SPACE, "Ġ", "")
_REPLACEMENT = "\ufffd"


def written_tokens(encoder: Encoder, text: str, ids: Sequence[int], language: str | None = None) -> list[str]:
    """Each token of a text as it is written there.

    Args:
        encoder: Whose tokenizer made the ids.
        text: What the encoder read, its prefix left out, before it was cut.
        ids: Token ids with special tokens; those of a text that was cut, too.
        language: Code of the text's language, for tokenizers that need it.
    """
    tokenizer = encoder.tokenizer
    specials = special_ids(encoder, language)
    spans = _spans(tokenizer, encoder.prefix + text, ids, specials)
    pieces = _decoded(tokenizer, ids, specials) if spans is None else spans
    written = []
    for token, piece in zip(ids, pieces, strict=True):
        name = str(tokenizer.convert_ids_to_tokens(token))
        shown = name if token in specials else (piece.strip() or SPACE)
        written.append(f"{shown} {name}" if token == tokenizer.unk_token_id and shown != name else shown)
    return written


def _spans(tokenizer: Any, text: str, ids: Sequence[int], specials: set[int]) -> list[str] | None:
    """Stretches of text by the tokenizer's offsets; None where it has none or they are not those of the ids."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    read = tokenizer(text, add_special_tokens=True, return_offsets_mapping=True, verbose=False)
    known = dict(enumerate(zip(read["input_ids"], read["offset_mapping"], strict=True)))
    # A text that was cut begins with the same tokens; only the special ones after it stand elsewhere.
    spans: list[tuple[int, int]] = []
    for position, token in enumerate(ids):
        same = position in known and known[position][0] == token
        if not same and token not in specials:
            return None
        start, end = known[position][1] if same else (0, 0)
        name = str(tokenizer.convert_ids_to_tokens(token))
        spans.append((start, start) if name in _SPACES else (start, end))
    return [_stretch(spans, position, text) for position in range(len(spans))]


def _stretch(spans: Sequence[tuple[int, int]], position: int, text: str) -> str:
    """The text of one token, with its number where several in a row cover the same."""
    start, end = span = spans[position]
    if start == end:
        return ""
    first = last = position
    while first > 0 and spans[first - 1] == span:
        first -= 1
    while last + 1 < len(spans) and spans[last + 1] == span:
        last += 1
    if last > first:
        return f"{text[start:end].strip()} {position - first + 1}/{last - first + 1}"
    covered = max((other[1] for other in spans[:position] if other[0] < other[1]), default=start)
    following = next((other[0] for other in spans[position + 1 :] if other[0] < other[1]), end)
    before, after = "…" if covered > start else "", "…" if following < end else ""
    return f"{before}{text[max(start, covered) : end].strip()}{after}"


def _decoded(tokenizer: Any, ids: Sequence[int], specials: set[int]) -> list[str]:
    """What each token adds to the decoded text; tokens of an unfinished character wait for its last."""
    pieces = [""] * len(ids)
    waiting: list[int] = []
    done = ""
    kept: list[int] = []
    for position, token in enumerate(ids):
        if token in specials:
            continue
        kept.append(token)
        waiting.append(position)
        now = str(tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if now.endswith(_REPLACEMENT) or len(now) <= len(done):
            continue
        added = now[len(done) :].strip()
        for index, where in enumerate(waiting):
            pieces[where] = f"{added} {index + 1}/{len(waiting)}" if len(waiting) > 1 else added
        waiting, done = [], now
    return pieces
