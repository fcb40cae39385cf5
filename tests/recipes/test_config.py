"""The recipe: every problem at once with the nearest known name, overrides, YAML faults, and a docstring per field."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from glotfuse.errors import ConfigError
from glotfuse.recipes import config, training_config
from glotfuse.recipes.config import EncoderConfig, FusionConfig, Recipe
from glotfuse.recipes.loading import load_recipe, recipe_from_dict, section_from_dict, to_dict
from glotfuse.recipes.training_config import TrainingConfig

SECTIONS = ("encoder", "lm", "fusion", "prompt", "task", "training", "evaluation")


def recipe(folder: Path, text: str, overrides: list[str] | None = None) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text, "utf8")
    return load_recipe(path, overrides)


def problems(values: dict[Any, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        recipe_from_dict(values, "here")
    first, *lines = str(caught.value).splitlines()
    assert first == f"here: {len(lines)} problem(s) found."
    assert all(line.startswith("  - ") for line in lines)
    return [line[4:] for line in lines]


# Values


def test_an_empty_recipe_is_the_default(tmp_path: Path) -> None:
    assert recipe_from_dict({}) == Recipe()
    for text in ("", "# nothing\n", "training:\n", "encoder:\ntraining:\n  # epochs: 3\n", "{}"):
        assert recipe(tmp_path, text) == Recipe()


def test_values_reach_their_fields(tmp_path: Path) -> None:
    found = recipe(
        tmp_path,
        """
        device: cpu
        encoder: {name: google/mt5-large, max_length: 200}
        fusion:
          mixer_options: {num_heads: 2, dropout: 0.0}
        training: {learning_rate: 3e-5, betas: [0.8, 0.999], epochs: 1, cut: [8, 8]}
        task: {label_words: {"0": "Entailment"}}
        """,
    )
    assert (found.device, found.encoder.name, found.encoder.max_length) == ("cpu", "google/mt5-large", 200)
    assert found.fusion.mixer_options == {"num_heads": 2, "dropout": 0.0}
    assert found.training.learning_rate == 3e-5  # which YAML reads as text
    assert (found.training.betas, found.training.epochs, found.training.cut) == ((0.8, 0.999), 1.0, (8, 8))
    assert found.task.label_words == {"0": "Entailment"}
    assert found.lm == Recipe().lm


def test_numbers_as_raw_labels_are_the_text_that_data_have(tmp_path: Path) -> None:
    found = recipe(tmp_path, "task: {label_words: {0: negative, 1: positive, -1: none}}")
    assert found.task.label_words == {"0": "negative", "1": "positive", "-1": "none"}
    with pytest.raises(ConfigError, match=r"task\.label_words"):
        recipe(tmp_path, "task: {label_words: {0: 3}}")


def test_a_recipe_survives_json() -> None:
    changed = recipe_from_dict({"training": {"seed": 3}, "fusion": {"mixer_options": {"num_heads": 2}}})
    assert recipe_from_dict(json.loads(json.dumps(to_dict(changed)))) == changed


def test_configs_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().training.epochs = 4  # type: ignore[misc]
    assert Recipe().fusion.mixer_options is not Recipe().fusion.mixer_options


# Problems


def test_all_problems_are_reported_at_once() -> None:
    found = problems(
        {
            "encodr": {},
            "encoder": {"max_lenght": 3, "max_length": -1, "dtype": "float8"},
            "fusion": {"mixer": 3, "mixer_options": [1], "layer_norm": "rsm"},
            "training": {"epochs": "many", "batch_size": 2.5, "betas": [0.8, 1.5], "warmup_ratio": 1.0},
            "evaluation": {"languages": ["eng_Latn", False]},
            "lm": "gpt2",
            7: 8,
        }
    )
    starts = {problem.split(": ")[0]: problem for problem in found}
    assert set(starts) == {
        *("encodr", "encoder.max_lenght", "encoder.max_length", "encoder.dtype"),
        *("fusion.mixer", "fusion.mixer_options", "fusion.layer_norm"),
        *("training.epochs", "training.batch_size", "training.betas.1", "training.warmup_ratio"),
        *("evaluation.languages.1", "lm", "7"),
    }
    assert starts["encodr"].endswith("Did you mean 'encoder'?")
    assert starts["encoder.max_lenght"] == (
        "encoder.max_lenght: unknown key; expected one of "
        f"{', '.join(f.name for f in dataclasses.fields(EncoderConfig))}. Did you mean 'max_length'?"
    )
    assert starts["encoder.max_length"].endswith("greater than 0; found -1.")
    assert starts["fusion.layer_norm"].endswith("'none', 'rms' or 'layer'; found 'rsm'.")
    assert starts["evaluation.languages.1"].endswith("found False.")
    assert starts["lm"].endswith("found 'gpt2'.")


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_knows_its_keys_and_suggests_the_nearest(section: str) -> None:
    keys = [f.name for f in dataclasses.fields(type(getattr(Recipe(), section)))]
    for key in keys:
        [problem] = problems({section: {f"{key}x": 1}})
        assert problem.startswith(f"{section}.{key}x: unknown key; expected one of {', '.join(keys)}.")
        assert problem.endswith(f"Did you mean {key!r}?")


def test_a_hopeless_key_gets_no_suggestion() -> None:
    [problem] = problems({"training": {"zzzzz": 1}})
    assert "Did you mean" not in problem


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("training", {"epochs": -1}, "training.epochs: Input should be greater than or equal to 0; found -1."),
        ("training", {"epochs": float("inf")}, "training.epochs: Input should be a finite number; found inf."),
        (
            "training",
            {"learning_rate": float("nan")},
            "training.learning_rate: Input should be a finite number; found nan.",
        ),
        ("training", {"betas": [0.9]}, "training.betas.1: Field required; found [0.9]."),
        ("training", {"betas": [0.9, 1.0]}, "training.betas.1: Input should be less than 1; found 1.0."),
        (
            "training",
            {"weight_decay": -1},
            "training.weight_decay: Input should be greater than or equal to 0; found -1.",
        ),
        ("training", {"seed": -1}, "training.seed: Input should be greater than or equal to 0; found -1."),
        ("training", {"cut": [128, 32]}, "training.cut: The lower bound should come first; found [128, 32]."),
        ("training", {"cut": [0, 32]}, "training.cut.0: Input should be greater than 0; found 0."),
        ("encoder", {"name": None}, "encoder.name: Input should be a valid string; found None."),
        ("evaluation", {"split": "train"}, "evaluation.split: Input should be 'test' or 'dev'; found 'train'."),
        ("prompt", {"style": "chatty"}, "prompt.style: Input should be 'chat' or 'plain'; found 'chatty'."),
    ],
)
def test_values_out_of_range_are_refused(section: str, values: dict[str, object], message: str) -> None:
    assert problems({section: values}) == [message]


def test_one_section_alone_is_checked_the_same_way() -> None:
    assert section_from_dict(FusionConfig, {"mixer": "last"}, "config.json").mixer == "last"
    with pytest.raises(ConfigError, match=r"config\.json: 1 problem.*\n  - mixr: .*Did you mean 'mixer'\?"):
        section_from_dict(FusionConfig, {"mixr": "last"}, "config.json")


# Overrides


def test_overrides_are_read_as_yaml_and_go_on_top(tmp_path: Path) -> None:
    overrides = [
        "training.epochs=2",
        "training.learning_rate=1e-4",
        "fusion.mixer=global_softmax",
        "fusion.mixer_options.temperature=101",
        "evaluation.languages=[sin_Sinh, tam_Taml]",
        "prompt.instruction=Answer with a=b {labels}.",
        "task.path=null",
        " device = cpu",
        "training.seed=1",
        "training.seed=2",
    ]
    text = "training: {epochs: 9, batch_size: 4}\nfusion: {mixer_options: {max_temperature: 500.0}}\nevaluation:\n"
    found = recipe(tmp_path, text, overrides)
    assert (found.training.epochs, found.training.batch_size, found.training.learning_rate) == (2.0, 4, 1e-4)
    assert found.fusion.mixer_options == {"max_temperature": 500.0, "temperature": 101}
    assert found.evaluation.languages == ["sin_Sinh", "tam_Taml"]
    assert found.prompt.instruction == "Answer with a=b {labels}."
    assert (found.task.path, found.device, found.training.seed) == (None, "cpu", 2)


def test_an_override_of_an_unknown_key_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.epoch: unknown key.*Did you mean 'epochs'\?") as caught:
        recipe(tmp_path, "lm: {nme: x}", ["training.epoch=2"])
    assert "2 problem(s)" in str(caught.value)
    assert "lm.nme" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", r"Expected --set key\.subkey=value; found 'training\.epochs'"),
        ("=3", r"Expected --set key\.subkey=value; found '=3'"),
        ("device.index=1", r"Expected a section at 'device' for --set device\.index=1; found 'cpu'"),
        ("training.seed=[1", r"Expected a YAML value in --set training\.seed=\[1"),
        ("training.seed=2024-13-45", r"Expected a YAML value in --set training\.seed=2024-13-45"),
    ],
)
def test_malformed_overrides_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(tmp_path, "device: cpu", [override])


# Files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: [", "Expected a YAML file at .*cannot be read"),
        ("training:\n\tepochs: 3", "cannot be read"),
        ("- training", r"Expected sections such as `encoder:` in .*recipe\.yaml; found list"),
        ("training", "found str"),
        ("task: {path: 2024-13-45}", "cannot be read: month must be in"),
        ("lm: {name: a}\nlm: {name: b}", "expected the key 'lm' once, found it again"),
        ("lm:\n  name: a\n  name: b", "expected the key 'name' once, found it again"),
        ("lm: !!python/object/apply:os.system [ls]", "cannot be read"),
    ],
)
def test_yaml_faults_name_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s){message}") as caught:
        recipe(tmp_path, text)
    assert "recipe.yaml" in str(caught.value)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "binary.yaml", tmp_path):
        with pytest.raises(ConfigError, match=r"Expected a YAML file at .*cannot be read"):
            load_recipe(path)


def test_a_missing_recipe_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "sib200.yaml").write_text("", "utf8")
    with pytest.raises(ConfigError, match=r"found nothing at .*sib20\.yaml\. Did you mean 'sib200\.yaml'\?"):
        load_recipe(tmp_path / "sib20.yaml")
    with pytest.raises(ConfigError, match=r"found nothing at .*missing/sib200\.yaml\.$"):
        load_recipe(tmp_path / "missing" / "sib200.yaml")


# Documentation


def test_every_field_has_a_docstring() -> None:
    nodes = [node for module in (config, training_config) for node in ast.parse(inspect.getsource(module)).body]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef) and node.decorator_list}
    assert {"Recipe", *(type(getattr(Recipe(), s)).__name__ for s in SECTIONS)} <= set(classes)
    missing = []
    for name, node in classes.items():
        assert ast.get_docstring(node)
        for field, following in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
            if not isinstance(field, ast.AnnAssign):
                continue
            documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            is_section = ast.unparse(field.annotation) in classes  # whose own docstring is its documentation
            if not documented and not is_section:
                missing.append(f"{name}.{ast.unparse(field.target)}")
    assert missing == []


def test_docstrings_become_descriptions() -> None:
    """The same text is what the help of the command line can show."""
    [epochs] = [f for f in dataclasses.fields(TrainingConfig) if f.name == "epochs"]
    described = TrainingConfig.__pydantic_fields__[epochs.name].description  # type: ignore[attr-defined]
    assert described.startswith("Passes over the training data; 0 trains nothing")
