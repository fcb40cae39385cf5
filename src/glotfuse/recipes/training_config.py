"""The recipe's sections on training: optimisation, changed views of the texts, what is trained beside the fusion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]


def _ascending(bounds: tuple[int, int]) -> tuple[int, int]:
    if bounds[0] > bounds[1]:
        raise ValueError("The lower bound should come first")
    return bounds


@dataclass(frozen=True, config=STRICT)
class TrainingConfig:
    """Optimisation: AdamW, linear warm-up, cosine decay."""

    epochs: Annotated[float, Field(ge=0)] = 3.0
    """Passes over the training data; 0 trains nothing, to measure what stands before training."""
    batch_size: Positive = 16
    """Examples per batch, of all processes together: where `torchrun` or `accelerate launch` starts several, they share
    each batch evenly, so that a recipe means the same on any number of them."""
    max_tokens: Positive | None = None
    """Most tokens per forward pass, of encoder, plain text, answer and a row's own prompt head, padding included: a
    batch beyond it runs in parts, with the same gradient and less memory. Null is 512 on a CPU, where it is faster too,
    and no limit elsewhere."""
    accumulation: Positive = 1
    """Batches per optimizer step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak of the schedule."""
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    """AdamW's decay rates."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's decoupled weight decay."""
    warmup_ratio: Probability = 0.05
    """Share of the steps with rising learning rate."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradient clipping by global norm."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Mixed precision of the forward pass; trained weights stay in float32."""
    gradient_checkpointing: bool = False
    """Compute the LM's layers again in the backward pass: less memory for long inputs, about a third more time, and the
    prompt head is read in every batch."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of weights, data order and dropout."""
    evaluations: Positive = 6
    """Development evaluations, evenly spread over the run; each may become the checkpoint."""
    select_by: Literal["accuracy", "loss", "last"] = "loss"
    """Development figure that chooses the checkpoint: highest label accuracy, or lowest loss. `last` keeps the weights
    of the last step, and development figures are in the log alone."""
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = Field(default_factory=list)
    """Trackers that get the figures too; they are always in `log.jsonl` of the run's folder."""
    cut: Annotated[tuple[Positive, Positive], AfterValidator(_ascending)] = (32, 128)
    """Unlabelled text: least and most LM tokens of the first part, which the encoder reads; the cut is random."""
    max_answer_tokens: Positive = 128
    """Unlabelled text: most tokens of the continuation that the LM learns."""
    average: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the steps, the last ones, whose weights are averaged; kept where development data find it better."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare batches beside the training's own, for GPUs."""


@dataclass(frozen=True, config=STRICT)
class AugmentationConfig:
    """Changed views of the training texts, of which the encoder alone reads the changed words."""

    code_switching: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of each epoch's texts that have words of other languages, from the encoder's own vocabulary, in them."""
    switched_words: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Greatest share of such a text's words that are replaced, if they can be; each text draws its own, from 0 on."""
    whole_views: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of such texts in which every word is replaced that can be."""
    reordered: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of such texts whose words stand in another order too, most articles and a few other words left out."""
    split_tokens: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Greatest share of such a text's tokens that are read as two smaller ones; each text draws its own."""


@dataclass(frozen=True, config=STRICT)
class ProbeConfig:
    """A classifier of the encoder's sentence embeddings that has a say in the label beside the LM."""

    kind: Literal["none", "kernel"] = "none"
    """`kernel`: Gaussian kernel on the mean-pooled last layer. How much it counts is chosen on English development
    rows; without any it counts as much as the LM. `none` leaves the label to the LM. Only for tasks with labels."""
    views: Annotated[int, Field(ge=0)] = 2
    """Code-switched views of each training row that it may learn from, where `augmentation.code_switching` is on;
    English development rows choose whether it does."""


@dataclass(frozen=True, config=STRICT)
class AdapterConfig:
    """A LoRA adapter that fits the LM itself to the English task; off by default. Needs `glotfuse[lora]`."""

    kind: Literal["none", "lora"] = "none"
    """`none` leaves the LM as it is; `lora` trains low-rank factors beside its weights, which stay as they are."""
    when: Literal["together", "before"] = "together"
    """`together`: in one optimisation with the fusion. `before`: the LM learns the task from the plain English text
    first, with the other settings of `training`, and is then fixed while the fusion is trained."""
    rank: Positive = 8
    """Width of the two factors."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """Their product is scaled by alpha / rank."""
    dropout: Probability = 0.0
    """Share of the adapter's input elements zeroed in training."""
    target_modules: list[str] | None = None
    """Names of the adapted layers, such as `q_proj`; null takes all linear layers but the output layer."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """Peak of the schedule for the adapter."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training data with `before`; null takes `training.epochs`."""
