"""Every recipe loads and can be built; the paper's have the settings that its public code states."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from glotfuse.errors import ConfigError
from glotfuse.fusion import BoundaryOnly, Fusion
from glotfuse.recipes.config import Recipe
from glotfuse.recipes.loading import load_recipe, to_dict
from glotfuse.tasks import get_task
from paths import ROOT

RECIPES = ROOT / "recipes"
ALL = sorted(path.relative_to(RECIPES).as_posix() for path in RECIPES.rglob("*.yaml"))

SHARED = {
    "lm.name": "meta-llama/Llama-3.2-1B-Instruct",
    "encoder.max_length": 200,
    "encoder.dtype": "bfloat16",
    "fusion.projector": "linear",
    "fusion.match_scale": False,
    "fusion.warm_start": "none",
    "fusion.summary": False,
    "fusion.state_dropout": 0.0,
    "fusion.token_dropout": 0.0,
    "fusion.boundary": "zeros",
    "prompt.style": "plain",
    "training.learning_rate": 3e-5,
    "training.betas": (0.8, 0.999),
    "training.weight_decay": 3e-7,
    "training.warmup_ratio": 0.05,
    "training.epochs": 3.0,
    "training.batch_size": 4,
    "training.accumulation": 2,
    "training.max_grad_norm": 1.0,
    "training.precision": "bfloat16",
    "training.seed": 0,
    "training.select_by": "last",
    "evaluation.split": "test",
    "evaluation.max_length": 512,
}
ENCODERS = {"mt5-large": "google/mt5-large", "mt5-xl": "google/mt5-xl"}
MIXERS: dict[str, dict[str, Any]] = {
    "langbridge": {"fusion.mixer": "last", "fusion.mixer_options": {}, "fusion.layer_norm": "none"},
    "global_softmax": {
        "fusion.mixer": "global_softmax",
        "fusion.mixer_options": {"temperature": 101.0},
        "fusion.layer_norm": "rms",
    },
    "transformer_softmax": {
        "fusion.mixer": "transformer_softmax",
        "fusion.mixer_options": {"num_heads": 1, "feedforward_size": 2048, "dropout": 0.1, "position_std": 1.0},
        "fusion.layer_norm": "rms",
    },
}
# At most 100,000 examples; for three labels 33,333 of each; in both cases less 1,000 that are kept apart.
TASKS: dict[str, dict[str, Any]] = {
    "xnli": {"task.max_train_examples": 3 * 33_333 - 1_000, "task.max_dev_examples": 1_000},
    "indicxnli": {"task.max_train_examples": 3 * 33_333 - 1_000, "task.max_dev_examples": 1_000},
    "amazon-reviews": {"task.max_train_examples": 100_000 - 1_000, "task.max_dev_examples": 1_000},
    "sinhala-news": {"task.max_train_examples": 100_000 - 1_000, "task.max_dev_examples": None},
}
PAPER = list(product(ENCODERS, TASKS, MIXERS))


def flat(recipe: Recipe) -> dict[str, Any]:
    """The values of all fields, by `section.field`."""
    sections = to_dict(recipe)
    named = {f"{name}.": values for name, values in sections.items() if isinstance(values, dict)}
    found = {prefix + key: value for prefix, values in named.items() for key, value in values.items()}
    return {**found, "device": sections["device"]}


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_loads_and_can_be_built(name: str):
    recipe = load_recipe(RECIPES / name)
    assert recipe.task.name == "files" or get_task(recipe.task.name).name == recipe.task.name
    fusion = recipe.fusion
    if not recipe.prompt.include_span:
        assert len(list(BoundaryOnly(6, trained=fusion.boundary != "none").parameters())) == (
            recipe.training.epochs > 0
        )
        return
    built = Fusion(
        12,
        384,
        576,
        layers=fusion.layers,
        mixer=fusion.mixer,
        mixer_options=fusion.mixer_options,
        projector=fusion.projector,
        projector_options=fusion.projector_options,
        layer_norm=fusion.layer_norm,
        boundary=fusion.boundary,
    )
    assert sum(parameter.numel() for parameter in built.parameters()) > 0


@pytest.mark.parametrize("name", ALL)
def test_every_recipe_says_at_its_top_what_it_is(name: str):
    assert (RECIPES / name).read_text("utf8").startswith("# ")


def test_the_paper_s_recipes_are_all_there_and_no_others():
    expected = {f"paper/{encoder}/{task}-{mixer}.yaml" for encoder, task, mixer in PAPER}
    assert expected == {name for name in ALL if name.startswith("paper/")}
    assert len(expected) == 24


@pytest.mark.parametrize(("encoder", "task", "mixer"), PAPER)
def test_the_paper_s_settings_are_the_stated_ones_and_the_rest_are_defaults(encoder: str, task: str, mixer: str):
    path = RECIPES / "paper" / encoder / f"{task}-{mixer}.yaml"
    stated = {"encoder.name": ENCODERS[encoder], "task.name": task, **SHARED, **TASKS[task], **MIXERS[mixer]}
    assert flat(load_recipe(path)) == {**flat(Recipe()), **stated}
    text = path.read_text("utf8")
    assert "arXiv 2508.09091" in text
    assert task == "xnli" or "Not stated" in text


@pytest.mark.parametrize(
    ("task", "template", "words"),
    [
        (
            "xnli",
            "Premise: {premise} Hypothesis: {hypothesis} Label: ",
            ["Entailment", "Neutral", "Contradiction"],
        ),
        (
            "indicxnli",
            "Premise: {premise} Hypothesis: {hypothesis} Label: ",
            ["Entailment", "Neutral", "Contradiction"],
        ),
        (
            "amazon-reviews",
            "Review: {text} Label: ",
            ["Very Negative", "Negative", "Neutral", "Positive", "Very Positive"],
        ),
        (
            "sinhala-news",
            "News Sentence: {sentence} Category: ",
            ["Business", "Entertainment", "Political", "Sports", "Science"],
        ),
    ],
)
def test_the_paper_s_texts_and_targets_come_with_the_task(task: str, template: str, words: list[str]):
    found = get_task(task)
    assert found.template == template
    assert found.labels == words


@pytest.mark.parametrize("content", ["a: " + "[" * 20_000, "{a: " * 20_000])
def test_a_recipe_nested_without_end_is_an_error(tmp_path, content):
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(ConfigError, match="cannot be read: maximum recursion depth"):
        load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(ConfigError, match="Expected a YAML value in --set"):
        load_recipe(RECIPES / ALL[0], [f"task.name={content.removeprefix('a: ')}"])


def test_aliases_that_multiply_do_not_fill_the_message(tmp_path):
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9))
    (tmp_path / "recipe.yaml").write_text(f"l0: &l0 [a]\n{levels}task: *l8\n")
    with pytest.raises(ConfigError, match="task: Input should be a dictionary") as caught:
        load_recipe(tmp_path / "recipe.yaml")
    assert len(str(caught.value)) < 3000
