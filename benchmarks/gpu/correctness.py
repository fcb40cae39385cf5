"""The same weights on the device, in bfloat16 and float32, against float32 on the CPU; sdpa against eager.

Widths are the real ones, layers few. All weights are numbers that bfloat16 has, so only the computation rounds.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from benchmarks.gpu.checks import BOUNDS, Check, Outcome, compare, fast_paths, outcome
from benchmarks.gpu.configs import Pair
from benchmarks.gpu.models import answered, backbones, fused, texts
from glotfuse.api import FusedLM
from glotfuse.backbones import LM, Encoder

MIXERS = ("transformer_softmax", "global_softmax")
ATTENTIONS = ("sdpa", "eager")
_NUM_TEXTS = 8


def correctness(pair: Pair, device: torch.device) -> Iterator[Check | str]:
    """All comparisons of a pair; what could not be compared is said in words.

    Args:
        pair: With few layers, for the CPU computes it too.
        device: What is judged.
    """
    cpu = torch.device("cpu")
    reading, writing = backbones(pair, cpu, torch.float32)
    for part in (reading, writing):
        _round(part)
    references = {mixer: _model(pair, reading, writing, mixer) for mixer in MIXERS}
    found = {}
    for mixer, reference in references.items():
        _stir(reference.fusion)
        _round(reference.fusion)
        found[mixer] = outcome(reference, answered(reference, texts(_NUM_TEXTS)))
    for dtype, bounds in BOUNDS.items():
        by_attention: dict[str, dict[str, Outcome]] = {}
        for attention in ATTENTIONS:
            name = f"{pair.name}, {str(dtype).removeprefix('torch.')}, {attention}"
            try:
                own = backbones(pair, device, dtype, attention)
            except ValueError as error:
                yield f"{name}: not in this version of transformers: {str(error).splitlines()[0]}"
                continue
            own[0].load_state_dict(reading.state_dict())
            own[1].load_state_dict(writing.state_dict())
            by_attention[attention] = {}
            for mixer, reference in references.items():
                model = _model(pair, *own, mixer)
                model.fusion.load_state_dict(reference.fusion.state_dict())
                got = outcome(model, answered(model, texts(_NUM_TEXTS)))
                by_attention[attention][mixer] = got
                lengths = [len(ids) for ids in model.label_ids]
                title = f"{name}, {mixer}"
                yield from compare(
                    f"{title}: {device.type} against float32 on the CPU", got, found[mixer], bounds, lengths
                )
                yield fast_paths(title, model)
        if len(by_attention) == len(ATTENTIONS):
            for mixer in MIXERS:
                first, second = (by_attention[attention][mixer] for attention in ATTENTIONS)
                name = f"{pair.name}, {str(dtype).removeprefix('torch.')}, {mixer}: sdpa against eager"
                yield from compare(name, first, second, bounds, lengths)


def _model(pair: Pair, encoder: Encoder, lm: LM, mixer: str) -> FusedLM:
    return fused(encoder, lm, mixer=mixer, layer_norm=pair.layer_norm)


@torch.no_grad()
def _stir(module: nn.Module) -> None:
    """Moves weights away from zeros and ones, at which some gradients vanish."""
    torch.manual_seed(2)
    for weights in module.parameters():
        if weights.ndim <= 1:
            weights.add_(0.1 * torch.randn_like(weights))


@torch.no_grad()
def _round(module: nn.Module) -> None:
    """Brings all weights to numbers that bfloat16 has."""
    for weights in module.parameters():
        weights.copy_(weights.bfloat16())
