"""The share of unknown tokens in what the encoder read of a language, and from where on it is warned of."""

from __future__ import annotations

from collections.abc import Iterable

from glotfuse.evaluation.metrics import LanguageResult
from glotfuse.languages.names import name_of

LIMIT = 0.01
"""Share of unknown tokens above which a language is named."""


def unknown_warning(results: Iterable[LanguageResult]) -> str | None:
    """Names the languages above `LIMIT`, the worst first, and what to do; None where there are none."""
    rates = [(r.unknown_rate, r.language) for r in results if r.unknown_rate is not None and r.unknown_rate > LIMIT]
    if not rates:
        return None
    named = ", ".join(f"{name_of(code)} ({code}) {rate:.1%}" for rate, code in sorted(rates, reverse=True))
    return (
        "Unknown tokens, which look the same to the encoder whatever they stand for, are more than "
        f"{LIMIT:.0%} of what it read of: {named}. Train with another encoder, which knows these scripts, or with "
        "encoder.byte_fallback true where its vocabulary has a piece for each byte."
    )
