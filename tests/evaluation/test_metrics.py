"""Promises of glotfuse.evaluation.metrics."""

import numpy as np
import pytest

from glotfuse.errors import DataError
from glotfuse.evaluation.metrics import (
    Interval,
    accuracy_interval,
    average_over,
    confusion,
    language_result,
    macro_f1,
    macro_f1_interval,
)


def plain_macro_f1(gold: list[int], predicted: list[int]) -> float:
    """The textbook definition, label by label: precision, recall, their harmonic mean."""
    scores = []
    for label in sorted((set(gold) | set(predicted)) - {-1}):
        hits = sum(g == p == label for g, p in zip(gold, predicted, strict=True))
        precision = hits / max(predicted.count(label), 1)
        recall = hits / max(gold.count(label), 1)
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return sum(scores) / len(scores)


def sample(num_examples: int, num_labels: int, seed: int) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, num_labels, num_examples)
    predicted = np.where(rng.random(num_examples) < 0.6, gold, rng.integers(-1, num_labels, num_examples))
    return gold.tolist(), predicted.tolist()


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (0, 204), (204, 204), (8, 10), (147, 204), (1, 9999)])
def test_accuracy_interval_is_scipys_wilson_interval(correct: int, total: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(correct, total).proportion_ci(confidence_level=0.95, method="wilson")
    interval = accuracy_interval(correct, total)
    assert interval.value == correct / total
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_accuracy_interval_has_the_published_value_for_8_of_10() -> None:
    interval = accuracy_interval(8, 10)
    assert (interval.low, interval.high) == pytest.approx((0.4902, 0.9433), abs=5e-5)


def test_accuracy_interval_contains_the_accuracy_and_stays_within_0_and_1() -> None:
    for total in (1, 2, 7, 204):
        for correct in range(total + 1):
            interval = accuracy_interval(correct, total)
            assert 0 <= interval.low <= interval.value <= interval.high <= 1
            assert interval.low < interval.high


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="Expected at least one example"):
        accuracy_interval(correct, total)


def test_intervals_are_shown_in_percent_with_one_decimal() -> None:
    assert Interval(0.84313, 0.78692, 0.88751).percent() == "84.3 [78.7, 88.8]"


def test_confusion_counts_gold_by_prediction_with_invalid_answers_last() -> None:
    counts = confusion([0, 0, 0, 1, 2, 2], [0, 1, -1, 1, 0, -1], num_labels=3)
    assert counts.tolist() == [[1, 1, 0, 1], [0, 1, 0, 0], [1, 0, 0, 1]]


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_is_scikit_learns(seed: int) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    gold, predicted = sample(60, 7, seed)
    present = sorted((set(gold) | set(predicted)) - {-1})
    expected = sklearn_metrics.f1_score(gold, predicted, labels=present, average="macro", zero_division=0)
    assert macro_f1(gold, predicted, 7) == pytest.approx(expected, abs=1e-12)


def test_macro_f1_leaves_out_labels_in_neither_gold_nor_predictions() -> None:
    # F1 of label 0: 2*2/(3+2) = 0.8; of label 1: 2*1/(1+2) = 2/3; labels 2 and 3 do not occur.
    assert macro_f1([0, 0, 0, 1], [0, 0, 1, 1], num_labels=4) == pytest.approx((0.8 + 2 / 3) / 2)


def test_macro_f1_counts_a_label_that_was_only_predicted_as_0() -> None:
    # Label 0: 2*1/(2+1) = 2/3; label 1 never gold, predicted once: 0.
    assert macro_f1([0, 0], [0, 1], num_labels=2) == pytest.approx((2 / 3 + 0) / 2)


def test_an_invalid_prediction_is_wrong_and_is_no_label() -> None:
    # Label 0: 2*1/(2+1) = 2/3; label 1: 2*1/(1+1) = 1.
    assert macro_f1([0, 0, 1], [0, -1, 1], num_labels=2) == pytest.approx((2 / 3 + 1) / 2)
    assert macro_f1([0, 1], [-1, -1], num_labels=2) == 0


