"""Losses with batches of similar length beside losses with random ones: `python -m benchmarks.curves --plot FILE`.

Both orders see the same texts from the same start; only which texts share a batch differs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean

from benchmarks.setting import TOPICS, build, cached, english, prepared
from benchmarks.steps import BATCH, grouped_batches, our_trainer, random_batches
from glotfuse.inputs.batch import PreparedExample
from glotfuse.training.development import DevExamples, development_metrics

Order = Callable[[list[PreparedExample], int], list[list[PreparedExample]]]

ORDERS: dict[str, Order] = {"similar length": grouped_batches, "random": random_batches}
EPOCHS = 3


def run(order: Order, rows: list[tuple[str, str]], dev: list[tuple[str, str]], seed: int) -> dict[str, list[float]]:
    """Loss of every step, and the development loss after every epoch."""
    model = build(TOPICS)
    examples, held_out = prepared(model, rows), prepared(model, dev)
    trainer = our_trainer(model, learning_rate=5e-4)
    development = []
    with cached(model):
        for epoch in range(EPOCHS):
            trainer.run(order(examples, EPOCHS * seed + epoch))
            found = development_metrics(model, DevExamples(held_out, [label for _, label in dev]), 32)
            development.append(found["eval_loss"])
    return {"steps": trainer.losses, "development": development}


def measure(texts: int, seeds: int) -> dict[str, list[dict[str, list[float]]]]:
    """Runs of both orders, one for each seed of the order."""
    rows = english(texts + texts // 4)
    return {
        name: [run(order, rows[:texts], rows[texts:], seed) for seed in range(seeds)] for name, order in ORDERS.items()
    }


def plot(found: dict[str, list[dict[str, list[float]]]], path: Path) -> None:
    """Means over eight steps, a line for each run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4), constrained_layout=True)
    for colour, (name, runs) in zip(("C0", "C1"), found.items(), strict=True):
        for number, one in enumerate(runs):
            losses = one["steps"]
            smooth = [mean(losses[max(0, i - 7) : i + 1]) for i in range(len(losses))]
            axis.plot(range(1, len(losses) + 1), smooth, colour, alpha=0.8, label=name if number == 0 else None)
    axis.set_xlabel(f"optimizer step ({BATCH} texts)")
    axis.set_ylabel("training loss, mean of eight steps")
    axis.legend(title="batches of")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--texts", type=int, default=320, help="training texts; a quarter as many are held out")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each order")
    parser.add_argument("--json", type=Path, help="also write all losses to this file")
    parser.add_argument("--plot", type=Path, help="draw the losses into this picture")
    chosen = parser.parse_args()
    found = measure(chosen.texts, chosen.seeds)
    for name, runs in found.items():
        for one in runs:
            epochs = [one["steps"][i : i + len(one["steps"]) // EPOCHS] for i in _starts(one["steps"])]
            means = ", ".join(f"{mean(epoch):.3f}" for epoch in epochs)
            held_out = ", ".join(f"{loss:.3f}" for loss in one["development"])
            print(f"{name}: training loss per epoch {means}; held-out loss after each {held_out}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found) + "\n", "utf8")
    if chosen.plot:
        plot(found, chosen.plot)


def _starts(losses: list[float]) -> range:
    return range(0, len(losses) // EPOCHS * EPOCHS, len(losses) // EPOCHS)


if __name__ == "__main__":
    main()
