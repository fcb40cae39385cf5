"""Scores of what a model writes in English: chrF, rows found, loops."""

from __future__ import annotations

import pytest

from glotfuse.evaluation.reading import reading_scores, repeats_itself

REFERENCES = ["The team won the match.", "Prices rose in May.", "A storm hit the coast.", "The school has a new roof."]


def test_a_copy_of_the_references_is_perfect() -> None:
    scores = reading_scores(REFERENCES, REFERENCES)
    assert (scores.chrf, scores.found, scores.loops) == (100.0, 100.0, 0.0)
    assert scores.other < 30
    assert scores.interval == pytest.approx(0.0, abs=1e-6)


def test_found_counts_rows_whose_own_reference_is_nearest() -> None:
    outputs = ["The team won.", "A storm hit a coast.", "A storm hit the coast.", "rain rain"]
    assert reading_scores(outputs, REFERENCES, interval=False).found == 50.0


def test_outputs_that_match_nothing_have_no_interval() -> None:
    scores = reading_scores(["ඇ", "ඈ", "ඉ", "ඊ"], REFERENCES)
    assert scores.interval is None or scores.interval == 0.0
    assert scores.chrf == 0.0


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("Sports Sports Sports Sports Sports Sports Sports", True),
        ("mostmostmostmostmostmostmost", True),
        ("in the river, and in the river, and in the river, and more", True),
        ("Especially in the morning and especially in the evening.", False),
        ("He said that that was that.", False),
        ("", False),
        ("Numbers such as 1,000,000,000 are fine.", False),
    ],
)
def test_loops_are_seen(text: str, loops: bool) -> None:
    assert repeats_itself(text) is loops
