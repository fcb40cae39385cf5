"""Promises of glotfuse.html_report: what the page says is what the folder holds, and it needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from glotfuse.cli import main as cli
from glotfuse.cli.inspect import report as report_command
from glotfuse.errors import DataError
from glotfuse.html_report import build_report, write_report
from glotfuse.html_report.charts import line_chart, thinned, ticks
from glotfuse.html_report.formats import duration, finite, language_tag, p_value, percent, plain
from glotfuse.languages.names import known_languages
from report_folders import write_comparison, write_run
from small_runs import small_values, write_task

HOSTILE = "<script>alert('x')</script> & \"<img src=x onerror=alert(1)>\" </script><!-- \u2028 שלום"


class Page(HTMLParser):
    """What a reader of the page finds: elements, table rows, texts, scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else self._inside
        if tag not in ("span", "bdi", "a", "strong"):
            self.text += " "
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        elif tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data
            if self.rows and self.rows[-1]:
                self.rows[-1][-1] += data

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])

    def row(self, first: str) -> list[str]:
        """The first table row whose first cell begins so."""
        return [" ".join(cell.split()) for cell in next(row for row in self.rows if row and row[0].startswith(first))]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder)
    return folder


@pytest.fixture(scope="module")
def comparison_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    write_comparison(folder)
    return folder


@pytest.mark.parametrize("kind", ["run_folder", "comparison_folder"])
def test_a_page_refers_to_nothing_outside_itself(kind: str, request: pytest.FixtureRequest) -> None:
    html = build_report(request.getfixturevalue(kind))
    page = Page(html)
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "action", "background", "ping"} & attributes.keys(), tag
        assert (attributes.get("href") or "#").startswith(("#", "data:")), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)[0]
    assert not re.search(r"url\(|@import|https?:", style)
    assert not re.search(
        r"fetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|import\(|innerHTML|eval\(", page.scripts[1]
    )
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'sha256-{digest}'" in policy
    assert [tag for tag, _ in page.elements].count("h1") == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [(attributes.get("href") or "")[1:] for tag, attributes in page.elements if tag == "a"]
    assert set(targets) <= set(ids)
    headings = [attributes for tag, attributes in page.elements if tag == "th"]
    assert headings
    assert all(attributes.get("scope") in ("col", "row") for attributes in headings)


def test_texts_of_users_are_never_markup(tmp_path: Path) -> None:
    rows = {
        code: [({"text": HOSTILE, "title": HOSTILE}, HOSTILE), ({"text": "b"}, "other")] * 40
        for code in ("x<y", "sin_Sinh")
    }
    leaks = [{"kind": HOSTILE, "language": HOSTILE, "count": 1, "examples": [HOSTILE], "advice": HOSTILE}]
    write_run(tmp_path, rows, [HOSTILE, "other"], {"command": HOSTILE, "leaks": leaks, HOSTILE: HOSTILE}, HOSTILE)
    page = Page(build_report(tmp_path))
    assert len(page.scripts) == 2
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert page.data["labels"][0] == HOSTILE
    shown = page.data["languages"][0]["shown"]
    assert any(["text", HOSTILE] in mistake["texts"] for mistake in shown)
    write_comparison(tmp_path / "comparison", recipes=(HOSTILE, "b"), leaks=leaks)
    page = Page(build_report(tmp_path / "comparison"))
    assert len(page.scripts) == 2
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert page.data["recipes"] == [HOSTILE, "b"]


def test_the_table_of_a_run_holds_the_scores_of_its_report(tmp_path: Path) -> None:
    report = write_run(tmp_path, unknown={"yor_Latn": 0.0024})
    html = build_report(tmp_path)
    page = Page(html)
    for result in report.results:
        row = page.row(next(i["name"] for i in page.data["languages"] if i["code"] == result.language))
        assert result.language in row[0]
        for cell, score in ((row[1], result.accuracy), (row[3], result.macro_f1)):
            assert cell == f"{score.value * 100:.1f} [{score.low * 100:.1f}, {score.high * 100:.1f}]"
        counts = [str(result.num_examples), str(result.num_truncated), str(result.num_invalid)]
        assert row[4:8] == [*counts, "0.2" if result.language == "yor_Latn" else "–"]
        assert f'<circle cx="{result.accuracy.value * 100:.1f}%"' in html
    for group, title in (("all", "all"), ("low_resource", "low-resource")):
        average = report.averages[group]
        assert average.accuracy is not None
        assert average.macro_f1 is not None
        assert page.row(title)[1:] == [
            str(average.num_languages), f"{average.accuracy * 100:.1f}", f"{average.macro_f1 * 100:.1f}",
        ]  # fmt: skip
    assert "Lao" in page.text, "languages without data are named"