def test_bootstrap_interval_is_that_of_resampled_examples() -> None:
    gold, predicted = sample(150, 4, seed=3)
    rng = np.random.default_rng(1)
    scores = []
    for _ in range(2000):
        chosen = rng.integers(0, len(gold), len(gold))
        scores.append(plain_macro_f1([gold[i] for i in chosen], [predicted[i] for i in chosen]))
    interval = macro_f1_interval(gold, predicted, 4, num_resamples=20_000)
    assert interval.value == pytest.approx(plain_macro_f1(gold, predicted), abs=1e-12)
    # The ends of 2,000 plain resamples scatter by about 0.003.
    assert interval.low == pytest.approx(np.percentile(scores, 2.5), abs=0.012)
    assert interval.high == pytest.approx(np.percentile(scores, 97.5), abs=0.012)


def test_a_seed_gives_the_same_interval_and_another_seed_another() -> None:
    gold, predicted = sample(80, 3, seed=0)
    assert macro_f1_interval(gold, predicted, 3, seed=5) == macro_f1_interval(gold, predicted, 3, seed=5)
    assert macro_f1_interval(gold, predicted, 3, seed=5) != macro_f1_interval(gold, predicted, 3, seed=6)


def test_perfect_predictions_have_macro_f1_1_in_every_resample() -> None:
    assert macro_f1_interval([0, 1, 2, 1], [0, 1, 2, 1], 5) == Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        ([0, 1], [0], "1 predictions for 2 gold labels"),
        ([0, 3], [0, 1], r"gold labels from 0 to 2, found \[3\]"),
        ([0, -1], [0, 1], r"gold labels from 0 to 2, found \[-1\]"),
        ([0, 1], [0, -2], r"predicted labels from -1 to 2, found \[-2\]"),
        ([], [], "report it as missing"),
        ([0.0, 1.0], [0, 1], "whole number"),
    ],
)
def test_wrong_labels_are_refused_with_what_was_found(gold: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        macro_f1(gold, predicted, num_labels=3)


def test_a_language_result_holds_scores_and_counts() -> None:
    result = language_result("sin_Sinh", [0, 0, 1, 1], [0, -1, 1, 0], labels=["a", "b"], num_truncated=2)
    assert result.accuracy == accuracy_interval(2, 4)
    assert result.macro_f1.value == pytest.approx((2 * 1 / (2 + 2) + 2 * 1 / (2 + 1)) / 2)
    assert (result.num_examples, result.num_truncated, result.num_invalid) == (4, 2, 1)
    assert result.confusion == ((1, 0, 1), (1, 1, 0))


def test_counts_that_contradict_the_predictions_are_refused() -> None:
    with pytest.raises(DataError, match=r"sin_Sinh.*num_invalid=1"):
        language_result("sin_Sinh", [0, 1], [0, -1], ["a", "b"], num_invalid=0)
    with pytest.raises(DataError, match="num_truncated of 0 to 2, found 1 and 3"):
        language_result("sin_Sinh", [0, 1], [0, -1], ["a", "b"], num_truncated=3, num_invalid=1)


def test_a_language_without_examples_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"'sin_Sinh'.*report it as missing"):
        language_result("sin_Sinh", [], [], ["a", "b"])


def test_averages_are_unweighted_over_the_languages_of_a_group() -> None:
    results = [
        language_result("eng_Latn", [0, 1, 0, 1], [0, 1, 0, 1], ["a", "b"]),
        language_result("rus_Cyrl", [0, 1], [0, 0], ["a", "b"]),
        language_result("sin_Sinh", [0, 1, 0, 1], [0, 0, 1, 1], ["a", "b"]),
    ]
    everywhere, not_english, low = (average_over(results, g) for g in ("all", "all_but_english", "low_resource"))
    assert (everywhere.accuracy, everywhere.num_languages) == (pytest.approx((1 + 0.5 + 0.5) / 3), 3)
    assert everywhere.macro_f1 == pytest.approx((1 + (2 / 3 + 0) / 2 + 0.5) / 3)
    assert (not_english.accuracy, not_english.num_languages) == (0.5, 2)
    assert (low.accuracy, low.macro_f1, low.num_languages) == (0.5, 0.5, 1)


def test_an_average_over_no_language_is_none() -> None:
    english = [language_result("en", [0, 1], [0, 1], ["a", "b"])]
    for group in ("all_but_english", "low_resource"):
        average = average_over(english, group)
        assert (average.accuracy, average.macro_f1, average.num_languages) == (None, None, 0)
