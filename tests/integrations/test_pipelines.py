"""`transformers.pipeline` over a fused model gives the model's own answers."""

from __future__ import annotations

import pytest
from transformers import pipeline

from built import built
from glotfuse.api import FusedLM
from glotfuse.integrations.pipelines import FusedTextClassification, FusedTextGeneration
from tiny import TEXTS


@pytest.fixture(scope="module")
def model() -> FusedLM:
    return built()


def test_classification_in_the_usual_shapes(model: FusedLM) -> None:
    classify = pipeline("text-classification", model=model, pipeline_class=FusedTextClassification)
    own = model.classify(TEXTS)
    expected = [{"label": a.label, "score": pytest.approx(a.probabilities[a.label], abs=1e-5)} for a in own]
    assert classify(list(TEXTS)) == expected
    assert classify(list(TEXTS), batch_size=3) == expected
    assert list(classify(text for text in TEXTS)) == expected
    assert classify(TEXTS[0]) == expected[0]
    everything = classify(TEXTS[0], top_k=None)
    assert {one["label"]: one["score"] for one in everything} == pytest.approx(own[0].probabilities, abs=1e-5)


def test_generation_in_the_usual_shape(model: FusedLM) -> None:
    generate = pipeline("text-generation", model=model, pipeline_class=FusedTextGeneration, max_new_tokens=4)
    expected = [[{"generated_text": text}] for text in model.generate(TEXTS, max_new_tokens=4)]
    assert generate(list(TEXTS), batch_size=2) == expected
    assert generate(TEXTS[0]) == expected[0]
