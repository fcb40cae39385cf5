"""`glotfuse compare`: trains what is missing, keeps what is there, and tests in pairs."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from glotfuse.errors import ConfigError, DataError
from glotfuse.evaluation.comparison import Contestant, compare
from glotfuse.evaluation.comparison_data import GroupDifference, LanguageDifference, load_comparison
from glotfuse.evaluation.comparison_table import comparison_results, statements
from glotfuse.evaluation.statement import statement
from glotfuse.runs import comparing
from glotfuse.runs import train as runs
from glotfuse.runs.comparing import compare_all
from paths import ROOT
from small_runs import small_values, write_task


def write_recipes(folder: Path, *names: str) -> list[Path]:
    data, paths = write_task(folder / "data"), []
    for name in names:
        values = small_values(data, training={"epochs": 1})
        if name == "embedding":
            values["method"] = "embedding"
        elif name == "text":
            values["prompt"] = {"include_span": False}
            values["fusion"] = {"boundary": "none"}
            values["training"]["epochs"] = 0
        else:
            values["fusion"] = {"mixer": name}
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values), "utf8")
        paths.append(path)
    return paths


def layout(value: Any, key: str = "") -> Any:
    """The keys of a comparison and the kinds of its values; of a list its first, of scores those of any recipe."""
    if key == "scores":
        return layout(next(iter(value.values())))
    if key in ("metadata", "leaks"):
        return sorted(value) if key == "metadata" else None
    if isinstance(value, dict):
        return {name: layout(part, name) for name, part in sorted(value.items())}
    return (
        [layout(value[0])] if isinstance(value, list) and value else type(value).__name__ if value is not None else None
    )


def test_recipes_are_trained_measured_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_recipes(tmp_path, "last", "mean", "embedding", "text")
    trained: list[str] = []
    plain = runs.train_run

    def noted(recipe, folder, **options):
        trained.append(f"{folder.parent.name}/{folder.name}")
        return plain(recipe, folder, **options)

    monkeypatch.setattr(comparing, "train_run", noted)
    found = compare_all(paths, tmp_path / "out", seeds=2)
    expected = ["last/seed-0", "last/seed-1", "mean/seed-0", "mean/seed-1", "embedding/seed-0", "text/seed-0"]
    assert trained == expected
    assert [list(recipe.seeds) for recipe in found.recipes] == [[0, 1], [0, 1], [0], [0]]
    assert [recipe.trained for recipe in found.recipes] == [True, True, True, False]
    assert [language.code for language in found.languages] == ["eng_Latn", "sin_Sinh"]
    assert len(found.pairs) == 6
    written = tmp_path / "out" / "comparison.json"
    assert load_comparison(written) == found
    assert load_comparison(written).to_dict() == found.to_dict()
    before = ROOT / "tests" / "fixtures" / "run_before_the_house" / "comparison" / "comparison.json"
    assert layout(json.loads(written.read_text("utf8"))) == layout(json.loads(before.read_text("utf8")))
    page = (tmp_path / "out" / "comparison.md").read_text("utf8")
    assert all(pair.statement in page for pair in found.pairs)
    assert len(statements(found)) == 3
    assert comparison_results(found).rows[1][0] == "Sinhala"
    console = Console(width=80, file=io.StringIO())
    console.print(comparison_results(found, brief=True).rich_table())
    assert "…" not in console.file.getvalue()
    trained.clear()
    again = compare_all(paths, tmp_path / "out", seeds=2)
    assert not trained, "what is finished is kept"
    assert again == found
    compare_all(paths, tmp_path / "out", seeds=3)
    assert trained == ["last/seed-2", "mean/seed-2"], "only what is missing is trained"


def test_scores_are_those_of_the_predictions(tmp_path: Path) -> None:
    found = compare_all(write_recipes(tmp_path, "last", "mean"), tmp_path / "out", seeds=2)
    for name in ("last", "mean"):
        shares = []
        for seed in (0, 1):
            path = tmp_path / "out" / name / f"seed-{seed}" / "predictions" / "test" / "eng_Latn.jsonl"
            lines = [json.loads(line) for line in path.read_text("utf8").splitlines()]
            shares.append(sum(line["gold"] == line["predicted"] for line in lines) / len(lines))
        scores = found.languages[0].scores[name]
        assert scores.per_seed == pytest.approx(shares)
        assert scores.accuracy.value == pytest.approx(sum(shares) / 2)


def write_run(folder: Path, right: dict[str, list[bool]], *, gold: str = "ab") -> Path:
    """A measured run of a two-label task whose answers are right where it says so."""
    from glotfuse.evaluation.metrics import language_result
    from glotfuse.evaluation.report import EvaluationReport

    results = []
    for code, answers in right.items():
        golds = [gold[i % 2] for i in range(len(answers))]
        said = [g if ok else "ba"["ab".index(g)] for g, ok in zip(golds, answers, strict=True)]
        lines = [
            json.dumps({"row": i, "gold": g, "predicted": p}) for i, (g, p) in enumerate(zip(golds, said, strict=True))
        ]
        path = folder / "predictions" / "test" / f"{code}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines), "utf8")
        results.append(language_result(code, ["ab".index(g) for g in golds], ["ab".index(p) for p in said], ["a", "b"]))
    EvaluationReport("run", "topics", "test", {}, ("a", "b"), tuple(results)).save(folder, "report-test")
    return folder


def test_a_sure_difference_is_said_and_an_unsure_one_is_not(tmp_path: Path) -> None:
    good, bad = [True] * 90 + [False] * 10, [True] * 50 + [False] * 50
    runs_of = {
        "good": write_run(tmp_path / "good", {"eng_Latn": good, "sin_Sinh": good, "tam_Taml": good}),
        "bad": write_run(tmp_path / "bad", {"eng_Latn": good, "sin_Sinh": bad, "tam_Taml": bad}),
        "same": write_run(
            tmp_path / "same", {"eng_Latn": good, "sin_Sinh": good, "tam_Taml": [*good[:-1], True][::-1]}
        ),
    }
    found = compare([Contestant(name, [run]) for name, run in runs_of.items()])
    first, second, _ = found.pairs
    assert first.statement.startswith("good beats bad by 40.0 points (95% CI")
    assert "better in 2, worse in 0, and 1 do not differ surely" in first.statement
    assert "on average over 2 languages (all but English)" in first.statement
    assert second.statement.startswith("same is ahead of good by 0.5 points")
    assert "which chance can explain" in second.statement
    assert "Both were trained once" in first.statement
    assert found.metadata["parallel_rows"] is True


def test_the_better_one_is_named_first_whatever_the_order() -> None:
    average = GroupDifference(-0.1, -0.15, -0.05, 0.01, title="all", num_languages=2)
    languages = [LanguageDifference(-0.2, p_adjusted=0.01), LanguageDifference(0.1, p_adjusted=0.02)]
    said = statement("a", "b", average, languages)
    assert said.startswith("b beats a by 10.0 points (95% CI +5.0 to +15.0, p = 0.010)")
    assert "better in 1, worse in 1, and 0 do not differ" in said
    assert "trained once" not in said
    assert "On English" not in statement("a", "b", average, languages, [], {"a": 0.85, "b": 0.9})
    assert "On English itself b has 90.0% and a 70.0%: a has learned the task less" in statement(
        "a", "b", average, languages, [], {"a": 0.7, "b": 0.9}
    )
    assert "b was trained once" in statement("a", "b", average, languages, ["b"])


def test_runs_on_different_rows_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"sin_Sinh": [True] * 10})
    fewer = write_run(tmp_path / "fewer", {"sin_Sinh": [True] * 9})
    other = write_run(tmp_path / "other", {"sin_Sinh": [True] * 10}, gold="ba")
    nothing = write_run(tmp_path / "nothing", {"tam_Taml": [True] * 10})
    for run, message in ((fewer, "same rows"), (other, "same rows"), (nothing, "languages that all")):
        with pytest.raises(DataError, match=message):
            compare([Contestant("one", [one]), Contestant("two", [run])])
    with pytest.raises(DataError, match="two or more"):
        compare([Contestant("one", [one])])


def test_a_folder_of_runs_stands_for_the_runs_in_it(tmp_path: Path) -> None:
    paths = write_recipes(tmp_path, "last", "mean")
    expected = compare_all(paths, tmp_path / "out", seeds=2)
    found = compare_all([tmp_path / "out"], tmp_path / "again")
    assert [recipe.name for recipe in found.recipes] == [recipe.name for recipe in expected.recipes]
    assert [list(recipe.seeds) for recipe in found.recipes] == [[0, 1], [0, 1]]
    assert found.pairs == expected.pairs


def test_sources_that_are_neither_or_have_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="neither"):
        compare_all([tmp_path / "empty", tmp_path / "empty2"], tmp_path / "out")
    with pytest.raises(ConfigError, match="twice"):
        compare_all([tmp_path / "empty", tmp_path / "empty"], tmp_path / "out")
