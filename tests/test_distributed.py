"""Several processes do what one does: the same losses, weights, predictions and files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from glotfuse import distributed
from glotfuse.errors import ConfigError
from glotfuse.inputs.batch import PreparedExample, training_inputs
from glotfuse.inputs.order import LengthGroupedOrder, SharedBatches
from glotfuse.recipes.loading import load_recipe
from glotfuse.runs.measuring import measure_run
from glotfuse.runs.train import train_run
from processes import environment, finish, start_together
from small_runs import small_values, write_task
from tiny import tiny_model

NO_DROPOUT = {"feedforward_size": 16, "dropout": 0.0}


def write_recipe(folder: Path, num_train: int = 25, **sections: dict[str, Any]) -> Path:
    """A recipe whose last batch has one row for two processes, and whose other batches run in parts."""
    fusion = {"warm_start": "align", "mixer_options": NO_DROPOUT, **sections.pop("fusion", {})}
    training = {"max_tokens": 40, **sections.pop("training", {})}
    data = write_task(folder / "data", num_train=num_train, num_dev=7)
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(small_values(data, fusion=fusion, training=training, **sections)))
    return path


def figures(run: Path) -> list[dict[str, float]]:
    """The log's losses, development figures and layer weights by step."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text("utf8").splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("train_")} for line in lines]


