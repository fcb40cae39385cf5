"""The command line: parses, calls, prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glotfuse import distributed
from glotfuse.cli_compare import compare
from glotfuse.cli_hub import CARD_EPILOG, PUSH_EPILOG, card, push
from glotfuse.cli_inspect import EPILOG as INSPECT_EPILOG
from glotfuse.cli_inspect import inspect
from glotfuse.cli_models import models_app, say
from glotfuse.cli_report import EPILOG as REPORT_EPILOG
from glotfuse.cli_report import report
from glotfuse.cli_serve import EPILOG as SERVE_EPILOG
from glotfuse.cli_serve import serve
from glotfuse.errors import ConfigError, DataError, GlotfuseError

if TYPE_CHECKING:
    from glotfuse.model import FusedLM

app = typer.Typer(
    name="glotfuse",
    help="Give an English LLM the languages of a multilingual encoder, training on English only.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(models_app, name="models")

Out = Annotated[Path | None, typer.Option(help="Folder of the run.")]
Languages = Annotated[str | None, typer.Option(help="Comma-separated codes, such as sin_Sinh,yor_Latn.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps, or another torch device.")]
Run = Annotated[str, typer.Argument(help="Run folder or hub id.", metavar="RUN")]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts; none reads lines from standard input.")]


@app.command(epilog="Example: `glotfuse quickstart --out runs/quickstart`")
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder of the two runs.")] = Path("runs/quickstart"),
    epochs: Annotated[float, typer.Option(help="Passes over the 320 English sentences.")] = 2.0,
    overwrite: Annotated[bool, typer.Option(help="Train again where a run is finished.")] = False,
    device: Device = "auto",
) -> None:
    """Train on the English sentences in the package and measure 14 languages.

    Uses the bundled encoder and LM. The recommended recipe stands beside logistic regression on sentence embeddings.
    """
    from glotfuse.evaluation import comparison_table
    from glotfuse.measuring import measure_run
    from glotfuse.quickstart import quickstart_recipes
    from glotfuse.runs import finished, load_backbones, train_run

    reports, titles = [], []
    for name, (title, recipe) in quickstart_recipes(device, epochs).items():
        folder = out / name
        backbones = load_backbones(recipe)
        say(f"\n{title}: training on English")
        if overwrite or not finished(folder, recipe):
            train_run(recipe, folder, overwrite=overwrite, backbones=backbones)
        reports.append(measure_run(folder, recipe, backbones))
        titles.append(title)
    table = comparison_table(reports, titles)
    distributed.once(lambda: (out / "comparison.md").write_text(table.to_markdown(), "utf8"))
    _print(table.rich_table())
    say(f"The same table is in {out / 'comparison.md'}; predictions and checkpoints are beside it.")


@app.command(
    epilog="Examples: `glotfuse train recipes/sib200.yaml --out runs/sib200`, "
    "`glotfuse train my.yaml --set training.epochs=5 --set task.path=data`"
)
def train(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe.", metavar="RECIPE")],
    out: Out = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key.subkey=value, repeatable.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that the folder holds.")] = False,
    evaluate: Annotated[bool, typer.Option(help="Measure all languages after training.")] = True,
) -> None:
    """Train what a recipe describes, then measure every language.

    Ctrl-C saves the state after the current step; the same command goes on from there.
    """
    from glotfuse.measuring import measure_run
    from glotfuse.recipes import load_recipe
    from glotfuse.runs import train_run

    values = load_recipe(recipe, set_)
    folder = out or Path("runs") / recipe.stem
    model = train_run(values, folder, overwrite=overwrite)
    say(f"Saved to {folder}")
    if evaluate and (model is None or model.labels):
        backbones = (model.encoder, model.lm) if model else None
        _print(measure_run(folder, values, backbones).rich_table())
    if model is not None:
        _write_card(folder)


@app.command("eval", epilog="Example: `glotfuse eval runs/sib200 --languages yor_Latn,khm_Khmr`")
def eval_(
    run: Run,
    languages: Languages = None,
    split: Annotated[str | None, typer.Option(help="test or dev.")] = None,
    task_path: Annotated[str | None, typer.Option(help="Other folder with the task's data.")] = None,
    max_examples: Annotated[int | None, typer.Option(help="At most so many per language.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per forward pass.")] = None,
    device: Device = "auto",
) -> None:
    """Measure a run: accuracy and macro-F1 with 95% confidence intervals for every language."""
    from dataclasses import replace

    from glotfuse.measuring import measure_run, with_evaluation
    from glotfuse.recipes import recipe_from_dict, to_dict
    from glotfuse.runs import read_recipe

    recipe = read_recipe(Path(run))
    if task_path:
        recipe = replace(recipe, task=replace(recipe.task, path=task_path))
    chosen = languages.split(",") if languages else None
    recipe = with_evaluation(recipe, languages=chosen, split=split, max_examples=max_examples, batch_size=batch_size)
    recipe = recipe_from_dict({**to_dict(recipe), "device": device}, "options")
    _print(measure_run(Path(run), recipe).rich_table())
    if recipe.method == "fusion":
        _write_card(Path(run))


app.command(
    epilog="Examples: `glotfuse compare recipes/baselines/*.yaml --seeds 3`, "
    "`glotfuse compare runs/quickstart/default runs/quickstart/embedding`"
)(compare)
app.command(epilog=INSPECT_EPILOG)(inspect)
app.command(epilog=REPORT_EPILOG)(report)
app.command(epilog=CARD_EPILOG)(card)
app.command(epilog=PUSH_EPILOG)(push)
app.command(epilog=SERVE_EPILOG)(serve)


@app.command(epilog='Example: `glotfuse classify runs/quickstart/default "ක්‍රීඩකයා තරගය ජයගත්තේය."`')
def classify(
    run: Run,
    texts: Texts = None,
    language: Annotated[
        str | None, typer.Option(help="Code of the texts' language; NLLB-like encoders need it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per text.")] = False,
    device: Device = "auto",
) -> None:
    """Label texts, with probabilities."""
    import json

    model = _load(run, device)
    inputs = _inputs(texts)
    for text, result in zip(inputs, model.classify(inputs, language=language), strict=True):
        if as_json:
            values = {"text": text, "label": result.label, "probabilities": result.probabilities}
            typer.echo(json.dumps({**values, "truncated": result.truncated}, ensure_ascii=False))
        else:
            cut = "  (text was cut)" if result.truncated else ""
            typer.echo(f"{result.label}\t{result.probabilities[result.label]:.3f}\t{text[:80]}{cut}")


@app.command(epilog='Example: `glotfuse generate RUN "..." --instruction "Summarise in English." --stream`')
def generate(
    run: Run,
    texts: Texts = None,
    instruction: Annotated[str | None, typer.Option(help="English text before the input.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens per answer.", min=1)] = 64,
    sample: Annotated[bool, typer.Option(help="Sample instead of taking the most probable token.")] = False,
    temperature: Annotated[float, typer.Option(help="Of sampling.", min=0.01)] = 1.0,
    num_beams: Annotated[int, typer.Option(help="Beams of the search.", min=1)] = 1,
    stream: Annotated[bool, typer.Option(help="Print while generating.")] = False,
    language: Annotated[
        str | None, typer.Option(help="Code of the texts' language; NLLB-like encoders need it.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Generate English answers to texts in any of the encoder's languages."""
    model = _load(run, device)
    inputs = _inputs(texts)
    options: dict[str, Any] = {"num_beams": num_beams}
    if sample:
        options |= {"do_sample": True, "temperature": temperature}
    if not stream:
        answers = model.generate(
            inputs, instruction=instruction, language=language, max_new_tokens=max_new_tokens, **options
        )
        for answer in answers:
            typer.echo(answer)
        return
    if num_beams > 1:
        raise ConfigError("Expected --num-beams 1 with --stream: a beam search has no answer before its end.")
    for text in inputs:
        pieces = model.stream(
            text, instruction=instruction, language=language, max_new_tokens=max_new_tokens, **options
        )
        for piece in pieces:
            typer.echo(piece, nl=False)
        typer.echo()


