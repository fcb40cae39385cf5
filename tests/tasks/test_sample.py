"""A sample is balanced by label, shuffled and the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glotfuse.errors import ConfigError
from glotfuse.tasks import Example, sample


def examples(counts):
    """Examples sorted by label, as in SIB-200's test files."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [Example({"text": str(row)}, label, "eng_Latn", "file", row) for row, label in enumerate(labels)]


def labels_of(drawn):
    return Counter(example.label for example in drawn)


def test_labels_are_balanced_as_far_as_their_numbers_go():
    drawn = sample(examples({"a": 100, "b": 100, "c": 3}), 23, seed=0)
    assert labels_of(drawn) == {"a": 10, "b": 10, "c": 3}


def test_the_same_seed_gives_the_same_sample_and_another_seed_another():
    pool = examples({"a": 50, "b": 50})
    assert sample(pool, 20, seed=1) == sample(pool, 20, seed=1)
    assert sample(pool, 20, seed=1) != sample(pool, 20, seed=2)


def test_the_order_is_shuffled():
    drawn = sample(examples({"a": 50, "b": 50}), 40, seed=0)
    first_half = labels_of(drawn[:20])
    assert 0 < first_half["a"] < 20
    assert [example.row for example in drawn] != sorted(example.row for example in drawn)


def test_odd_ones_out_do_not_always_go_to_the_same_label():
    pool = examples({"a": 10, "b": 10})
    assert {labels_of(sample(pool, 3, seed=seed))["a"] for seed in range(20)} == {1, 2}


def test_unlabelled_text_is_drawn_too():
    pool = [Example({"text": str(row)}, None, "eng_Latn", "file", row) for row in range(9)]
    assert len(sample(pool, 4, seed=0)) == 4


def test_a_sample_of_none_is_refused():
    with pytest.raises(ConfigError, match="expected at least 1, found 0"):
        sample(examples({"a": 1}), 0, seed=0)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(1, 70), st.integers(0, 3))
def test_no_label_falls_behind_unless_it_has_run_out(counts, n, seed):
    pool = examples({f"label{number}": count for number, count in enumerate(counts)})
    drawn = sample(pool, n, seed)
    assert len(drawn) == min(n, len(pool))
    assert len({example.row for example in drawn}) == len(drawn)
    taken = labels_of(drawn)
    available = labels_of(pool)
    most = max(taken.values(), default=0)
    assert all(taken[label] >= min(available[label], most - 1) for label in available)
