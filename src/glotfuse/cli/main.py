"""The command line: parses, calls, prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from glotfuse import distributed
from glotfuse.cli.answer import classify, generate
from glotfuse.cli.hub import card, push
from glotfuse.cli.inspect import inspect, report
from glotfuse.cli.models import models_app
from glotfuse.cli.plan import plan
from glotfuse.cli.quickstart import quickstart
from glotfuse.cli.serve import serve
from glotfuse.cli.train import compare, eval_, train
from glotfuse.errors import GlotfuseError

app = typer.Typer(
    name="glotfuse",
    help="Give an English LLM the languages of a multilingual encoder, training on English only.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(models_app, name="models")
for command, examples in (
    (quickstart, ["glotfuse quickstart --out runs/quickstart"]),
    (
        train,
        [
            "glotfuse train recipes/sib200.yaml --out runs/sib200",
            "glotfuse train my.yaml --set training.epochs=5 --set task.path=data",
        ],
    ),
    (plan, ["glotfuse plan recipes/sib200.yaml", "glotfuse plan my.yaml --memory 24GB --set encoder.dtype=bfloat16"]),
    (eval_, ["glotfuse eval runs/sib200 --languages yor_Latn,khm_Khmr"]),
    (
        compare,
        [
            "glotfuse compare recipes/baselines/*.yaml --seeds 3",
            "glotfuse compare runs/quickstart/default runs/quickstart/embedding",
        ],
    ),
    (
        inspect,
        [
            "glotfuse inspect runs/quickstart/default --languages sin_Sinh,tam_Taml",
            'glotfuse inspect RUN --texts "The economy is growing." --texts "ආර්ථිකය වර්ධනය වෙමින් පවතී."',
        ],
    ),
    (report, ["glotfuse report runs/sib200 --out sib200.html", "glotfuse report runs/comparison"]),
    (card, ["glotfuse card runs/sib200 --license apache-2.0"]),
    (push, ["glotfuse push runs/sib200 me/sib200-e5-smollm2 --private"]),
    (serve, ["glotfuse serve runs/sib200", "glotfuse serve runs/sib200 --engine vllm --url http://127.0.0.1:8001"]),
    (classify, ['glotfuse classify runs/quickstart/default "ක්‍රීඩකයා තරගය ජයගත්තේය."']),
    (generate, ['glotfuse generate RUN "..." --instruction "Summarise in English." --stream']),
):
    epilog = f"Example{'s' * (len(examples) > 1)}: " + ", ".join(f"`{example}`" for example in examples)
    app.command(command.__name__.rstrip("_"), epilog=epilog)(command)


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
