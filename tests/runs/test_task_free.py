"""The task-free benchmark: the same rows everywhere, scores against known values, and going on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sacrebleu")

from benchmarks import task_free

from glotfuse.runs.train import train_run
from glotfuse.tasks import get_task
from small_runs import small_recipe, write_task
from tiny import tiny_model

ROWS = [
    ("The team won the match.", "කණ්ඩායම තරගය ජයගත්තේය.", "sports"),
    ("The economy is growing.", "ආර්ථිකය වර්ධනය වෙමින් පවතී.", "politics"),
    ("Doctors found a new cure.", "වෛද්‍යවරු නව ප්‍රතිකාරයක් සොයා ගත්හ.", "health"),
    ("The river is very long.", "ගඟ ඉතා දිගයි.", "geography"),
]


@pytest.fixture
def parallel(tmp_path: Path) -> Path:
    for code, column in (("eng_Latn", 0), ("sin_Sinh", 1)):
        folder = tmp_path / "parallel" / code
        folder.mkdir(parents=True)
        rows = "".join(f"{row[column]}\t{row[2]}\n" for row in ROWS)
        for split in ("train", "test") if code == "eng_Latn" else ("test",):
            (folder / f"{split}.tsv").write_text("text\tlabel\n" + rows, "utf8")
    return tmp_path / "parallel"


def test_the_same_rows_in_every_language(parallel: Path) -> None:
    rows = task_free.parallel_rows(get_task("sib200", path=parallel), 3, seed=1)
    assert len(rows["eng_Latn"]) == 3
    english = [row.fields["text"] for row in rows["eng_Latn"]]
    known = {row[0]: row[1] for row in ROWS}
    assert [row.fields["text"] for row in rows["sin_Sinh"]] == [known[text] for text in english]


def test_scores_of_known_outputs() -> None:
    references = [row[0] for row in ROWS]
    same = task_free.translation_scores(references, references)
    assert same["chrf"] == pytest.approx(100.0)
    assert same["found"] == 100.0
    assert same["other"] < 40
    moved = task_free.translation_scores([*references[1:], references[0]], references)
    assert moved["found"] == 0.0
    assert moved["chrf"] < 40
    foreign = task_free.translation_scores([row[1] for row in ROWS], references)
    assert foreign["chrf"] < 2
    assert foreign["found"] == 0.0


def test_batch_calibration_takes_the_mean_prediction_away(parallel: Path) -> None:
    task = get_task("sib200", path=parallel)
    rows = task_free.parallel_rows(task, 4, seed=1)["eng_Latn"]
    model = tiny_model()
    scores = task_free.topic_scores(model, task, rows, batch_size=2)
    texts = [row.fields for row in rows]
    answers = model.classify(texts, labels=task.labels, instruction=task.instruction, calibrate=False)
    english = model.classify(texts, labels=task.labels, instruction=task.instruction)
    table = np.array([[answer.probabilities[word] for word in task.labels] for answer in answers])
    expected = [task.labels[i] for i in (table / table.mean(0)).argmax(1)]
    assert scores["calibrated"] == 25.0 * sum(a == row.label for a, row in zip(expected, rows, strict=True))
    assert scores["plain"] == 25.0 * sum(a.label == row.label for a, row in zip(answers, rows, strict=True))
    assert scores["english"] == 25.0 * sum(a.label == row.label for a, row in zip(english, rows, strict=True))


def test_a_run_is_measured_and_gone_on_with(parallel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_task(tmp_path / "data", num_train=8)
    recipe = small_recipe(data, objective="reconstruction", training={"epochs": 0})
    train_run(recipe, tmp_path / "run")
    output = tmp_path / "result.json"
    command = [str(tmp_path / "run"), "--data", str(parallel), "--output", str(output), "--max-new-tokens", "3"]
    command += ["--rows", "3", "--device", "cpu"]
    task_free.main([*command, "--languages", "sin_Sinh", "--text-rows", "2"])
    first = json.loads(output.read_text("utf8"))["languages"]["sin_Sinh"]
    assert len(first["ids"]) == len(first["fused"]["outputs"]) == 3
    assert len(first["text"]["outputs"]) == 2
    assert set(first["text"]["ids"]) < set(first["ids"])
    task_free.main(command)
    kept = json.loads(output.read_text("utf8"))["languages"]
    assert kept["sin_Sinh"] == first, "a finished language is not measured again"
    assert kept["eng_Latn"]["copy"]["chrf"] == pytest.approx(100.0)
    table = output.with_suffix(".md").read_text("utf8")
    assert table in capsys.readouterr().out
    assert "Sinhala (sin_Sinh)" in table
    assert "all but English (1)" in table
    with pytest.raises(SystemExit, match="hold the same measurement"):
        task_free.main([*command[:-4], "--rows", "2", "--device", "cpu"])
