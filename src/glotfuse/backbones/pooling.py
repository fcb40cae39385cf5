"""How the states of an encoder's last layer become one sentence embedding: as the encoder was trained to embed.

BGE-M3 learned to put a text's meaning into the state of its first token, Qwen3-Embedding into that of the last, e5 and
EmbeddingGemma into the mean of all, which EmbeddingGemma then maps twice. Modes and their names are those of
sentence-transformers (Reimers and Gurevych 2019, arXiv 1908.10084); `glotfuse.backbones.pooling_files` reads its files.

Shapes: B batch, T tokens, D width of the encoder, E width of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glotfuse.errors import BackboneError, ConfigError, did_you_mean

ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)
}
"""What may follow a linear map, by the name of torch's class."""


@dataclass(frozen=True, eq=False)
class Dense:
    """A linear map of the pooled states, and what follows it."""

    weight: Tensor
    """(out,in) in float32."""
    bias: Tensor | None
    """(out,)."""
    activation: str
    """A name in `ACTIVATIONS`."""
    sha256: str
    """Of its weights' file."""

    def __call__(self, embeddings: Tensor) -> Tensor:
        """From (B,in) to (B,out)."""
        found: Tensor = ACTIVATIONS[self.activation]()(F.linear(embeddings, self.weight, self.bias))
        return found


@dataclass(frozen=True, eq=False)
class Pooling:
    """From the last layer's states to a sentence embedding, which is not yet of length one."""

    modes: tuple[str, ...] = ("mean",)
    """Names in `MODES`; what several give is put side by side."""
    include_prompt: bool = True
    """Whether the tokens of the encoder's prefix count; see `Encoder.num_prefix_tokens`."""
    dense: tuple[Dense, ...] = ()
    """Applied to what is pooled, in this order."""

    @classmethod
    def named(cls, mode: str) -> Pooling:
        """One mode alone, without linear maps.

        Raises:
            ConfigError: There is no such mode.
        """
        if mode not in MODES:
            raise ConfigError(
                f"Expected a pooling out of {', '.join(MODES)}; found {mode!r}.{did_you_mean(mode, MODES)}"
            )
        return cls((mode,))

    def __call__(self, states: Tensor, mask: Tensor, num_prompt: int = 0) -> Tensor:
        """The embedding of each text, (B,E) in float32 on the CPU.

        Args:
            states: (B,T,D), of the last layer.
            mask: (B,T), true for real tokens, whichever side the padding is at.
            num_prompt: How many of the first real tokens do not count (`Encoder.num_prefix_tokens`); of a text that has
                no others they do.
        """
        mask = mask.to(states.device).bool()
        if num_prompt:
            others = mask & (mask.cumsum(1) > num_prompt)
            mask = torch.where(others.any(1, keepdim=True), others, mask)
        found = torch.cat([MODES[mode](states.float(), mask) for mode in self.modes], dim=-1).cpu()
        for dense in self.dense:
            found = dense(found)
        return found

    def size(self, hidden_size: int) -> int:
        """E, for an encoder of width D.

        Raises:
            BackboneError: A linear map is for another width.
        """
        size = len(self.modes) * hidden_size
        for number, dense in enumerate(self.dense):
            if dense.weight.shape[1] != size:
                raise BackboneError(
                    f"Expected linear map {number + 1} after the pooling to take {size} values; found one that takes "
                    f"{dense.weight.shape[1]}. Its files belong to another model: fetch them again, or name a pooling "
                    "that leaves it out (encoder.pooling)."
                )
            size = dense.weight.shape[0]
        return size

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint records: modes, and which linear maps by the hashes of their files."""
        return {
            "modes": list(self.modes),
            "include_prompt": self.include_prompt,
            "dense": [dense.sha256 for dense in self.dense],
        }


MEAN = Pooling().to_dict()
"""What checkpoints from before poolings were recorded have."""


def _first(states: Tensor, mask: Tensor) -> Tensor:
    return _pick(states, mask.int().argmax(1))


def _last(states: Tensor, mask: Tensor) -> Tensor:
    return _pick(states, mask.shape[1] - 1 - mask.flip(1).int().argmax(1))


def _pick(states: Tensor, places: Tensor) -> Tensor:
    return states[torch.arange(len(states), device=states.device), places]


def _largest(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1)


def _mean_by_root(states: Tensor, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1).sqrt()


def _rising_mean(states: Tensor, mask: Tensor) -> Tensor:
    weights = (mask.cumsum(1) * mask).unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1)


MODES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _rising_mean,
    "lasttoken": _last,
}
"""From float32 states (B,T,D) and a mask (B,T) to (B,D): the first real token's state, the largest value of all tokens,
their mean, their sum over the root of their number, their mean with weights 1, 2, 3, ..., the last real token's state;
in the order in which several are put side by side."""
