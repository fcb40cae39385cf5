"""Stages: each is a run of its own, hands its weights over, is resumed where it stopped and never repeated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from glotfuse.api import FusedLM
from glotfuse.backbones.identity import hash_module
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.model import checkpoint
from glotfuse.recipes.checks import check
from glotfuse.run_folder import read_config, read_log
from glotfuse.runs import train as runs
from glotfuse.runs.stages import hand_over, stage_recipes
from glotfuse.runs.train import train_run
from glotfuse.training import trainer as training
from glotfuse.training.state import TrainingInterruptedError
from small_runs import small_recipe, write_task
from small_training import InterruptAt
from tiny import TEXTS, lm_folder, tiny_encoder, tiny_lm

SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 4, "evaluations": 2, "learning_rate": 0.01}
MEAN: dict[str, Any] = {"mixer": "mean", "mixer_options": {}}


def staged(data: Path, objective: str = "reconstruction", /, **sections: Any) -> Any:
    text = {"name": "files", "path": str(data), "label_column": "label"}
    general = {"objective": objective, "task": text, "training": {**SHORT, "cut": [3, 6], "max_answer_tokens": 20}}
    given = {"general": general, "training": SHORT, "fusion": MEAN, **sections}
    return small_recipe(data, **given)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_task(tmp_path / "data", num_train=16)


def record(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "training.json").read_text("utf8"))
    return values


@pytest.mark.parametrize("objective", ["continuation", "reconstruction", "distillation"])
def test_the_task_s_training_starts_from_the_general_stage_s_weights(
    data: Path, tmp_path: Path, objective: str
) -> None:
    recipe = staged(data, objective, training={"epochs": 0})
    model = train_run(recipe, tmp_path / "run")
    assert model is not None
    general = FusedLM.from_pretrained(tmp_path / "run" / "stages" / "general", device="cpu")
    assert hash_module(general.fusion) == hash_module(model.fusion)
    assert general.labels == ()
    assert model.labels == ("science", "sports")
    assert general.prompt.head_ids != model.prompt.head_ids
    assert isinstance(general.generate(TEXTS[:1], max_new_tokens=2)[0], str)
    figures = record(tmp_path / "run")["stages"]["general"]
    losses = [line["eval_loss"] for line in figures["log"] if "eval_loss" in line]
    assert figures["best_development_figure"] == min(losses)
    assert (figures["num_steps"], figures["num_train_examples"], figures["num_dev_examples"]) == (4, 16, 8)
    assert any("eval_loss" in line for line in read_log(tmp_path / "run" / "stages" / "general"))


def test_a_general_stage_learns_and_the_task_s_training_goes_on(data: Path, tmp_path: Path) -> None:
    recipe = staged(data)
    longer = {**recipe_values(recipe)["general"], "training": {**SHORT, "epochs": 10, "max_answer_tokens": 20}}
    model = train_run(small_recipe(data, general=longer, training=SHORT, fusion=MEAN), tmp_path / "run")
    assert model is not None
    log = record(tmp_path / "run")["stages"]["general"]["log"]
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    general = read_config(tmp_path / "run" / "stages" / "general")["weights_sha256"]
    assert general != read_config(tmp_path / "run")["weights_sha256"]


def recipe_values(recipe: Any) -> dict[str, Any]:
    from glotfuse.recipes.loading import to_dict

    return to_dict(recipe)


def interrupted(monkeypatch: pytest.MonkeyPatch, recipe: Any, folder: Path, step: int, at_run: int) -> None:
    """Stops the nth training that is begun after a step, as Ctrl-C does."""
    plain, begun = training.train, []

    def counted(*arguments: Any, **options: Any) -> Any:
        begun.append(1)
        with monkeypatch.context() as patch:
            if len(begun) == at_run:
                patch.setattr(training, "Schedule", InterruptAt)
                patch.setattr(InterruptAt, "step", step)
            return plain(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", counted)
        with pytest.raises(TrainingInterruptedError):
            train_run(recipe, folder)


def weights(folder: Path) -> str:
    return checkpoint.weights_identity(read_config(folder))


@pytest.mark.parametrize(
    "adapter", [{}, pytest.param({"kind": "lora", "when": "before", "rank": 2}, marks=pytest.mark.slow)]
)
def test_interrupted_in_any_stage_it_goes_on_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: dict[str, Any]
) -> None:
    if adapter:
        pytest.importorskip("peft")
    recipe = staged(data, adapter=adapter)
    train_run(recipe, tmp_path / "whole")
    expected = weights(tmp_path / "whole")
    num_stages = 3 if adapter else 2
    for stage in range(1, num_stages + 1):
        folder = tmp_path / f"parts-{stage}"
        interrupted(monkeypatch, recipe, folder, step=2, at_run=stage)
        begun: list[int] = []
        plain = training.train
        monkeypatch.setattr(training, "train", lambda *a, **o: begun.append(1) or plain(*a, **o))  # noqa: B023
        torch.manual_seed(99)
        train_run(recipe, folder)
        monkeypatch.setattr(training, "train", plain)
        assert len(begun) == num_stages + 1 - stage, "finished stages are not trained again"
        assert weights(folder) == expected
        assert set(record(folder)["stages"]) == ({"general", "adapter"} if adapter else {"general"})


def test_another_recipe_does_not_go_on_with_finished_stages(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = staged(data)
    interrupted(monkeypatch, recipe, tmp_path / "run", step=1, at_run=2)
    shutil.rmtree(tmp_path / "run" / "state")  # as if it had died before its first state
    other = staged(data, training={**SHORT, "learning_rate": 0.5})
    with pytest.raises(CheckpointError, match=r"differs in training\.learning_rate"):
        train_run(other, tmp_path / "run")
    train_run(other, tmp_path / "run", overwrite=True)
    assert record(tmp_path / "run")["stages"]["general"]["num_steps"] == 4


def test_the_warm_start_comes_before_the_first_stage_only(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligned: list[str] = []
    plain = runs.align
    monkeypatch.setattr(runs, "align", lambda model, *a, **o: aligned.append(model.labels) or plain(model, *a, **o))
    train_run(staged(data, fusion={**MEAN, "warm_start": "align"}), tmp_path / "run")
    assert aligned == [()]
    found = record(tmp_path / "run")
    assert found["warm_start"] is None
    assert found["stages"]["general"]["warm_start"]["num_tokens"] > 50


def test_weights_of_another_run_are_taken_without_training_the_stage(data: Path, tmp_path: Path) -> None:
    first = staged(data, fusion={**MEAN, "warm_start": "align"})
    train_run(first, tmp_path / "first")
    general = tmp_path / "first" / "stages" / "general"
    for source in (tmp_path / "first", general):
        again = staged(data, general={"from_run": str(source)})
        folder = tmp_path / source.name / "again"
        model = train_run(again, folder)
        assert model is not None
        assert weights(folder) == weights(tmp_path / "first"), "the same start, the same seed"
        assert not (folder / "stages").exists()
        assert record(folder)["stages"]["general"] == {"from": str(source), "weights_sha256": weights(general)}


def test_weights_of_other_backbones_or_settings_are_refused(data: Path, tmp_path: Path) -> None:
    train_run(staged(data), tmp_path / "first")
    take = {"from_run": str(tmp_path / "first")}
    with pytest.raises(CheckpointError, match=r"differ in fusion\.summary \(True, here False\)"):
        train_run(staged(data, general=take, fusion={**MEAN, "summary": False}), tmp_path / "summary")
    with pytest.raises(CheckpointError, match="differ in lm"):
        train_run(staged(data, general=take, lm={"name": lm_folder("llama", seed=6)}), tmp_path / "lm")
    with pytest.raises(CheckpointError, match=r"general\.from_run.*nowhere"):
        train_run(staged(data, general={"from_run": str(tmp_path / "nowhere")}), tmp_path / "none")
    file = tmp_path / "first" / "stages" / "general" / "fusion.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match="damaged"):
        train_run(staged(data, general=take), tmp_path / "damaged")


def test_before_the_lm_reads_the_text_itself_and_is_then_fixed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    seen: list[tuple[bool, bool, int]] = []
    plain = training.train

    def watching(model: FusedLM, examples: Any, *arguments: Any, **options: Any) -> Any:
        learnt = sum(p.requires_grad for p in model.fusion.parameters())
        seen.append((model.lm.learning, bool(examples[0].text_ids), learnt))
        return plain(model, examples, *arguments, **options)

    monkeypatch.setattr(training, "train", watching)
    lm = tiny_lm()
    before = hash_module(lm)
    recipe = small_recipe(
        data, adapter={"kind": "lora", "when": "before", "rank": 2, "learning_rate": 0.02}, training=SHORT
    )
    model = train_run(recipe, tmp_path / "run", backbones=(tiny_encoder(), lm))
    assert model is not None
    assert [(learning, text) for learning, text, _ in seen] == [(True, True), (False, False)]
    assert (seen[0][2], seen[1][2] > 3) == (0, True)
    assert hash_module(lm) == before
    text = FusedLM.from_pretrained(tmp_path / "run" / "stages" / "adapter", device="cpu")
    for found, expected in zip(text.lm.adapter.tensors.values(), model.lm.adapter.tensors.values(), strict=True):
        assert torch.equal(found, expected)
    assert any(float(tensor.detach().abs().max()) > 0 for n, tensor in text.lm.adapter.tensors.items() if "lora_B" in n)
    assert FusedLM.from_pretrained(tmp_path / "run", device="cpu").classify(TEXTS) == model.classify(TEXTS)
    assert text.classify(TEXTS) != model.classify(TEXTS)
    figures = record(tmp_path / "run")["stages"]["adapter"]
    assert any("eval_accuracy" in line for line in figures["log"])


def test_rows_are_held_out_where_there_is_no_development_data(data: Path, tmp_path: Path) -> None:
    (data / "eng_Latn" / "dev.tsv").unlink()
    (data / "eng_Latn" / "test.tsv").unlink()
    write_task(tmp_path / "task")
    recipe = staged(data, task={"path": str(tmp_path / "task")})
    train_run(recipe, tmp_path / "run")
    figures = record(tmp_path / "run")["stages"]["general"]
    assert (figures["num_train_examples"], figures["num_dev_examples"]) == (15, 1)
    assert figures["best_development_figure"] is not None


def test_a_stage_alone_is_a_run(data: Path, tmp_path: Path) -> None:
    stage = stage_recipes(staged(data, "distillation"))["general"]
    assert stage is not None
    assert stage.objective == "distillation"
    train_run(stage, tmp_path / "run")
    model = train_run(staged(data, general={"from_run": str(tmp_path / "run")}), tmp_path / "task")
    assert model is not None
    other = FusedLM.from_pretrained(tmp_path / "run", device="cpu")
    hand_over(model, tmp_path / "run")
    assert hash_module(other.fusion) == hash_module(model.fusion)


def test_settings_against_copying_are_the_stage_s_own(data: Path) -> None:
    general = {"token_dropout": 0.3, "state_noise": 0.2, "objective": "reconstruction"}
    recipe = small_recipe(data, general=general, fusion={"state_dropout": 0.1})
    stage = stage_recipes(recipe)["general"]
    assert stage is not None
    assert (stage.fusion.token_dropout, stage.fusion.state_noise, stage.fusion.state_dropout) == (0.3, 0.2, 0.1)
    assert (recipe.fusion.token_dropout, recipe.fusion.state_noise) == (0.0, 0.0)
    assert "adapter" not in stage_recipes(recipe)
    assert stage.task == recipe.task, "the run's own text, where no other is named"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"prompt": {"include_span": False}}, r"prompt\.include_span"),
        ({"general": {"objective": "continuation", "from_run": "runs/x"}}, r"either general\.objective or"),
        ({"general": {"objective": "reconstruction", "prompt": {"include_text": True}}}, r"general\.prompt.*itself"),
        ({"objective": "distillation", "adapter": {"kind": "lora"}}, "its own teacher"),
        ({"general": {"objective": "continuation", "training": {"select_by": "accuracy"}}}, "select_by loss"),
        ({"method": "embedding"}, "method 'embedding'"),
    ],
)
def test_stages_that_do_not_fit_are_refused(data: Path, sections: dict[str, Any], message: str) -> None:
    if "adapter" in sections:
        pytest.importorskip("peft")
    with pytest.raises(ConfigError, match=message):
        check(staged(data, **sections))


def test_a_misspelt_key_of_a_stage_s_task_is_named(data: Path) -> None:
    with pytest.raises(ConfigError, match=r"general\.task\.nam: unknown key; expected one of name, path.*'name'"):
        small_recipe(data, general={"task": {"nam": "files"}})
