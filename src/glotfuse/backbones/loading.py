"""Load and freeze backbones through the auto classes of transformers: no list of model names."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError

from glotfuse.backbones.attention import check_attention, refusal_of_attention
from glotfuse.backbones.blank import from_pretrained
from glotfuse.backbones.bundled import store as bundled
from glotfuse.backbones.bundled.catalogue import BUNDLED
from glotfuse.backbones.byte_fallback import restore_byte_fallback
from glotfuse.backbones.encoder import Encoder
from glotfuse.backbones.gguf_source import is_gguf, load_gguf, locate_gguf
from glotfuse.backbones.identity import BackboneIdentity, hash_file, hash_folder, hash_module, memory_of_hashes
from glotfuse.backbones.lm import LM
from glotfuse.backbones.placement import input_device, is_fixed
from glotfuse.backbones.pooling import Pooling
from glotfuse.backbones.pooling_files import read_pooling
from glotfuse.backbones.quantization import quantization_config
from glotfuse.backbones.tokenizer import load_tokenizer
from glotfuse.errors import BackboneError, ConfigError
from glotfuse.files import cache_dir

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
    device_map: str | Mapping[str, int | str] | None = None
    """Where accelerate puts its parts: `auto`, `{"": "cuda:1"}`, or a device per module; overrides `device`."""
    quantization: str = "none"
    """Of an LM's weights: `none` or a name in `QUANTIZATIONS`."""
    gguf_file: str | None = None
    """GGUF file in the folder or repository, for an LM."""


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
        raise ConfigError(
            f"Expected a device of this machine (auto, cpu, cuda, mps); found {device!r}: {_first_line(error)}"
        ) from None


def load_encoder(
    name: str,
    options: BackboneOptions | None = None,
    *,
    prefix: str = "",
    src_lang: str | None = None,
    byte_fallback: bool = True,
    pooling: str | Pooling | None = None,
) -> Encoder:
    """Loads an encoder-only model, the encoder half of an encoder-decoder model, or a decoder read as one, frozen.

    Args:
        name: Hub id, local folder, or `bundled:e5-small`.
        options: How to load it.
        prefix: Text put before every input.
        src_lang: Fixed source language for NLLB-like tokenizers; None takes each text's own.
        byte_fallback: Read characters that the vocabulary lacks as bytes, where it has them; see
            `glotfuse.backbones.byte_fallback`. Whether that changed the tokenizer is the encoder's `byte_fallback`.
        pooling: How its sentence embeddings are made: a name in `MODES` of `glotfuse.backbones.pooling`, or a pooling;
            None takes what sentence-transformers' files beside the model say, and the mean where there are none.

    Raises:
        BackboneError: It cannot be found or loaded, or its files describe an unknown pooling.
        ConfigError: An option is wrong.

    Example:
        >>> encoder = load_encoder("bundled:e5-small", prefix="query: ")  # doctest: +SKIP
    """
    from transformers import AutoModel

    options = options or BackboneOptions()
    named = Pooling.named(pooling) if isinstance(pooling, str) else pooling
    if options.quantization != "none" or is_gguf(name, options.gguf_file):
        raise ConfigError(
            f"Expected quantization and GGUF files for the LM alone; found them for the encoder {name!r}."
        )
    loaded = _load(name, options, AutoModel, "an encoder")
    _refuse_missing(loaded, [key for key in loaded.missing if "pooler" not in key])
    source = str(bundled.resolve(name)) if bundled.is_bundled(name) else name
    named = named or read_pooling(source, loaded.identity.revision or options.revision)
    encoder = Encoder(
        loaded.model,
        loaded.tokenizer,
        loaded.identity,
        prefix=prefix,
        src_lang=src_lang,
        byte_fallback=byte_fallback and restore_byte_fallback(loaded.tokenizer),
        pooling=named,
    )
    encoder.identity = replace(loaded.identity, hidden_size=encoder.hidden_size)
    return encoder


