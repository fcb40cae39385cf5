"""A recipe's encoder and LM, loaded."""

from __future__ import annotations

from dataclasses import replace

import torch

from glotfuse import distributed
from glotfuse.backbones import LM, BackboneOptions, Encoder, load_encoder, load_lm
from glotfuse.backbones.loading import resolve_device
from glotfuse.errors import ConfigError
from glotfuse.progress import console
from glotfuse.recipes.config import EncoderConfig, LMConfig, Recipe


def load_backbones(recipe: Recipe) -> tuple[Encoder, LM]:
    """Loads the recipe's encoder and LM."""
    start_processes(recipe)
    console.print(f"Loading {recipe.encoder.name} and {recipe.lm.name}", style="dim", highlight=False)
    encoder, lm = load_run_encoder(recipe), load_lm(recipe.lm.name, backbone_options(recipe.lm, recipe.device))
    if recipe.lm.sharded and distributed.world_size() > 1:
        lm.shard()
    return encoder, lm


def load_run_encoder(recipe: Recipe) -> Encoder:
    """Loads the recipe's encoder alone."""
    return load_encoder(
        recipe.encoder.name,
        backbone_options(recipe.encoder, recipe.device),
        prefix=recipe.encoder.prefix,
        src_lang=recipe.encoder.src_lang,
        byte_fallback=recipe.encoder.byte_fallback,
        pooling=recipe.encoder.pooling,
    )


def start_processes(recipe: Recipe) -> None:
    """Joins the processes that a launcher started, if any, before a recipe's models are loaded.

    On a CUDA device float32 matrix products run in TF32 from then on, several times faster; NVIDIA_TF32_OVERRIDE=0 in
    the environment keeps them exact.

    Raises:
        ConfigError: The recipe's device is not for several processes.
    """
    if distributed.launched() and recipe.device not in ("auto", "cuda", "cpu"):
        raise ConfigError(
            f"Expected a device of auto, cuda or cpu where several processes run, each on a device of its own; found "
            f"{recipe.device!r}."
        )
    device = resolve_device(recipe.device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    distributed.start(cpu=device.type == "cpu")


def backbone_options(config: EncoderConfig | LMConfig, device: str) -> BackboneOptions:
    """How a recipe wants a backbone loaded."""
    options = BackboneOptions(
        config.revision, config.dtype, device, config.attn_implementation, device_map=config.device_map
    )
    if isinstance(config, LMConfig):
        return replace(options, quantization=config.quantization, gguf_file=config.gguf_file)
    return options
