"""Frozen backbones: load an encoder or an LM by hub id, local folder or bundled name."""

from glotfuse.backbones.encoder import Encoder
from glotfuse.backbones.identity import BackboneIdentity
from glotfuse.backbones.lm import LM
from glotfuse.backbones.loading import BackboneOptions, load_encoder, load_lm
from glotfuse.backbones.prefix_cache import PrefixCache

__all__ = [
    "LM",
    "BackboneIdentity",
    "BackboneOptions",
    "Encoder",
    "PrefixCache",
    "load_encoder",
    "load_lm",
]
