"""The cases: each measures one promise in a process of its own. `python -m benchmarks.cases NAME [--short]`."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.growth import growth
from benchmarks.measure import Row, alternate, peak_megabytes, row
from benchmarks.setting import build, cached, english, prepared
from benchmarks.textbook import TextbookMixer, TextbookModel
from glotfuse import scoring
from glotfuse.batching import CPU_TOKENS, LengthGroupedOrder
from glotfuse.fusion.mixers import TransformerSoftmax
from glotfuse.inputs import PreparedExample, collate, split_rows
from glotfuse.model import FusedLM
from glotfuse.sequences import IGNORED

TOPICS = ("entertainment", "geography", "health", "politics", "technology", "sports", "travel")
BATCH = 16


def mixer(short: bool) -> list[Row]:
    """transformer_softmax forward and backward at L=24, D=1024, 256 tokens."""
    torch.manual_seed(0)
    ours = TransformerSoftmax(24, 1024)
    textbook = TextbookMixer(ours)
    states = [torch.randn(1, 256, 1024) for _ in range(24)]
    mask = torch.ones(1, 256, dtype=torch.bool)
    grad = torch.randn(1, 256, 1024)

    def run_ours() -> None:
        ours.zero_grad(set_to_none=True)
        ours(states, mask).mixed.backward(grad)

    def run_textbook() -> None:
        textbook.zero_grad(set_to_none=True)
        textbook(states, mask).backward(grad)

    few = torch.ones(1, 8, dtype=torch.bool)
    ours([x[:, :8] for x in states], few).mixed.sum().backward()  # what libraries set up once is not measured
    textbook([x[:, :8] for x in states], few).sum().backward()
    memory = peak_megabytes(run_ours), peak_megabytes(run_textbook)
    seconds = alternate({"ours": run_ours, "textbook": run_textbook}, rounds=3 if short else 9)
    return [
        row("transformer_softmax, time: textbook / ours", seconds["ours"], seconds["textbook"], "s", at_least=25),
        row("transformer_softmax, peak memory: textbook / ours", [memory[0]], [memory[1]], "MB", at_least=10),
    ]


Losses = Callable[[list[PreparedExample]], Iterable[Tensor]]
"""From a batch to the losses whose sum is its loss: one, or one for each part that runs on its own."""


class Trainer:
    """Optimizer steps over batches, with AdamW and clipping as in training."""

    def __init__(self, weights: Iterable[nn.Parameter], losses_of: Losses):
        self.weights = list(weights)
        self.losses_of = losses_of
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-4, weight_decay=0.0)
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


def our_trainer(model: FusedLM, max_tokens: int = CPU_TOKENS) -> Trainer:
    """Ours: a batch in parts within the token budget."""

    def losses_of(examples: list[PreparedExample]) -> Iterable[Tensor]:
        batch = collate(examples, model.encoder.pad_token_id, answers=True)
        labels = F.pad(batch.answer_ids, (1, 0), value=IGNORED)
        inputs = {"encoder_ids": batch.encoder_ids, "encoder_mask": batch.encoder_mask, "text_ids": batch.text_ids}
        count = (labels != IGNORED).sum()
        for part in split_rows({**inputs, "labels": labels}, max_tokens):
            yield model(**part, num_items_in_batch=count)["loss"]

    return Trainer(model.fusion.parameters(), losses_of)


def textbook_trainer(textbook: TextbookModel) -> Trainer:
    """The opponent's: a batch at once."""
    return Trainer(textbook.parameters(), lambda examples: [textbook.loss(examples)])


def random_batches(examples: list[PreparedExample], seed: int) -> list[list[PreparedExample]]:
    order = random.Random(seed).sample(range(len(examples)), len(examples))
    return [[examples[i] for i in order[start : start + BATCH]] for start in range(0, len(order), BATCH)]


def grouped_batches(examples: list[PreparedExample], epoch: int) -> list[list[PreparedExample]]:
    order = LengthGroupedOrder([len(e.encoder_ids) for e in examples], BATCH, 0)
    order.set_epoch(epoch)
    indices = list(order)
    return [[examples[i] for i in indices[start : start + BATCH]] for start in range(0, len(indices), BATCH)]


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


def expect_fast(model: FusedLM) -> None:
    """Stops where the fast paths were not taken."""
    if not model.branching or model.head_cache(model.prompt) is None:
        raise SystemExit("Expected label words to be read as a tree behind a cached head; found them read otherwise.")


def bare_forward(model: FusedLM, batches: Sequence[list[PreparedExample]]) -> Callable[[], None]:
    """The floor: one forward pass of the LM alone over span and tail, logits at the last position."""
    rows = []
    with model.answering():
        for examples in batches:
            sequences = model.assemble(collate(examples, model.encoder.pad_token_id))
            rows.append((sequences.embeddings.clone(), sequences.last()))

    def run() -> None:
        with torch.inference_mode():
            for embeddings, keep in rows:
                model.lm.run(embeddings, keep)

    return run


def our_batches(model: FusedLM, examples: list[PreparedExample]) -> list[list[PreparedExample]]:
    from glotfuse.batching import inference_batches

    lengths = [len(e.encoder_ids) for e in examples]
    return [[examples[i] for i in chosen] for chosen in inference_batches(lengths, 32, model.device)]


