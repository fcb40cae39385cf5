"""Frozen backbones: load an encoder or an LM by hub id, local path or bundled name."""

from typing import TYPE_CHECKING

from glotfuse.lazy import lazy_exports

if TYPE_CHECKING:
    from glotfuse.backbones.encoder import Encoder
    from glotfuse.backbones.identity import BackboneIdentity
    from glotfuse.backbones.lm import LM
    from glotfuse.backbones.loading import BackboneOptions, load_encoder, load_lm
    from glotfuse.backbones.lora import add_adapter, merge_adapter
    from glotfuse.backbones.prefix_cache import PrefixCache
else:  # hidden from type checkers, which would take any name for granted
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "LM": "glotfuse.backbones.lm",
            "add_adapter": "glotfuse.backbones.lora",
            "merge_adapter": "glotfuse.backbones.lora",
            "BackboneIdentity": "glotfuse.backbones.identity",
            "BackboneOptions": "glotfuse.backbones.loading",
            "Encoder": "glotfuse.backbones.encoder",
            "PrefixCache": "glotfuse.backbones.prefix_cache",
            "load_encoder": "glotfuse.backbones.loading",
            "load_lm": "glotfuse.backbones.loading",
        },
    )

__all__ = [
    "LM",
    "BackboneIdentity",
    "BackboneOptions",
    "Encoder",
    "PrefixCache",
    "add_adapter",
    "load_encoder",
    "load_lm",
    "merge_adapter",
]
