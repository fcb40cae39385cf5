"""Resampling of test rows, and the variance of a score from rows and seeds; `statistics` says how and why.

Legend as there: S seeds, N rows of a language, U distinct row ids, R resamples, K seeds of all recipes, C kinds of rows
that are alike.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import t

Floats = NDArray[np.float64]
Rows = Sequence[Sequence[Hashable]]


def row_index(arrays: Sequence[Floats], rows: Rows | None) -> tuple[list[NDArray[np.int64]], int]:
    """Numbers the row ids: for each language (N_l,) numbers, and how many there are."""
    sizes = [array.shape[1] for array in arrays]
    if rows is None:
        rows = [[(language, row) for row in range(size)] for language, size in enumerate(sizes)]
    if [len(ids) for ids in rows] != sizes:
        raise ValueError(
            f"Expected row ids for {sizes} rows, found {[len(ids) for ids in rows]}. "
            "Pass one id for each row of each language, or None."
        )
    numbers: dict[Hashable, int] = {}
    index = [np.array([numbers.setdefault(row, len(numbers)) for row in ids]) for ids in rows]
    return index, len(numbers)


def seed_scores(arrays: Sequence[Floats]) -> Floats:
    """Returns the (S,) seeds' mean accuracies over languages."""
    return np.asarray(np.mean([array.mean(axis=1) for array in arrays], axis=0), dtype=np.float64)


def row_shares(arrays: Sequence[Floats], index: Sequence[NDArray[np.int64]], num_rows: int) -> Floats:
    """Returns (S,U): what each row id adds to the seeds' means over languages."""
    shares = np.zeros((len(arrays[0]), num_rows))
    for array, at in zip(arrays, index, strict=True):
        np.add.at(shares.T, at, array.T / (array.shape[1] * len(arrays)))
    return shares


def centred_answers(array: Floats) -> Floats:
    """(S,N) answers less their means, scaled so that the bootstrap's variance is unbiased."""
    num_rows = array.shape[1]
    centred: Floats = (array - array.mean(axis=1, keepdims=True)) * math.sqrt(num_rows / max(num_rows - 1, 1))
    return centred


def resample(recipes: Sequence[Floats], num_resamples: int, seed: int) -> Floats:
    """Draws row ids: the recipes' (S,U) shares, centred in each language, to (R,K) changes of the seeds' scores.

    Because of the centring, languages that share no row have the variance of languages drawn one by one.
    """
    patterns, counts = np.unique(np.vstack(recipes), axis=1, return_counts=True)
    return np.asarray(draw_counts(counts, num_resamples, seed) @ patterns.T, dtype=np.float64)


def draw_counts(counts: NDArray[np.int64], num_resamples: int, seed: int) -> NDArray[np.int64]:
    """Draws rows with replacement, those that are alike by their number: (C,) counts to (R,C)."""
    if num_resamples < 2:
        raise ValueError(f"Expected num_resamples of at least 2, found {num_resamples}. 2000 is usual.")
    size = int(counts.sum())
    return np.random.default_rng(seed).multinomial(size, counts / size, size=num_resamples)


def total_variance(scores: Sequence[Floats], draws: Floats, num_rows: int) -> tuple[float, float]:
    """Adds up the variances of rows and seeds.

    Args:
        scores: For each recipe the (S,) scores of its seeds.
        draws: (R,K) resampled changes of the scores, recipe by recipe; negated for one that is subtracted.
        num_rows: U.

    Returns:
        The variance of the sum of the recipes' means, and the degrees of freedom of the quantile that goes with it.
    """
    own = np.split(draws, np.cumsum([len(score) for score in scores])[:-1], axis=1)
    of_rows = float(np.var(np.sum([part.mean(axis=1) for part in own], axis=0), ddof=1))
    row_freedom = max(num_rows - 1, 1)
    of_seeds, weight, freedoms = 0.0, of_rows**2 / row_freedom, []
    for score, part in zip(scores, own, strict=True):
        size = len(score)
        if size > 1:
            between = float(np.var(score, ddof=1)) / size
            flips = np.var(part - part.mean(axis=1, keepdims=True), axis=0, ddof=1).sum() / (size - 1)
            of_seeds += max(0.0, between - float(flips) / size)
            weight += between**2 / (size - 1)
            freedoms.append(size - 1)
    variance = of_rows + of_seeds
    if not freedoms or not variance:
        return variance, float(row_freedom)
    if len(freedoms) > 1:
        return variance, max(1.0, variance**2 / weight)
    quantile = (of_rows * t.ppf(0.975, row_freedom) + of_seeds * t.ppf(0.975, freedoms[0])) / variance
    ends = min(freedoms[0], row_freedom) / 2, max(freedoms[0], row_freedom) * 2
    return variance, float(brentq(lambda freedom: t.ppf(0.975, freedom) - quantile, *ends))
