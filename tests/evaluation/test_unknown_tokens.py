"""Languages of whose text more than 1% is unknown tokens are named, with what to do."""

from __future__ import annotations

from dataclasses import replace

from glotfuse.evaluation.metrics import LanguageResult, language_result
from glotfuse.evaluation.report import EvaluationReport
from glotfuse.evaluation.unknown_tokens import unknown_warning

LABELS = ("sports", "politics")


def results(**rates: float | None) -> tuple[LanguageResult, ...]:
    return tuple(language_result(code, [0, 1], [0, 1], LABELS, unknown_rate=rate) for code, rate in rates.items())


def test_languages_above_one_percent_are_named_the_worst_first() -> None:
    warning = unknown_warning(results(eng_Latn=0.0, khm_Khmr=0.0101, ory_Orya=0.31, sin_Sinh=0.009, tam_Taml=None))
    assert warning is not None
    assert "more than 1% of what it read of: Odia (ory_Orya) 31.0%, Khmer (khm_Khmr) 1.0%." in warning
    assert not any(name in warning for name in ("English", "Sinhala", "Tamil"))
    assert "another encoder" in warning
    assert "encoder.byte_fallback true" in warning


def test_there_is_none_up_to_one_percent_or_where_nothing_was_counted() -> None:
    assert unknown_warning(results(eng_Latn=0.0, sin_Sinh=0.01, tam_Taml=None)) is None
    assert unknown_warning(()) is None


def test_the_page_of_a_report_has_it() -> None:
    found = EvaluationReport("run", "files", "test", {"name": "mean"}, LABELS, results(ory_Orya=0.5))
    assert "Odia (ory_Orya) 50.0%" in found.to_markdown()
    assert "Unknown tokens" not in replace(found, results=results(ory_Orya=0.01)).to_markdown()
