"""Labels that were not trained: the LM's liking for a word is taken off, by sentences of the package."""

from __future__ import annotations

import math

import pytest

from glotfuse.api import FusedLM
from glotfuse.model.calibration import calibrated, label_prior
from glotfuse.model.classification import Classification
from glotfuse.tasks import get_task, sample
from tiny import TEXTS, tiny_model

LABELS = ("health", "sports", "weather")


@pytest.fixture(scope="module")
def model() -> FusedLM:
    return tiny_model()


def test_the_prior_is_the_mean_over_the_package_s_sentences(model: FusedLM) -> None:
    view = model.with_labels(LABELS)
    rows = sample(get_task("quickstart").load("train", "eng_Latn").examples, 64, 0)
    answers = view.classify([row.fields["text"] for row in rows], batch_size=16)
    for label, found in zip(LABELS, label_prior(view), strict=True):
        mean = sum(answer.probabilities[label] for answer in answers) / 64
        assert found == pytest.approx(math.log(mean), abs=1e-4)


def test_an_answer_is_divided_by_the_prior_and_normalised() -> None:
    answer = Classification.of(LABELS, [math.log(p) for p in (0.7, 0.2, 0.1)], truncated=True)
    (found,) = calibrated([answer], LABELS, [math.log(p) for p in (0.8, 0.1, 0.1)])
    expected = [0.7 / 0.8, 0.2 / 0.1, 0.1 / 0.1]
    for label, value in zip(LABELS, expected, strict=True):
        assert found.probabilities[label] == pytest.approx(value / sum(expected))
    assert found.label == "sports"
    assert found.truncated


def test_labels_of_the_users_are_calibrated_and_trained_ones_are_not(model: FusedLM) -> None:
    plain = model.classify(TEXTS, labels=LABELS, calibrate=False)
    found = model.classify(TEXTS, labels=LABELS)
    prior = label_prior(model.with_labels(LABELS))
    for one, other in zip(calibrated(plain, LABELS, prior), found, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert any(one.probabilities != other.probabilities for one, other in zip(plain, found, strict=True))
    trained = model.classify(TEXTS, labels=list(model.labels))
    for one, other in zip(trained, model.classify(TEXTS), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_a_model_that_was_trained_to_read_is_asked_for_a_label() -> None:
    model = tiny_model()
    model.settings["prompt"] = {"style": "chat", "instruction": "Translate the text into English."}
    text = model.lm.tokenizer.decode(model.with_labels(LABELS).prompt.head_ids)
    assert "Answer with one of: health, sports, weather." in text
    assert "Translate" not in text