def predictions(run: Path) -> list[dict[str, Any]]:
    files = sorted((run / "predictions" / "test").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf8").splitlines()]


def assert_same_run(one: Path, other: Path) -> None:
    """Losses, weights and predictions of two runs are equal to rounding; grows in training, so it is not 1e-6."""
    expected, found = figures(one), figures(other)
    assert len(expected) > 3
    for a, b in zip(expected, found, strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-4), f"step {a['step']}"
    weights, others = (load_file(run / "fusion.safetensors") for run in (one, other))
    for name, values in weights.items():
        torch.testing.assert_close(others[name], values, rtol=1e-2, atol=1e-3)
    for a, b in zip(predictions(one), predictions(other), strict=True):
        assert (a["source"], a["row"], a["predicted"]) == (b["source"], b["row"], b["predicted"])
        assert b["probabilities"] == pytest.approx(a["probabilities"], abs=1e-3)


def one_process(recipe: Path, run: Path) -> None:
    values = load_recipe(recipe, None)
    train_run(values, run)
    measure_run(run, values)


def test_two_processes_train_and_measure_as_one_does(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, probe={"kind": "kernel"})
    processes = start_together(["train", str(recipe), "--out", str(tmp_path / "two")], tmp_path / "cache")
    one_process(recipe, tmp_path / "one")
    (code, output, errors), (other_code, other_output, other_errors) = finish(processes)
    assert (code, other_code) == (0, 0), errors + other_errors
    assert_same_run(tmp_path / "one", tmp_path / "two")
    record = json.loads((tmp_path / "two" / "training.json").read_text("utf8"))
    assert record["hardware"]["processes"] == 2
    alone = json.loads((tmp_path / "one" / "training.json").read_text("utf8"))
    assert record["probe"]["shares"] == alone["probe"]["shares"]
    assert record["probe"]["lm"] == pytest.approx(alone["probe"]["lm"], rel=1e-3)
    assert record["warm_start"]["num_tokens"] > 100
    assert not (tmp_path / "two" / "state").exists()
    assert "Accuracy" in output
    assert "training: " in errors
    assert other_output == ""
    assert "training: " not in other_errors
    assert "Saved" not in other_errors


def test_processes_share_every_batch_and_repeat_no_row() -> None:
    lengths = [5, 3, 9, 1, 7, 2, 8, 6, 4, 3, 2]
    order = LengthGroupedOrder(lengths, 4, seed=1)
    shares = [SharedBatches(order, rank, 3) for rank in range(3)]
    for epoch in (0, 1):
        for share in shares:
            share.set_epoch(epoch)
        rows = list(order)
        whole = [rows[i : i + 4] for i in range(0, len(rows), 4)]
        dealt = list(zip(*shares, strict=True))
        assert [sorted(i for part in parts for i in part) for parts in dealt] == [sorted(batch) for batch in whole]
    assert all(len(share) == len(whole) for share in shares)
    last_alone = [list(SharedBatches(LengthGroupedOrder([1] * 9, 4, seed=1), rank, 4))[-1] for rank in range(4)]
    assert [len(part) for part in last_alone] == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("mixer", "projector"),
    [("last", "linear"), ("global_softmax", "mlp"), ("transformer_softmax", "linear"), ("mean", "perceiver")],
)
def test_a_process_without_a_row_adds_nothing_and_every_weight_has_a_gradient(mixer: str, projector: str) -> None:
    """Every weight must have one, or processes would wait for each other's."""
    model = tiny_model(mixer=mixer, projector=projector).train()
    row = PreparedExample(encoder_ids=[5, 6, 7], answer_ids=[])
    loss = model(**training_inputs([row], model.encoder.pad_token_id), num_items_in_batch=torch.tensor(3))["loss"]
    loss.backward()
    assert loss.item() == 0.0
    gradients = [weights.grad for weights in model.fusion.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    assert distributed.share_of_batch(12) == 3
    with pytest.raises(ConfigError, match=r"4 processes .* found 10\. Set it to 8"):
        distributed.share_of_batch(10)


def test_results_come_back_in_the_order_of_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(range(10))
    parts = [[str(i) for i in items[rank::3]] for rank in range(3)]
    monkeypatch.setattr(distributed, "gather", lambda value: parts)
    assert distributed.spread(items, lambda own: [str(i) for i in own]) == [str(i) for i in items]


def test_alone_nothing_is_started_and_all_is_done_here() -> None:
    distributed.start(cpu=True)
    assert not torch.distributed.is_initialized()
    assert (distributed.world_size(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    assert distributed.spread([3, 1], lambda own: [-i for i in own]) == [-3, -1]
    assert distributed.once(lambda: 7) == 7
    assert distributed.gather("a") == ["a"]


def launcher(*module: str) -> list[str]:
    """A launcher of two processes on a free port."""
    return [sys.executable, "-m", *module]


TORCHRUN = launcher("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = launcher("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_request_to_one_process_stops_all_and_the_same_command_goes_on(tmp_path: Path) -> None:
    dropout = {"feedforward_size": 16, "dropout": 0.2}  # each process has random numbers of its own to go on with
    training = {"epochs": 8, "max_tokens": None, "evaluations": 2}
    recipe = write_recipe(tmp_path, fusion={"mixer_options": dropout}, training=training)
    arguments = ["train", str(recipe), "--no-evaluate", "--out"]
    whole = finish(start_together([*arguments, str(tmp_path / "whole")], tmp_path / "c"))
    assert [code for code, *_ in whole] == [0, 0]
    processes = start_together([*arguments, str(tmp_path / "cut")], tmp_path / "c")
    log = tmp_path / "cut" / "log.jsonl"
    for _ in range(1000):
        if log.exists() and log.read_text().count("\n") > 3:
            break
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    (code, _, errors), (other_code, *_) = finish(processes)
    assert (code, other_code) == (130, 130), errors
    assert "Interrupted after step" in errors
    steps = len(figures(tmp_path / "cut"))
    results = finish(start_together([*arguments, str(tmp_path / "cut")], tmp_path / "c"))
    assert [code for code, *_ in results] == [0, 0], results
    assert len(figures(tmp_path / "cut")) > steps
    expected, found = (load_file(tmp_path / run / "fusion.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_launchers_start_it_with_whole_and_with_split_lms(tmp_path: Path, command: list[str]) -> None:
    recipe = write_recipe(
        tmp_path, fusion={"mixer": "mean", "mixer_options": {}}, training={"epochs": 1, "accumulation": 2}
    )
    one_process(recipe, tmp_path / "one")
    split = ["--set", "lm.sharded=true"] if command is TORCHRUN else []
    run = [*command, "-m", "glotfuse", "train", str(recipe), "--out", str(tmp_path / "two"), *split]
    done = subprocess.run(run, env=environment(tmp_path / "c"), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_of_them_soon(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, training={"epochs": 200})
    program = tmp_path / "failing.py"
    program.write_text(
        "import os, sys\n"
        "from glotfuse import training, cli\n"
        "step = training.FusionTrainer.training_step\n"
        "def failing(self, *arguments):\n"
        "    if os.environ['RANK'] == '1' and self.state.global_step == 3:\n"
        "        raise MemoryError('no more')\n"
        "    return step(self, *arguments)\n"
        "training.FusionTrainer.training_step = failing\n"
        f"sys.argv = ['glotfuse', 'train', {str(recipe)!r}, '--out', {str(tmp_path / 'run')!r}]\n"
        "cli.main()\n"
    )
    command = [*TORCHRUN, str(program)]
    done = subprocess.run(command, env=environment(tmp_path / "c"), capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert "MemoryError: no more" in done.stderr
    assert len(figures(tmp_path / "run")) == 3
