"""What the encoder's sentence embedding alone says of the label: a second reader beside the LM.

The LM reads tokens, learns much from few examples, and misreads tokens of distant languages; a kernel classifier of the
sentence embedding knows less and transfers better. Their log-probabilities are added with weights that English
development rows choose (a logarithmic opinion pool; Hinton 2002, products of experts). The kernel is Gaussian, by
Nystroem's approximation with training sentences as landmarks (Williams and Seeger 2001).

Shapes: B batch, C columns of a text, D encoder width, F features, M landmarks, K labels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F


def features_of(embeddings: Tensor, centre: Tensor) -> Tensor:
    """What the kernel compares, (B,F), each of length one, from sentence embeddings (B,C,D) of a text's columns.

    Of one column its centred embedding. Of several, such as premise and hypothesis, all of them, and of every two their
    absolute difference and their product, which say how they relate (Conneau et al. 2017, arXiv 1705.02364; Reimers and
    Gurevych 2019, arXiv 1908.10084); the product is scaled to the size of the others.

    Args:
        embeddings: (B,C,D).
        centre: (D,), taken away from each.
    """
    columns = F.normalize(embeddings - centre, dim=-1).unbind(1)
    scale = math.sqrt(embeddings.shape[-1])
    related = [part for a, b in itertools.combinations(columns, 2) for part in ((a - b).abs(), scale * a * b)]
    return F.normalize(torch.cat([*columns, *related], dim=-1), dim=-1)


@dataclass(frozen=True)
class Probe:
    """A kernel classifier of sentence embeddings, and how much it counts beside the LM."""

    centre: Tensor
    """(D,), mean embedding of the English training sentences."""
    landmarks: Tensor
    """(M,F), features of training texts."""
    normalisation: Tensor
    """(M,M), inverse square root of the landmarks' kernel matrix, without its smallest eigenvalues."""
    weights: Tensor
    """(K,M), of a linear classifier of the kernel's features."""
    bias: Tensor
    """(K,)."""
    gamma: Tensor
    """(), inverse squared width of the kernel."""
    shares: Tensor
    """(2,), factors of the LM's and of the probe's log-probabilities."""

    def log_probabilities(self, embeddings: Tensor) -> Tensor:
        """Of the labels, (B,K), by the probe alone, from sentence embeddings (B,C,D)."""
        features = features_of(embeddings.to(self.centre), self.centre)
        kernel = torch.exp(-self.gamma * torch.cdist(features, self.landmarks).square())
        return torch.log_softmax(kernel @ self.normalisation @ self.weights.T + self.bias, dim=-1)

    def for_labels(self, order: Sequence[int]) -> Probe:
        """The probe for the labels in another order: (K,), the place that each had before."""
        return replace(self, weights=self.weights[list(order)], bias=self.bias[list(order)])

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
            ValueError: Shapes do not fit one another, or a part holds no real numbers.
        """
        found = cls(**{field.name: tensors[field.name] for field in fields(cls)})
        (num_landmarks, *_), (num_labels, *_) = (*found.landmarks.shape, 0), (*found.weights.shape, 0)
        expected = {
            "centre": (found.centre.numel(),),
            "landmarks": (num_landmarks, found.landmarks.shape[-1] if found.landmarks.ndim else 0),
            "normalisation": (num_landmarks, num_landmarks),
            "weights": (num_labels, num_landmarks),
            "bias": (num_labels,),
            "gamma": (),
            "shares": (2,),
        }
        for name, shape in expected.items():
            tensor: Tensor = getattr(found, name)
            if tuple(tensor.shape) != shape or not tensor.is_floating_point():
                raise ValueError(f"{name} of {tensor.dtype} {tuple(tensor.shape)}, expected real numbers {shape}")
        return found
