"""How much memory a training takes, by part: weights exactly, activations as an estimate.

What is remembered for the backward pass is counted from the architecture. No gradient reaches the LM's weights, so its
linear maps remember no inputs; remembered is what norms, attention and the feed-forward's products need, per token
and layer:

    4 H n           inputs of n RMS norms, in float32 (in the working dtype for LayerNorm)
    b (2 A + 2 K)   queries, what attention gives, keys and values
    b (3 F or F)    gate, its activation and the other factor; or the one activation's input

Shapes: H width, A all heads together, K keys (or values) of a position, F feed-forward width, b bytes of a number, T
encoder tokens, D encoder width, L encoder layers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from glotfuse.fusion import BoundaryOnly, Fusion
from glotfuse.recipes.config import Recipe
from glotfuse.runs.planned_models import BYTES, PlannedModel

LIBRARIES = {"cpu": int(0.5e9), "cuda": int(0.8e9)}
"""Python with torch and transformers, measured on a CPU; a context of CUDA with its kernels, a usual figure."""
_HELD_BACK = int(0.5e9)
"""Least that malloc is taken to hold back on a CPU, and otherwise as much as the largest pass: see docs/plan.md."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest row."""

    encoder: int
    """What the encoder reads."""
    text: int = 0
    """Plain text that the LM reads."""
    head: int = 1
    """The prompt before the span."""
    tail: int = 0
    """Between span and answer."""
    answer: int = 4
    """What the LM learns to say."""
    label_nodes: int = 1
    """Positions whose logits are read to score the label words; 0 for text without labels."""


@dataclass(frozen=True)
class Part:
    """One part of the memory."""

    name: str
    num_bytes: int
    note: str = ""


@dataclass(frozen=True)
class Memory:
    """What one process holds."""

    held: tuple[Part, ...]
    """All the time."""
    passes: tuple[Part, ...]
    """One at a time; the largest counts."""

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return sum(part.num_bytes for part in self.held) + max((part.num_bytes for part in self.passes), default=0)


def estimate(
    recipe: Recipe,
    encoder: PlannedModel,
    lm: PlannedModel | None,
    fusion: Fusion | BoundaryOnly | None,
    lengths: Lengths,
    *,
    device: str,
    batch_rows: int,
    processes: int = 1,
    learning_adapter: bool = False,
    num_adapter: int = 0,
) -> Memory:
    """The memory of one process while a stage trains and is measured.

    Args:
        recipe: The stage's.
        encoder: Its encoder.
        lm: Its LM; None without one.
        fusion: What is trained, on `meta`; None without.
        lengths: Of its rows.
        device: Kind of device.
        batch_rows: Rows of a batch for this process.
        processes: How many share the LM's layers where `lm.sharded` is set.
        learning_adapter: Whether the LM's adapter is trained.
        num_adapter: Its parameters.
    """
    dtype = encoder.dtype(recipe.encoder.dtype, device)
    held = [Part("encoder weights", encoder.weight_bytes(dtype), dtype)]
    limit = 512 if device == "cpu" else None  # as in inputs.order, of measuring and of training by default
    longest = replace(lengths, encoder=recipe.evaluation.max_length or lengths.encoder)  # of rows that are measured
    eval_rows = rows_within(recipe.evaluation.batch_size, longest, limit)
    reads = fusion is not None and fusion.reads_encoder
    if lm is None or fusion is None:
        passes = [Part("encoding", encoder_pass(encoder, BYTES[dtype], eval_rows, longest.encoder, layers=1))]
        return _with_libraries(held, passes, device)
    held += _lm_weights(recipe, lm, device, processes)
    trained = sum(weights.numel() for weights in fusion.parameters() if weights.requires_grad)
    trained += num_adapter if learning_adapter else 0
    copies = 5 if recipe.training.average else 4
    note = "float32: weights, gradients, AdamW's two moments" + (", average" if copies == 5 else "")
    held.append(Part("trained weights", trained * 4 * copies, note))
    if num_adapter and not learning_adapter:
        held.append(Part("adapter", num_adapter * 4))

    rows = rows_within(batch_rows, lengths, recipe.training.max_tokens or limit)
    learning = LMPass(recipe, lm, device, lengths, fusion, learning_adapter)
    passes = []
    if recipe.training.epochs:
        one = f"{rows} rows of {lengths.encoder} tokens" if reads else f"{rows} rows"
        if reads:
            states = encoder_pass(encoder, BYTES[dtype], rows, lengths.encoder, fusion=fusion)
            passes.append(Part("training: encoder pass", states, one))
        remembered = learning.training(rows) + (fusion_pass(fusion, encoder, rows, lengths.encoder) if reads else 0)
        passes.append(Part("training: fusion and LM, forward and backward", remembered, one))
    measured = LMPass(recipe, lm, device, longest, fusion, learning_adapter).measuring(eval_rows)
    if reads:
        states = encoder_pass(encoder, BYTES[dtype], eval_rows, longest.encoder, fusion=fusion, measuring=True)
        measured = max(measured, states)
    passes.append(Part("measuring", measured, f"{eval_rows} rows"))
    return _with_libraries(held, passes, device)


