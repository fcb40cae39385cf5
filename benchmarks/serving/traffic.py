"""What is asked: texts of the quickstart's languages, short and long, for the three ways to ask."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glotfuse.tasks import get_task

INSTRUCTION = "Say in English what this is about."
NEW_TOKENS = 16
SENTENCES = (1, 1, 2, 1, 4, 2)
"""Sentences of one text, in turn."""


@dataclass(frozen=True)
class Workload:
    """One way to ask.

    Attributes:
        name: For the command line and tables.
        route: HTTP path.
        stream: Whether the answer comes as server-sent events.
        more: Fields of the body besides the text.
        field: The text's field.
    """

    name: str
    route: str
    field: str
    more: dict[str, Any]
    stream: bool = False

    def bodies(self, texts: Sequence[str]) -> list[str]:
        """A JSON body for each text."""
        return [json.dumps({self.field: text, **self.more}, ensure_ascii=False) for text in texts]


_COMPLETION = {"instruction": INSTRUCTION, "max_tokens": NEW_TOKENS, "temperature": 0}
_STREAM = {**_COMPLETION, "stream": True, "stream_options": {"include_usage": True}}
WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("classify", "/v1/classify", "input", {}),
        Workload("completions", "/v1/completions", "prompt", _COMPLETION),
        Workload("stream", "/v1/completions", "prompt", _STREAM, stream=True),
    )
}


def quickstart_texts(seed: int = 0) -> list[str]:
    """All test sentences of the quickstart's languages, joined to texts of one to four, in a random order."""
    data, texts = get_task("quickstart"), []
    for language in data.languages("test"):
        sentences = [example.fields["text"] for example in data.load("test", language).examples]
        begin, turn = 0, 0
        while begin < len(sentences):
            length = SENTENCES[turn % len(SENTENCES)]
            texts.append(" ".join(sentences[begin : begin + length]))
            begin, turn = begin + length, turn + 1
    random.Random(seed).shuffle(texts)
    return texts
