"""The text of an answer while its tokens arrive: whole characters only, stop texts cut off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_INCOMPLETE = "\ufffd"
"""What tokenizers write for bytes that are no character (yet)."""


class AnswerText:
    """Turns tokens, or pieces of text, into text that can be shown at once and is never taken back.

    What is given out, joined, is the whole answer without white space around it, as `FusedLM.generate` returns it, up
    to the first stop text. Held back are: bytes that are not yet a character, the beginning of what may become a stop
    text, and white space that may be the last.

    Args:
        tokenizer: The LM's; None where only `add_text` is used.
        stop: Texts that end the answer.

    Attributes:
        stopped: Whether a stop text has appeared; nothing more is given out then.
    """

    def __init__(self, tokenizer: Any | None, stop: Sequence[str] = ()):
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._text = ""
        self._given = ""

    def add_tokens(self, ids: Sequence[int]) -> str:
        """New text after more tokens."""
        self._ids += ids
        # Whole answers are decoded anew: tokenizers join and clean up across tokens.
        text: str = self._tokenizer.decode(self._ids, skip_special_tokens=True) if self._tokenizer else ""
        return self._give(text, end=False)

    def add_text(self, text: str) -> str:
        """New text after more text, from an engine that decodes by itself."""
        return self._give(self._text + text, end=False)

    def finish(self) -> str:
        """What was held back and belongs to the answer."""
        return self._give(self._text, end=True)

    def _give(self, text: str, *, end: bool) -> str:
        if self.stopped:
            return ""
        self._text = text
        found = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.stopped = True
            text = text[: min(found)]
        elif not end:
            text = text.rstrip(_INCOMPLETE)
            text = text[: len(text) - self._begun_stop(text)]
        text = text.strip()
        # Decoding may still change what was held back, but never what has been given out; if it does, nothing is
        # given out until the answer is longer again.
        if len(text) <= len(self._given) or not (end or self.stopped or text.startswith(self._given)):
            return ""
        new = text[len(self._given) :]
        self._given += new
        return new

    def _begun_stop(self, text: str) -> int:
        """Characters at the end of the text that may be the beginning of a stop text."""
        longest = max((len(stop) for stop in self._stop), default=0) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stop):
                return size
        return 0
