"""The command line as a user meets it: tables, exit codes, clear messages, no tracebacks, Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from glotfuse.cli import main as cli
from small_runs import small_values, write_task
from tiny import encoder_folder

COMMANDS = (
    "quickstart",
    "train",
    "eval",
    "compare",
    "inspect",
    "report",
    "classify",
    "generate",
    "models",
    "models fetch",
    "models forget",
)


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command line in this process and returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["glotfuse", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder made by `glotfuse train`."""
    folder = tmp_path_factory.mktemp("cli")
    recipe = folder / "small.yaml"
    recipe.write_text(yaml.safe_dump(small_values(write_task(folder / "data"), training={"epochs": 1})))
    with pytest.MonkeyPatch.context() as patch:
        assert run("train", str(recipe), "--out", str(folder / "run"), monkeypatch=patch) == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command.split(), "--help", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert f"glotfuse {command.split()[0]}" in shown
    assert "Example" in shown


def test_train_prints_a_table_and_leaves_the_reports(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("eval", str(trained / "run"), monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "Sinhala" in shown
    assert "Average" in shown
    report = json.loads((trained / "run" / "report-test.json").read_text("utf8"))
    assert report["results"]


def test_a_run_that_was_trained_and_not_measured_is_only_measured(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unmeasured = shutil.ignore_patterns("predictions", "report-*", "README.md")
    shutil.copytree(trained / "run", tmp_path / "run", ignore=unmeasured)
    weights = (tmp_path / "run" / "fusion.safetensors").stat().st_mtime_ns
    command = ("train", str(trained / "small.yaml"), "--out", str(tmp_path / "run"))
    assert run(*command, monkeypatch=monkeypatch) == 0
    assert "is trained; going on with measuring it" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "run" / "fusion.safetensors").stat().st_mtime_ns == weights
    assert (tmp_path / "run" / "report-test.json").read_bytes() == (trained / "run" / "report-test.json").read_bytes()
    assert (tmp_path / "run" / "README.md").exists()
    assert run(*command, monkeypatch=monkeypatch) == 2, "a finished and measured run is not trained again"


def test_classify_prints_labels_and_json(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["The team won the match.", "ආර්ථිකය වර්ධනය වෙමින් පවතී."]
    assert run("classify", str(trained / "run"), *texts, "--json", monkeypatch=monkeypatch) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == texts
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1.0, abs=1e-4)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)


def test_generate_and_stream_print_the_same(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for extra in ([], ["--stream"]):
        arguments = ["generate", str(trained / "run"), "The team won.", "--max-new-tokens", "6", *extra]
        assert run(*arguments, monkeypatch=monkeypatch) == 0
        found.append(capsys.readouterr().out.strip())
    assert found[0] == found[1]


def test_compare_shows_runs_side_by_side(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("eval", str(trained / "run"), monkeypatch=monkeypatch)
    capsys.readouterr()
    shutil.copytree(trained / "run", trained / "other", dirs_exist_ok=True)
    folders = [str(trained / "run"), str(trained / "other")]
    assert run("compare", *folders, "--out", str(trained / "result"), monkeypatch=monkeypatch) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Sinhala" in shown
    assert "are equal on average" in shown
    assert (trained / "result" / "comparison.json").exists()
    assert run("compare", *folders, "--score", "f1", monkeypatch=monkeypatch) == 2


def test_kept_states_are_shown_and_forgotten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("GLOTFUSE_CACHE", str(tmp_path))
    (tmp_path / "features" / "store").mkdir(parents=True)
    (tmp_path / "features" / "store" / "data.mdb").write_bytes(b"x" * 50_000_000)
    (tmp_path / "lexicons").mkdir()
    (tmp_path / "lexicons" / "words.safetensors").write_bytes(b"x" * 20_000_000)
    assert run("models", monkeypatch=monkeypatch) == 0
    assert "0.07 GB" in capsys.readouterr().err
    assert run("models", "forget", monkeypatch=monkeypatch) == 0
    assert "0.07 GB removed" in capsys.readouterr().out
    assert not (tmp_path / "features").exists()
    assert not (tmp_path / "lexicons").exists()


def test_models_lists_what_there_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models", monkeypatch=monkeypatch) == 0
    shown = "".join(capsys.readouterr())
    for name in ("e5-small", "smollm2-135m", "transformer_softmax", "perceiver", "sib200", "4-bit"):
        assert name in shown


def _bad_recipe(folder: Path, change: Any) -> list[str]:
    values = small_values(write_task(folder / "data"))
    change(folder, values)
    path = folder / "bad.yaml"
    path.write_text(yaml.safe_dump(values))
    return ["train", str(path), "--out", str(folder / "run")]


def _set(section: str, key: str, value: Any) -> Any:
    return lambda folder, values: values[section].update({key: value})


def _append(line: str) -> Any:
    def change(folder: Path, values: Any) -> None:
        with (folder / "data" / "eng_Latn" / "train.tsv").open("a", encoding="utf8") as handle:
            handle.write(line)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("task", "text_columns", ["texxt"]), "Did you mean 'text'"),
        (
            lambda f, v: (
                _append("A text.\tsprots\n")(f, v),
                v["task"].update(label_words={"sports": "sports", "science": "science"}),
            ),
            "sprots",
        ),
        (_append("  \tsports\n"), "train.tsv"),
        (_set("evaluation", "languages", ["sin_Sihn"]), "Did you mean 'sin_Sinh'"),
        (_set("task", "label_words", {"sports": "sports", "science": "sports"}), "different word"),
        (_set("encoder", "name", "no/such-encoder"), "Expected an encoder"),
        (_set("lm", "name", "bundled:smolm2-135m"), "Did you mean"),
        (_set("fusion", "mixer", "transformer_sofmax"), "Did you mean 'transformer_softmax'"),
        (_set("training", "learning_rate", -1), "training.learning_rate"),
        (_set("encoder", "max_length", 100_000), "max_length of at most"),
        (_set("task", "path", "no/such/folder"), "no/such/folder"),
    ],
    ids=["column", "label", "empty", "language", "labels", "encoder", "lm", "mixer", "value", "length", "folder"],
)
def test_bad_input_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: Any, message: str
) -> None:
    arguments = _bad_recipe(tmp_path, change)
    assert run(*arguments, monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr().err
    assert "error:" in shown
    assert message in shown
    assert "Traceback" not in shown


def test_damaged_and_foreign_checkpoints(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "fusion.safetensors", "recipe.json"):
        (broken / name).write_bytes((trained / "run" / name).read_bytes())
    weights = broken / "fusion.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    assert run("classify", str(broken), "text", monkeypatch=monkeypatch) == 2
    assert "damaged" in capsys.readouterr().err
    config = json.loads((trained / "run" / "config.json").read_text("utf8"))
    config["encoder"]["name"] = encoder_folder("bert")
    (broken / "config.json").write_text(json.dumps(config))
    weights.write_bytes((trained / "run" / "fusion.safetensors").read_bytes())
    assert run("classify", str(broken), "text", monkeypatch=monkeypatch) == 2
    assert "Expected the encoder" in capsys.readouterr().err


def test_a_text_of_100000_characters_is_cut_and_said_so(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("classify", str(trained / "run"), "The team won. " * 7143, monkeypatch=monkeypatch) == 0
    assert "text was cut" in capsys.readouterr().out


def test_no_texts_is_a_clear_error(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert run("classify", str(trained / "run"), monkeypatch=monkeypatch) == 2
    assert "Expected texts" in capsys.readouterr().err


def test_a_mistyped_option_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--nosuch", monkeypatch=monkeypatch) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_ctrl_c_in_training_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """With a real process and a real signal."""
    values = small_values(
        write_task(tmp_path / "data", num_train=200), training={"epochs": 60, "evaluations": 2, "batch_size": 2}
    )
    recipe = tmp_path / "long.yaml"
    recipe.write_text(yaml.safe_dump(values))
    command = [sys.executable, "-c", "from glotfuse.cli.main import main; main()", "train", str(recipe)]
    command += ["--out", str(tmp_path / "run"), "--no-evaluate"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("training:"):
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    assert "same command" in shown
    assert "Traceback" not in shown
    assert list((tmp_path / "run" / "state").glob("checkpoint-*/fusion.safetensors"))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if line.startswith("training:"):
            break
    process.kill()
    process.communicate()
    assert "Going on with the interrupted run" in seen
