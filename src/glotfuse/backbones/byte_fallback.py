"""Characters that a vocabulary lacks, read as their UTF-8 bytes, where it has a piece for each byte.

mT5's SentencePiece model falls back to bytes (Kudo and Richardson 2018, arXiv 1808.06226); transformers builds its fast
tokenizer without that, and every stretch of such characters becomes the same unknown token.
"""

from __future__ import annotations

import json
from typing import Any

BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""Their names, by the byte that they stand for."""
BYTE_PIECE_PATTERN = "<0x[0-9A-F]{2}>"
"""Regular expression of the names."""

_NOWHERE = "\U0010ffff"
"""A noncharacter, which no vocabulary has as a piece."""
_MODELS = ("Unigram", "BPE")


def restore_byte_fallback(tokenizer: Any) -> bool:
    """Has a fast tokenizer read characters that its vocabulary lacks as bytes; all other ids stay as they are.

    Its model alone is replaced: added tokens, normaliser, pre-tokenizer, post-processor and decoder are kept.

    Args:
        tokenizer: Of transformers; changed in place.

    Returns:
        Whether it was changed: a Unigram or BPE model whose vocabulary has all 256 bytes, and which does not fall back
        to them already.
    """
    from tokenizers import Tokenizer

    backend = _backend(tokenizer)
    if backend is None or any(backend.token_to_id(piece) is None for piece in BYTE_PIECES):
        return False
    model = json.loads(backend.to_str())["model"]
    # without an unknown token a Unigram model cannot even cut a text with unknown characters
    if model.get("byte_fallback") or (model["type"] == "Unigram" and model.get("unk_id") is None):
        return False
    rebuilt = {"version": "1.0", "added_tokens": [], "model": {**model, "byte_fallback": True}}
    backend.model = Tokenizer.from_str(json.dumps(rebuilt)).model
    return True


def reads_bytes(tokenizer: Any) -> bool:
    """Whether a fast tokenizer reads a character that no vocabulary has as its bytes."""
    backend = _backend(tokenizer)
    if backend is None or any(backend.token_to_id(piece) is None for piece in BYTE_PIECES):
        return False
    expected = [BYTE_PIECES[byte] for byte in _NOWHERE.encode()]
    return [token.value for token in backend.model.tokenize(_NOWHERE)] == expected


def _backend(tokenizer: Any) -> Any | None:
    """The tokenizer of `tokenizers` behind it; None where there is none or its model has no bytes to fall back to."""
    backend = getattr(tokenizer, "backend_tokenizer", None) if getattr(tokenizer, "is_fast", False) else None
    return backend if type(getattr(backend, "model", None)).__name__ in _MODELS else None
