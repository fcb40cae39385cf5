"""Promises of glotfuse.evaluation.report for one run."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from glotfuse.errors import CheckpointError, DataError
from glotfuse.evaluation.metrics import Interval, language_result
from glotfuse.evaluation.report import EvaluationReport

LABELS = ("sports", "politics")
SINHALA_F1 = (2 * 1 / (2 + 2) + 2 * 1 / (2 + 1)) / 2  # by hand, for the fixture's four examples: 58.3%


@pytest.fixture
def report() -> EvaluationReport:
    return EvaluationReport(
        run_name="per-token | 1",
        task="sib200",
        split="test",
        mixer={"kind": "transformer_softmax", "num_heads": 1},
        labels=LABELS,
        results=(
            language_result("eng_Latn", [0, 1, 0, 1], [0, 1, 0, 1], LABELS),
            language_result("sin_Sinh", [0, 1, 0, 1], [0, 1, -1, 0], LABELS, num_truncated=3, unknown_rate=0.004),
            language_result("luo_Latn", [0, 1, 0, 1], [1, 1, 0, 0], LABELS),
        ),
        missing_languages=("tam_Taml",),
        metadata={"seed": 0, "note": "ආයුබෝවන්", "encoder": {"name": "bundled:e5-small"}},
    )


def rendered(renderable: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_saved_report_loads_as_the_same_report(report: EvaluationReport, tmp_path: Path) -> None:
    json_path, markdown_path = report.save(tmp_path / "new" / "folder", "eval-test")
    assert (json_path.name, markdown_path.name) == ("eval-test.json", "eval-test.md")
    assert EvaluationReport.load(json_path) == report
    assert EvaluationReport.from_dict(report.to_dict()) == report
    assert markdown_path.read_text(encoding="utf-8") == report.to_markdown()


def test_json_shows_averages_and_names_to_other_readers(report: EvaluationReport, tmp_path: Path) -> None:
    data = json.loads(report.save(tmp_path, "eval")[0].read_text(encoding="utf-8"))
    assert data["results"][1]["name"] == "Sinhala"
    assert data["results"][1]["accuracy"]["value"] == 0.5
    assert data["averages"]["all"]["accuracy"] == pytest.approx(2 / 3)
    assert data["averages"]["all_but_english"]["macro_f1"] == pytest.approx((SINHALA_F1 + 0.5) / 2)
    assert data["averages"]["all_but_english"]["num_languages"] == 2
    assert data["averages"]["low_resource"]["num_languages"] == 1


def test_a_failed_write_leaves_the_old_file_whole_and_no_remains(
    report: EvaluationReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    json_path, _ = report.save(tmp_path, "eval")
    before = json_path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        replace(report, split="dev").save(tmp_path, "eval")
    assert json_path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eval.json", "eval.md"]


@pytest.mark.parametrize("value", [{1, 2}, float("nan")])
def test_metadata_that_json_cannot_hold_is_refused_before_anything_is_written(
    report: EvaluationReport, tmp_path: Path, value: object
) -> None:
    with pytest.raises(DataError, match="Expected mixer and metadata to be JSON values"):
        replace(report, metadata={"bad": value}).save(tmp_path, "eval")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], r"eval\.json.*line \d+.*Evaluate the run again"),
        (lambda text: "", r"Expected an evaluation report in .*eval\.json"),
        (lambda text: "[]", "Expected an evaluation report of format 1, found list"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "found format 9"),
        (
            lambda text: text.replace('"task"', '"tusk"'),
            r"found task: Field required\. Evaluate the run again",
        ),
        (
            lambda text: text.replace('"num_examples": 4', '"num_examples": "many"'),
            r"results\.0\.num_examples",
        ),
        (
            lambda text: text.replace('"politics"', '"politics", "travel"'),
            "3 labels: expected confusion of 3 rows",
        ),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(report, tmp_path, damage, message) -> None:  # type: ignore[no-untyped-def]
    path, _ = report.save(tmp_path, "eval")
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        EvaluationReport.load(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json"):
        EvaluationReport.load(tmp_path / "absent.json")


def test_a_language_scored_twice_is_refused(report: EvaluationReport) -> None:
    with pytest.raises(DataError, match=r"found more for \['eng_Latn'\]"):
        replace(report, results=(*report.results, report.results[0]))


def test_markdown_has_a_row_per_language_then_the_averages(report: EvaluationReport) -> None:
    lines = report.to_markdown().splitlines()
    start = lines.index("| Language | Code | n | Accuracy % | Macro-F1 % | Cut | Invalid | Unknown % |")
    # Wilson, 2 of 4: 0.5 -+ 1.96 * sqrt(0.25 / 4 + 1.96^2 / 64) / (1 + 1.96^2 / 4) = [0.150, 0.850]
    assert lines[start + 2].startswith(
        "| English | eng_Latn | 4 | 100.0 [51.0, 100.0] | 100.0 [100.0, 100.0] | 0 | 0 | – |"
    )
    assert lines[start + 3].startswith("| Sinhala | sin_Sinh | 4 | 50.0 [15.0, 85.0] | 58.3 [")
    assert lines[start + 3].endswith("] | 3 | 1 | 0.4 |")
    assert lines[start + 4].startswith("| Luo | luo_Latn | 4 | 50.0 [15.0, 85.0] | 50.0 [")
    assert lines[start + 5 : start + 8] == [
        "| **Average, all (3)** |  |  | 66.7 | 69.4 |  |  |  |",
        "| **Average, all but English (2)** |  |  | 50.0 | 54.2 |  |  |  |",
        "| **Average, low-resource (1)** |  |  | 50.0 | 58.3 |  |  |  |",
    ]


def test_markdown_says_what_was_run_and_which_languages_are_left_out(report: EvaluationReport) -> None:
    page = report.to_markdown()
    assert "# Evaluation of per-token | 1\n" in page
    assert "- Task: sib200\n- Split: test\n- Labels: sports, politics\n" in page
    assert "- Mixer: kind: transformer_softmax, num_heads: 1\n" in page
    assert "No data for: Tamil (tam_Taml)." in page
    assert "Low-resource, by classes 0 to 2 of Joshi et al. (2020): Sinhala (sin_Sinh)." in page
    assert "Without a class and not counted there: Luo (luo_Latn)." in page


def test_a_report_without_results_shows_dashes(report: EvaluationReport) -> None:
    page = replace(report, results=()).to_markdown()
    assert "| **Average, all (0)** |  |  | – | – |  |  |  |" in page


def test_the_terminal_table_fits_80_characters_and_breaks_no_number(report: EvaluationReport) -> None:
    widest = Interval(1.0, 0.9999, 1.0)
    results = tuple(
        replace(
            r, language=code, num_examples=14014, accuracy=widest, macro_f1=widest, num_truncated=14014, unknown_rate=1
        )
        for r, code in zip(report.results, ["eng_Latn", "arb_Latn", "knc_Arab"], strict=True)
    )
    lines = rendered(replace(report, results=results).rich_table()).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.count("100.0 [100.0, 100.0]") for line in lines) == 6
    assert sum(line.count("14014") for line in lines) == 6
    assert sum(line.rstrip().endswith(" 100.0") for line in lines if "14014" in line) == 3
    assert not any("…" in line for line in lines)


def test_a_report_from_before_unknown_tokens_were_counted_is_read(report: EvaluationReport) -> None:
    data = json.loads(json.dumps(report.to_dict()))
    for result in data["results"]:
        del result["unknown_rate"]
    found = EvaluationReport.from_dict(data)
    assert [result.unknown_rate for result in found.results] == [None, None, None]
    assert "| 3 | 1 | – |" in found.to_markdown()
    assert "Unknown tokens" not in found.to_markdown()


def test_brackets_in_names_are_shown_as_they_are(report: EvaluationReport) -> None:
    assert "[bold]run[/]" in rendered(replace(report, run_name="[bold]run[/]").rich_table())


def test_importing_evaluation_needs_neither_torch_nor_rich() -> None:
    heavy = "('torch', 'transformers', 'rich')"
    code = f"import sys, glotfuse.evaluation; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
