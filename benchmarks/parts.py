"""Where the time of a training step and of a scoring batch goes: `python -m benchmarks.parts`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.labelling import bare_forward, our_batches
from benchmarks.setting import TOPICS, build, cached, english, prepared
from benchmarks.steps import bare_step, grouped_batches, our_trainer
from glotfuse.api import FusedLM
from glotfuse.fusion import Span
from glotfuse.model import classification

ROUNDS = 12


class Clock:
    """Seconds per part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._mark: float | None = None

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            found = call(*arguments, **options)
            self.seconds[name] += time.perf_counter() - start
            return found

        return timed

    def mark(self, *_: object) -> None:
        self._mark = time.perf_counter()

    def since_mark(self) -> float:
        return 0.0 if self._mark is None else time.perf_counter() - self._mark


@contextmanager
def watched(model: FusedLM, clock: Clock) -> Iterator[None]:
    """The model with its parts timed; the gradient's arrival at the span divides the backward pass."""
    fuse = model.fusion.forward

    def fuse_and_mark(*arguments: Any) -> Span:
        span = fuse(*arguments)
        if span.embeddings.requires_grad:
            span.embeddings.register_hook(clock.mark)
        return span

    names = {(model, "hidden_states"): "encoder states", (model.lm, "run"): "LM forward"}
    for (owner, name), part in names.items():
        object.__setattr__(owner, name, clock.wrap(part, getattr(owner, name)))
    model.fusion.forward = clock.wrap("mixer and projector, forward", fuse_and_mark)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for owner, name in names:
            object.__delattr__(owner, name)
        del model.fusion.forward


def training_step(model: FusedLM, floors: list[Callable[[], None]], batches: list[Any]) -> dict[str, float]:
    """Median seconds per part of a step, with those of the bare LM."""
    trainer, clock = our_trainer(model), Clock()
    rounds: list[dict[str, float]] = []
    with cached(model), watched(model, clock):
        for turn in range(ROUNDS):
            batch, floor = batches[turn % len(batches)], floors[turn % len(batches)]
            clock.seconds.clear()
            start = time.perf_counter()
            backward = fusion_backward = 0.0
            for loss in trainer.losses_of(batch):
                backward_start = time.perf_counter()
                loss.backward()
                backward_end = time.perf_counter()
                backward += backward_end - backward_start
                fusion_backward += clock.since_mark()
            passes_end = time.perf_counter()
            torch.nn.utils.clip_grad_norm_(trainer.weights, 1.0)
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
            end = time.perf_counter()
            parts = dict(clock.seconds)
            parts["collating, packing, loss"] = passes_end - start - backward - sum(parts.values())
            parts["LM backward"] = backward - fusion_backward
            parts["mixer and projector, backward"] = fusion_backward
            parts["clipping and AdamW"] = end - passes_end
            parts["whole step"] = end - start
            floor_start = time.perf_counter()
            floor()
            parts["bare LM, forward and backward"] = time.perf_counter() - floor_start
            rounds.append(parts)
    return _medians(rounds[len(batches) :])


def scoring_batch(model: FusedLM, batches: list[Any]) -> dict[str, float]:
    """Median seconds per part of labelling one batch, states not cached, with those of the bare LM."""
    clock, rounds = Clock(), []
    floor = bare_forward(model, batches[:1])
    for _ in range(ROUNDS):
        with watched(model, clock):
            clock.seconds.clear()
            start = time.perf_counter()
            classification.classify(model, batches[0], len(batches[0]))
            end = time.perf_counter()
        parts = dict(clock.seconds)
        parts["collating, packing, label scores"] = end - start - sum(parts.values())
        parts["whole batch"] = end - start
        floor_start = time.perf_counter()
        floor()
        parts["bare LM, forward"] = time.perf_counter() - floor_start
        rounds.append(parts)
    return _medians(rounds[2:])


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(parts[name] for parts in rounds) for name in rounds[0]}


def main() -> None:
    model = build(TOPICS, dropout=0.1).train()
    batches = grouped_batches(prepared(model, english(64)), 0)
    floors = [bare_step(model, batch) for batch in batches]
    step = training_step(model, floors, batches)
    model.eval()
    texts = our_batches(model, model.prepare([text for text, _ in english(64)]))
    with torch.inference_mode():
        scored = scoring_batch(model, texts[1:])
    for title, parts in (("training step, 16 texts", step), (f"scoring, {len(texts[1])} texts, 7 labels", scored)):
        table = Table("part", "ms", "share", title=title)
        whole = parts.get("whole step") or parts["whole batch"]
        for name, seconds in parts.items():
            table.add_row(name, f"{1000 * seconds:.0f}", f"{100 * seconds / whole:.1f}%")
        Console(width=100).print(table)


if __name__ == "__main__":
    main()
