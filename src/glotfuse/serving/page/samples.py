"""Sample sentences of the page: the quickstart's test sentences, parallel in its languages."""

from __future__ import annotations

import functools
from dataclasses import dataclass

PER_LANGUAGE = 6
"""Sentences of each language."""


@dataclass(frozen=True)
class Samples:
    """Sentences of one language."""

    code: str
    """Such as `sin_Sinh`."""
    name: str
    """English name of the language."""
    sentences: tuple[str, ...]
    """Translations of one another across languages."""


@functools.cache
def sample_sentences() -> tuple[Samples, ...]:
    """The quickstart's languages by name, each with the same few sentences, which have different labels."""
    from glotfuse.languages.names import name_of
    from glotfuse.tasks import get_task

    task = get_task("quickstart")
    splits = {code: task.load("test", code).examples for code in task.source.languages("test")}
    found = [
        Samples(code, name_of(code), tuple(rows[i].fields["text"] for i in _chosen([row.label for row in rows])))
        for code, rows in splits.items()
    ]
    return tuple(sorted(found, key=lambda samples: samples.name))


def _chosen(labels: list[str | None]) -> list[int]:
    """Indices of the first sentence of each label, up to `PER_LANGUAGE`."""
    return sorted(map(labels.index, set(labels)))[:PER_LANGUAGE]
