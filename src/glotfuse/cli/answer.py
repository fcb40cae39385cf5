"""`glotfuse classify` and `glotfuse generate`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glotfuse.cli.light_imports import import_lightly
from glotfuse.cli.options import Device, Language, Run, Texts
from glotfuse.errors import ConfigError, DataError

if TYPE_CHECKING:
    from glotfuse.api import FusedLM


def classify(
    run: Run,
    texts: Texts = None,
    labels: Annotated[str | None, typer.Option(help="Other label words than the trained ones, with commas.")] = None,
    instruction: Annotated[str | None, typer.Option(help="English text before the input, with {labels}.")] = None,
    language: Language = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per text.")] = False,
    device: Device = "auto",
) -> None:
    """Label texts, with probabilities."""
    import json

    model = _load(run, device)
    inputs = _inputs(texts)
    words = [word.strip() for word in labels.split(",") if word.strip()] if labels else None
    found = model.classify(inputs, labels=words, instruction=instruction, language=language)
    for text, result in zip(inputs, found, strict=True):
        if as_json:
            values = {"text": text, "label": result.label, "probabilities": result.probabilities}
            typer.echo(json.dumps({**values, "truncated": result.truncated}, ensure_ascii=False))
        else:
            cut = "  (text was cut)" if result.truncated else ""
            typer.echo(f"{result.label}\t{result.probabilities[result.label]:.3f}\t{text[:80]}{cut}")


def generate(
    run: Run,
    texts: Texts = None,
    instruction: Annotated[str | None, typer.Option(help="English text before the input.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens per answer.", min=1)] = 64,
    sample: Annotated[bool, typer.Option(help="Sample instead of taking the most probable token.")] = False,
    temperature: Annotated[float, typer.Option(help="Of sampling.", min=0.01)] = 1.0,
    num_beams: Annotated[int, typer.Option(help="Beams of the search.", min=1)] = 1,
    stream: Annotated[bool, typer.Option(help="Print while generating.")] = False,
    language: Language = None,
    device: Device = "auto",
) -> None:
    """Generate English answers to texts in any of the encoder's languages."""
    model = _load(run, device)
    inputs = _inputs(texts)
    options: dict[str, Any] = {
        "instruction": instruction,
        "language": language,
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
    }
    if sample:
        options |= {"do_sample": True, "temperature": temperature}
    if not stream:
        for answer in model.generate(inputs, **options):
            typer.echo(answer)
        return
    if num_beams > 1:
        raise ConfigError("Expected --num-beams 1 with --stream: a beam search has no answer before its end.")
    for text in inputs:
        for piece in model.stream(text, **options):
            typer.echo(piece, nl=False)
        typer.echo()


def _load(run: str, device: str) -> FusedLM:
    """The model of a run, in a process that answers and ends."""
    import_lightly()
    from glotfuse.api import FusedLM

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
