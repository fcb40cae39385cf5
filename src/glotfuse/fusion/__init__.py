"""Fusion: all that is trained. Mixer, projector and boundary; pure torch."""

from glotfuse.fusion.boundary_only import BoundaryOnly
from glotfuse.fusion.contextual import ContextualProjector
from glotfuse.fusion.mixers import MIXERS, Mixer, MixerOutput, register_mixer
from glotfuse.fusion.module import Fusion, Span
from glotfuse.fusion.projectors import PROJECTORS, register_projector

__all__ = [
    "MIXERS",
    "PROJECTORS",
    "BoundaryOnly",
    "ContextualProjector",
    "Fusion",
    "Mixer",
    "MixerOutput",
    "Span",
    "register_mixer",
    "register_projector",
]