def _load(run: str, device: str) -> FusedLM:
    from glotfuse.model import FusedLM

    return FusedLM.from_pretrained(run, device=device)


def _inputs(texts: list[str] | None) -> list[str]:
    if texts:
        return texts
    if sys.stdin.isatty():
        raise DataError("Expected texts as arguments, or one per line on standard input; found none.")
    lines = [line.rstrip("\n") for line in sys.stdin]
    if not any(line.strip() for line in lines):
        raise DataError("Expected texts, one per line, on standard input; found none.")
    return [line for line in lines if line.strip()]


def _write_card(folder: Path) -> None:
    from glotfuse.card import FILE, write_card

    if write_card(folder) is None:
        say(f"{folder / FILE} is not glotfuse's own and was left as it is.")


def _print(renderable: object) -> None:
    from rich.console import Console

    Console().print(renderable)


def main() -> None:
    """Entry point: user errors are messages without a traceback, exit code 2; Ctrl-C is exit code 130.

    Of several processes the first alone prints; errors are printed by each that has one.
    """
    if distributed.is_silent():
        sys.stdout = Path(os.devnull).open("w", encoding="utf8")  # noqa: SIM115 - closed with the process
    try:
        app()
    except SystemExit as ending:
        if not ending.code:
            distributed.stop()
        raise
    except GlotfuseError as error:
        interrupted = type(error).__name__ == "TrainingInterruptedError"
        if not (interrupted and distributed.is_silent()):
            typer.echo(str(error) if interrupted else f"error: {error}", err=True)
        sys.exit(130 if interrupted else 2)
