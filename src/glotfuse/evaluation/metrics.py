"""Accuracy and macro-F1 of a language, each with a 95% confidence interval, and averages over languages.

Legend: N examples, K labels, R resamples, C occupied cells of the confusion matrix. Labels are numbered 0 to
K-1; a prediction of -1 (`INVALID`) says that no label could be read from the answer, and counts as wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glotfuse.errors import DataError
from glotfuse.languages.names import GROUPS

INVALID = -1
"""The prediction that stands for an answer without a label in it."""

Z_95 = 1.959963984540054
"""The standard normal's 97.5% quantile: two-sided 95% confidence."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% confidence interval, all three as fractions (0 to 1).

    Attributes:
        value: The estimate on the examples as they are.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float

    def percent(self) -> str:
        """Returns for example `84.3 [78.7, 88.7]`: percent with one decimal."""
        return f"{self.value * 100:.1f} {self.percent_range()}"

    def percent_range(self) -> str:
        """Returns for example `[78.7, 88.7]`: the ends of the interval in percent with one decimal."""
        return f"[{self.low * 100:.1f}, {self.high * 100:.1f}]"


def accuracy_interval(num_correct: int, num_examples: int) -> Interval:
    """Computes the accuracy with Wilson's 95% score interval.

    The interval stays within 0 and 1 and has a width even when all or none are correct. Source: E. B. Wilson,
    "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).

    Args:
        num_correct: Number of correct examples, 0 to `num_examples`.
        num_examples: Number of examples, at least 1.

    Raises:
        ValueError: The counts are impossible.
    """
    if num_examples < 1 or not 0 <= num_correct <= num_examples:
        raise ValueError(
            f"Expected at least one example, and from 0 to all of them correct, found {num_correct} correct "
            f"of {num_examples}. A language without examples has no accuracy: report it as missing."
        )
    p, z2 = num_correct / num_examples, Z_95**2
    centre = (p + z2 / (2 * num_examples)) / (1 + z2 / num_examples)
    half_width = (Z_95 / (1 + z2 / num_examples)) * math.sqrt(p * (1 - p) / num_examples + z2 / (4 * num_examples**2))
    # At p = 0 and p = 1 an end of the interval is p exactly; rounding must not push it past.
    return Interval(p, max(0.0, min(p, centre - half_width)), min(1.0, max(p, centre + half_width)))


def confusion(gold: ArrayLike, predicted: ArrayLike, num_labels: int) -> NDArray[np.int64]:
    """Counts the examples of each gold label by prediction.

    Args:
        gold: (N,) gold labels, 0 to K-1.
        predicted: (N,) predicted labels, 0 to K-1, or -1 for an invalid answer.
        num_labels: K.

    Returns:
        (K, K+1) counts: rows are gold labels, columns predictions; the last column counts invalid answers.

    Raises:
        ValueError: No examples, different lengths, or a number that is no label.
    """
    if num_labels < 1:
        raise ValueError(f"Expected at least one label, found num_labels={num_labels}. Pass the label count.")
    gold_array = _labels("gold", gold, lowest=0, num_labels=num_labels)
    predicted_array = _labels("predicted", predicted, lowest=INVALID, num_labels=num_labels)
    if len(gold_array) != len(predicted_array):
        raise ValueError(
            f"Expected one prediction for each gold label, found {len(predicted_array)} predictions for "
            f"{len(gold_array)} gold labels. Pass both for the same examples, in the same order."
        )
    columns = np.where(predicted_array == INVALID, num_labels, predicted_array)
    cells = gold_array * (num_labels + 1) + columns
    counts = np.bincount(cells, minlength=num_labels * (num_labels + 1)).astype(np.int64)
    return counts.reshape(num_labels, num_labels + 1)


def _labels(name: str, values: ArrayLike, lowest: int, num_labels: int) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            f"Expected {name} to be a list of at least one whole number, found shape {array.shape} of type "
            f"{array.dtype}. A language without examples has no scores: report it as missing."
        )
    outside = array[(array < lowest) | (array >= num_labels)]
    if outside.size:
        found = sorted(set(outside.tolist()))[:5]
        raise ValueError(
            f"Expected {name} labels from {lowest} to {num_labels - 1}, found {found}. "
            f"Map labels to their numbers first{'; an unreadable answer is -1' if lowest < 0 else ''}."
        )
    return array.astype(np.int64)


def macro_f1(gold: ArrayLike, predicted: ArrayLike, num_labels: int) -> float:
    """Computes the unweighted mean of the labels' F1 scores.

    F1 of a label is 2 TP / (number of gold + number of predicted). A label that occurs neither in `gold` nor
    in `predicted` has no F1 and is left out of the mean; a label that occurs in only one of them has F1 0
    and stays in. An invalid prediction (-1) is wrong: it is a miss for its gold label, a false alarm for
    none, and not a label of its own.

    Args:
        gold: (N,) gold labels, 0 to K-1.
        predicted: (N,) predicted labels, 0 to K-1, or -1 for an invalid answer.
        num_labels: K.

    Raises:
        ValueError: No examples, different lengths, or a number that is no label.
    """
    counts = confusion(gold, predicted, num_labels)
    true_positive = np.diagonal(counts)
    return float(mean_f1(true_positive, counts.sum(axis=1), counts[:, :num_labels].sum(axis=0)))


