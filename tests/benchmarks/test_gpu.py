"""The benchmarks for a GPU, rehearsed on the CPU: they find what is wrong, and nothing stops the rest."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import checks, correctness
from benchmarks.gpu.cases import CASES, ROOT, TEST_NAME, TESTS, case_parts, run_case
from benchmarks.gpu.checks import BOUNDS, Check, Outcome, compare
from benchmarks.gpu.configs import LLAMA_1B, MT5_LARGE, MT5_XL, PAIRS
from benchmarks.gpu.parts import PARTS, SMALL, Bench, mixer
from benchmarks.measure import Row, alternate, peak_megabytes, row
from benchmarks.steps import our_trainer, textbook_trainer
from rich.console import Console
from torch import Tensor

from glotfuse.api import FusedLM

CPU = torch.device("cpu")
PAIR = PAIRS["xlm-r-large+qwen3-0.6b"].small()


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correctness, "MIXERS", ("transformer_softmax",))
    monkeypatch.setattr(correctness, "_NUM_TEXTS", 3)


def failed_checks() -> list[str]:
    found = list(correctness.correctness(PAIR.shallow(), CPU))
    assert len(found) == 22
    return [check.name for check in found if isinstance(check, Check) and not check.passed]


@pytest.mark.parametrize(
    ("config", "name"), [(MT5_LARGE, "mt5-large"), (MT5_XL, "mt5-xl"), (LLAMA_1B, "llama-3.2-1b-instruct")]
)
def test_configurations_are_the_published_ones(config: dict[str, Any], name: str) -> None:
    published = json.loads((ROOT / f"tests/fixtures/model_configs/{name}/config.json").read_text("utf8"))
    assert {key: (value, published[key]) for key, value in config.items() if published[key] != value} == (
        {"num_decoder_layers": (1, 24)} if name.startswith("mt5") else {}
    )


@pytest.mark.usefixtures("brief")
def test_the_same_weights_give_the_same_in_both_precisions_and_attentions() -> None:
    assert failed_checks() == []


@pytest.mark.usefixtures("brief")
def test_a_wrong_gradient_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    build = correctness.fused

    def broken(*arguments: Any, **options: Any) -> FusedLM:
        model = build(*arguments, **options)
        if model.encoder.model.config._attn_implementation == "eager":
            model.mixing.projector.map.weight.register_hook(lambda grad: 1.5 * grad)
        return model

    monkeypatch.setattr(correctness, "fused", broken)
    found = failed_checks()
    assert len(found) == 4  # eager against the CPU and against sdpa, in two precisions
    assert all("gradients, worst projector.map.weight" in name for name in found)
    assert {"eager" in name for name in found} == {True}


@pytest.mark.usefixtures("brief")
def test_a_wrong_log_probability_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    score = checks.scoring.score_labels

    def broken(model: FusedLM, batch: Any) -> Tensor:
        wrong = model.lm.dtype == torch.bfloat16 and model.encoder.model.config._attn_implementation == "sdpa"
        return score(model, batch) + 0.5 * wrong

    monkeypatch.setattr(checks.scoring, "score_labels", broken)
    found = failed_checks()
    assert len(found) == 2
    assert all("bfloat16" in name and "sdpa" in name and "log-probability" in name for name in found)


@pytest.mark.usefixtures("brief")
def test_a_slow_path_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glotfuse.backbones.LM.obeys_mask", lambda *_: False)
    assert len(failed_checks()) == 4


def test_what_is_not_a_number_fails() -> None:
    right = Outcome(torch.zeros(1, 1), torch.randn(2, 3), {"a": torch.ones(2), "b": torch.ones(2)})
    wrong = Outcome(torch.full((1, 1), torch.nan), right.logits, {"a": torch.ones(2), "b": torch.full((2,), torch.nan)})
    found = compare("x", wrong, right, BOUNDS[torch.float32], [1])
    assert [check.passed for check in found] == [False, True, False]
    assert found[2].name.endswith("worst b")


def test_all_parts_of_a_pair_run_and_do_what_the_textbook_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc.collect", lambda: None)  # it would look at all that other tests have left
    bench = Bench(PAIR, CPU, replace(SMALL, rounds=1, num_texts=8))
    found = [line for part in PARTS.values() for line in part(bench)]
    targets = [line.target for line in found if isinstance(line, Row)]
    assert targets == [">= 4", "<= 1.15", "<= 1.15", "<= 1.15", "", "", "", ""]
    assert [line.passed for line in found if isinstance(line, Check)] == [True, True]
    assert {p.dtype for p in bench.model.parameters()} == {torch.bfloat16}
    assert [line.target for line in mixer("x", 2, 16, CPU, SMALL)] == [">= 10", ""]


def test_other_work_than_the_textbooks_is_found() -> None:
    bench = Bench(PAIR, CPU, SMALL)
    bench.textbook.projector.weight.data *= -1.0
    trainers = our_trainer(bench.model), textbook_trainer(bench.textbook)
    assert not all(check.passed for check in bench.same_work(*trainers))


def test_a_part_that_fails_or_no_longer_fits_does_not_stop_the_rest() -> None:
    def good() -> Iterator[Check]:
        yield Check("a", 0.0, 1.0)

    def bad() -> Iterator[Row]:
        yield row("x", [1.0], [2.0], "s")
        raise RuntimeError("CUDA error: out of memory")

    said: list[dict[str, Any]] = []
    run_case({"bad": bad, "long": good, "good": good}, 60.0, {"long": 1000.0}, said.append)
    assert said[0]["error"] == "RuntimeError: CUDA error: out of memory"
    assert [line["measure"] for line in said[0]["rows"]] == ["x"]
    assert "60 s left, 1000 s needed" in said[1]["skipped"] or "59 s left, 1000 s needed" in said[1]["skipped"]
    assert said[2]["checks"][0]["passed"]
    assert "error" not in said[2]


def shown(found: list[dict[str, Any]]) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    code = command.summarise(console, found, 1.0)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def test_the_exit_code_tells_of_failed_checks_and_parts_but_not_of_missed_targets() -> None:
    missed = {"case": "c", "part": "p", "rows": [row("slow", [1.0], [2.0], "s", at_least=4).to_dict()], "checks": []}
    skipped = {"case": "c", "part": "late", "skipped": "no longer fits"}
    code, text = shown([missed, skipped])
    assert code == 0
    assert "1 targets missed" in text
    assert "c, late" in text
    wrong = {"case": "c", "part": "q", "rows": [], "checks": [Check("logits of x", 2.0, 1.0).to_dict()]}
    code, text = shown([missed, wrong])
    assert (code, "logits of x" in text) == (1, True)
    code, text = shown([missed, {"case": "c", "part": "broken", "error": "RuntimeError: x", "traceback": ""}])
    assert (code, "c, broken" in text) == (1, True)


def said_of(case: str, seconds: float) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    command.run_in_process(case, "cpu", True, seconds, {}, said.append)
    return said


def test_a_process_that_dies_or_is_late_is_reported_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    said = said_of("mixer", 0.3)
    assert time.monotonic() - started < 5
    assert [line["skipped"] for line in said] == ["the time was up while it ran", "the time was up"]
    monkeypatch.setattr(sys, "executable", "false")
    said = said_of("mixer", 60.0)
    assert said[0]["error"] == "the process ended with code 1"
    assert said[1]["skipped"] == "the process had ended"


def test_without_a_gpu_it_says_how_to_rehearse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        command.main([])
    assert "found none. Rehearse with --device cpu --small" in capsys.readouterr().err


def test_every_case_has_parts_and_the_test_that_is_run_exists() -> None:
    assert all(case_parts(case, CPU, small) for case in CASES for small in (True, False))
    assert f"def {TEST_NAME}(" in (ROOT / TESTS).read_text("utf8")


def test_the_clock_stops_when_the_gpu_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: time.sleep(0.02))
    assert alternate({"a": lambda: None}, rounds=1, warm_up=0)["a"][0] >= 0.02


def test_peak_memory_on_a_gpu_is_what_its_tensors_took(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: order.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 2_000_000)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7_000_000)
    assert peak_megabytes(lambda: order.append("run"), "cuda") == 5.0
    assert order == ["reset", "run"]
