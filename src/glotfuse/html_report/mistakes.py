"""The mistakes that the page shows: for each language a few wrong predictions, spread over the gold labels."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glotfuse.html_report.formats import finite

MOST_CHARACTERS = 800
"""Longer texts are cut for display."""

_OWN = frozenset(("run", "source", "row", "gold", "predicted", "probabilities", "truncated"))


@dataclass(frozen=True)
class Mistake:
    """One wrong prediction.

    Attributes:
        row: Row in its file.
        texts: Name and text of each field, cut for display.
        num_left_out: Characters that were cut for display.
        gold: The right label.
        predicted: The label that was given; None for an invalid answer.
        probability: Of the given label.
        gold_probability: Of the right label.
        truncated: Whether the model saw a part of the text only.
    """

    row: int | None
    texts: tuple[tuple[str, str], ...]
    num_left_out: int
    gold: str
    predicted: str | None
    probability: float | None
    gold_probability: float | None
    truncated: bool


@dataclass(frozen=True)
class LanguageMistakes:
    """The mistakes of one language.

    Attributes:
        code: The language.
        shown: Those on the page.
        num_wrong: All of them.
        num_unreadable: Lines of the file that could not be read.
        recorded: Whether predictions were saved.
    """

    code: str
    shown: tuple[Mistake, ...]
    num_wrong: int = 0
    num_unreadable: int = 0
    recorded: bool = True


def read_mistakes(path: Path, code: str, most: int) -> LanguageMistakes:
    """Reads a language's predictions and chooses the mistakes to show.

    Gold labels take turns, each with the mistake that the model was surest of, so that every label has its examples.

    Args:
        path: `predictions/<split>/<language>.jsonl` of a run.
        code: The language.
        most: At most so many are shown.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return LanguageMistakes(code, (), recorded=False)
    wrong: list[Mistake] = []
    num_unreadable = 0
    for line in lines:
        try:
            values = json.loads(line)
            if values["gold"] != values["predicted"]:
                wrong.append(_mistake(values))
        except (ValueError, KeyError, TypeError, AttributeError):
            num_unreadable += 1
    return LanguageMistakes(code, tuple(_chosen(wrong, most)), len(wrong), num_unreadable)


def _mistake(values: dict[str, Any]) -> Mistake:
    probabilities = values.get("probabilities") or {}
    texts = [(name, text) for name, text in values.items() if name not in _OWN and isinstance(text, str)]
    room = MOST_CHARACTERS // max(len(texts), 1)
    return Mistake(
        row=values.get("row"),
        texts=tuple((name, text if len(text) <= room else text[:room] + " …") for name, text in texts),
        num_left_out=sum(max(len(text) - room, 0) for _, text in texts),
        gold=str(values["gold"]),
        predicted=None if values["predicted"] is None else str(values["predicted"]),
        probability=finite(probabilities.get(values["predicted"])),
        gold_probability=finite(probabilities.get(values["gold"])),
        truncated=bool(values.get("truncated")),
    )


def _chosen(wrong: Sequence[Mistake], most: int) -> list[Mistake]:
    by_label: dict[str, list[Mistake]] = {}
    for mistake in sorted(wrong, key=lambda m: -(m.probability or 0.0)):
        by_label.setdefault(mistake.gold, []).append(mistake)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(by_label[label] for label in sorted(by_label))))
    return [mistake for mistake in turns if mistake is not None][:most]
