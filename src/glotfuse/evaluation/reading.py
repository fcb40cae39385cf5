"""How much of a text's meaning a model writes in English: outputs against the English of parallel rows.

chrF (Popović 2015) comes from sacrebleu. Beside it stand two readings of its scale: the same outputs against the
English of other rows, which is what fluent English about something else gets, and in how many rows the right English
has the highest chrF of all.

Shapes: N rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_RESAMPLES = 1000
_LOOP = re.compile(r"(\S+\s+\S+\s+\S+)(?:\s+\1){2}|(.{12,})\2\2|(\S{2,})(?:\s*\3){5}", re.S)
"""Three words three times in a row, twelve characters three times, or one word six times."""


@dataclass(frozen=True)
class ReadingScores:
    """Figures of one language."""

    chrf: float
    """Of all outputs together, 0 to 100."""
    interval: float | None
    """Half the width of its 95% bootstrap interval; None where no resample matches anything."""
    other: float
    """chrF against the references moved on by one, two and three rows."""
    found: float
    """Share of rows, in %, whose own reference has a higher chrF than any other."""
    loops: float
    """Share of outputs, in %, that repeat themselves over and over."""


def repeats_itself(text: str) -> bool:
    """Whether a text says the same words over and over."""
    return _LOOP.search(text) is not None


def reading_scores(outputs: Sequence[str], references: Sequence[str], *, interval: bool = True) -> ReadingScores:
    """Compares N outputs with the English of the same rows.

    Args:
        outputs: What the model wrote.
        references: The English rows.
        interval: Whether the interval is wanted, which takes a second.

    Example:
        >>> scores = reading_scores(["A dog runs.", "Rain fell."], ["The dog runs.", "It rained."], interval=False)
        >>> scores.found, scores.loops
        (100.0, 0.0)
    """
    from sacrebleu import sentence_chrf
    from sacrebleu.metrics.chrf import CHRF

    moved = [[*references[k:], *references[:k]] for k in (1, 2, 3)]
    table = np.array([[sentence_chrf(output, [reference]).score for reference in references] for output in outputs])
    best_other = np.where(np.eye(len(outputs), dtype=bool), -1.0, table).max(axis=1)
    return ReadingScores(
        chrf=CHRF().corpus_score(list(outputs), [list(references)]).score,
        interval=_half_width(outputs, references) if interval else None,
        other=float(np.mean([CHRF().corpus_score(list(outputs), [each]).score for each in moved])),
        found=100.0 * float((table.diagonal() > best_other).mean()),
        loops=100.0 * sum(map(repeats_itself, outputs)) / len(outputs),
    )


def _half_width(outputs: Sequence[str], references: Sequence[str]) -> float | None:
    from sacrebleu.metrics.chrf import CHRF

    metric: Any = CHRF()
    try:
        score = metric.corpus_score(list(outputs), [list(references)], n_bootstrap=_RESAMPLES)
    except TypeError:  # resamples without any match
        return None
    described = json.loads(score.format(width=4, is_json=True, signature=str(metric.get_signature())))
    return float(described["confidence_var"]) if "confidence_var" in described else None