def classification(short: bool) -> list[Row]:
    """Seven label words: against generation and string match, and against the bare LM."""
    model = build(TOPICS).eval()
    examples = model.prepare([text for text, _ in english(32 if short else 48)])
    textbook = TextbookModel(model).eval()
    ours = {"ours": lambda: scoring.classify(model, examples, 32)}
    rounds = 2 if short else 3
    # a trained model ends its answer after the label; this one, not trained, is stopped there
    longest = max(map(len, model.label_ids)) + 1
    against_book = alternate({**ours, "textbook": lambda: textbook.classify(examples, max_tokens=longest)}, rounds)
    expect_fast(model)
    floor = bare_forward(model, our_batches(model, examples))
    against_bare = alternate({**ours, "bare": floor}, rounds)
    single = build(("film", "map", "health", "law", "science", "work", "travel")).eval()
    few = single.prepare([text for text, _ in english(32 if short else 48)])
    if any(len(ids) > 1 for ids in single.label_ids):
        raise SystemExit(f"Expected label words of one token; found {single.label_ids}.")
    with cached(single):
        scoring.classify(single, few, 32)
        known = alternate(
            {
                "ours": lambda: scoring.classify(single, few, 32),
                "bare": bare_forward(single, our_batches(single, few)),
            },
            rounds,
        )
    return [
        row(
            "classification, 7 labels: textbook / ours", against_book["ours"], against_book["textbook"], "s", at_least=3
        ),
        row(
            "classification: ours / bare LM, encoder included",
            against_bare["ours"],
            against_bare["bare"],
            "s",
            at_most=1.15,
        ),
        row(
            "classification: ours / bare LM, states cached, labels of one token",
            known["ours"],
            known["bare"],
            "s",
            at_most=1.15,
        ),
    ]


def whole_passes(model: FusedLM, examples: list[PreparedExample]) -> Tensor:
    """Scores (B,R) by a full pass of the whole prompt for every label word."""
    columns = []
    with model.answering():
        sequences = model.assemble(collate(examples, model.encoder.pad_token_id))
        for ids in model.label_ids:
            answer = torch.tensor(ids).expand(len(examples), -1)
            whole = model.with_head(sequences.append(model.lm.embed(answer), answer), model.prompt)
            targets = whole.next_targets()
            keep = targets != IGNORED
            logits = torch.log_softmax(model.lm.run(whole.embeddings, keep), -1)
            chosen = logits.gather(1, targets[keep].unsqueeze(1)).view(len(examples), len(ids))
            columns.append(chosen.sum(1))
    return torch.stack(columns, 1)


def long_labels() -> list[str]:
    """Fifty label words of four tokens and more."""
    areas = ("international", "regional", "municipal", "historical", "contemporary")
    topics = ("football championships", "parliamentary elections", "pharmaceutical research", "classical musicians")
    topics += ("mountain landscapes", "railway timetables", "agricultural subsidies", "satellite launches")
    topics += ("vegetarian cooking", "museum exhibitions")
    return [f"{area} {topic} news" for area in areas for topic in topics]


def many_labels(short: bool) -> list[Row]:
    """Fifty long label words: one tree against a full pass for each."""
    model = build(long_labels(), instruction="What is this text about?").eval()
    if min(map(len, model.label_ids)) < 4:
        raise SystemExit(f"Expected label words of four tokens or more; found {min(model.label_ids, key=len)}.")
    examples = model.prepare([text for text, _ in english(8)])
    with model.answering():
        scoring.score_labels(model, examples)
        expect_fast(model)
        gap = float((scoring.score_labels(model, examples) - whole_passes(model, examples)).abs().max())
    if gap > 1e-2:
        raise SystemExit(f"Expected the same scores both ways; found a difference of {gap:.1e}.")
    seconds = alternate(
        {"ours": lambda: scoring.classify(model, examples, 8), "each": lambda: whole_passes(model, examples)},
        rounds=1 if short else 2,
        warm_up=0,
    )
    name = "50 label words of 4+ tokens: a full pass for each / ours"
    return [row(name, seconds["ours"], seconds["each"], "s", at_least=20)]


def restart(short: bool) -> list[Row]:
    """A second training run on the same data, in a new process: seconds to the first step, and texts encoded."""
    script = Path(__file__).with_name("second_run.py")
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for number in (1, 2):
            done = subprocess.run(
                [sys.executable, str(script), folder, str(number)], capture_output=True, text=True, check=True
            )
            runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
    first, second = runs
    begin = second["to_first_step"]
    share = second["encoder"] / first["encoder"]
    start = "start to first step, run 1 and run 2; run 2"
    encoder = "seconds in the encoder, run 1 and run 2"
    return [
        Row(start, first["to_first_step"], begin, "s", begin, "", "<= 15", begin <= 15),
        Row(encoder, first["encoder"], second["encoder"], "s", share, "", "<= 0.05", share <= 0.05),
    ]


CASES: dict[str, Callable[[bool], list[Row]]] = {
    "mixer": mixer,
    "training": training,
    "step": step,
    "memory": memory,
    "classification": classification,
    "many_labels": many_labels,
    "growth": growth,
    "restart": restart,
}


def main(arguments: list[str]) -> None:
    found: list[dict[str, Any]] = [line.to_dict() for line in CASES[arguments[0]]("--short" in arguments)]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
