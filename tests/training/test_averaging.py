"""Averaged weights: the mean of the last steps, kept where it is better, the same after an interruption."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from glotfuse.training import averaging
from glotfuse.training import trainer as training
from glotfuse.training.averaging import Averaging
from glotfuse.training.state import TrainingInterruptedError
from small_training import OPTIONS, InterruptAt, digest, fresh, train


class _State:
    max_steps = 10
    global_step = 0


def test_it_is_the_mean_of_the_last_steps(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    mean, seen = Averaging(model, 0.4), []
    state = _State()
    for step in range(1, 11):
        with torch.no_grad():
            model.weight.fill_(float(step**2))
        state.global_step = step
        mean.on_step_end(None, state, None)
        if step == 8:  # as an interrupted run does
            mean.save(tmp_path)
            mean = Averaging(model, 0.4)
            mean.load(tmp_path)
        seen.append(float(step**2))
    with mean.applied():
        assert float(model.weight[0, 0]) == pytest.approx(sum(seen[6:]) / 4)
    assert float(model.weight[0, 0]) == 100.0
    mean.apply()
    assert float(model.weight[0, 1]) == pytest.approx(sum(seen[6:]) / 4)


def test_nothing_is_averaged_unless_asked_for() -> None:
    mean, state = Averaging(nn.Linear(1, 1), 0.0), _State()
    state.global_step = 10
    mean.on_step_end(None, state, None)
    assert not mean.ready


@pytest.mark.parametrize("better", [True, False])
def test_the_average_is_kept_where_development_data_find_it_better(
    better: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples, dev = fresh()
    measured = training.development_metrics
    inside: list[bool] = []

    class Watched(Averaging):
        def applied(self) -> Any:
            inside.append(True)
            return super().applied()

    def figures(*given: Any) -> dict[str, float]:
        loss = measured(*given)["eval_loss"]
        return {"eval_loss": (0.0 if better else 99.0) if inside else loss}

    monkeypatch.setattr(training, "Averaging", Watched)
    for module in (training, averaging):
        monkeypatch.setattr(module, "development_metrics", figures)
    outcome = train(model, examples, dev, tmp_path / "state", **OPTIONS, average=0.5)
    assert outcome.average_metric == (0.0 if better else 99.0)
    assert (outcome.best_metric == 0.0) is better
    plain, *_ = fresh()
    inside.clear()
    for module in (training, averaging):
        monkeypatch.setattr(module, "development_metrics", measured)
    train(plain, examples, dev, tmp_path / "plain", **OPTIONS, average=0.0)
    assert (digest(plain) == digest(model)) is not better


def test_an_interrupted_training_ends_with_the_same_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, examples, dev = fresh()
    expected = train(whole, examples, dev, tmp_path / "whole", **OPTIONS, average=0.6)
    model, examples, dev = fresh()
    monkeypatch.setattr(training, "Schedule", InterruptAt)
    monkeypatch.setattr(InterruptAt, "step", 9)
    with pytest.raises(TrainingInterruptedError):
        train(model, examples, dev, tmp_path / "state", **OPTIONS, average=0.6)
    monkeypatch.undo()
    model, examples, dev = fresh()
    outcome = train(model, examples, dev, tmp_path / "state", **OPTIONS, average=0.6)
    assert outcome.average_metric == expected.average_metric
    assert digest(model) == digest(whole)


def test_a_ctrl_c_that_reaches_the_workers_too_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal sends it to the whole group of processes."""

    class InterruptGroup(InterruptAt):
        def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            if state.global_step == 1:  # most batches of the epoch are still to come
                for child in psutil.Process().children():
                    child.send_signal(signal.SIGINT)
                    child.send_signal(signal.SIGTERM)
            super().on_step_end(args, state, control, **options)

    options = {**OPTIONS, "batch_size": 1}
    whole, examples, dev = fresh()
    train(whole, examples, dev, tmp_path / "whole", **options)
    model, examples, dev = fresh()
    monkeypatch.setattr(training, "Schedule", InterruptGroup)
    monkeypatch.setattr(InterruptGroup, "step", 7)
    with pytest.raises(TrainingInterruptedError):
        train(model, examples, dev, tmp_path / "state", **options, workers=2)
    monkeypatch.undo()
    model, examples, dev = fresh()
    train(model, examples, dev, tmp_path / "state", **options, workers=2)
    assert digest(model) == digest(whole)
