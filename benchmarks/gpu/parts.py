"""What is measured of a pair on the device, in bfloat16: against the textbook procedure, and against the bare LM."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.gpu.checks import Check
from benchmarks.gpu.configs import Pair
from benchmarks.gpu.models import answered, backbones, fused, texts
from benchmarks.measure import PAGE, Row, alternate, peak_megabytes, row
from benchmarks.steps import Trainer, bare_step, grouped_batches, our_trainer, random_batches, textbook_trainer
from benchmarks.textbook import TextbookMixer, TextbookModel
from glotfuse.api import FusedLM
from glotfuse.fusion.mixers import TransformerSoftmax
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.model import classification, generation

WHOLE = 1 << 30
"""More tokens than any batch has: on a GPU a batch is not cut into parts."""
LOSS_GAP, GRADIENT_GAP = 0.01, 0.25
"""Relative differences of the first loss and of the projector's first gradient that bfloat16 may make between the
textbook and glotfuse. The loss alone would not tell: that of random weights hardly depends on the span."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    num_texts: int
    batch_size: int
    rounds: int
    new_tokens: int
    """Of generation."""
    mixer_tokens: int
    """Tokens of the batch that the mixer reads by itself."""


FULL = Sizes(num_texts=128, batch_size=32, rounds=5, new_tokens=32, mixer_tokens=1024)
SMALL = Sizes(num_texts=16, batch_size=8, rounds=2, new_tokens=4, mixer_tokens=32)