def test_confusion_and_mistakes_are_those_of_the_predictions(tmp_path: Path) -> None:
    report = write_run(tmp_path)
    data = Page(build_report(tmp_path, max_examples=1000)).data
    for result, shown in zip(report.results, data["languages"], strict=True):
        lines = (tmp_path / "predictions" / "test" / f"{result.language}.jsonl").read_text("utf8").splitlines()
        wrong = {p["row"]: p for p in map(json.loads, lines) if p["gold"] != p["predicted"]}
        assert shown["confusion"] == [list(row) for row in result.confusion]
        assert {mistake["row"] for mistake in shown["shown"]} == set(wrong)
        assert shown["num_wrong"] == len(wrong)
        for mistake in shown["shown"]:
            line = wrong[mistake["row"]]
            assert mistake["texts"] == [["text", line["text"]]]
            assert (mistake["gold"], mistake["predicted"]) == (line["gold"], line["predicted"])
            assert mistake["probability"] == (
                line["probabilities"] and round(line["probabilities"][line["predicted"]], 5)
            )


def test_few_mistakes_are_shown_from_every_label_and_the_others_counted(tmp_path: Path) -> None:
    write_run(tmp_path)
    whole = Page(build_report(tmp_path, max_examples=1000)).data["languages"]
    page = Page(build_report(tmp_path, max_examples=8))
    for all_of, shown in zip(whole, page.data["languages"], strict=True):
        labels = {mistake["gold"] for mistake in all_of["shown"]}
        assert len(shown["shown"]) == min(8, all_of["num_wrong"])
        assert {mistake["gold"] for mistake in shown["shown"]} == labels
    total = sum(each["num_wrong"] for each in whole)
    left = total - sum(len(each["shown"]) for each in page.data["languages"])
    assert left > 0
    assert f"of the {total} mistakes; {left} are left out" in page.text


def test_long_texts_damaged_lines_and_lost_predictions_are_said(tmp_path: Path) -> None:
    write_run(
        tmp_path,
        {code: [({"text": "ක" * 5000}, "a"), ({"text": "b"}, "c")] * 10 for code in ("sin_Sinh", "tam_Taml")},
        ["a", "c"],
    )
    predictions = tmp_path / "predictions" / "test"
    with (predictions / "sin_Sinh.jsonl").open("a", encoding="utf8") as handle:
        handle.write("{damaged\n[1]\n")
    (predictions / "tam_Taml.jsonl").unlink()
    sinhala, tamil = Page(build_report(tmp_path)).data["languages"]
    assert sinhala["num_unreadable"] == 2
    long = next(mistake for mistake in sinhala["shown"] if mistake["gold"] == "a")
    assert long["texts"] == [["text", "ක" * 800 + " …"]]
    assert long["num_left_out"] == 4200
    assert not tamil["recorded"]


