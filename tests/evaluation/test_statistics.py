"""Promises of glotfuse.evaluation.statistics, with simulated recipes whose true accuracies are known.

A simulated answer is right where a sum of normal effects is above 0: of the row, of the row for this recipe, of the
training run, of the answer itself. So the true accuracy is the normal distribution function of mean over spread.
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar

from glotfuse.evaluation.metrics import accuracy_interval, macro_f1_interval
from glotfuse.evaluation.statistics import (
    accuracy_over_seeds,
    adjusted,
    average_over_seeds,
    compare_average,
    compare_language,
    macro_f1_over_seeds,
)

Bools = NDArray[np.bool_]
RESAMPLES = 300


def recipe(
    rng: np.random.Generator,
    rows: NDArray[np.float64],
    num_seeds: int,
    accuracy: float = 0.75,
    num_languages: int = 1,
    seed_spread: float = 0.15,
    flips: float = 0.5,
) -> list[Bools]:
    """For each language (S,N) answers of a recipe with this true accuracy, on rows of the given easiness (N,)."""
    taste = rng.normal(0, 0.5, len(rows))  # what this recipe finds easy, in every language
    runs = rng.normal(0, seed_spread, (num_seeds, 1))
    spread = math.sqrt(0.6**2 + 0.5**2 + seed_spread**2 + flips**2)
    easiness = stats.norm.ppf(accuracy) * spread + rows + taste + runs
    return [easiness + rng.normal(0, flips, (num_seeds, len(rows))) > 0 for _ in range(num_languages)]


def two_recipes(
    rng: np.random.Generator,
    num_seeds: int,
    num_rows: int,
    advantage: float = 0.0,
    seed_spread: float = 0.15,
    num_languages: int = 1,
) -> tuple[list[Bools], list[Bools]]:
    """Two recipes on the same rows, the first better by this advantage (a fraction)."""
    rows = rng.normal(0, 0.6, num_rows)
    first = recipe(rng, rows, num_seeds, 0.75 + advantage, num_languages, seed_spread)
    return first, recipe(rng, rows, num_seeds, 0.75, num_languages, seed_spread)


def rate(trial: Callable[[np.random.Generator], bool], num_trials: int, seed: int = 0) -> float:
    return float(np.mean([trial(np.random.default_rng([seed, number])) for number in range(num_trials)]))


def rows_only(first: Bools, second: Bools, rng: np.random.Generator) -> float:
    """The naive p-value that takes the seeds at hand for all there are."""
    return float(stats.ttest_rel(first.mean(axis=0), second.mean(axis=0)).pvalue)


def resampled_seeds(first: Bools, second: Bools, rng: np.random.Generator) -> float:
    """The naive p-value of a percentile bootstrap that draws seeds with replacement as it draws rows."""
    num_rows, differences = first.shape[1], []
    weights = rng.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=RESAMPLES) / num_rows
    for one in (first, second):
        seeds = rng.multinomial(len(one), np.full(len(one), 1 / len(one)), size=RESAMPLES) / len(one)
        differences.append(((weights @ one.T) * seeds).sum(axis=1))
    drawn = differences[0] - differences[1]
    return float(2 * min((drawn <= 0).mean(), (drawn >= 0).mean()))


def some_answers(num_seeds: int, num_rows: int, seed: int = 1) -> tuple[Bools, Bools]:
    first, second = two_recipes(np.random.default_rng(seed), num_seeds, num_rows, advantage=0.04)
    return first[0], second[0]


def test_one_seed_has_the_intervals_of_metrics() -> None:
    first, _ = some_answers(1, 204)
    assert accuracy_over_seeds(first) == accuracy_interval(int(first.sum()), 204)
    rng = np.random.default_rng(0)
    gold, predicted = rng.integers(0, 5, 90), rng.integers(-1, 5, 90)
    assert macro_f1_over_seeds(gold, predicted[None], 5) == macro_f1_interval(gold, predicted, 5)


def test_one_seed_is_the_paired_t_test_of_scipy_with_a_row_more_in_the_variance() -> None:
    first, second = some_answers(1, 2000)
    result = compare_language(first, second, num_resamples=50_000)
    expected = stats.ttest_rel(first[0] * 1.0, second[0] * 1.0)
    interval = expected.confidence_interval()
    assert result.difference == pytest.approx(first.mean() - second.mean())
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high), abs=5e-4)
    assert result.p_value == pytest.approx(expected.pvalue, rel=0.1)


def seed_variance(correct: Bools) -> tuple[float, float]:
    """The seeds' share in the variance of a recipe's mean, and that with what single answers add, by statsmodels."""
    num_seeds, num_rows = correct.shape
    cells = [(seed, row, float(correct[seed, row])) for seed in range(num_seeds) for row in range(num_rows)]
    table = anova_lm(ols("y ~ C(seed) + C(row)", pd.DataFrame(cells, columns=["seed", "row", "y"])).fit())
    squares = table["sum_sq"] / table["df"]
    assert 6 > squares["C(seed)"] / squares["Residual"] > 2  # so that both matter to what is tested
    return (squares["C(seed)"] - squares["Residual"]) / correct.size, squares["C(seed)"] / correct.size


def test_variance_over_seeds_and_rows_is_the_two_way_analysis_of_variance_of_statsmodels() -> None:
    one, other = two_recipes(np.random.default_rng(34), 4, 80, seed_spread=0.2)
    first, second = one[0], other[0][:3]
    rows = float(np.var(first.mean(axis=0) - second.mean(axis=0), ddof=1)) / 80
    (seeds_1, whole_1), (seeds_2, whole_2) = seed_variance(first), seed_variance(second)
    variance = rows + seeds_1 + seeds_2
    freedom = variance**2 / (rows**2 / 79 + whole_1**2 / 3 + whole_2**2 / 2)
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(variance + 1 / 80**2)
    result = compare_language(first, second, num_resamples=50_000)
    assert (result.high - result.low) / 2 == pytest.approx(reach, rel=0.02)
    assert result.num_seeds == (4, 3)


def test_the_quantile_for_seeds_of_one_recipe_is_weighted_by_variance() -> None:
    first = two_recipes(np.random.default_rng(34), 4, 80, seed_spread=0.2)[0][0]
    rows, seeds = float(np.var(first.mean(axis=0), ddof=1)) / 80, seed_variance(first)[0]
    quantile = (rows * stats.t.ppf(0.975, 79) + seeds * stats.t.ppf(0.975, 3)) / (rows + seeds)
    result = compare_language(first, np.zeros((1, 80), dtype=bool), num_resamples=50_000)
    reach = quantile * math.sqrt(rows + seeds + 1 / 80**2)
    assert (result.high - result.low) / 2 == pytest.approx(reach, rel=0.02)
    interval, value = accuracy_over_seeds(first, num_resamples=50_000), first.mean()
    # The ends of Wilson's interval are the accuracies whose own spread would reach to what was found.
    for end in (interval.low, interval.high):
        spread = (rows + seeds) * end * (1 - end) / (value * (1 - value))
        assert abs(value - end) == pytest.approx(quantile * math.sqrt(spread), rel=0.02)


def test_exact_p_is_mcnemars_test_for_one_seed_and_the_sign_test_for_several() -> None:
    first, second = some_answers(1, 204)
    table = [[int((a & b).sum()) for b in (second, ~second)] for a in (first, ~first)]
    result = compare_language(first, second)
    assert result.exact_p == pytest.approx(mcnemar(table, exact=True).pvalue)
    first, second = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 1, 0], [1, 1, 0, 1, 0]]) > 0, np.array([[0, 1, 0, 0, 1]]) > 0
    result = compare_language(first, second)
    assert result.exact_p == stats.binomtest(2, 4).pvalue == 1.0


def test_cohens_h_has_cohens_value() -> None:
    first, second = np.arange(100)[None] < 75, np.arange(100)[None] < 50
    assert compare_language(first, second).cohens_h == pytest.approx(0.5236, abs=5e-5)


def test_adjusted_p_values_are_holms() -> None:
    assert adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([0.01, 0.04, 0.03], "fdr_bh") == pytest.approx([0.03, 0.04, 0.04])
    assert adjusted([]) == []
    with pytest.raises(ValueError, match="p-values from 0 to 1"):
        adjusted([0.2, float("nan")])


def test_equal_answers_show_no_difference_but_no_certainty_either() -> None:
    first, _ = some_answers(1, 50)
    result = compare_language(first, first)
    assert (result.difference, result.p_value, result.exact_p, result.cohens_h) == (0, 1, 1, 0)
    assert (result.low, result.high) == pytest.approx((-2.01 / 50, 2.01 / 50), abs=1e-4)
    right = np.ones((3, 50), dtype=bool)
    assert compare_language(right, right).high > 0.01
    assert accuracy_over_seeds(right).low == pytest.approx(50 / (50 + stats.t.ppf(0.975, 49) ** 2))


def test_results_depend_on_the_resampling_seed_alone_and_change_sign_with_the_order() -> None:
    first, second = some_answers(3, 204)
    result, again, swapped = (compare_language(*pair) for pair in ((first, second), (first, second), (second, first)))
    assert result == again
    assert result != compare_language(first, second, seed=1)
    assert (swapped.difference, swapped.cohens_h) == (-result.difference, -result.cohens_h)
    assert (swapped.low, swapped.high) == pytest.approx((-result.high, -result.low), rel=0.1)
    assert swapped.exact_p == result.exact_p
    assert (result.p_value < 0.05) == (result.low > 0 or result.high < 0)


def test_rows_with_the_same_id_are_drawn_together() -> None:
    first, second = some_answers(1, 400)
    alone = compare_language(first, second)
    ids = [f"sentence {row}" for row in range(400)]
    together = compare_average([first] * 4, [second] * 4, [ids] * 4)
    apart = compare_average([first] * 4, [second] * 4, None)
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.03)
    assert apart.high - apart.low == pytest.approx((alone.high - alone.low) / 2, rel=0.06)
    order = np.random.default_rng(0).permutation(400)
    mixed = [ids, [ids[row] for row in order]]
    shuffled = compare_average([first, first[:, order]], [second, second[:, order]], mixed)
    assert shuffled.high - shuffled.low == pytest.approx(alone.high - alone.low, rel=0.03)


def test_languages_may_share_some_rows_and_have_different_numbers_of_them() -> None:
    rng = np.random.default_rng(5)
    numbers = rng.random((1, 600)) < 0.7
    ids = [list(range(400)), list(range(200, 600)), [f"own {row}" for row in range(100)]]
    languages = [numbers[:, :400], numbers[:, 200:], rng.random((1, 100)) < 0.4]
    interval = average_over_seeds(languages, ids, num_resamples=20_000)
    means = [language.mean() for language in languages]
    assert interval.value == pytest.approx(np.mean(means))
    centred = np.zeros(600)
    centred[:400] += (languages[0][0] - means[0]) / 1200
    centred[200:] += (languages[1][0] - means[1]) / 1200
    variance = (centred**2).sum() + means[2] * (1 - means[2]) / 900
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * math.sqrt(variance), rel=0.03)
    assert languages[2].mean() < 0.5 < languages[0].mean()


BOTH = np.ones((2, 3), dtype=bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy_over_seeds(BOTH[0]), r"One seed is correct\[None\]"),
        (lambda: accuracy_over_seeds(BOTH.astype(float)), "booleans"),
        (lambda: average_over_seeds([], None), "at least one of each"),
        (lambda: average_over_seeds([BOTH, BOTH[:1]], None), r"same seeds in all languages"),
        (lambda: average_over_seeds([BOTH, BOTH], [[1, 2, 3]]), r"row ids for \[3, 3\] rows, found \[3\]"),
        (lambda: compare_language(BOTH, BOTH[:, :2]), r"found \[3\] and \[2\] rows"),
        (lambda: compare_language(BOTH, BOTH, num_resamples=1), "2000 is usual"),
        (lambda: macro_f1_over_seeds([0, 1, 1], [0, 1, 1], 2), r"predicted\[None\]"),
        (lambda: macro_f1_over_seeds([0, 1, 1], [[0, 1, 1], [0, 1, 7]], 2), r"labels from -1 to 1, found \[7\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def ours(first: Bools, second: Bools, rng: np.random.Generator) -> float:
    return compare_language(first, second, RESAMPLES).p_value


def false_positives(
    p_value: Callable[[Bools, Bools, np.random.Generator], float],
    num_trials: int,
    num_seeds: int,
    num_rows: int = 80,
    seed_spread: float = 0.15,
) -> float:
    def trial(rng: np.random.Generator) -> bool:
        first, second = two_recipes(rng, num_seeds, num_rows, seed_spread=seed_spread)
        return p_value(first[0], second[0], rng) < 0.05

    return rate(trial, num_trials)


def test_one_seed_finds_a_difference_that_is_not_there_in_5_percent() -> None:
    assert 0.025 <= false_positives(ours, 600, 1, seed_spread=0.0) <= 0.08


@pytest.mark.parametrize("seed_spread", [0.15, 0.4])
def test_three_seeds_find_a_difference_that_is_not_there_in_5_percent(seed_spread: float) -> None:
    assert 0.015 <= false_positives(ours, 400, 3, seed_spread=seed_spread) <= 0.08
    assert false_positives(rows_only, 400, 3, seed_spread=seed_spread) > 0.1


def test_drawing_three_seeds_with_replacement_would_find_too_much() -> None:
    assert false_positives(resampled_seeds, 400, 3, seed_spread=0.4) > 0.1


def average_false_positives(num_trials: int, parallel: bool, num_seeds: int = 1, num_rows: int = 60) -> float:
    ids = [range(num_rows)] * 10

    def trial(rng: np.random.Generator) -> bool:
        spread = 0.0 if num_seeds == 1 else 0.15
        firsts, seconds = two_recipes(rng, num_seeds, num_rows, 0.0, spread, num_languages=10)
        return compare_average(firsts, seconds, ids if parallel else None, RESAMPLES).p_value < 0.05

    return rate(trial, num_trials)


def test_averages_over_parallel_languages_find_nothing_in_5_percent_unless_taken_as_independent() -> None:
    assert 0.02 <= average_false_positives(250, parallel=True) <= 0.085
    assert average_false_positives(250, parallel=False) > 0.2
    assert 0.02 <= average_false_positives(250, parallel=True, num_seeds=3) <= 0.085


def families(num_trials: int, num_rows: int = 60) -> tuple[float, float]:
    """How often any of 20 languages seems to differ: after Holm, and without correction."""
    found = []
    for number in range(num_trials):
        rng = np.random.default_rng([7, number])
        p_values = []
        for _ in range(20):
            first, second = two_recipes(rng, 1, num_rows, seed_spread=0.0)
            p_values.append(compare_language(first[0], second[0], 200).p_value)
        found.append((min(adjusted(p_values)) < 0.05, min(p_values) < 0.05))
    return float(np.mean([one for one, _ in found])), float(np.mean([other for _, other in found]))


@pytest.fixture
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library collects garbage at every correction, which takes most of a simulation's time."""
    monkeypatch.setattr("gc.collect", lambda *_: 0)


