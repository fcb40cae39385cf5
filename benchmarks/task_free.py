"""What a model without a task gives: translations into English, and topics without any labelled training.

`python -m benchmarks.task_free RUN --data FOLDER --rows 50 --output FILE.json` measures a run on a parallel
task with a folder per language (SIB-200's layout). For every language, the same rows:

- greedy translations by the fused model, their chrF (Popović 2015, through sacrebleu) against the English rows;
- two floors: the text itself as its own translation, and the same LM reading the plain text;
- two readings of the scale: chrF against the English of another row (what fluent English gets for nothing), and in how
  many rows the right English has the highest chrF of all;
- accuracy through the label words, plain and after batch calibration (Zhou et al. 2024, arXiv 2309.17249), which needs
  unlabelled text of the language, for the fused model and for the LM that reads the plain text.

The fused model is measured in every language first, then the LM that reads the text. What is finished is kept in
FILE.json: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from glotfuse import FusedLM
from glotfuse.backbones import BackboneOptions
from glotfuse.backbones.identity import hash_module
from glotfuse.evaluation.reading import reading_scores
from glotfuse.languages.names import name_of
from glotfuse.model.assembly import text_reader
from glotfuse.runs.reading import INSTRUCTION, parallel_rows
from glotfuse.tasks import Example, Task, get_task


def translation_scores(outputs: Sequence[str], references: Sequence[str]) -> dict[str, float | None]:
    """See `glotfuse.evaluation.reading`."""
    return asdict(reading_scores(outputs, references))


def topic_scores(model: FusedLM, task: Task, rows: Sequence[Example], batch_size: int) -> dict[str, float]:
    """Accuracy in %: plain, calibrated by English sentences of the package, and by these rows themselves."""
    texts = [row.fields for row in rows]
    asked = {"labels": task.labels, "instruction": task.instruction, "batch_size": batch_size}
    gold = np.array([task.labels.index(str(row.label)) for row in rows])
    plain, english = (
        np.array([[answer.log_probabilities[word] for word in task.labels] for answer in answers])
        for answers in (model.classify(texts, calibrate=False, **asked), model.classify(texts, **asked))
    )
    scores = {"plain": plain, "english": english, "calibrated": plain - np.log(np.exp(plain).mean(axis=0))}
    return {name: 100 * float((values.argmax(1) == gold).mean()) for name, values in scores.items()}


class Measurement:
    """One run's figures, saved after every part of a language."""

    def __init__(self, output: Path, settings: dict[str, Any]):
        self.output = output
        self.values: dict[str, Any] = {"settings": settings, "languages": {}}
        if output.exists():
            kept = json.loads(output.read_text("utf8"))
            if kept["settings"] != settings:
                raise SystemExit(
                    f"Expected {output} to hold the same measurement; found {kept['settings']}, not {settings}. "
                    "Choose another --output, or remove the file."
                )
            self.values = kept

    def has(self, code: str, part: str) -> bool:
        """Whether a part of a language is measured."""
        return part in self.values["languages"].get(code, {})

    def keep(self, code: str, **parts: Any) -> None:
        """Adds parts of a language and writes the file and its table."""
        self.values["languages"].setdefault(code, {}).update(parts)
        partial = self.output.with_suffix(".partial")
        partial.write_text(json.dumps(self.values, ensure_ascii=False, indent=1) + "\n", "utf8")
        os.replace(partial, self.output)
        self.output.with_suffix(".md").write_text(markdown(self.values), "utf8")


def measure_part(
    model: FusedLM, rows: Sequence[Example], references: Sequence[str], options: argparse.Namespace
) -> dict[str, Any]:
    """Outputs and figures of one model in one language; `references` are the English rows."""
    started = time.monotonic()
    outputs = model.generate(
        [row.fields["text"] for row in rows],
        instruction=options.instruction,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
    )
    figures: dict[str, Any] = {**translation_scores(outputs, references), "outputs": outputs}
    figures["topics"] = topic_scores(model, options.topics, rows, options.batch_size)
    return figures | {"seconds": round(time.monotonic() - started, 1)}


