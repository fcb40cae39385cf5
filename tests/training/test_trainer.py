"""Training: deterministic, resumable without a trace, chosen by English development data, frozen parts untouched."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import set_seed

from glotfuse.api import FusedLM
from glotfuse.backbones.identity import hash_module
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.inputs.batch import prepare
from glotfuse.inputs.order import LengthGroupedOrder
from glotfuse.recipes.checks import check_trackers
from glotfuse.recipes.training_config import TrainingConfig
from glotfuse.run_folder import LOG, read_log
from glotfuse.training import trainer as training
from glotfuse.training.data_parallel import stay_on
from glotfuse.training.state import TrainingInterruptedError, discard_state
from small_training import OPTIONS, InterruptAt, digest, fresh, train
from tiny import TEXTS, tiny_model


def test_equal_seeds_give_bit_identical_weights(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        model, examples, dev = fresh()
        train(model, examples, dev, tmp_path / name, seed=3, **OPTIONS)
        found.append(digest(model))
    assert found[0] == found[1]


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    found = []
    for seed in (3, 4):
        model, examples, dev = fresh()
        train(model, examples, dev, tmp_path / str(seed), seed=seed, **OPTIONS)
        found.append(digest(model))
    assert found[0] != found[1]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("step", [1, 4])
def test_interrupt_and_resume_give_the_weights_of_an_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, accumulation: int
) -> None:
    options = {**OPTIONS, "accumulation": accumulation, "seed": 5}
    model, examples, dev = fresh()
    whole = train(model, examples, dev, tmp_path / "whole", **options)
    expected = digest(model)

    model, examples, dev = fresh()
    with monkeypatch.context() as patch:
        patch.setattr(training, "Schedule", InterruptAt)
        patch.setattr(InterruptAt, "step", step)
        with pytest.raises(TrainingInterruptedError, match=f"after step {step} of {whole.num_steps}.*same command"):
            train(model, examples, dev, tmp_path / "parts", **options)
    model, examples, dev = fresh()
    torch.manual_seed(1234)  # whatever state the new process starts in
    outcome = train(model, examples, dev, tmp_path / "parts", **options)
    assert digest(model) == expected
    assert outcome.best_step == whole.best_step
    assert outcome.num_steps == whole.num_steps


def test_a_torn_state_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples, dev = fresh()
    train(model, examples, dev, tmp_path / "whole", seed=5, **OPTIONS)
    expected = digest(model)
    model, examples, dev = fresh()
    with monkeypatch.context() as patch:
        patch.setattr(training, "Schedule", InterruptAt)
        patch.setattr(InterruptAt, "step", 4)
        with pytest.raises(TrainingInterruptedError):
            train(model, examples, dev, tmp_path / "parts", seed=5, **OPTIONS)
    torn = tmp_path / "parts" / "checkpoint-9"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"half')
    model, examples, dev = fresh()
    train(model, examples, dev, tmp_path / "parts", seed=5, **OPTIONS)
    assert digest(model) == expected


def test_a_full_disk_stops_with_a_clear_error_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples, dev = fresh()
    train(model, examples, dev, tmp_path / "whole", seed=5, **OPTIONS)
    expected = digest(model)
    model, examples, dev = fresh()
    plain, saved = training.FusionTrainer._save, []

    def full_at_the_second(self: Any, folder: str | None = None, state_dict: Any = None) -> None:
        saved.append(folder)
        if len(saved) == 2:
            (Path(folder or "") / "half").parent.mkdir(parents=True)
            raise OSError(28, "No space left on device")
        plain(self, folder, state_dict)

    with monkeypatch.context() as patch:
        patch.setattr(training.FusionTrainer, "_save", full_at_the_second)
        with pytest.raises(CheckpointError, match=r"No space left on device.*same command"):
            train(model, examples, dev, tmp_path / "parts", seed=5, **OPTIONS)
    assert [p.name for p in (tmp_path / "parts").iterdir()] == ["checkpoint-5"]
    model, examples, dev = fresh()
    train(model, examples, dev, tmp_path / "parts", seed=5, **OPTIONS)
    assert digest(model) == expected


def test_backbones_are_byte_identical_after_training(tmp_path: Path) -> None:
    model, examples, dev = fresh()
    before = hash_module(model.encoder), hash_module(model.lm), digest(model)
    train(model, examples, dev, tmp_path, **OPTIONS)
    assert (hash_module(model.encoder), hash_module(model.lm)) == before[:2]
    assert digest(model) != before[2]


def test_a_full_disk_at_the_log_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples, _ = fresh()
    plain = Path.open

    def full(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if self.name == "log.jsonl" and "a" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointError, match=r"figures of step \d+ to .*log\.jsonl; found: No space left.*free"):
        train(model, examples, None, tmp_path, **OPTIONS)


def test_a_state_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    model, examples, _ = fresh()
    (tmp_path / "state").write_text("")
    with pytest.raises(CheckpointError, match=r"Expected to make .*state; found: "):
        training.train(model, examples, None, tmp_path / "state", TrainingConfig())


def test_training_learns(tmp_path: Path) -> None:
    model, examples, _ = fresh()
    outcome = train(model, examples, None, tmp_path, **{**OPTIONS, "epochs": 40})
    losses = [entry["loss"] for entry in outcome.log if "loss" in entry]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(("select_by", "best"), [("loss", 2), ("accuracy", 4), ("last", None)])
def test_the_development_figure_chooses_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, select_by: str, best: int | None
) -> None:
    model, examples, dev = fresh()
    figures = iter([(0.9, 0.1), (0.2, 0.3), (0.5, 0.2), (0.4, 0.8), (0.3, 0.5)])
    weights: list[str] = []

    def scripted(model: FusedLM, *_: Any) -> dict[str, float]:
        weights.append(digest(model))
        loss, accuracy = next(figures)
        return {"eval_loss": loss, "eval_accuracy": accuracy}

    monkeypatch.setattr(training, "development_metrics", scripted)
    options = {**OPTIONS, "epochs": 1, "evaluations": 5, "select_by": select_by}
    outcome = train(model, examples, dev, tmp_path, **options)
    assert outcome.best_step == best
    assert len(weights) == 5
    assert digest(model) == weights[(best or 5) - 1]


def test_accumulated_micro_batches_weigh_every_answer_token_the_same(tmp_path: Path) -> None:
    """The loss of one accumulated step is the mean over all its answer tokens, however they are spread."""
    found = []
    for batch_size, accumulation in ((6, 1), (2, 3)):
        set_seed(0)
        model = tiny_model(labels=("science", "health news"), mixer_options={"dropout": 0.0})
        answers = ["science", "science", "health news", "science", "health news", "health news"]
        examples = prepare(model.reader, model.prompt, [{"text": text} for text in (TEXTS * 2)[:6]], answers=answers)
        assert len({len(example.answer_ids) for example in examples}) == 2
        folder = tmp_path / str(batch_size)
        options = {"batch_size": batch_size, "accumulation": accumulation, "epochs": 1, "warmup_ratio": 0.0}
        outcome = train(model, examples, None, folder, evaluations=1, learning_rate=1e-3, **options)
        found.append([(entry["loss"], entry["grad_norm"]) for entry in outcome.log if "grad_norm" in entry])
    assert len(found[0]) == len(found[1]) == 1
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)


def test_the_state_holds_the_fusion_and_no_pickled_objects_of_ours(tmp_path: Path) -> None:
    model, examples, dev = fresh()
    train(model, examples, dev, tmp_path, **OPTIONS)
    state = max(tmp_path.glob("checkpoint-*"))
    size = sum(p.numel() * 4 for p in model.fusion.parameters())
    assert (state / "fusion.safetensors").stat().st_size < size + 8192
    assert not (state / "training_args.bin").exists()
    assert not (state / "model.safetensors").exists()


def test_mixed_precision_trains(tmp_path: Path) -> None:
    model, examples, dev = fresh()
    outcome = train(model, examples, dev, tmp_path, precision="bfloat16", **OPTIONS)
    assert {key[2] for key in model._head_caches} == {torch.bfloat16}, "training and choosing alike"
    assert all(cache is not None for cache in model._head_caches.values())
    assert all(p.dtype == torch.float32 for p in model.fusion.parameters())
    assert outcome.best_metric is not None


def test_order_is_a_permutation_with_batches_of_similar_length() -> None:
    lengths = [(i * 37) % 101 for i in range(203)]
    order = LengthGroupedOrder(lengths, 8, seed=1)
    first = list(order)
    assert sorted(first) == list(range(203))
    assert first == list(order)
    order.set_epoch(1)
    assert list(order) != first
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in _batches(first[:200], 8)]
    shuffled = sorted(range(203), key=lambda i: hashlib.sha256(str(i).encode()).digest())
    plain = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in _batches(shuffled[:200], 8)]
    assert sum(spread) < 0.5 * sum(plain)
    assert [lengths[i] for i in first[:64:8]] != sorted(lengths[i] for i in first[:64:8])


def _batches(order: list[int], size: int) -> list[list[int]]:
    return [order[i : i + size] for i in range(0, len(order), size)]


def test_every_figure_is_in_the_log_file_also_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples, dev = fresh()
    whole = train(model, examples, dev, tmp_path / "whole" / "state", **OPTIONS)
    expected = read_log(tmp_path / "whole")
    assert [line["step"] for line in expected if "loss" in line] == list(range(1, whole.num_steps + 1))
    assert sum("eval_accuracy" in line for line in expected) == 3
    folder = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(training, "Schedule", InterruptAt)
        patch.setattr(InterruptAt, "step", 4)
        model, examples, dev = fresh()
        with pytest.raises(TrainingInterruptedError):
            train(model, examples, dev, folder / "state", **OPTIONS)
    with (folder / LOG).open("a") as handle:  # a crash came later than the saved state, in the middle of a line
        handle.write('{"step": 7, "loss": 1.0}\n{"step": 8, "lo')
    model, examples, dev = fresh()
    train(model, examples, dev, folder / "state", **OPTIONS)
    found = read_log(folder)
    assert [(line["step"], line.get("loss")) for line in found if "loss" in line] == [
        (line["step"], pytest.approx(line.get("loss"))) for line in expected if "loss" in line
    ]


def test_tensorboard_gets_the_figures_and_its_files_outlive_the_state(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    model, examples, dev = fresh()
    train(model, examples, dev, tmp_path / "run" / "state", report_to=["tensorboard"], **OPTIONS)
    discard_state(tmp_path / "run" / "state")
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        check_trackers(["wandb"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_development_examples_are_measured_in_the_precision_of_training(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    measured = training.development_metrics

    def watched(*given: Any) -> dict[str, float]:
        seen.append(torch.is_autocast_enabled("cpu"))
        return measured(*given)

    monkeypatch.setattr(training, "development_metrics", watched)
    model, examples, dev = fresh()
    train(model, examples, dev, tmp_path / "state", **{**OPTIONS, "epochs": 1, "precision": precision})
    assert set(seen) == {precision == "bfloat16"}


def test_training_stays_on_the_models_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would compute on `cuda:0`; there is no GPU here, so what it is told is looked at."""
    from accelerate import Accelerator
    from transformers import TrainingArguments

    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    args = TrainingArguments(str(tmp_path), use_cpu=True)
    assert args.device.type == "cpu"
    second = torch.device("cuda:1")
    stay_on(args, second)
    assert args.device == second
    assert Accelerator().device == second
    assert chosen == [second]
    monkeypatch.undo()
    AcceleratorState._reset_state(reset_partial_state=True)