def test_what_was_recorded_is_shown_and_the_rest_is_named_as_missing(tmp_path: Path) -> None:
    write_run(tmp_path)
    plainly = Page(build_report(tmp_path)).text
    for expected in ("Command not recorded", "Hardware not recorded", "Seed 0", "Version of torch 2.13.0",
                     "Training time 4 min 33 s", "Duplicates (kept)", "line 17: expected 2 cells, found 3",
                     "Training texts that were cut 4", "not recorded.", "LM, SHA-256 of weights " + "b59e8040" * 8,
                     "step kept: 50"):  # fmt: skip
        assert expected in plainly
    record = json.loads((tmp_path / "training.json").read_text("utf8"))
    record |= {"command": "glotfuse train my.yaml", "hardware": {"cpu": "2 cores"}, "log": []}
    (tmp_path / "training.json").write_text(json.dumps(record), "utf8")
    lines = [{"step": step, "loss": 1.0, "eval_loss": 2.0} for step in (1, 2)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')
    shown = Page(build_report(tmp_path)).text
    assert "training development step kept: 50" in shown, "the log file stands in for a record without one"
    assert "Command glotfuse train my.yaml" in shown
    assert "Hardware cpu: 2 cores" in shown


@pytest.mark.parametrize(("rate", "named"), [(0.25, True), (0.01, False), (None, False)])
def test_unknown_tokens_above_one_percent_stand_at_the_top(tmp_path: Path, rate: float | None, named: bool) -> None:
    write_run(tmp_path, unknown={"mya_Mymr": rate})
    page = Page(build_report(tmp_path))
    assert ("Burmese (mya_Mymr) 25.0%" in page.text) == named
    assert ("encoder.byte_fallback true" in page.text) == named


def test_a_planted_leak_stands_at_the_top(tmp_path: Path) -> None:
    leak = {
        "kind": "repeated_rows",
        "language": "sin_Sinh",
        "count": 3,
        "total": 96,
        "examples": ["ආයුබෝවන්"],
        "advice": "Remove them.",
    }
    write_run(tmp_path / "run", record={"leaks": [leak]})
    write_comparison(tmp_path / "comparison", leaks=[leak])
    for folder in ("run", "comparison"):
        text = Page(build_report(tmp_path / folder)).text
        assert text.index("Leaks between training and measured data were found") < text.index("Find a language")
        assert "Leaks found: 1" in text
        assert "Sinhala (sin_Sinh): 3 of 96 rows. Remove them." in text
        assert "ආයුබෝවන්" in text


@pytest.mark.parametrize("checked", [True, False])
def test_no_leak_is_claimed_only_where_one_looked(tmp_path: Path, checked: bool) -> None:
    write_run(tmp_path / "run", record={"leaks": []}, metadata={"leaks": [], "leaks_checked": checked})
    write_comparison(tmp_path / "comparison", leaks_checked=checked)
    for folder in ("run", "comparison"):
        text = Page(build_report(tmp_path / folder)).text
        assert ("looked for, none found" in text) == checked
        assert ("occur in the training data: not recorded" in text) != checked


def test_a_run_without_measurement_and_a_measurement_without_training_have_a_page(tmp_path: Path) -> None:
    write_run(tmp_path / "unmeasured")
    (tmp_path / "unmeasured" / "report-test.json").unlink()
    assert "has not been measured" in Page(build_report(tmp_path / "unmeasured")).text
    write_run(tmp_path / "untrained")
    for name in ("training.json", "config.json", "recipe.json"):
        (tmp_path / "untrained" / name).unlink()
    text = Page(build_report(tmp_path / "untrained")).text
    assert "The training curve is not recorded." in text
    assert "Seed not recorded" in text


def test_a_real_run_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "small.json"
    recipe.write_text(json.dumps(small_values(write_task(tmp_path / "data"), training={"epochs": 1})))
    monkeypatch.setattr(sys, "argv", ["glotfuse", "train", str(recipe), "--out", str(tmp_path / "run")])
    cli.app(standalone_mode=False)
    page = Page(build_report(tmp_path / "run"))
    assert [language["code"] for language in page.data["languages"]] == ["eng_Latn", "sin_Sinh"]
    assert all(language["recorded"] for language in page.data["languages"])
    assert [attributes.get("class") for tag, attributes in page.elements if tag == "svg"].count("chart") == 2


def test_a_comparison_shows_every_score_difference_and_statement(tmp_path: Path) -> None:
    written = write_comparison(tmp_path)
    page = Page(build_report(tmp_path))
    for language in written["languages"]:
        row = page.row(f"{language['name']} ")
        for cell, scores in zip(row[1:], language["scores"].values(), strict=False):
            both = [
                f"{s['value'] * 100:.1f} [{s['low'] * 100:.1f}, {s['high'] * 100:.1f}]"
                for s in list(scores.values())[:2]
            ]
            assert cell == "".join(both), "accuracy, then macro-F1, of which one is shown at a time"
    for number, found in enumerate(written["pairs"]):
        assert found["statement"] in page.text
        embedded = page.data["pairs"][number]
        assert [row[0] for row in embedded["groups"]] == ["all but English", "low-resource"]
        for row, expected in zip(embedded["languages"], found["languages"], strict=True):
            assert page.data["languages"][row[0]]["code"] == expected["code"]
            keys = ("difference", "low", "high", "p_value", "p_adjusted", "sign_test_p", "effect_size")
            assert row[1:] == [round(expected[key], 5) for key in keys]
            assert max(abs(expected["low"]), abs(expected["high"])) <= embedded["limit"]
    seeds = [[language["scores"]["mean"]["per_seed"][seed] for language in written["languages"]] for seed in range(3)]
    of_seeds = next(row for row in page.rows if row and row[0] == "mean" and len(row) == 6)
    assert of_seeds[3].startswith(", ".join(f"{100 * sum(s) / len(s):.1f}" for s in seeds))
    assert "Hardware 2 CPU cores" in page.text
    assert "Command not recorded" in page.text


def test_the_runs_of_a_quickstart_stand_side_by_side(tmp_path: Path) -> None:
    reports = {name: write_run(tmp_path / name, name=name) for name in ("default", "embedding")}
    (tmp_path / "reading.md").write_text("# Read")
    page = Page(build_report(tmp_path))
    assert page.data["recipes"] == ["default", "embedding"]
    shown = page.row("English ")
    for cell, report in zip(shown[1:], reports.values(), strict=False):
        assert cell.startswith(f"{100 * report.results[0].accuracy.value:.1f} [")
    assert not (tmp_path / "comparison.json").exists()


def test_seeds_of_one_recipe_are_one_and_two_recipes_with_seeds_are_compared(tmp_path: Path) -> None:
    for recipe in ("one", "two"):
        for seed in (0, 1):
            write_run(tmp_path / recipe / f"seed-{seed}")
    page = Page(build_report(tmp_path))
    assert page.data["recipes"] == ["one", "two"]
    with pytest.raises(DataError, match=r"holds the runs seed-0, seed-1: give one of them, such as .*seed-0\."):
        build_report(tmp_path / "one")


def test_undefined_numbers_leave_the_page_whole(tmp_path: Path) -> None:
    written = write_comparison(tmp_path)
    first = written["pairs"][0]["languages"][0]
    first.update(difference=float("nan"), p_value=None, effect_size=float("inf"))
    written["languages"][0]["scores"]["mean"]["accuracy"] = {"value": None, "low": None, "high": None}
    (tmp_path / "comparison.json").write_text(json.dumps(written), "utf8")
    page = Page(build_report(tmp_path))
    assert page.data["pairs"][0]["languages"][0][1] is None
    assert "NaN" not in page.scripts[0]


def test_two_hundred_languages_and_twenty_recipes_fit_a_page(tmp_path: Path) -> None:
    codes = [language.code for language in known_languages()][:200]
    write_comparison(tmp_path / "comparison", [f"recipe number {i}" for i in range(20)], codes)
    html = build_report(tmp_path / "comparison")
    assert len(html) < 8e6
    assert len(Page(html).data["pairs"]) == 190
    rows = {code: [({"text": "ක්‍රීඩකයා තරගය ජයගත්තේය. " * 8}, "ab"[i % 2]) for i in range(50)] for code in codes}
    write_run(tmp_path / "run", rows, ["a", "b"])
    html = build_report(tmp_path / "run")
    assert len(html) < 4e6
    assert all(len(each["shown"]) == min(20, each["num_wrong"]) for each in Page(html).data["languages"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "an empty folder in .* Give the folder that"),
        ({"notes.txt": ""}, "notes.txt in .* Give the folder that"),
        ({"recipe.json": "{}"}, "unfinished: finish it with the same `glotfuse train`"),
        ({"a/recipe.json": "{}", "b/recipe.json": "{}"}, r"It holds the runs a, b: give one of them, such as .*a\."),
        ({"training.json": "{"}, "Expected JSON in .*training.json; it cannot be read"),
        ({"training.json": "[]"}, "Expected a JSON object in .*; found list"),
        ({"report-test.json": "{}"}, "report-test.json: Expected an evaluation report of format 1"),
        ({"comparison.json": "{"}, "Expected a comparison in .*; it cannot be read"),
        ({"comparison.json": '{"format": 2}'}, "Expected a comparison of format 1 in .*; found format 2"),
        ({"comparison.json": '{"format": 1, "task": "x"}'}, "found split: .*required.*recipes"),
    ],
)  # fmt: skip
def test_folders_that_are_neither_or_damaged_are_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        build_report(tmp_path)


