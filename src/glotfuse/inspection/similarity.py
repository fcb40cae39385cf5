"""Similarity of two sets of vectors of the same rows: retrieval, CKA; principal components.

Shapes: N rows, D and E widths.

Sources: linear CKA, Kornblith et al. 2019, arXiv 1905.00414; the unbiased estimator of HSIC, Song et al. 2012,
JMLR 13, used for CKA by Nguyen et al. 2020, arXiv 2010.15327.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from glotfuse.inspection.results import Similarity

MIN_ROWS = 4
"""Fewest rows that the unbiased estimator takes."""

_TIE = 1e-6


def similarity(vectors: Tensor, pivot: Tensor) -> Similarity:
    """All measures of rows (N,D) against the same rows in the pivot language (N,D)."""
    return Similarity(
        to_pivot=retrieval_accuracy(vectors, pivot),
        from_pivot=retrieval_accuracy(pivot, vectors),
        cka=linear_cka(vectors, pivot),
        debiased_cka=debiased_cka(vectors, pivot),
    )


def retrieval_accuracy(queries: Tensor, candidates: Tensor) -> float:
    """Share of queries (N,D) whose nearest candidate (N,D) by cosine is the one of the same row.

    Where several are equally near, the right one counts as the draw among them would on average.
    """
    cosines = F.normalize(queries.double(), dim=-1) @ F.normalize(candidates.double(), dim=-1).T
    best = cosines.max(dim=1, keepdim=True).values - _TIE
    nearest = cosines >= best
    return float((nearest.diagonal() / nearest.sum(dim=1)).mean())


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA of rows (N,D) and (N,E), from 0 to 1; 0 where one of the two does not vary.

    Vectors of chance come out far above 0 where N is not far above the widths; see `debiased_cka`.
    """
    first, second = _centred_gram(first), _centred_gram(second)
    scale = first.norm() * second.norm()
    return float((first * second).sum() / scale) if scale > 0 else 0.0


def debiased_cka(first: Tensor, second: Tensor) -> float:
    """Linear CKA with the unbiased estimator of HSIC: near 0 for vectors of chance, at most 1, may be below 0.

    Raises:
        ValueError: There are fewer than four rows.
    """
    if len(first) < MIN_ROWS:
        raise ValueError(f"Expected at least {MIN_ROWS} rows; found {len(first)}.")
    first, second = _gram(first), _gram(second)
    own = _hsic(first, first) * _hsic(second, second)
    return float(_hsic(first, second) / own.sqrt()) if own > 0 else 0.0


def principal_components(vectors: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Rows (N,D) on their first two principal components, (N,2), and the share of the variance on each.

    The sign of each is chosen so that its largest loading is positive.
    """
    centred = vectors.double() - vectors.double().mean(0)
    _, values, loadings = torch.linalg.svd(centred, full_matrices=False)
    loadings = F.pad(loadings[:2], (0, 0, 0, max(0, 2 - len(loadings))))
    largest = loadings.gather(1, loadings.abs().argmax(dim=1, keepdim=True))
    loadings = loadings * torch.where(largest < 0, -1.0, 1.0)
    variances = F.pad(values.pow(2), (0, max(0, 2 - len(values))))
    total = float(variances.sum()) or 1.0
    return centred @ loadings.T, (float(variances[0]) / total, float(variances[1]) / total)


def _gram(vectors: Tensor) -> Tensor:
    """Inner products (N,N) of rows, which are centred so that large means cost no digits, without the diagonal."""
    vectors = vectors.double() - vectors.double().mean(0)
    return (vectors @ vectors.T).fill_diagonal_(0.0)


def _centred_gram(vectors: Tensor) -> Tensor:
    vectors = vectors.double() - vectors.double().mean(0)
    return vectors @ vectors.T


def _hsic(first: Tensor, second: Tensor) -> Tensor:
    """Unbiased HSIC of two Gram matrices (N,N) without diagonal."""
    n = len(first)
    both = (first * second).sum() + first.sum() * second.sum() / ((n - 1) * (n - 2))
    return (both - 2 * (first.sum(0) @ second.sum(1)) / (n - 2)) / (n * (n - 3))