def rows_within(rows: int, lengths: Lengths, max_tokens: int | None) -> int:
    """Rows of one forward pass, as `inputs.order.groups_within` has it for rows that are all the longest."""
    if max_tokens is None:
        return rows
    return min(rows, max(1, max_tokens // max(1, lengths.encoder + lengths.text)))


def encoder_pass(
    encoder: PlannedModel,
    size: int,
    rows: int,
    length: int,
    *,
    fusion: Fusion | BoundaryOnly | None = None,
    layers: int = 0,
    measuring: bool = False,
) -> int:
    """Bytes at the end of a pass of the encoder, without gradient, until its layers are mixed.

    Args:
        encoder: The encoder.
        size: Bytes of a number.
        rows: Of the batch.
        length: T.
        fusion: What reads the states.
        layers: How many layers' states are held, where nothing mixes them.
        measuring: Whether layers may be added up as they come.
    """
    width, inner = encoder.hidden_size, widest(encoder)
    heads = int(getattr(encoder.config, "num_attention_heads", 1))
    per_token = size * (3 * inner + 4 * width + heads * length)  # the layer that is running
    if isinstance(fusion, Fusion):
        chosen = len(fusion.mixer.layers)
        if measuring and fusion.mixer.shared_weights() is not None:
            per_token += 8 * width  # a running sum
        else:
            copied = size != 4 or fusion.layer_norm != "none" or fusion.centring is not None
            states = size * width * (encoder.num_layers + 1) + (4 * width * chosen if copied else 0)
            per_token = max(per_token + size * width * encoder.num_layers, states)
    else:
        per_token += size * width * layers
    return rows * length * per_token


def fusion_pass(fusion: Fusion | BoundaryOnly, encoder: PlannedModel, rows: int, length: int) -> int:
    """Bytes that mixer and projector remember for the backward pass, in float32."""
    if not isinstance(fusion, Fusion):
        return 0
    linear = sum(m.in_features + m.out_features for m in fusion.modules() if isinstance(m, nn.Linear))
    states = len(fusion.mixer.layers) * encoder.hidden_size
    return rows * length * 4 * (states + linear + 4 * encoder.hidden_size)


def widest(model: PlannedModel) -> int:
    """F: width of the feed-forward network."""
    return max((max(shape) for shape in model.linear_layers()), default=4 * model.hidden_size)


def span_positions(fusion: Fusion | BoundaryOnly, length: int) -> int:
    """Span positions of a text of T tokens: projected ones, latents, boundary and summary."""
    if not isinstance(fusion, Fusion):
        return 0 if fusion.boundary is None else 1
    latents: Any = getattr(fusion.projector, "latents", None)
    if latents is not None:
        length = len(latents) + (0 if hasattr(fusion.projector, "norm_latents") else length)  # a perceiver's replace
    return length + 1 + int(fusion.summary)


class LMPass:
    """What passes of the LM need.

    Args:
        recipe: The stage's.
        lm: The LM.
        device: Kind of device.
        lengths: Of the rows.
        fusion: What makes the span.
        learning_adapter: Whether an adapter is trained.
    """

    def __init__(
        self,
        recipe: Recipe,
        lm: PlannedModel,
        device: str,
        lengths: Lengths,
        fusion: Fusion | BoundaryOnly,
        learning_adapter: bool,
    ):
        config = lm.config
        self._lm, self._lengths, self._adapted = lm, lengths, learning_adapter
        self._checkpointing = recipe.training.gradient_checkpointing
        mixed = recipe.training.precision != "float32"
        self._size = 2 if mixed else BYTES[lm.dtype(recipe.lm.dtype, device)]
        self._heads = int(getattr(config, "num_attention_heads", 1))
        head_width = int(getattr(config, "head_dim", None) or config.hidden_size // self._heads)
        self._attention = self._heads * head_width
        groups = getattr(config, "num_key_value_heads", None) or self._heads
        self._keys = int(groups) * head_width
        # a batch behind a cached head has a mask, under which GPUs get a copy of the keys for every query head
        whole = self._checkpointing or learning_adapter
        self._kept_keys = self._keys if device == "cpu" or whole else self._attention
        self._head = lengths.head if whole else 0
        positions = span_positions(fusion, lengths.encoder)
        self._length = self._head + positions + lengths.text + lengths.tail + lengths.answer
        self._context = lengths.head + self._length - self._head

    @property
    def per_layer(self) -> int:
        """Bytes per token that one layer remembers."""
        lm, size, config = self._lm, self._size, self._lm.config
        inner = widest(lm)
        gated = any("gate" in name or name.endswith("wi_1") for name, _ in lm.module.named_modules())
        factors = 3 if gated else 1
        if getattr(config, "activation_function", None) == "gelu_new":  # written out, step by step
            factors = 4
        norms = 0
        for part in lm.module.modules():
            kind, weight = type(part).__name__, getattr(part, "weight", None)
            if "Norm" in kind and weight is not None:
                width = weight.numel() if weight.numel() >= lm.hidden_size else (self._attention + self._keys) // 2
                norms += width * (size if "LayerNorm" in kind else 4)
        keys = 2 * size * self._kept_keys * self._context / self._length
        scores = 0 if getattr(config, "_attn_implementation", "sdpa") != "eager" else 8 * self._heads * self._context
        return int(norms / lm.num_layers + size * (2 * self._attention + factors * inner) + keys + scores)

    def training(self, rows: int) -> int:
        """Bytes of a forward and backward pass."""
        lm = self._lm
        layer = self.per_layer
        if self._adapted:  # an adapter's factors learn from their inputs, in float32
            layer += 4 * sum(wide for wide, _ in lm.linear_layers()) // lm.num_layers
        whole = lm.num_layers * layer
        if self._checkpointing:
            whole = lm.num_layers * self._size * lm.hidden_size + layer
        gradients = self._size * (2 * widest(lm) + 4 * lm.hidden_size)
        logits = self._lengths.answer * lm.config.vocab_size * (self._size + 12)  # float32: twice, and the gradient
        return int(rows * (self._length * (whole + gradients) + logits))

    def measuring(self, rows: int) -> int:
        """Bytes of a pass without gradient: keys and values, the running layer, logits."""
        lm, lengths = self._lm, self._lengths
        keys = 2 * lm.num_layers * self._size * self._keys * self._context
        nodes = lengths.label_nodes or lengths.answer
        logits = nodes * lm.config.vocab_size * (self._size + 8)
        return int(rows * (keys + self._context * self.per_layer + logits))


def _lm_weights(recipe: Recipe, lm: PlannedModel, device: str, processes: int) -> list[Part]:
    """The LM's weights, and the copies that mixed precision makes of them."""
    dtype, kind = lm.dtype(recipe.lm.dtype, device), recipe.lm.quantization
    size = lm.weight_bytes(dtype, kind)
    note = dtype if kind == "none" else f"{kind}, the rest {dtype}"
    if recipe.lm.sharded and processes > 1:
        size, note = size // processes + size // max(1, lm.num_layers), f"{note}, a share of {processes}"
    found = [Part("LM weights", size, note)]
    if recipe.training.precision != "float32" and dtype == "float32" and kind == "none" and recipe.training.epochs:
        output = lm.config.vocab_size * lm.hidden_size
        cast = 2 * (sum(a * b for a, b in lm.linear_layers()) + output)
        why = f"{recipe.training.precision}, until the backward pass: mixed precision of weights in float32"
        found.append(Part("LM weights, cast", cast, why))
    return found


def _with_libraries(held: Sequence[Part], passes: Sequence[Part], device: str) -> Memory:
    """All parts, with what is not the models'."""
    rest = [Part("libraries", LIBRARIES.get(device, LIBRARIES["cuda"]), "about")]
    if device == "cpu":
        largest = max((part.num_bytes for part in passes), default=0)
        rest.append(Part("held back by malloc", max(_HELD_BACK, largest), "up to about, from one pass to the next"))
    return Memory((*held, *rest), tuple(passes))