def mean_f1(
    true_positive: NDArray[np.int64], num_gold: NDArray[np.int64], num_predicted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(..., K) counts to (...) means over the labels that occur."""
    total = num_gold + num_predicted
    f1 = 2 * true_positive / np.maximum(total, 1)
    mean: NDArray[np.float64] = np.asarray(f1.sum(axis=-1) / (total > 0).sum(axis=-1), dtype=np.float64)
    return mean


def macro_f1_interval(
    gold: ArrayLike, predicted: ArrayLike, num_labels: int, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """Computes macro-F1 with a 95% percentile bootstrap interval.

    Drawing N examples with replacement is the same as drawing a confusion matrix from a multinomial
    distribution over its cells, so all R resamples are one draw. Each resample is scored by the rule of
    `macro_f1`: a label that a resample lacks is left out of its mean. Source: B. Efron, "Bootstrap Methods:
    Another Look at the Jackknife", Annals of Statistics 7 (1979).

    Args:
        gold: (N,) gold labels, 0 to K-1.
        predicted: (N,) predicted labels, 0 to K-1, or -1 for an invalid answer.
        num_labels: K.
        num_resamples: R, at least 1.
        seed: Seed of the resampling; the same seed gives the same interval.

    Raises:
        ValueError: No examples, different lengths, a number that is no label, or no resamples.
    """
    if num_resamples < 1:
        raise ValueError(f"Expected num_resamples of at least 1, found {num_resamples}. 1000 is usual.")
    counts = confusion(gold, predicted, num_labels)
    num_examples = int(counts.sum())
    gold_of, predicted_of = np.nonzero(counts)  # (C,) each: only the C occupied cells can be drawn
    draws = np.random.default_rng(seed).multinomial(
        num_examples, counts[gold_of, predicted_of] / num_examples, size=num_resamples
    )  # (R, C)
    is_gold = (gold_of[:, None] == np.arange(num_labels)).astype(np.int64)  # (C, K)
    is_predicted = (predicted_of[:, None] == np.arange(num_labels)).astype(np.int64)  # (C, K)
    scores = mean_f1(draws @ (is_gold * is_predicted), draws @ is_gold, draws @ is_predicted)  # (R,)
    low, high = np.quantile(scores, [0.025, 0.975])
    return Interval(macro_f1(gold, predicted, num_labels), float(low), float(high))


@dataclass(frozen=True)
class LanguageResult:
    """The scores of one language; build it with `language_result`.

    Attributes:
        language: The code as the task gives it.
        num_examples: Number of scored examples.
        accuracy: Fraction of right answers; invalid answers are wrong.
        macro_f1: Mean F1 of the labels, by the rule of the function `macro_f1`.
        num_truncated: Examples whose text was cut to fit the length limit.
        num_invalid: Answers in which no label could be read.
        confusion: (K, K+1) counts, gold labels by predictions; the last column counts invalid answers.
        unknown_rate: Unknown tokens among the tokens that the encoder read, special ones left out, as a fraction;
            `None` where it was not counted or the encoder read nothing.
    """

    language: str
    num_examples: int
    accuracy: Interval
    macro_f1: Interval
    num_truncated: int
    num_invalid: int
    confusion: tuple[tuple[int, ...], ...]
    unknown_rate: float | None = None


@dataclass(frozen=True)
class Average:
    """Unweighted means over languages, as fractions; both `None` when there is no language."""

    accuracy: float | None
    macro_f1: float | None
    num_languages: int


def language_result(
    language: str,
    gold: ArrayLike,
    predicted: ArrayLike,
    labels: Sequence[str],
    num_truncated: int = 0,
    num_invalid: int | None = None,
    unknown_rate: float | None = None,
) -> LanguageResult:
    """Scores one language.

    Args:
        language: Its code.
        gold: (N,) gold label numbers.
        predicted: (N,) predicted label numbers; -1 for an invalid answer.
        labels: (K,) label names, in the order of their numbers.
        num_truncated: Examples whose text was cut.
        num_invalid: Invalid answers; `None` counts the -1 in `predicted`.
        unknown_rate: As in `LanguageResult`.

    Raises:
        DataError: No examples, labels out of range, or a count that contradicts the predictions.
    """
    try:
        counts = confusion(gold, predicted, len(labels))
    except ValueError as error:
        raise DataError(f"Language {language!r}: {error}") from error
    num_examples, found_invalid = int(counts.sum()), int(counts[:, INVALID].sum())
    if num_invalid not in (None, found_invalid) or not 0 <= num_truncated <= num_examples:
        raise DataError(
            f"Language {language!r}: expected num_invalid={found_invalid} (the predictions of -1) and "
            f"num_truncated of 0 to {num_examples}, found {num_invalid} and {num_truncated}. "
            "Count both over the examples that were predicted."
        )
    return LanguageResult(
        language=language,
        num_examples=num_examples,
        accuracy=accuracy_interval(int(np.trace(counts)), num_examples),
        macro_f1=macro_f1_interval(gold, predicted, len(labels)),
        num_truncated=num_truncated,
        num_invalid=found_invalid,
        confusion=tuple(tuple(row) for row in counts.tolist()),
        unknown_rate=unknown_rate,
    )


def average_over(results: Iterable[LanguageResult], group: str) -> Average:
    """Averages over the languages of a group: a key of `languages.GROUPS`."""
    chosen = [result for result in results if GROUPS[group][1](result.language)]
    if not chosen:
        return Average(None, None, 0)
    accuracy = sum(result.accuracy.value for result in chosen) / len(chosen)
    return Average(accuracy, sum(result.macro_f1.value for result in chosen) / len(chosen), len(chosen))
