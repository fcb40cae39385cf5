"""Training against the textbook procedure and the bare LM: time, losses, memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import Row, alternate, peak_megabytes, row
from benchmarks.setting import TOPICS, build, cached, english, prepared
from benchmarks.textbook import TextbookModel
from glotfuse.api import FusedLM
from glotfuse.inputs.batch import PreparedExample, collate, split_rows, training_inputs
from glotfuse.inputs.order import CPU_TOKENS, LengthGroupedOrder
from glotfuse.inputs.padding import IGNORED

BATCH = 16

Losses = Callable[[list[PreparedExample]], Iterable[Tensor]]
"""From a batch to the losses whose sum is its loss: one, or one for each part that runs on its own."""


class Trainer:
    """Optimizer steps over batches, with AdamW and clipping as in training."""

    def __init__(self, weights: Iterable[nn.Parameter], losses_of: Losses, learning_rate: float = 1e-4):
        self.weights = list(weights)
        self.losses_of = losses_of
        self.optimizer = torch.optim.AdamW(self.weights, lr=learning_rate, weight_decay=0.0)
        self.losses: list[float] = []

    def run(self, batches: Sequence[list[PreparedExample]]) -> None:
        for batch in batches:
            total = 0.0
            for loss in self.losses_of(batch):
                loss.backward()
                total += loss.item()
            nn.utils.clip_grad_norm_(self.weights, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(total)


def our_trainer(model: FusedLM, max_tokens: int = CPU_TOKENS, learning_rate: float = 1e-4) -> Trainer:
    """Ours: a batch in parts within the token budget."""

    def losses_of(examples: list[PreparedExample]) -> Iterable[Tensor]:
        inputs = training_inputs(examples, model.encoder.pad_token_id)
        count = (inputs["labels"] != IGNORED).sum()
        for part in split_rows(inputs, max_tokens):
            yield model(**part, num_items_in_batch=count)["loss"]

    return Trainer(model.fusion.parameters(), losses_of, learning_rate)


def textbook_trainer(textbook: TextbookModel) -> Trainer:
    """The opponent's: a batch at once."""
    return Trainer(textbook.parameters(), lambda examples: [textbook.loss(examples)])


def random_batches(examples: list[PreparedExample], seed: int, size: int = BATCH) -> list[list[PreparedExample]]:
    order = random.Random(seed).sample(range(len(examples)), len(examples))
    return [[examples[i] for i in order[start : start + size]] for start in range(0, len(order), size)]


def grouped_batches(examples: list[PreparedExample], epoch: int, size: int = BATCH) -> list[list[PreparedExample]]:
    order = LengthGroupedOrder([len(e.encoder_ids) for e in examples], size, 0)
    order.set_epoch(epoch)
    indices = list(order)
    return [[examples[i] for i in indices[start : start + size]] for start in range(0, len(indices), size)]


def training(short: bool) -> list[Row]:
    """Three epochs of training, each side as it is: encoder, fusion, LM, optimizer; and the same losses."""
    model = build(TOPICS)
    examples = prepared(model, english(64 if short else 96))
    textbook = TextbookModel(model)
    book = textbook_trainer(textbook)
    our = our_trainer(model)
    few = random_batches(examples, seed=9)[:3]
    book.run(few)
    our.run(few)  # without the cache, which rounds
    gap = max(abs(a - b) / b for a, b in zip(our.losses, book.losses, strict=True))
    if gap > 1e-3:
        raise SystemExit(f"Expected the same losses on the same batches; found {our.losses} and {book.losses}.")
    seconds: dict[str, list[float]] = {"ours": [], "textbook": []}
    with cached(model):
        for epoch in range(3):
            sides = {
                "ours": lambda epoch=epoch: our.run(grouped_batches(examples, epoch)),
                "textbook": lambda epoch=epoch: book.run(random_batches(examples, epoch)),
            }
            for name, found in alternate(sides, rounds=1, warm_up=0).items():
                seconds[name] += found
    total = {name: [sum(found) / (3 * len(examples))] for name, found in seconds.items()}
    later = {name: [second / len(examples) for second in found[1:]] for name, found in seconds.items()}
    return [
        row("training, three epochs, per example: textbook / ours", total["ours"], total["textbook"], "s", at_least=4),
        row("training, epochs after the first: textbook / ours", later["ours"], later["textbook"], "s", at_least=4),
    ]


def bare_step(model: FusedLM, examples: list[PreparedExample]) -> Callable[[], None]:
    """The floor: the LM alone, forward and backward over span, tail and answer, logits at the answer only."""
    batch = collate(examples, model.encoder.pad_token_id, answers=True)
    with torch.no_grad():
        sequences = model.assemble(batch)
    following = sequences.next_targets()
    keep = following != IGNORED
    embeddings = sequences.embeddings.detach().clone().requires_grad_()

    def run() -> None:
        embeddings.grad = None
        logits = model.lm.run(embeddings, keep)
        F.cross_entropy(logits, following[keep]).backward()

    return run


def step(short: bool) -> list[Row]:
    """One training step against the bare LM on the same rows."""
    model = build(TOPICS, dropout=0.1).train()
    batch = grouped_batches(prepared(model, english(64)), 0)[0]
    our = our_trainer(model)
    sides = {"ours": lambda: our.run([batch]), "bare": bare_step(model, batch)}
    with cached(model):
        seconds = alternate(sides, rounds=3 if short else 15)
    with_encoder = alternate(sides, rounds=3 if short else 9)
    return [
        row("training step: ours / bare LM", seconds["ours"], seconds["bare"], "s", at_most=1.10),
        row("the same, states not cached", with_encoder["ours"], with_encoder["bare"], "s", at_most=1.35),
    ]


def memory(short: bool) -> list[Row]:
    """Peak memory of two training steps above the loaded weights and the optimizer's state."""
    model = build(TOPICS)
    batches = random_batches(prepared(model, english(64)), 0)[:2]
    grouped = grouped_batches(prepared(model, english(64)), 0)[:2]
    textbook = TextbookModel(model)
    our = our_trainer(model)
    book = textbook_trainer(textbook)
    for trainer in (our, book):  # so that the optimizers' own memory is there before
        trainer.run([batches[0][:2]])
    with cached(model):
        same = peak_megabytes(lambda: our.run(batches))
        own = peak_megabytes(lambda: our.run(grouped))
    other = peak_megabytes(lambda: book.run(batches))
    return [
        row("training, peak memory, same batches: textbook / ours", [same], [other], "MB", at_least=3),
        row("training, peak memory, own batches: textbook / ours", [own], [other], "MB", at_least=3),
    ]