def load_lm(name: str, options: BackboneOptions | None = None) -> LM:
    """Loads a causal LM, frozen.

    Args:
        name: Hub id, local folder, GGUF file, or `bundled:smollm2-135m`.
        options: How to load it.

    Raises:
        BackboneError: It cannot be found or loaded, or is not a causal LM.
    """
    from transformers import AutoModelForCausalLM

    loaded = _load(name, options or BackboneOptions(), AutoModelForCausalLM, "a causal LM")
    lm = LM(loaded.model, loaded.tokenizer, loaded.identity)
    _refuse_missing(loaded, loaded.missing)
    return lm


class _Loaded(NamedTuple):
    model: Any
    tokenizer: Any
    identity: BackboneIdentity
    missing: list[str]
    """Weights of the model that its files do not have."""


def _refuse_missing(loaded: _Loaded, missing: list[str]) -> None:
    """Refuses a model whose missing weights transformers filled with random numbers."""
    if missing:
        raise BackboneError(
            f"Expected all weights of {loaded.identity.architecture} in {loaded.identity.name!r}; found "
            f"{len(missing)} missing, such as {missing[0]}. Its files belong to another kind of model or are "
            "not whole: choose another model, or fetch it again."
        )


def _load(name: str, options: BackboneOptions, auto_class: Any, kind: str) -> _Loaded:
    from transformers import AutoConfig

    if is_gguf(name, options.gguf_file):
        return _load_gguf(name, options, auto_class, kind)
    source = str(bundled.resolve(name)) if bundled.is_bundled(name) else name
    device = resolve_device(options.device)
    hub: dict[str, Any] = {"revision": options.revision, "trust_remote_code": options.trust_remote_code}
    model_options = _model_options(options, device)
    target = device if options.device_map is None else None
    check_attention(kind, name, options.attn_implementation, model_options["dtype"], target)
    try:
        config = AutoConfig.from_pretrained(source, **hub)
        snapshot = None if Path(source).is_dir() else _snapshot(source, options.revision)
        if snapshot is not None:
            hub["revision"] = snapshot.name  # weights and tokenizer of the same commit
        is_encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
        if is_encoder_decoder and kind == "a causal LM":
            raise BackboneError(
                f"Expected a causal LM; found the encoder-decoder model {type(config).__name__} in {name!r}. "
                "Use it as the encoder, and a decoder-only model as the LM."
            )
        if getattr(config, "quantization_config", None) is not None:  # its weights are quantised on the disk
            model_options.setdefault("device_map", {"": str(device)})
        own_class = _encoder_class(config) if kind == "an encoder" else None
        with _bars_on_terminals_only():
            model, found = from_pretrained(own_class or auto_class, source, **model_options, **hub)
        tokenizer = load_tokenizer(source, snapshot or Path(source), config, **hub)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        if isinstance(error, BackboneError):
            raise
        refused = refusal_of_attention(kind, name, options.attn_implementation, error)
        raise (refused or _cannot_load(kind, name, source, error)) from error
    check_attention(kind, name, options.attn_implementation, model.dtype, target)
    missing = sorted(found["missing_keys"])
    if is_encoder_decoder and own_class is None:
        model = model.get_encoder()
        missing = [key for key in missing if not key.startswith("decoder.")]
    identity = BackboneIdentity(
        name=name,
        revision=snapshot.name if snapshot is not None else None,
        sha256=hash_folder(snapshot or Path(source), memory_of_hashes()) or hash_module(model),
        architecture=type(model).__name__,
        hidden_size=int(model.get_input_embeddings().weight.shape[-1]),
        quantization=options.quantization,
    )
    return _Loaded(_placed(model, options, device), tokenizer, identity, missing)


