"""A vLLM server's answers beside those of the model itself: greedy text, label scores, many at once, a hang-up.

Start a server with the run's LM (docs/deploy.md), then `python -m benchmarks.serving.vllm_parity RUN --url http://127.0.0.1:8000`.
It ends with exit code 1 where an answer differs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from glotfuse import FusedLM
from glotfuse.model.classification import Classification
from glotfuse.serving.requests import ClassifyRequest, GenerateRequest
from glotfuse.serving.vllm.engine import VllmEngine
from glotfuse.tasks import get_task

LANGUAGES = ("eng_Latn", "sin_Sinh", "tam_Taml", "urd_Arab", "yor_Latn", "hin_Deva", "khm_Khmr", "tur_Latn")
INSTRUCTION = "Say in English what this is about."
ALONE = 4
"""Texts that are also asked alone."""
TOLERANCE = 1e-3
"""Largest difference of label log-probabilities, both LMs in float32."""


@dataclass(frozen=True)
class Parity:
    """What was found."""

    texts: int
    same_text: int
    """Greedy answers that are equal to the character."""
    same_label: int
    largest_difference: float
    """Of a label's log-probability."""
    multi_token_labels: int
    at_once_seconds: float
    """All requests at once."""
    alone_seconds: float
    """The first few, one after the other, per request."""
    same_alone: bool
    """Whether those are the answers that they get with all others."""
    freed_after_hang_up: bool
    """Whether the server counts no running request after a client hung up."""


def sentences(count: int) -> list[str]:
    task = get_task("quickstart")
    by_language = [task.load("test", code).examples for code in LANGUAGES]
    texts = [rows[i].fields["text"] for i in range(count) for rows in by_language]
    return texts[:count]


async def answer(engine: VllmEngine, text: str, tokens: int) -> str:
    request = GenerateRequest(text, instruction=INSTRUCTION, max_new_tokens=tokens)
    return "".join([piece.text async for piece in engine.generate(request)])


async def hang_up(engine: VllmEngine, url: str, text: str) -> bool:
    """Leaves a long answer after its first piece; whether the server stops it."""
    async with aclosing(engine.generate(GenerateRequest(text, instruction=INSTRUCTION, max_new_tokens=500))) as pieces:
        async for _ in pieces:
            break
    async with httpx.AsyncClient() as client:
        for _ in range(20):
            metrics = (await client.get(f"{url.removesuffix('/v1')}/metrics")).text
            running = [x.split()[-1] for x in metrics.splitlines() if x.startswith("vllm:num_requests_running")]
            if running and float(running[0]) == 0:
                return True
            await asyncio.sleep(0.1)
    return False


async def compare(model: FusedLM, url: str, count: int, tokens: int, api_key: str | None = None) -> tuple[Parity, Any]:
    texts = sentences(count)
    generated = model.generate(texts, instruction=INSTRUCTION, max_new_tokens=tokens, batch_size=1)
    labelled = model.classify(texts)
    engine = VllmEngine(model, url, api_key=api_key)
    await engine.start()
    try:
        begun = time.monotonic()
        at_once = await asyncio.gather(*(answer(engine, text, tokens) for text in texts))
        middle = time.monotonic()
        alone = [await answer(engine, text, tokens) for text in texts[:ALONE]]
        end = time.monotonic()
        found = await engine.classify(ClassifyRequest(tuple(texts)))
        freed = await hang_up(engine, url, texts[0])
    finally:
        await engine.close()
    differences = [difference(a, b) for a, b in zip(labelled, found, strict=True)]
    parity = Parity(
        texts=count,
        same_text=sum(a == b for a, b in zip(generated, at_once, strict=True)),
        same_label=sum(a.label == b.label for a, b in zip(labelled, found, strict=True)),
        largest_difference=max(differences),
        multi_token_labels=sum(len(ids) > 1 for ids in model.label_ids),
        at_once_seconds=middle - begun,
        alone_seconds=(end - middle) / len(alone),
        same_alone=at_once[: len(alone)] == alone,
        freed_after_hang_up=freed,
    )
    return parity, list(zip(texts, generated, at_once, labelled, found, strict=True))


def difference(first: Classification, second: Classification) -> float:
    return max(abs(first.log_probabilities[k] - second.log_probabilities[k]) for k in first.log_probabilities)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.vllm_parity", description=__doc__)
    parser.add_argument("run", help="run folder or hub id of a model with labels")
    parser.add_argument("--url", required=True, help="of the vLLM server")
    parser.add_argument("--api-key", help="of the vLLM server")
    parser.add_argument("--texts", type=int, default=32, help="how many")
    parser.add_argument("--tokens", type=int, default=24, help="most per answer")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    chosen = parser.parse_args()
    model = FusedLM.from_pretrained(chosen.run, device="cpu")
    parity, rows = asyncio.run(compare(model, chosen.url, chosen.texts, chosen.tokens, chosen.api_key))
    console = Console(width=150)
    table = Table("text", "model's answer", "vLLM's", "model's label", "vLLM's", "largest difference", show_lines=True)
    for text, ours, theirs, label, other in rows:
        shown = (f"{x.label} {x.log_probabilities[x.label]:.4f}" for x in (label, other))
        table.add_row(
            text[:40],
            ours[:60],
            "the same" if ours == theirs else theirs[:60],
            *shown,
            f"{difference(label, other):.1e}",
        )
    console.print(table)
    console.print(asdict(parity))
    if chosen.json:
        chosen.json.write_text(json.dumps(asdict(parity), indent=1), "utf8")
    count = parity.texts
    same = parity.same_text == count and parity.same_alone and parity.freed_after_hang_up
    return 0 if same and parity.same_label == count and parity.largest_difference <= TOLERANCE else 1


if __name__ == "__main__":
    raise SystemExit(main())
