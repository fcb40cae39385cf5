"""`glotfuse plan` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from glotfuse.cli import main as cli
from glotfuse.cli.plan import bytes_of
from glotfuse.errors import ConfigError
from small_runs import small_values, write_task


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command line in this process and returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["glotfuse", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_values(write_task(tmp_path / "data"))))
    return str(path)


def test_a_plan_is_a_table_that_ends_with_whether_it_fits(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", recipe, "--memory", "24GB", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    for part in ("parameters", "optimizer steps", "12", "label words", "encoder states on disk", "trained weights"):
        assert part in shown
    assert shown.splitlines()[-1].startswith("Fits: ")
    assert shown.splitlines()[-1].endswith("of 24.0 GB.")


def test_json_has_the_same_figures_in_bytes(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", recipe, "--json", "--memory", "1KB", "--set", "training.epochs=3"]
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is False
    assert found["device"]["num_bytes"] == 1000
    assert found["stages"][0]["num_steps"] == 18  # 24 rows in batches of 4, three times
    assert "Does not fit" in found["sentence"]


def test_what_it_cannot_plan_is_one_clear_message(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", recipe, "--set", "encoder.name=no/such-encoder", monkeypatch=monkeypatch) == 2
    shown = capsys.readouterr().err
    assert "error: Expected the configuration of the encoder 'no/such-encoder'" in shown
    assert "--encoder-config FOLDER" in shown
    assert run("plan", recipe, "--memory", "much", monkeypatch=monkeypatch) == 2
    assert "24GB or 80GiB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "expected"),
    [("24GB", 24 * 10**9), ("80GiB", 80 * 2**30), ("512 mb", 512 * 10**6), ("1.5T", 1_500 * 10**9), ("7", 7)],
)
def test_sizes_are_decimal_unless_they_say_i(size: str, expected: int) -> None:
    assert bytes_of(size) == expected


@pytest.mark.parametrize("size", ["", "GB", "-1GB", "12XB", "0GB", "1iB"])
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(ConfigError, match="--memory"):
        bytes_of(size)


def test_help_has_an_example_and_does_without_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", "--help", monkeypatch=monkeypatch) == 0
    assert "Example" in capsys.readouterr().out
    code = "import sys, glotfuse.cli.main; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
