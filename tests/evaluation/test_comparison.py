"""Promises of glotfuse.evaluation.report for runs side by side."""

import io

import pytest
from rich.console import Console

from glotfuse.errors import DataError
from glotfuse.evaluation.metrics import Interval, LanguageResult
from glotfuse.evaluation.report import EvaluationReport, comparison_table


def result(code: str, accuracy: float, num_examples: int = 200) -> LanguageResult:
    return LanguageResult(
        language=code,
        num_examples=num_examples,
        accuracy=Interval(accuracy, accuracy - 0.05, accuracy + 0.04),
        macro_f1=Interval(0.1, 0.0, 0.2),
        num_truncated=0,
        num_invalid=0,
        confusion=((num_examples, 0),),
    )


def run(name: str, scores: dict[str, float], split: str = "test", task: str = "sib200") -> EvaluationReport:
    results = tuple(result(code, accuracy) for code, accuracy in scores.items())
    return EvaluationReport(name, task, split, {}, ("only",), results)


LAST = run("last layer", {"eng_Latn": 0.85, "sin_Sinh": 0.6, "rus_Cyrl": 0.7})
TOKEN = run("per token", {"eng_Latn": 0.849, "sin_Sinh": 0.7512, "rus_Cyrl": 0.7})


def test_two_runs_stand_side_by_side_with_their_difference() -> None:
    lines = comparison_table([LAST, TOKEN]).to_markdown().splitlines()
    assert lines[:8] == [
        "| Language | Code | last layer | per token | Difference |",
        "| --- | --- | ---: | ---: | ---: |",
        "| English | eng_Latn | 85.0 [80.0, 89.0] | 84.9 [79.9, 88.9] | -0.1 |",
        "| Sinhala | sin_Sinh | 60.0 [55.0, 64.0] | 75.1 [70.1, 79.1] | +15.1 |",
        "| Russian | rus_Cyrl | 70.0 [65.0, 74.0] | 70.0 [65.0, 74.0] | +0.0 |",
        "| **Average, all (3)** |  | 71.7 | 76.7 | +5.0 |",
        "| **Average, all but English (2)** |  | 65.0 | 72.6 | +7.6 |",
        "| **Average, low-resource (1)** |  | 60.0 | 75.1 | +15.1 |",
    ]


def test_more_than_two_runs_have_no_difference_and_take_the_given_names() -> None:
    lines = comparison_table([LAST, TOKEN, LAST], ["a", "b", "c|d"]).to_markdown().splitlines()
    assert lines[0] == r"| Language | Code | a | b | c\|d |"
    assert lines[5] == "| **Average, all (3)** |  | 71.7 | 76.7 | 71.7 |"


def test_averages_are_over_the_languages_that_all_runs_have() -> None:
    page = comparison_table([LAST, run("short", {"eng_Latn": 0.9, "tam_Taml": 0.5})]).to_markdown()
    assert "| Sinhala | sin_Sinh | 60.0 [55.0, 64.0] | – | – |" in page
    assert "| Tamil | tam_Taml | – | 50.0 [45.0, 54.0] | – |" in page
    assert "| **Average, all (1)** |  | 85.0 | 90.0 | +5.0 |" in page
    assert "| **Average, low-resource (0)** |  | – | – | – |" in page
    assert "Averages are over the 1 languages that all runs have." in page


def test_different_numbers_of_examples_are_reported() -> None:
    half = EvaluationReport("half", "sib200", "test", {}, ("only",), (result("sin_Sinh", 0.6, num_examples=100),))
    page = comparison_table([run("whole", {"sin_Sinh": 0.6}), half]).to_markdown()
    assert "Scored on different numbers of examples: Sinhala (sin_Sinh)." in page


@pytest.mark.parametrize(
    ("reports", "names", "message"),
    [
        ([], None, r"one task and split, found \[\]"),
        (
            [LAST, run("dev", {"eng_Latn": 0.9}, split="dev")],
            None,
            r"found \['sib200, dev', 'sib200, test'\]",
        ),
        ([LAST, run("other", {"eng_Latn": 0.9}, task="xnli")], None, "Compare runs of one task"),
        ([LAST, LAST], None, "Expected 2 different run names"),
        ([LAST, TOKEN], ["a"], r"found \['a'\]"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    reports: list[EvaluationReport], names: list[str] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        comparison_table(reports, names)


@pytest.mark.parametrize("num_runs", [1, 2, 3, 4])
def test_up_to_four_runs_fit_80_characters_and_break_no_number(num_runs: int) -> None:
    reports = [run("r", {"arb_Latn": 0.96, "sin_Sinh": 0.96, "rus_Cyrl": 0.96})] * num_runs
    names = [f"transformer softmax, seed {index}" for index in range(num_runs)]
    console = Console(file=io.StringIO(), width=80)
    console.print(comparison_table(reports, names).rich_table())
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("[91.0, 100.0]") == 3 * num_runs
    assert text.count("96.0") == 6 * num_runs  # three languages and three averages
    assert "…" not in text