def markdown(values: dict[str, Any]) -> str:
    """The table, averages last."""
    lines = [
        "| Language | chrF, fused | other row | found, % | loops, % | chrF, LM on the text | chrF, copy "
        "| topics, fused | calibrated by English | by these rows | topics, LM on the text | calibrated |",
        "| --- |" + " ---: |" * 11,
    ]
    found = values["languages"]
    for code in sorted(found, key=lambda c: (c == "eng_Latn", c)):
        lines.append(_line(f"{name_of(code)} ({code})", [found[code]]))
    others = [found[code] for code in found if code != "eng_Latn"]
    if others:
        lines.append(_line(f"**Average, all but English ({len(others)})**", others))
    return "\n".join(lines) + "\n"


def _line(title: str, figures: Sequence[dict[str, Any]]) -> str:
    """One row: means over languages, with the interval where it is one; a dash for what is not measured yet."""

    def mean(*path: str) -> str:
        values = []
        for item in figures:
            for key in path:
                item = item.get(key, {})
            values.append(item)
        return "-" if {} in values or None in values else f"{sum(map(float, values)) / len(values):.1f}"  # type: ignore[arg-type]

    interval = mean("fused", "interval") if len(figures) == 1 else "-"
    cells = [mean("fused", "chrf") + (f" ± {interval}" if interval != "-" else "")]
    cells += [
        mean("fused", "other"),
        mean("fused", "found"),
        mean("fused", "loops"),
        mean("text", "chrf"),
        mean("copy", "chrf"),
    ]
    cells += [mean("fused", "topics", key) for key in ("plain", "english", "calibrated")]
    cells += [mean("text", "topics", key) for key in ("plain", "calibrated")]
    return f"| {title} | " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.task_free", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run or checkpoint, or hub id")
    parser.add_argument("--data", required=True, help="folder of the parallel task")
    parser.add_argument("--task", default="sib200", help="named task whose labels and instruction are used")
    parser.add_argument("--rows", type=int, default=50, help="rows per language")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; the table is put beside it")
    parser.add_argument(
        "--text-rows", type=int, help="rows on which the LM reads the text itself; all by default, 0 for none"
    )
    parser.add_argument("--languages", help="codes separated by commas; all by default")
    parser.add_argument("--instruction", default=INSTRUCTION)
    parser.add_argument("--max-new-tokens", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--lm-dtype", default="auto", help="of the LM, such as bfloat16")
    options = parser.parse_args(arguments)
    task = options.topics = get_task(options.task, path=options.data)
    rows = parallel_rows(task, options.rows, options.seed)
    codes = options.languages.split(",") if options.languages else list(rows)
    unknown = sorted(set(codes) - set(rows))
    if unknown or "eng_Latn" not in rows:
        raise SystemExit(f"Expected languages out of {', '.join(rows)}, with eng_Latn; found {', '.join(unknown)}.")
    settings = {
        key: getattr(options, key)
        for key in ("task", "data", "rows", "instruction", "max_new_tokens", "seed", "lm_dtype")
    }
    lm_options = BackboneOptions(dtype=options.lm_dtype, device=options.device)
    fused = FusedLM.from_pretrained(options.run, device=options.device, lm_options=lm_options)
    settings["weights"] = {"encoder": fused.encoder.identity.sha256, "lm": fused.lm.identity.sha256}
    settings["weights"]["fusion"] = hash_module(fused.fusion)
    measurement = Measurement(options.output, settings)
    references = [row.fields["text"] for row in rows["eng_Latn"]]
    for code in codes:
        sources = [row.fields["text"] for row in rows[code]]
        scores = translation_scores(sources, references)
        measurement.keep(code, ids=[row.row for row in rows[code]], copy=scores)
    number_read = len(references) if options.text_rows is None else min(options.text_rows, len(references))
    places = sorted(random.Random(options.seed).sample(range(len(references)), number_read))
    for part in ("fused", "text") if number_read else ("fused",):
        model = fused if part == "fused" else text_reader(FusedLM, fused, options.instruction)
        todo = [code for code in codes if not measurement.has(code, part)]
        for number, code in enumerate(todo, 1):
            chosen = places if part == "text" else range(len(references))
            measured = [rows[code][i] for i in chosen]
            figures = measure_part(model, measured, [references[i] for i in chosen], options)
            figures["ids"] = [row.row for row in measured]
            measurement.keep(code, **{part: figures})
            shown = f"chrF {figures['chrf']:.1f}, topics {figures['topics']['plain']:.1f}, {figures['seconds']:.0f} s"
            print(f"{part} {number}/{len(todo)} {code}: {shown}", file=sys.stderr, flush=True)
    print(markdown(measurement.values))


if __name__ == "__main__":
    main()
