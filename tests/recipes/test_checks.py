"""What the parts of a recipe ask of one another: every fault is said at once, before anything is loaded."""

from __future__ import annotations

import pytest

from glotfuse.errors import ConfigError
from glotfuse.recipes.checks import check, faults_of
from glotfuse.recipes.loading import QUICKSTART, load_recipe, recipe_from_dict

FAULTY = {
    "fusion": {"mixer": "lst", "boundary": "none"},
    "lm": {"sharded": True},
    "probe": {"kind": "kernel"},
    "prompt": {"include_text": True},
    "training": {"precision": "bfloat16", "select_by": "accuracy"},
    "objective": "reconstruction",
}


def test_all_faults_of_a_recipe_are_reported_together() -> None:
    with pytest.raises(ConfigError, match="7 problems found") as caught:
        check(recipe_from_dict(FAULTY))
    for said in (
        "Did you mean 'last'",
        "fusion.boundary zeros or normal",
        "training.precision float32 with lm.sharded",
        "prompt with the span alone",
        "training.select_by loss",
        "probe.kind none with the objective",
        "probe.kind none where the LM reads the text",
    ):
        assert said in str(caught.value)


def test_one_fault_is_said_without_a_list() -> None:
    recipe = recipe_from_dict({"fusion": {"mixer": "lst"}})
    (fault,) = faults_of(recipe)
    with pytest.raises(ConfigError) as caught:
        check(recipe)
    assert str(caught.value) == fault


def test_the_last_weights_and_their_average_exclude_each_other() -> None:
    training = {"select_by": "last", "average": 0.5}
    (fault,) = faults_of(recipe_from_dict({"training": training}))
    assert fault.startswith("Expected training.average 0 with training.select_by last")
    assert (
        list(faults_of(recipe_from_dict({"training": {**training, "average": 0}, "objective": "continuation"}))) == []
    )


def test_a_sound_recipe_has_no_fault() -> None:
    assert list(faults_of(load_recipe(QUICKSTART))) == []