def test_other_mistakes_of_the_user_are_named(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found nothing at .*nowhere"):
        build_report(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"Expected report-dev\.json .* reports of test"):
        build_report(run_folder, split="dev")
    with pytest.raises(DataError, match="at least 0; found -1"):
        build_report(run_folder, max_examples=-1)
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path / "notes.txt", tmp_path):
        with pytest.raises(DataError, match=r"ends in \.html"):
            write_report(run_folder, out)
    with pytest.raises(DataError, match=r"Expected to write .*page\.html"):
        write_report(run_folder, tmp_path / "notes.txt" / "page.html")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    written = write_comparison(tmp_path / "comparison")
    written["pairs"][0]["first"] = "unknown"
    (tmp_path / "comparison" / "comparison.json").write_text(json.dumps(written), "utf8")
    with pytest.raises(DataError, match="found unknown besides"):
        build_report(tmp_path / "comparison")


def test_the_command_writes_the_page_and_names_it(run_folder: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command("report")(report_command)
    done = CliRunner().invoke(app, [str(run_folder), "--out", str(tmp_path / "new" / "page.html")])
    assert done.exit_code == 0, done.output
    assert "page.html" in done.output
    assert (tmp_path / "new" / "page.html").read_text("utf8").startswith("<!doctype html>")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_a_page_is_built_without_torch(run_folder: Path) -> None:
    code = f"""import sys
from glotfuse.cli import inspect
from glotfuse.html_report import build_report
build_report({str(run_folder)!r})
assert 'torch' not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("code", "tag"),
    [("sin_Sinh", "si-Sinh"), ("urd_Arab", "ur-Arab"), ("zho_Hans", "zh-Hans"), ("khm_Khmr", "km-Khmr"),
     ("ace_Arab", "ace-Arab"), ("xyz_Latn", "xyz-Latn"), ("en", "en-Latn"), ('"><b', "und"), ("", "und")],
)  # fmt: skip
def test_language_tags_are_the_shortest(code: str, tag: str) -> None:
    assert language_tag(code) == tag


def test_values_are_shown_as_people_write_them() -> None:
    assert [percent(0.8434), percent(-0.0001, sign=True), percent(0.02, sign=True), percent(None)] == [
        "84.3",
        "+0.0",
        "+2.0",
        "–",
    ]
    assert [p_value(0.0004), p_value(0.0312), p_value(1.0), p_value(None)] == ["< 0.001", "0.031", "1.000", "–"]
    assert [duration(4.25), duration(273.4), duration(7500), duration(None)] == [
        "4.2 s",
        "4 min 33 s",
        "2 h 05 min",
        "not recorded",
    ]
    assert plain({"a": [1, 2.5], "b": None, "c": True}) == "a: 1, 2.5, b: –, c: yes"
    assert [finite(float("nan")), finite(float("-inf")), finite(0.1234567)] == [None, None, 0.12346]


def test_charts_place_values_where_they_belong() -> None:
    assert ticks(0, 2.3) == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5])
    assert ticks(0, 88) == [0, 20, 40, 60, 80, 100]
    chart = line_chart(
        "Loss", [("training", "first", [(0, 0.0), (50, 1.0), (100, 2.0), (70, float("nan"))], False)], mark=100
    )
    assert chart is not None
    left, middle, right = chart.lines[0].points
    assert left == (chart.left, chart.bottom)
    assert right == (chart.right, chart.top)
    assert middle == pytest.approx(((chart.left + chart.right) / 2, (chart.top + chart.bottom) / 2))
    assert chart.mark is not None
    assert chart.mark.position == chart.right
    assert line_chart("Loss", [("training", "first", [], False)]) is None
    assert thinned([(float(x), 2.0 * x) for x in range(10)], most=5) == [(x + 0.5, 2 * x + 1) for x in range(0, 10, 2)]
