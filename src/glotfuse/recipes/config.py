"""The recipe's sections as frozen dataclasses, with a docstring and unit per field.

All faults are reported at once. Configs stay here: the classes that do the work take plain values.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from glotfuse.recipes.training_config import (
    STRICT,
    AdapterConfig,
    AugmentationConfig,
    Positive,
    Probability,
    ProbeConfig,
    TrainingConfig,
)

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DeviceMap = str | dict[str, int | str]


def _text_keys(values: Any) -> Any:
    """YAML reads the key of `0: negative` as a number; the data have it as text."""
    if not isinstance(values, dict):
        return values
    return {str(key) if type(key) is int else key: value for key, value in values.items()}


@dataclass(frozen=True, config=STRICT)
class EncoderConfig:
    """The frozen encoder."""

    name: str = "bundled:e5-small"
    """Hub id, local folder, or bundled name."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: Dtype = "auto"
    """`auto` is float32 on a CPU and the checkpoint's own dtype elsewhere."""
    attn_implementation: str | None = None
    """`eager`, `sdpa`, `flash_attention_2`, ...; null lets transformers choose."""
    device_map: DeviceMap | None = None
    """Where its parts go: `auto`, `{"": "cuda:1"}`, or a device per module; null puts all on the recipe's `device`."""
    prefix: str = ""
    """Text put before every input, such as `query: ` for e5 models."""
    src_lang: str | None = None
    """Fixed source language for NLLB-like tokenizers; null takes each text's own language."""
    byte_fallback: bool = True
    """Read characters that the vocabulary lacks as their bytes, where it has a piece for each byte (mT5) and its
    tokenizer was built without that; false leaves them the unknown token. Other encoders stay as they are."""
    pooling: Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] | None = None
    """How probe, code-switched views and the method `embedding` make sentence embeddings of its last layer; null takes
    what sentence-transformers' files beside the model say (linear maps included), and `mean` where there are none."""
    max_length: Positive = 256
    """Most encoder tokens per input, special tokens included; longer texts are cut and counted."""
    cache_gb: Annotated[float, Field(ge=0)] | None = None
    """Most gigabytes on disk for the hidden states of training and development texts, in half precision, for this
    encoder and the layers that the mixer reads. A data set that needs more, or more than half of what is free, is
    encoded anew every epoch, and so is text in code-switched views. 0 keeps none; null is 20 on a CPU and 0 elsewhere,
    where encoding is fast."""


@dataclass(frozen=True, config=STRICT)
class LMConfig:
    """The frozen causal LM."""

    name: str = "bundled:smollm2-135m"
    """Hub id, local folder, GGUF file, or bundled name."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    gguf_file: str | None = None
    """GGUF file in that folder or repository; its weights are unpacked."""
    dtype: Dtype = "auto"
    """`auto` is float32 on a CPU and the checkpoint's own dtype elsewhere."""
    quantization: Literal["none", "bitsandbytes-8bit", "bitsandbytes-4bit", "torchao-int8", "torchao-int4"] = "none"
    """Of the weights, while they are loaded; all but `none` need `pip install 'glotfuse[quantized]'`."""
    attn_implementation: str | None = None
    """`eager`, `sdpa`, `flash_attention_2`, ...; null lets transformers choose."""
    device_map: DeviceMap | None = None
    """Where its parts go: `auto`, `{"": "cuda:1"}`, or a device per module; null puts all on the recipe's `device`."""
    sharded: bool = False
    """Where several processes train, each keeps a share of the LM's layers and fetches the others as they run (FSDP2):
    more room on each device, more traffic between them. Only with training.precision float32; lm.dtype is free."""


@dataclass(frozen=True, config=STRICT)
class FusionConfig:
    """Mixer, projector and boundary: all that is trained."""

    mixer: str = "transformer_softmax"
    """`last`, `mean`, `global_softmax`, `transformer_softmax`, or a registered name."""
    mixer_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the mixer, such as `num_heads`, `feedforward_size`, `dropout`, `temperature`."""
    projector: str = "linear"
    """`linear`, `mlp`, `perceiver`, or a registered name."""
    projector_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the projector, such as `num_latents`."""
    layer_norm: Literal["none", "rms", "layer"] = "none"
    """Normalisation of each layer's states before mixing; T5-like encoders need it."""
    centre: bool = False
    """Take each layer's mean state over the training text away before mixing, and bring the rest to one scale."""
    match_scale: bool = True
    """Bring every projected vector to the root mean square of the LM's token embeddings."""
    summary: bool = True
    """Put the mean of all span vectors first, which is read more surely in distant languages than single tokens."""
    state_dropout: Probability = 0.0
    """Share of the mixed states' elements zeroed in training."""
    token_dropout: Probability = 0.0
    """Share of the span's positions left out in training; the summary and the boundary stay."""
    state_noise: Annotated[float, Field(ge=0)] = 0.0
    """Gaussian noise on the mixed states in training, its deviation relative to each state's root mean square."""
    layers: list[int] | None = None
    """Encoder layers that are mixed, from 0, or from -1 backwards; null takes those that the mixer reads."""
    boundary: Literal["zeros", "normal", "none"] = "zeros"
    """Start of the learned vector that ends the span; `none` leaves it out, only without a span."""
    warm_start: Literal["none", "align"] = "align"
    """`align` sets the linear projector by regression from encoder states to the LM's embeddings of the same English
    text, before training; `none` starts at random (the paper)."""
    warm_start_texts: Positive = 2000
    """At most so many training texts for the warm start."""


