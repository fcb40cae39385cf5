"""A run folder belongs to one run and one process, and survives the death of that process at any moment."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from deaths import RESULTS, forked, hashes, left_over
from glotfuse.errors import CheckpointError
from glotfuse.recipes.config import Recipe
from glotfuse.runs.folder import claim, finished, read_recipe
from glotfuse.runs.measuring import measure_run
from glotfuse.runs.train import train_run
from small_runs import small_recipe, write_task

FORK = get_context("fork")


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts a process that claims a folder and stays, with a worker of its own if wanted."""
    started = []

    def start(folder: Path, recipe: Recipe, *, worker: bool = False) -> Any:
        ready = FORK.Event()

        def stay() -> None:
            claim(folder, recipe, overwrite=False)
            if worker:
                pid = os.fork()
                if pid == 0:
                    time.sleep(3)
                    os._exit(0)
            ready.set()
            time.sleep(60)

        process = FORK.Process(target=stay)
        process.start()
        started.append(process)
        assert ready.wait(20)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path: Path, other_process: Callable[..., Any]) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"))
    holder = other_process(tmp_path / "run", recipe)
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match=rf"no other process .* found process {holder.pid} .*--out"):
            claim(tmp_path / "run", recipe, overwrite)
    claim(tmp_path / "elsewhere", recipe, overwrite=False)


@pytest.mark.parametrize("worker", [False, True])
def test_the_lock_of_a_killed_process_blocks_nobody(
    tmp_path: Path, other_process: Callable[..., Any], worker: bool
) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"))
    holder = other_process(tmp_path / "run", recipe, worker=worker)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    claim(tmp_path / "run", recipe, overwrite=False)


def test_a_process_keeps_its_run_and_stages_and_gives_back_earlier_ones(tmp_path: Path) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"))
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, first, first / "stages" / "general"):
        claim(folder, recipe, overwrite=False)

    def refused(folder: Path) -> bool:
        def work() -> None:
            import glotfuse.runs.folder as fresh

            fresh._held.clear()
            claim(folder, recipe, overwrite=False)

        return forked(work, tmp_path / "log")[0] != 0

    assert refused(first)
    claim(second, recipe, overwrite=False)
    assert refused(second)
    assert not refused(first)


def test_the_report_of_a_run_that_is_replaced_goes_with_it(tmp_path: Path) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"), training={"epochs": 0})
    train_run(recipe, tmp_path / "run")
    measure_run(tmp_path / "run", recipe)
    assert hashes(tmp_path / "run", "report-*")
    train_run(replace(recipe, training=replace(recipe.training, seed=1)), tmp_path / "run", overwrite=True)
    assert not hashes(tmp_path / "run", "report-*")


def test_a_recipe_is_asked_of_a_run_inside_of_a_folder_of_runs(tmp_path: Path) -> None:
    claim(tmp_path / "all" / "default" / "seed-0", small_recipe(write_task(tmp_path / "data")), overwrite=False)
    with pytest.raises(CheckpointError, match=r"holds the runs default/seed-0: give one of them, such as .*seed-0\."):
        read_recipe(tmp_path / "all")


def train_and_measure(recipe: Recipe, folder: Path, cache: Path) -> None:
    os.environ["GLOTFUSE_CACHE"] = str(cache)
    if not finished(folder, recipe):
        train_run(recipe, folder)
    measure_run(folder, recipe)


def forget_byte_fallback(folder: Path) -> None:
    """The recorded recipe as it was before there was the setting."""
    values = json.loads((folder / "recipe.json").read_text("utf8"))
    del values["encoder"]["byte_fallback"]
    (folder / "recipe.json").write_text(json.dumps(values))


def test_a_run_from_before_byte_fallback_is_one_without_it(tmp_path: Path) -> None:
    data, folder = write_task(tmp_path / "data"), tmp_path / "run"
    recipe = small_recipe(data, encoder={"byte_fallback": False})
    train_run(replace(recipe, training=replace(recipe.training, epochs=0)), folder)
    forget_byte_fallback(folder)
    assert read_recipe(folder).encoder.byte_fallback is False
    assert small_recipe(data).encoder.byte_fallback is True
    assert finished(folder, replace(recipe, training=replace(recipe.training, epochs=0)))
    assert not finished(folder, small_recipe(data, training={"epochs": 0}))


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_an_interrupted_run_from_before_goes_on_where_the_ids_are_the_same(tmp_path: Path, byte_fallback: bool) -> None:
    """Vocabularies of bundled encoders have no bytes, so that the setting changes nothing."""
    data = write_task(tmp_path / "data")
    bundled = small_recipe(data, encoder={"name": "bundled:e5-small"})
    claim(tmp_path / "bundled", bundled, overwrite=False)
    own = small_recipe(data, encoder={"byte_fallback": byte_fallback})
    claim(tmp_path / "own", own, overwrite=False)
    for name in ("bundled", "own"):
        (tmp_path / name / "state").mkdir()
        forget_byte_fallback(tmp_path / name)
    claim(tmp_path / "bundled", bundled, overwrite=False)
    if not byte_fallback:
        claim(tmp_path / "own", own, overwrite=False)
        return
    with pytest.raises(CheckpointError, match=r"differs in encoder\.byte_fallback"):
        claim(tmp_path / "own", own, overwrite=False)


MOMENTS = ("run/state/checkpoint-8/trainer_state.json", "/config.json", "/training.json", "/sin_Sinh.jsonl")
"""While a state is saved, the finished run is written and put in its place, and a language was measured."""


def test_a_run_that_is_killed_ends_in_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    recipe = small_recipe(
        write_task(tmp_path / "data"),
        fusion={"warm_start": "align"},
        training={"average": 0.6},
        probe={"kind": "kernel"},
    )

    def work(name: str) -> Callable[[], None]:
        return lambda: train_and_measure(recipe, tmp_path / name / "run", tmp_path / name / "cache")

    code, operations = forked(work("whole"), tmp_path / "log", watched=tmp_path / "whole")
    assert code == 0, (tmp_path / "log").read_text("utf8")
    expected = hashes(tmp_path / "whole" / "run", *RESULTS)
    for number, moment in enumerate(MOMENTS):
        last = max(n for n, line in enumerate(operations, start=1) if line.endswith(moment))
        place = tmp_path / str(number)
        assert forked(work(str(number)), tmp_path / "log", watched=place, die_at=last)[0] == -9
        assert forked(work(str(number)), tmp_path / "log")[0] == 0, (tmp_path / "log").read_text("utf8")
        assert hashes(place / "run", *RESULTS) == expected, moment
        assert json.loads((place / "run" / "training.json").read_text("utf8"))["num_steps"] == 12
        assert not [name for name in left_over(place / "run") if ".partial-" not in name], moment
