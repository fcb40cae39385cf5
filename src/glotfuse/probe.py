"""What the encoder's sentence embedding alone says of the label: a second reader beside the LM.

The LM reads tokens, learns much from few examples, and misreads tokens of distant languages; a kernel classifier of the
mean-pooled last layer knows less and transfers better. Their log-probabilities are added with weights that English
development rows choose (a logarithmic opinion pool; Hinton 2002, products of experts). The kernel is Gaussian, by
Nystroem's approximation with training sentences as landmarks (Williams and Seeger 2001).

Shapes: B batch, D encoder width, M landmarks, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Probe:
    """A kernel classifier of sentence embeddings, and how much it counts beside the LM."""

    centre: Tensor
    """(D,), mean embedding of the English training sentences."""
    landmarks: Tensor
    """(M,D), centred embeddings of length one."""
    normalisation: Tensor
    """(M,M), inverse square root of the landmarks' kernel matrix."""
    weights: Tensor
    """(K,M), of a linear classifier of the kernel's features."""
    bias: Tensor
    """(K,)."""
    gamma: Tensor
    """(), inverse squared width of the kernel."""
    shares: Tensor
    """(2,), factors of the LM's and of the probe's log-probabilities."""

    def log_probabilities(self, embeddings: Tensor) -> Tensor:
        """Of the labels, (B,K), by the probe alone, from sentence embeddings (B,D)."""
        centred = F.normalize(embeddings.to(self.centre) - self.centre, dim=-1)
        kernel = torch.exp(-self.gamma * torch.cdist(centred, self.landmarks).square())
        return torch.log_softmax(kernel @ self.normalisation @ self.weights.T + self.bias, dim=-1)

    def together(self, lm: Tensor, own: Tensor) -> Tensor:
        """The LM's and the probe's log-probabilities (B,K) as one, normalised over the labels."""
        own = own.to(lm.device)
        return torch.log_softmax(self.shares[0].to(lm) * lm + self.shares[1].to(lm) * own.to(lm), dim=-1)

    def to_tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {field.name: getattr(self, field.name).contiguous() for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Probe:
        """From a checkpoint.

        Raises:
            KeyError: A part is missing.
        """
        return cls(**{field.name: tensors[field.name] for field in fields(cls)})