@dataclass(frozen=True, config=STRICT)
class PromptConfig:
    """How the span reaches the LM."""

    style: Literal["chat", "plain"] = "chat"
    """`chat`: the LM's own template around instruction and span; `plain`: BOS, span, boundary (the paper)."""
    instruction: str | None = None
    """English text before the span, may contain `{labels}`; null takes the task's own in `chat`, none in `plain`."""
    include_span: bool = True
    """Give the LM the encoder's span. Without it the LM reads the plain text itself, after the learned boundary or
    nothing: a baseline that the encoder has no part in."""
    include_text: bool = False
    """Also give the LM the plain text after the span; it then learns to rely on the span less."""
    max_text_tokens: Positive = 256
    """Most LM tokens of that plain text."""
    tail: str = ""
    """Constant text between span and answer in the `plain` style."""
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] = 0
    """So many tokens in a row come once in a free answer, against loops of small LMs; 0 lets them come again."""


@dataclass(frozen=True, config=STRICT)
class TaskConfig:
    """What is learned and measured, and where its data is."""

    name: str = "quickstart"
    """A named task, or `files` for your own."""
    path: str | None = None
    """Folder or file with the data, or the folder of a named task's downloaded hub repositories (docs/tasks); null
    takes the task's own source (package or hub)."""
    text_columns: list[str] | None = None
    """Columns with text; null takes the task's own."""
    label_column: str | None = None
    """Column with the label; null takes the task's own. With `files` and no label column, text is unlabelled."""
    label_words: Annotated[dict[str, str], BeforeValidator(_text_keys)] | None = None
    """Raw label to the word that the LM says; null takes the task's own."""
    template: str | None = None
    """What the encoder reads, with `{column}` fields; null takes the task's own."""
    instruction: str | None = None
    """English instruction of the task; null takes the task's own."""
    train_language: str | None = None
    """Language of the training and development data; null takes the task's own."""
    language_column: str | None = None
    """Column that names each row's language, for files with several languages."""
    on_invalid_row: Literal["error", "skip"] = "error"
    """What a malformed row does: stop with an error, or be left out and counted."""
    max_train_examples: Positive | None = None
    """At most so many training examples, balanced over the labels; null takes all."""
    max_dev_examples: Positive | None = None
    """At most so many development examples, balanced over the labels; null takes all."""


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """The final measurement."""

    split: Literal["test", "dev"] = "test"
    """Split to measure on."""
    languages: list[str] | None = None
    """Languages to measure; null takes all that the task has."""
    batch_size: Positive = 32
    """Examples per forward pass."""
    max_length: Positive | None = None
    """Most encoder tokens per input once the model is trained, in the measurement and for whoever uses the checkpoint;
    null keeps `encoder.max_length`."""
    max_examples: Positive | None = None
    """At most so many examples per language, balanced over the labels; null takes all."""


Objective = Literal["continuation", "reconstruction", "instructions", "distillation"]
"""What is learned from text without labels; see `glotfuse.training.objectives`."""


@dataclass(frozen=True, config=STRICT)
class GeneralConfig:
    """A first stage on English text without labels, whose fusion weights the task's training starts from."""

    objective: Literal["none"] | Objective = "none"
    """As in `glotfuse.training.objectives`; `none` leaves the stage out."""
    from_run: str | None = None
    """Run, checkpoint or fusion of the package (`bundled:...`) whose weights (those of its general stage, where it has
    one) are taken in place of training the stage."""
    task: TaskConfig | None = None
    """Where the text is, null for the run's own task; labels are not read. Without development data a tenth of the
    rows, at most 200, is held out."""
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    """How the span reaches the LM in this stage; a null instruction takes the objective's own."""
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    """Its optimisation; `cut` and `max_answer_tokens` say how long the texts are."""
    state_dropout: Probability | None = None
    """`fusion.state_dropout` in this stage, against mere copying; null takes the fusion's."""
    token_dropout: Probability | None = None
    """Against mere copying: `fusion.token_dropout` in this stage; null takes the fusion's."""
    state_noise: Annotated[float, Field(ge=0)] | None = None
    """Against mere copying: `fusion.state_noise` in this stage; null takes the fusion's."""


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """One run."""

    method: Literal["fusion", "embedding"] = "fusion"
    """`fusion`; or `embedding`, sentence embeddings of the encoder with logistic regression, a baseline without an LM
    that reads `encoder`, `task` and `evaluation` alone."""
    objective: Objective | None = None
    """What is learned from the task's text, whose labels are then not read; null learns the labels, or the continuation
    of text that has none."""
    encoder: EncoderConfig = Field(default_factory=EncoderConfig)
    lm: LMConfig = Field(default_factory=LMConfig)
    fusion: FusionConfig = Field(default_factory=FusionConfig)
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    task: TaskConfig = Field(default_factory=TaskConfig)
    general: GeneralConfig = Field(default_factory=GeneralConfig)
    adapter: AdapterConfig = Field(default_factory=AdapterConfig)
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig)
    probe: ProbeConfig = Field(default_factory=ProbeConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    device: str = "auto"
    """`auto` (cuda, then mps, then cpu) or a torch device."""

    @property
    def wants_views(self) -> bool:
        """Whether code-switched views are read."""
        return self.augmentation.code_switching > 0 and self.prompt.include_span
