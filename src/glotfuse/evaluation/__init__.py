"""Languages and their resource classes, scores with confidence intervals, reports and comparisons.

Nothing here imports torch or transformers.
"""

from glotfuse.evaluation.metrics import (
    INVALID,
    Average,
    Interval,
    LanguageResult,
    accuracy_interval,
    confusion,
    language_result,
    macro_f1,
    macro_f1_interval,
)
from glotfuse.evaluation.report import EvaluationReport, ResultTable, comparison_table
from glotfuse.languages.names import Language, find_language, is_english, is_low_resource, name_of

__all__ = [
    "INVALID",
    "Average",
    "EvaluationReport",
    "Interval",
    "Language",
    "LanguageResult",
    "ResultTable",
    "accuracy_interval",
    "comparison_table",
    "confusion",
    "find_language",
    "is_english",
    "is_low_resource",
    "language_result",
    "macro_f1",
    "macro_f1_interval",
    "name_of",
]