def _encoder_class(config: Any) -> Any:
    """The class of files that hold the encoder half of an encoder-decoder model alone; None for other files.

    The auto class would take such files for the whole model (`MT5EncoderModel` for `MT5Model`) and make up a decoder.
    """
    from transformers import AutoModel

    names = getattr(config, "architectures", None) or ()
    if not getattr(config, "is_encoder_decoder", False) and not any(n.endswith("EncoderModel") for n in names):
        return None
    whole = AutoModel._model_mapping.get(type(config), None)
    module = sys.modules.get(getattr(whole, "__module__", ""), None)
    halves = [name for name in names if name.endswith(("EncoderModel", "Encoder"))]
    return next((getattr(module, name) for name in halves if hasattr(module, name)), None)


def _load_gguf(name: str, options: BackboneOptions, auto_class: Any, kind: str) -> _Loaded:
    if options.quantization != "none":
        raise ConfigError(
            f"Expected no quantization for the GGUF file of {name!r}, whose weights are unpacked; found "
            f"{options.quantization!r}. Leave it out, or load the original model."
        )
    device = resolve_device(options.device)
    try:
        path, commit = locate_gguf(name, options.gguf_file, options.revision)
        with _bars_on_terminals_only():
            model, tokenizer, found = load_gguf(path, auto_class, _model_options(options, device))
    except (OSError, ValueError, ImportError, LookupError, RuntimeError, TypeError, struct.error) as error:
        if isinstance(error, BackboneError | ConfigError):
            raise
        raise _cannot_load(f"{kind} in a GGUF file", name, name, error) from error
    identity = BackboneIdentity(
        name=name,
        revision=commit,
        sha256=hash_file(path, memory_of_hashes()),
        architecture=type(model).__name__,
        hidden_size=int(model.get_input_embeddings().weight.shape[-1]),
        gguf_file=options.gguf_file,
    )
    return _Loaded(_placed(model, options, device), tokenizer, identity, sorted(found["missing_keys"]))


def _model_options(options: BackboneOptions, device: torch.device) -> dict[str, Any]:
    """What transformers is told: dtype, attention, devices, quantisation."""
    dtype = _dtype(options.dtype, device)
    found: dict[str, Any] = {"dtype": dtype, "output_loading_info": True}
    if options.attn_implementation:
        found["attn_implementation"] = options.attn_implementation
    if options.device_map is not None:
        spread = options.device_map
        found["device_map"] = spread if isinstance(spread, str) else dict(spread)
        if not isinstance(spread, str) and "disk" in spread.values():
            found["offload_folder"] = str(cache_dir() / "offload")
    quantization = quantization_config(options.quantization, dtype, device)
    if quantization is not None:
        found["quantization_config"] = quantization
        found.setdefault("device_map", {"": str(device)})
    return found


def _placed(model: Any, options: BackboneOptions, device: torch.device) -> Any:
    """Moved to its device, unless it was placed already; a map to one device is kept like any other."""
    if is_fixed(model):
        return model
    if options.device_map is None:
        return model.to(device)
    model.hf_device_map = {"": str(input_device(model))}
    return model


def _cannot_load(kind: str, name: str, source: str, error: Exception) -> BackboneError:
    where = "hub id (nothing by that name is on this disk)"
    if Path(source).exists():
        where = "folder" if Path(source).is_dir() else "file"
    known = ", ".join(bundled.PREFIX + each for each in BUNDLED)
    return BackboneError(
        f"Expected {kind} that transformers can load as a hub id, a local folder or one of {known}; found "
        f"{name!r}, a {where}. transformers says: {_first_line(error)}"
    )


def _dtype(name: str, device: torch.device) -> torch.dtype | str:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if name not in _DTYPES:
        raise ConfigError(f"Expected a dtype out of auto, {', '.join(_DTYPES)}; found {name!r}.")
    return _DTYPES[name]


def _snapshot(name: str, revision: str | None) -> Path | None:
    """Folder of a hub model in the hub's cache, named after its commit; None where the hub has no cache."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """Keeps the loading bars of transformers out of log files."""
    from transformers.utils import logging

    silence = not sys.stderr.isatty() and logging.is_progress_bar_enabled()
    if silence:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if silence:
            logging.enable_progress_bar()
