"""Sentence embeddings of an encoder and linear classifiers of them: what probe, baseline and lexicon share.

Shapes: B texts, C columns of a text, T tokens, D width of the encoder or of what a classifier reads, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from glotfuse.backbones import Encoder
from glotfuse.inputs.batch import PreparedExample
from glotfuse.inputs.order import inference_batches
from glotfuse.inputs.padding import pad_and_mask


@torch.inference_mode()
def mean_pooled(
    encoder: Encoder, ids: Sequence[list[int]], batch_size: int = 32, progress: Callable[[int], None] | None = None
) -> Tensor:
    """Means of the last layer's states over each text's tokens: (B,D) in float32 on the CPU.

    Args:
        encoder: The frozen encoder.
        ids: B rows of its token ids.
        batch_size: Most texts per forward pass.
        progress: Called with the number of texts of each batch.
    """
    found = torch.zeros(len(ids), encoder.hidden_size)
    for chosen in inference_batches([len(row) for row in ids], batch_size, encoder.device):
        tokens, mask = pad_and_mask([ids[i] for i in chosen], encoder.pad_token_id)
        (states,) = encoder(tokens, mask, [encoder.num_layers - 1])
        found[chosen] = mean_over_tokens(states, mask)
        if progress is not None:
            progress(len(chosen))
    return found


def mean_over_tokens(states: Tensor, mask: Tensor) -> Tensor:
    """The mean state of each text, (B,D) in float32 on the CPU, of states (B,T,D) under a mask (B,T)."""
    weights = mask.to(states.device).unsqueeze(-1)
    return ((states.float() * weights).sum(1) / weights.sum(1)).cpu()


def sentence_embeddings(encoder: Encoder, ids: Sequence[list[int]], batch_size: int = 32) -> Tensor:
    """Mean-pooled last states of B texts, each scaled to length one, (B,D) on the CPU; see `mean_pooled`."""
    return F.normalize(mean_pooled(encoder, ids, batch_size), dim=-1)


def column_embeddings(encoder: Encoder, examples: Sequence[PreparedExample], batch_size: int = 32) -> Tensor:
    """Sentence embeddings of each column of B examples, (B,C,D); of the whole text, where it has one column."""
    columns = [example.column_ids or (example.encoder_ids,) for example in examples]
    found = sentence_embeddings(encoder, [ids for row in columns for ids in row], batch_size)
    return found.view(len(columns), -1, encoder.hidden_size)


def of_all_labels(classifier: Any, num_labels: int, absent: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (K,D) and bias (K,) of a linear classifier that may have seen some of the labels only.

    Args:
        classifier: Scikit-learn's, fitted on numbers of labels.
        num_labels: K.
        absent: Bias of the labels that training lacked, so low that they do not win.
    """
    weights = np.zeros((num_labels, classifier.coef_.shape[1]))
    bias = np.full(num_labels, absent)
    if len(classifier.classes_) == 2:  # scikit-learn keeps one row, for the second of two
        weights[classifier.classes_[1]] = classifier.coef_[0]
        bias[classifier.classes_] = 0.0, classifier.intercept_[0]
    else:
        weights[classifier.classes_], bias[classifier.classes_] = classifier.coef_, classifier.intercept_
    return weights, bias
