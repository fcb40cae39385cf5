"""`glotfuse inspect` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from glotfuse.cli.inspect import inspect
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.recipes.loading import recipe_from_dict
from glotfuse.runs.train import train_run
from small_runs import small_recipe, write_task

app = typer.Typer(rich_markup_mode=None)
app.command()(inspect)
SINHALA = "ආර්ථිකය වර්ධනය වෙමින් පවතී."


def run(*arguments: str) -> str:
    """Runs the command and returns all that it printed."""
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder."""
    folder = tmp_path_factory.mktemp("inspect")
    train_run(small_recipe(write_task(folder / "data"), training={"epochs": 1}), folder / "run")
    return folder / "run"


def test_a_run_gives_pictures_data_and_a_table(trained: Path) -> None:
    output = run(str(trained), "--max-examples", "4")
    assert "English" in output
    assert "Sinhala" in output
    folder = trained / "inspect"
    names = {path.stem for path in folder.glob("*.png")}
    assert {"layer_weights", "token_weights", "language_weights", "tokenisation"} <= names
    assert names == {path.stem for path in folder.glob("*.json")}
    assert "not parallel" in output  # the Sinhala rows there are no translations


def test_given_texts_are_shown_instead_of_rows(trained: Path, tmp_path: Path) -> None:
    run(
        str(trained),
        "--texts",
        "The economy is growing.",
        "--texts",
        SINHALA,
        "--out",
        str(tmp_path),
        "--format",
        "svg",
    )
    data = json.loads((tmp_path / "token_weights.json").read_text("utf8"))
    assert [text["text"] for text in data["token_weights"]] == ["The economy is growing.", SINHALA]
    assert (tmp_path / "token_weights.svg").exists()


def test_texts_alone_need_no_recipe(trained: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "fusion.safetensors"):
        (bare / name).write_bytes((trained / name).read_bytes())
    run(str(bare), "--texts", SINHALA)
    assert (bare / "inspect" / "token_weights.png").exists()
    with pytest.raises(CheckpointError, match=r"recipe\.json"):
        run(str(bare))


def test_a_wrong_format_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigError, match="png or svg"):
        run("nowhere", "--format", "pdf")


@pytest.mark.slow
def test_the_bundled_encoder_aligns_translations_of_the_quickstart(tmp_path: Path) -> None:
    recipe = recipe_from_dict({"task": {"max_train_examples": 16, "max_dev_examples": 8}, "training": {"epochs": 1}})
    train_run(recipe, tmp_path / "run")
    run(str(tmp_path / "run"), "--languages", "tam_Taml,urd_Arab", "--max-examples", "24")
    data = json.loads((tmp_path / "run" / "inspect" / "alignment.json").read_text("utf8"))["alignment"]
    assert data["num_rows"] == 24
    for language in data["languages"]:
        assert max(layer["to_pivot"] for layer in language["layers"]) > 0.8
        assert language["span"]["to_pivot"] > 5 / 24