def mixer(name: str, num_layers: int, width: int, device: torch.device, sizes: Sizes) -> Iterator[Row]:
    """transformer_softmax alone, forward and backward, in bfloat16."""
    torch.manual_seed(0)
    ours = TransformerSoftmax(num_layers, width).to(device, torch.bfloat16)
    textbook = TextbookMixer(ours)
    shape = (8, sizes.mixer_tokens // 8, width)
    states = [torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(num_layers)]
    mask = torch.ones(shape[:2], dtype=torch.bool, device=device)
    grad = torch.randn(shape, device=device, dtype=torch.bfloat16)

    def run_ours() -> None:
        ours.zero_grad(set_to_none=True)
        ours(states, mask).mixed.backward(grad)

    def run_textbook() -> None:
        textbook.zero_grad(set_to_none=True)
        textbook(states, mask).backward(grad)

    seconds = alternate({"ours": run_ours, "textbook": run_textbook}, 3 * sizes.rounds, warm_up=2)
    title = f"transformer_softmax, L={num_layers}, D={width} ({name}), {sizes.mixer_tokens} tokens"
    yield row(f"{title}: textbook / ours", seconds["ours"], seconds["textbook"], "s", at_least=10)
    memory = [[_peak(run, device)] for run in (run_ours, run_textbook)]
    yield row(f"{title}, peak memory: textbook / ours", *memory, "MB")


class Bench:
    """A pair on the device with all that its parts share.

    Args:
        pair: The configurations.
        device: Where.
        sizes: How much is measured.
    """

    def __init__(self, pair: Pair, device: torch.device, sizes: Sizes):
        self.pair, self.device, self.sizes = pair, device, sizes

    @cached_property
    def model(self) -> FusedLM:
        """Ours, trained weights included in bfloat16."""
        encoder, lm = backbones(self.pair, self.device, torch.bfloat16)
        model = fused(encoder, lm, mixer="transformer_softmax", layer_norm="none")
        model.fusion.to(torch.bfloat16)
        gc.freeze()  # or collecting before every round would look at all that the libraries have made
        return model

    @cached_property
    def textbook(self) -> TextbookModel:
        """The opponent, which starts with the same weights."""
        return TextbookModel(self.model).eval()

    @cached_property
    def examples(self) -> list[PreparedExample]:
        """With their answers."""
        return answered(self.model, texts(self.sizes.num_texts))

    @cached_property
    def batch(self) -> list[PreparedExample]:
        """One training batch."""
        return grouped_batches(self.examples, 0, self.sizes.batch_size)[0]

    def training(self) -> Iterator[Row | Check]:
        """Epochs of training, each side with its own batches; and whether both do the same on one batch."""
        size = self.sizes.batch_size
        ours, book = our_trainer(self.model, WHOLE), textbook_trainer(self.textbook)
        yield from self.same_work(ours, book)
        sides = {
            "ours": lambda: ours.run(grouped_batches(self.examples, 0, size)),
            "textbook": lambda: book.run(random_batches(self.examples, 0, size)),
        }
        seconds = self._per(alternate(sides, self.sizes.rounds), len(self.examples))
        name = f"training in batches of {size}, per text: textbook / ours"
        yield row(name, seconds["ours"], seconds["textbook"], "s", at_least=4)

    def same_work(self, ours: Trainer, book: Trainer) -> Iterator[Check]:
        """Whether both sides have the same loss and gradient on a batch, before any step."""
        losses = []
        for trainer in (ours, book):
            loss = torch.stack(list(trainer.losses_of(self.batch))).sum()
            loss.backward()
            losses.append(loss.item())
        gap = abs(losses[0] - losses[1]) / abs(losses[1])
        yield Check(f"{self.pair.name}: first loss, ours against the textbook's", gap, LOSS_GAP)
        weights = self.model.mixing.projector.map.weight, self.textbook.projector.weight
        found, expected = (cast(Tensor, weight.grad).float() for weight in weights)
        gap = float((found - expected).norm() / expected.norm())
        yield Check(f"{self.pair.name}: first gradient, ours against the textbook's", gap, GRADIENT_GAP)
        for trainer in (ours, book):
            trainer.optimizer.zero_grad()

    def step(self) -> Iterator[Row]:
        """One training step against the bare LM on the same embeddings."""
        ours, bare = our_trainer(self.model, WHOLE), bare_step(self.model, self.batch)
        encode = self._encoder_pass(self.batch)
        rounds = 3 * self.sizes.rounds
        name = f"training step of {len(self.batch)} texts"
        with self.model.reading_states(cast(Any, _Held(encode()))):
            held = alternate({"ours": lambda: ours.run([self.batch]), "bare": bare}, rounds, warm_up=2)
        yield row(f"{name}, states at hand: ours / bare LM", held["ours"], held["bare"], "s", at_most=1.15)

        def floor() -> None:
            encode()
            bare()

        whole = alternate({"ours": lambda: ours.run([self.batch]), "floor": floor}, rounds, warm_up=2)
        yield row(f"{name}: ours / encoder and bare LM", whole["ours"], whole["floor"], "s", at_most=1.15)
        self.model.fusion.float()
        try:
            precise = our_trainer(self.model, WHOLE)
            whole = alternate({"ours": lambda: precise.run([self.batch]), "floor": floor}, rounds, warm_up=2)
        finally:
            self.model.fusion.to(torch.bfloat16)
        name = f"{name}, trained weights in float32, as recipes train: ours / encoder and bare LM"
        yield row(name, whole["ours"], whole["floor"], "s", at_most=1.15)

    def classification(self) -> Iterator[Row]:
        """Seven label words, of which three have several tokens: against generation and string match."""
        examples = self.model.prepare(texts(self.sizes.num_texts, seed=1))
        longest = max(map(len, self.model.label_ids)) + 1
        sides: dict[str, Callable[[], object]] = {
            "ours": lambda: classification.classify(self.model, examples, self.sizes.batch_size),
            "textbook": lambda: self.textbook.classify(examples, self.sizes.batch_size, longest),
        }
        seconds = self._per(alternate(sides, self.sizes.rounds), len(examples))
        yield row("classification, 7 labels, per text: textbook / ours", seconds["ours"], seconds["textbook"], "s")

    def generation(self) -> Iterator[Row]:
        """Free answers of the same length, greedily."""
        size, most = self.sizes.batch_size, self.sizes.new_tokens
        examples = self.model.prepare(texts(size, seed=2))
        sides: dict[str, Callable[[], object]] = {
            "ours": lambda: generation.generate(self.model, examples, self.model.prompt, most, size, {}),
            "textbook": lambda: self.textbook.generate(examples, size, most),
        }
        seconds = self._per(alternate(sides, self.sizes.rounds), len(examples))
        name = f"generation, {most} tokens, per text: textbook / ours"
        yield row(name, seconds["ours"], seconds["textbook"], "s")

    def memory(self) -> Iterator[Row]:
        """Peak memory above the loaded weights and the optimizer's state."""
        ours, book = our_trainer(self.model, WHOLE), textbook_trainer(self.textbook)
        for trainer in (ours, book):  # so that the optimizers' own memory is there before
            trainer.run([self.batch[:2]])
        training = [[_peak(lambda t=t: t.run([self.batch]), self.device)] for t in (ours, book)]
        name = f"training step of {len(self.batch)} texts, peak memory: textbook / ours"
        yield row(name, *training, "MB")
        examples = self.model.prepare(texts(self.sizes.batch_size, seed=1))
        longest = max(map(len, self.model.label_ids)) + 1
        labelling = [
            lambda: classification.classify(self.model, examples, self.sizes.batch_size),
            lambda: self.textbook.classify(examples, self.sizes.batch_size, longest),
        ]
        peaks = [[_peak(run, self.device)] for run in labelling]
        yield row(f"classification of {len(examples)} texts, peak memory: textbook / ours", *peaks, "MB")

    def _encoder_pass(self, examples: list[PreparedExample]) -> Callable[[], list[Tensor]]:
        batch = collate(examples, self.model.encoder.pad_token_id)
        return lambda: self.model.hidden_states(batch.encoder_ids, batch.encoder_mask)

    def _per(self, seconds: dict[str, list[float]], count: int) -> dict[str, list[float]]:
        return {side: [second / count for second in found] for side, found in seconds.items()}


def _peak(run: Callable[[], object], device: torch.device) -> float:
    """In MB, and never nothing: ratios are taken."""
    return max(peak_megabytes(run, device.type), PAGE / 1e6)


PARTS: dict[str, Callable[[Bench], Iterator[Row | Check]]] = {
    "training": Bench.training,
    "step": Bench.step,
    "classification": Bench.classification,
    "generation": Bench.generation,
    "memory": Bench.memory,
}


class _Held:
    """Encoder states of one batch, in place of the cache that has those of all."""

    def __init__(self, states: list[Tensor]):
        self.states = states

    def __call__(self, encoder_ids: Tensor, _: Tensor) -> list[Tensor]:
        assert encoder_ids.shape == self.states[0].shape[:2], "the states are those of another batch"
        return self.states
