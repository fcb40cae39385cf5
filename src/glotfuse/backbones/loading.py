"""Load and freeze backbones through the auto classes of transformers: no list of model names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glotfuse.backbones import bundled
from glotfuse.backbones.encoder import Encoder
from glotfuse.backbones.identity import BackboneIdentity, hash_folder, hash_module
from glotfuse.backbones.lm import LM
from glotfuse.errors import BackboneError, ConfigError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class BackboneOptions:
    """How a backbone is loaded."""

    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: str = "auto"
    """`float32`, `bfloat16`, `float16`, or `auto`: float32 on a CPU, the checkpoint's own dtype elsewhere."""
    device: str = "auto"
    """A torch device, or `auto`: cuda, then mps, then cpu."""
    attn_implementation: str | None = None
    """`eager`, `sdpa`, `flash_attention_2` and so on; None lets transformers choose."""
    trust_remote_code: bool = False
    """Whether code from the hub may run."""


def resolve_device(device: str) -> torch.device:
    """Turns `auto` into the best device there is.

    Raises:
        ConfigError: The name is not a device of this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"Expected a device of this machine (auto, cpu, cuda, mps); found {device!r}: {error}") from None


def load_encoder(
    name: str,
    options: BackboneOptions | None = None,
    *,
    prefix: str = "",
    src_lang: str | None = None,
) -> Encoder:
    """Loads an encoder-only model, or the encoder half of an encoder-decoder model, frozen.

    Args:
        name: Hub id, local folder, or `bundled:e5-small`.
        options: How to load it.
        prefix: Text put before every input.
        src_lang: Fixed source language for NLLB-like tokenizers; None takes each text's own.

    Raises:
        BackboneError: It cannot be found or loaded.
    """
    from transformers import AutoModel

    model, tokenizer, identity = _load(name, options or BackboneOptions(), AutoModel, "an encoder")
    return Encoder(model, tokenizer, identity, prefix=prefix, src_lang=src_lang)


def load_lm(name: str, options: BackboneOptions | None = None) -> LM:
    """Loads a causal LM, frozen.

    Args:
        name: Hub id, local folder, or `bundled:smollm2-135m`.
        options: How to load it.

    Raises:
        BackboneError: It cannot be found or loaded, or is not a causal LM.
    """
    from transformers import AutoModelForCausalLM

    model, tokenizer, identity = _load(name, options or BackboneOptions(), AutoModelForCausalLM, "a causal LM")
    return LM(model, tokenizer, identity)


def _load(name: str, options: BackboneOptions, auto_class: Any, kind: str) -> tuple[Any, Any, BackboneIdentity]:
    from transformers import AutoConfig, AutoTokenizer

    source = str(bundled.resolve(name)) if bundled.is_bundled(name) else name
    device = resolve_device(options.device)
    hub: dict[str, Any] = {"revision": options.revision, "trust_remote_code": options.trust_remote_code}
    if options.attn_implementation:
        model_options = {"attn_implementation": options.attn_implementation}
    else:
        model_options = {}
    try:
        config = AutoConfig.from_pretrained(source, **hub)
        if auto_class.__name__ == "AutoModelForCausalLM" and getattr(config, "is_encoder_decoder", False):
            raise BackboneError(
                f"Expected a causal LM; found the encoder-decoder model {type(config).__name__} in {name!r}. "
                "Use it as the encoder, and a decoder-only model as the LM."
            )
        model = auto_class.from_pretrained(source, dtype=_dtype(options.dtype, device), **model_options, **hub)
        tokenizer = AutoTokenizer.from_pretrained(source, **hub)
    except BackboneError:
        raise
    except (OSError, ValueError, ImportError, KeyError) as error:
        where = "folder" if Path(source).exists() else "hub id (nothing by that name is on this disk)"
        raise BackboneError(
            f"Expected {kind} that transformers can load as a hub id, a local folder or one of "
            f"{', '.join('bundled:' + n for n in bundled.BUNDLED)}; found {name!r}, a {where}. "
            f"transformers says: {_first_line(error)}"
        ) from error
    revision = getattr(model.config, "_commit_hash", None)
    if auto_class.__name__ == "AutoModel" and model.config.is_encoder_decoder:
        model = model.get_encoder()
    identity = BackboneIdentity(
        name=name,
        revision=revision,
        sha256=_weights_hash(source, revision, model),
        architecture=type(model).__name__,
        hidden_size=int(model.get_input_embeddings().weight.shape[-1]),
    )
    return model.to(device), tokenizer, identity


def _dtype(name: str, device: torch.device) -> torch.dtype | str:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if name not in _DTYPES:
        raise ConfigError(f"Expected a dtype out of auto, {', '.join(_DTYPES)}; found {name!r}.")
    return _DTYPES[name]


def _weights_hash(source: str, revision: str | None, model: Any) -> str:
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(source, revision=revision, local_files_only=True))
    return hash_folder(folder, bundled.cache_dir() / "weight-hashes.json") or hash_module(model)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
