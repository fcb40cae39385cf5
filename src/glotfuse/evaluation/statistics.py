"""Scores over examples and seeds, and paired comparison of two recipes.

Legend: S seeds (training runs of one recipe), N rows of a language, U distinct row ids, R resamples, K seeds of all
recipes in a comparison. Rows are the same, in the same order, for all seeds of both recipes.

Rows and training runs are two crossed samples, like cases and readers of a diagnostic study. The variance of a score,
or of the difference of two, is the sum of

* rows: the bootstrap variance over rows, with all answers to a row drawn together, times N/(N-1);
* seeds, for each recipe with S > 1: max(0, s2 - e2) / S, where s2 is the unbiased variance between the seeds' scores
  and e2 what single answers that change from run to run add to it: the rows' term has that already.

Intervals and p-values are Student's. Where two recipes have several seeds, the degrees of freedom are Welch's and
Satterthwaite's, to which s2 / S counts in full. Where one has, those are too many when s2 happens to be small, and the
quantile is the mean of those of rows and seeds, weighted by their variances. Resampling two to five seeds would
understate their variance by (S-1)/S and give no such quantiles. With one seed nothing is known of training again: the
result speaks of that run alone. Seeds of different recipes are independent samples. The rules were chosen by
simulation: false positives at 0.05 are near 5% where training runs differ, about 2 to 3% where hardly, and up to 9%
where one recipe has two seeds and the other five: give both the same number. Intervals of one recipe hold the truth
in 93 to 95% with three seeds or more and in 91% with two.

Sources: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 6; F. Satterthwaite, Biometrics
Bulletin 2 (1946); N. Obuchowski and H. Rockette, Communications in Statistics: Simulation 24 (1995), with the degrees
of freedom of S. Hillis, Statistics in Medicine 26 (2007); the weighted quantile: W. Cochran and G. Cox, "Experimental
Designs" (1957).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, norm, t
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint, proportion_effectsize

from glotfuse.evaluation.metrics import Interval, accuracy_interval, confusion, macro_f1, macro_f1_interval, mean_f1
from glotfuse.evaluation.resampling import (
    Floats,
    Rows,
    centred_answers,
    draw_counts,
    resample,
    row_index,
    row_shares,
    seed_scores,
    total_variance,
)


@dataclass(frozen=True)
class PairedResult:
    """Two recipes on the same rows, as fractions.

    Attributes:
        difference: Mean accuracy of the first recipe minus that of the second.
        low: Lower end of the 95% interval.
        high: Upper end.
        p_value: Two-sided; below 0.05 just when the interval excludes 0.
        exact_p: Two-sided sign test over the rows that differ in their mean over seeds; with one seed each it is
            McNemar's exact test. A check: it knows nothing of the variance between seeds.
        cohens_h: 2 asin(sqrt(p1)) - 2 asin(sqrt(p2)); 0.2 is small, 0.5 medium, 0.8 large (J. Cohen, 1988).
        num_seeds: Of the first and the second recipe; where it is 1, its spread over seeds is not included.
    """

    difference: float
    low: float
    high: float
    p_value: float
    exact_p: float
    cohens_h: float
    num_seeds: tuple[int, int]


def accuracy_over_seeds(correct: ArrayLike, num_resamples: int = 2000, seed: int = 0) -> Interval:
    """Computes a recipe's mean accuracy on one language from (S,N) booleans; see `average_over_seeds`.

    With one seed it is Wilson's interval.
    """
    return average_over_seeds([correct], None, num_resamples, seed)


def average_over_seeds(
    corrects: Sequence[ArrayLike], rows: Rows | None, num_resamples: int = 2000, seed: int = 0
) -> Interval:
    """Computes the unweighted mean of a recipe's accuracies over languages with its 95% interval.

    It is Wilson's interval for the effective number of rows, p(1-p) / variance, with Student's quantile. Source:
    N. Dean and M. Pagano, Journal of Survey Statistics and Methodology 3 (2015).

    Args:
        corrects: For each language (S,N_l) booleans; seed s is the same training run in all of them.
        rows: For each language N_l row ids; equal ids (translations of a sentence) are drawn together. `None`: no
            language shares rows with another.
        num_resamples: R, at least 2.
        seed: Seed of the resampling.

    Raises:
        ValueError: Not (S,N) booleans, languages that differ in seeds, ids that do not fit, too few resamples.
    """
    arrays = _checked("corrects", corrects)
    if len(arrays) == 1 and len(arrays[0]) == 1:
        return accuracy_interval(int(arrays[0].sum()), arrays[0].shape[1])
    index, num_rows = row_index(arrays, rows)
    scores = seed_scores(arrays)
    centred = row_shares([centred_answers(array) for array in arrays], index, num_rows)
    variance, freedom = total_variance([scores], resample([centred], num_resamples, seed), num_rows)
    value = float(scores.mean())
    spread = value * (1 - value)
    # Where no resample differs, all that is known is the number of rows.
    effective = spread / variance if variance > 0 and spread > 0 else float(num_rows)
    # statsmodels takes a level, not a quantile: the level at which the normal quantile is Student's.
    level = 2 * norm.sf(t.ppf(0.975, freedom))
    low, high = proportion_confint(value * effective, effective, alpha=level, method="wilson")
    return Interval(value, max(0.0, min(value, float(low))), min(1.0, max(value, float(high))))


def macro_f1_over_seeds(
    gold: ArrayLike, predicted: ArrayLike, num_labels: int, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """Computes the mean of the seeds' macro-F1 with its 95% interval over examples and seeds.

    With one seed it is `metrics.macro_f1_interval`; with several Student's interval, cut at 0 and 1.

    Args:
        gold: (N,) gold labels, 0 to K-1.
        predicted: (S,N) predicted labels, 0 to K-1, or -1 for an invalid answer.
        num_labels: K.
        num_resamples: R, at least 2.
        seed: Seed of the resampling.

    Raises:
        ValueError: No examples, different lengths, a number that is no label, or too few resamples.
    """
    predictions = np.asarray(predicted)
    if predictions.ndim != 2 or len(predictions) == 0:
        raise ValueError(f"Expected predicted as (S,N), found shape {predictions.shape}. One seed is predicted[None].")
    if len(predictions) == 1:
        return macro_f1_interval(gold, predictions[0], num_labels, num_resamples, seed)
    for one in predictions:
        confusion(gold, one, num_labels)  # refuses what is no label
    scores = np.array([macro_f1(gold, one, num_labels) for one in predictions])
    patterns, counts = np.unique(np.vstack([np.asarray(gold)[None], predictions]), axis=1, return_counts=True)
    drawn, num_rows = draw_counts(counts, num_resamples, seed), int(counts.sum())  # (R,C)
    labels = np.arange(num_labels)
    is_gold = (patterns[0][:, None] == labels).astype(np.int64)  # (C,K)
    columns = []
    for one in patterns[1:]:
        is_predicted = (one[:, None] == labels).astype(np.int64)
        columns.append(mean_f1(drawn @ (is_gold * is_predicted), drawn @ is_gold, drawn @ is_predicted))
    draws = np.stack(columns, axis=1) * math.sqrt(num_rows / max(num_rows - 1, 1))
    variance, freedom = total_variance([scores], draws, num_rows)
    value, reach = float(scores.mean()), float(t.ppf(0.975, freedom)) * math.sqrt(variance)
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def compare_language(first: ArrayLike, second: ArrayLike, num_resamples: int = 2000, seed: int = 0) -> PairedResult:
    """Compares two recipes on one language, from (S1,N) and (S2,N) booleans; see `compare_average`."""
    return compare_average([first], [second], None, num_resamples, seed)


def compare_average(
    firsts: Sequence[ArrayLike],
    seconds: Sequence[ArrayLike],
    rows: Rows | None,
    num_resamples: int = 2000,
    seed: int = 0,
) -> PairedResult:
    """Compares two recipes by their unweighted mean accuracy over languages.

    The variance counts half a better and half a worse row more per language than were seen, so that equal answers
    make no certainty. Source: A. Agresti and Y. Min, Statistics in Medicine 24 (2005).

    Args:
        firsts: For each language (S1,N_l) booleans of the first recipe.
        seconds: For each language (S2,N_l) booleans of the second; S2 may differ from S1.
        rows: As in `average_over_seeds`.
        num_resamples: R, at least 2.
        seed: Seed of the resampling.

    Raises:
        ValueError: As `average_over_seeds`, or recipes that differ in languages or rows.
    """
    ours, theirs = _checked("firsts", firsts), _checked("seconds", seconds)
    found = [array.shape[1] for array in ours], [array.shape[1] for array in theirs]
    if found[0] != found[1]:
        raise ValueError(
            f"Expected both recipes on the same rows of the same languages, found {found[0]} and {found[1]} rows. "
            "Leave out languages that only one has."
        )
    index, num_rows = row_index(ours, rows)
    shares = [row_shares(arrays, index, num_rows) for arrays in (ours, theirs)]
    centred = [row_shares([centred_answers(array) for array in arrays], index, num_rows) for arrays in (ours, theirs)]
    scores = [seed_scores(arrays) for arrays in (ours, theirs)]
    draws = resample([centred[0], -centred[1]], num_resamples, seed)
    variance, freedom = total_variance(scores, draws, num_rows)
    variance += sum(1 / size**2 for size in found[0]) / len(ours) ** 2
    first, second = float(scores[0].mean()), float(scores[1].mean())
    difference, reach = first - second, float(t.ppf(0.975, freedom)) * math.sqrt(variance)
    gains = shares[0].mean(axis=0) - shares[1].mean(axis=0)
    better, worse = int((gains > 1e-9).sum()), int((gains < -1e-9).sum())  # apart from rounding
    return PairedResult(
        difference=difference,
        low=max(-1.0, difference - reach),
        high=min(1.0, difference + reach),
        p_value=float(2 * t.sf(abs(difference) / math.sqrt(variance), freedom)),
        exact_p=float(binomtest(better, better + worse).pvalue) if better + worse else 1.0,
        cohens_h=float(proportion_effectsize(first, second)),
        num_seeds=(len(ours[0]), len(theirs[0])),
    )


def adjusted(p_values: Sequence[float], method: str = "holm") -> list[float]:
    """Corrects p-values of several tests, by default by Holm's method, which keeps the family-wise error.

    Args:
        p_values: One for each test, 0 to 1.
        method: A method of `statsmodels.stats.multitest.multipletests`, as `holm`, `bonferroni` or `fdr_bh`.

    Raises:
        ValueError: A number that is no p-value, or an unknown method.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"Expected p-values from 0 to 1, found {list(p_values)}. Leave out tests that were not made.")
    return [float(p) for p in multipletests(p_values, method=method)[1]] if len(p_values) else []


def _checked(name: str, corrects: Sequence[ArrayLike]) -> list[Floats]:
    arrays = [np.asarray(correct) for correct in corrects]
    shapes = [array.shape for array in arrays]
    if not arrays or any(array.dtype != bool or array.ndim != 2 or array.size == 0 for array in arrays):
        raise ValueError(
            f"Expected {name}: for each language booleans (seeds, rows), at least one of each, found shapes {shapes} "
            f"of types {sorted({str(array.dtype) for array in arrays})}. One seed is correct[None]."
        )
    if len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"Expected the same seeds in all languages of {name}, found {[shape[0] for shape in shapes]} seeds. "
            "Leave out seeds that do not have every language."
        )
    return [array.astype(np.float64) for array in arrays]