@pytest.mark.usefixtures("no_collection")
def test_holm_keeps_the_family_wise_error_over_20_languages() -> None:
    with_holm, without = families(100)
    assert with_holm <= 0.13
    assert without > 0.4


def coverage(num_trials: int, num_seeds: int, num_rows: int, accuracy: float = 0.75) -> dict[str, float]:
    """How often the 95% intervals hold the truth."""
    held: dict[str, list[bool]] = {"accuracy": [], "average over languages": [], "difference": []}
    ids = [range(num_rows)] * 4
    for number in range(num_trials):
        rng = np.random.default_rng([11, number])
        rows = rng.normal(0, 0.6, num_rows)
        spread = 0.0 if num_seeds == 1 else 0.15
        first = recipe(rng, rows, num_seeds, accuracy, 4, spread)
        second = recipe(rng, rows, num_seeds, accuracy - 0.1, 4, spread)
        one = accuracy_over_seeds(first[0], RESAMPLES)
        average = average_over_seeds(first, ids, RESAMPLES)
        paired = compare_language(first[0], second[0], RESAMPLES)
        held["accuracy"].append(one.low <= accuracy <= one.high)
        held["average over languages"].append(average.low <= accuracy <= average.high)
        held["difference"].append(paired.low <= 0.1 <= paired.high)
    return {name: float(np.mean(values)) for name, values in held.items()}


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_intervals_hold_the_truth_in_95_percent(num_seeds: int) -> None:
    for name, share in coverage(300, num_seeds, 80).items():
        assert 0.915 <= share <= 0.985, name


