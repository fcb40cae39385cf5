"""Tokens split into smaller ones of the same vocabulary, as rare words and other languages' inflections are.

Words out of an encoder's vocabulary are one token each; words of real text often are not. Reading the same text in
other tokens is known as subword regularisation (Kudo 2018, arXiv 1804.10959).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from glotfuse.backbones.byte_fallback import BYTE_PIECES

_MARKS = "▁Ġ"
_LEAST_MARKED = 0.05
_SHORTEST = 3


class Splitter:
    """Splits tokens of one tokenizer in two, where both parts are tokens too.

    Args:
        tokenizer: Of the encoder. One that does not mark the beginning of words by a character of its tokens
            (WordPiece) splits nothing.
        prefix: What the encoder reads before every text; it stays as it is.
    """

    def __init__(self, tokenizer: Any, prefix: str = ""):
        self._tokenizer = tokenizer
        self._fixed = 1 + len(tokenizer(prefix, add_special_tokens=False)["input_ids"]) if prefix else 1
        self._known: dict[int, list[tuple[int, int]]] = {}

    @cached_property
    def _ids(self) -> dict[str, int]:
        """Tokens that may be part of a word, by their text."""
        special = {*self._tokenizer.all_special_tokens, *BYTE_PIECES}
        found = {token: number for token, number in self._tokenizer.get_vocab().items() if token not in special}
        marked = sum(token.startswith(tuple(_MARKS)) for token in found)
        return found if marked > len(found) * _LEAST_MARKED else {}

    def __call__(self, ids: Sequence[int], share: float, rng: random.Random) -> list[int]:
        """The ids of one text with each token after the prefix split with a probability of `share`, if it can be."""
        found = list(ids[: self._fixed])
        for number in ids[self._fixed :]:
            ways = self._ways(number) if rng.random() < share else []
            found += rng.choice(ways) if ways else (number,)
        return found

    def _ways(self, number: int) -> list[tuple[int, int]]:
        if number not in self._known:
            token = self._tokenizer.convert_ids_to_tokens(number)
            bare = token.lstrip(_MARKS)
            ways = []
            if len(bare) >= _SHORTEST and token in self._ids:
                first = len(token) - len(bare) + 1
                parts = ((self._ids.get(token[:cut]), self._ids.get(token[cut:])) for cut in range(first, len(token)))
                ways = [(one, other) for one, other in parts if one is not None and other is not None]
            self._known[number] = ways
        return self._known[number]