def macro_f1_coverage(num_trials: int, num_seeds: int, num_rows: int) -> float:
    """Labels 0 and 1 are equally frequent and equally hard, so that true macro-F1 is the accuracy."""
    held = []
    for number in range(num_trials):
        rng = np.random.default_rng([13, number])
        right = recipe(rng, rng.normal(0, 0.6, num_rows), num_seeds)[0]
        gold = rng.integers(0, 2, num_rows)
        interval = macro_f1_over_seeds(gold, np.where(right, gold, 1 - gold), 2, RESAMPLES)
        held.append(interval.low <= 0.75 <= interval.high)
    return float(np.mean(held))


def test_macro_f1_over_seeds_holds_the_truth_in_95_percent() -> None:
    assert 0.915 <= macro_f1_coverage(300, 3, 80) <= 0.985


def power(advantage: float, num_trials: int, num_seeds: int = 3, num_rows: int = 100) -> float:
    def trial(rng: np.random.Generator) -> bool:
        first, second = two_recipes(rng, num_seeds, num_rows, advantage)
        return compare_language(first[0], second[0], RESAMPLES).p_value < 0.05

    return rate(trial, num_trials)


def test_power_grows_with_the_difference() -> None:
    found = [power(advantage, 100) for advantage in (0.0, 0.08, 0.16)]
    assert found[0] + 0.1 < found[1] < found[2] - 0.1
    assert found[2] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("num_seeds", [1, 2, 3, 5])
def test_rates_hold_in_a_larger_simulation(num_seeds: int) -> None:
    rates = {
        "one language": false_positives(ours, 3000, num_seeds, 204, 0.0 if num_seeds == 1 else 0.15),
        "average difference": average_false_positives(1000, parallel=True, num_seeds=num_seeds, num_rows=204),
    }
    missed = {name: 1 - share for name, share in coverage(1500, num_seeds, 204).items()}
    print(num_seeds, rates, missed)
    for name, share in (rates | missed).items():
        few_seeds_of_one_recipe = num_seeds == 2 and name in ("accuracy", "average over languages")
        assert 0.03 <= share <= (0.1 if few_seeds_of_one_recipe else 0.07), name


@pytest.mark.slow
@pytest.mark.usefixtures("no_collection")
def test_holm_holds_in_a_larger_simulation() -> None:
    with_holm, without = families(1000, 204)
    print(with_holm, without)
    assert 0.02 <= with_holm <= 0.07
    assert 0.55 <= without <= 0.72
