"""Sentence embeddings of an encoder and linear classifiers of them: what probe, baseline and lexicon share.

They are made as the encoder was trained to make them (`Encoder.pooling`), which is recorded with whatever was fitted to
them; what was fitted before poolings were recorded has means.

Shapes: B texts, C columns of a text, E width of the embeddings, D of what a classifier reads, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from glotfuse.backbones import Encoder
from glotfuse.backbones.pooling import MEAN, Pooling
from glotfuse.errors import CheckpointError
from glotfuse.inputs.batch import PreparedExample
from glotfuse.inputs.order import inference_batches
from glotfuse.inputs.padding import pad_and_mask


@torch.inference_mode()
def pooled(
    encoder: Encoder,
    ids: Sequence[list[int]],
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
    *,
    prefixed: bool = True,
) -> Tensor:
    """The encoder's pooling of the last layer's states over each text's tokens: (B,E) in float32 on the CPU.

    Args:
        encoder: The frozen encoder.
        ids: B rows of its token ids.
        batch_size: Most texts per forward pass.
        progress: Called with the number of texts of each batch.
        prefixed: Whether the rows begin with the encoder's prefix.
    """
    num_prompt = encoder.num_prefix_tokens if prefixed else 0
    found = torch.zeros(len(ids), encoder.embedding_size)
    for chosen in inference_batches([len(row) for row in ids], batch_size, encoder.device):
        tokens, mask = pad_and_mask([ids[i] for i in chosen], encoder.pad_token_id)
        (states,) = encoder(tokens, mask, [encoder.num_layers - 1])
        found[chosen] = encoder.pooling(states, mask, num_prompt)
        if progress is not None:
            progress(len(chosen))
    return found


def sentence_embeddings(encoder: Encoder, ids: Sequence[list[int]], batch_size: int = 32) -> Tensor:
    """Pooled last states of B texts, each scaled to length one, (B,E) on the CPU; see `pooled`."""
    return F.normalize(pooled(encoder, ids, batch_size), dim=-1)


def column_embeddings(encoder: Encoder, examples: Sequence[PreparedExample], batch_size: int = 32) -> Tensor:
    """Sentence embeddings of each column of B examples, (B,C,E); of the whole text, where it has one column."""
    columns = [example.column_ids or (example.encoder_ids,) for example in examples]
    found = sentence_embeddings(encoder, [ids for row in columns for ids in row], batch_size)
    return found.view(len(columns), -1, encoder.embedding_size)


def embedding_as(encoder: Encoder, recorded: Mapping[str, Any] | None, where: str) -> Encoder:
    """The encoder with the sentence embeddings that something was fitted to.

    Args:
        encoder: As it was loaded.
        recorded: `Pooling.to_dict` of then; None where nothing was recorded, as before there was a choice.
        where: What was fitted.

    Raises:
        CheckpointError: It was fitted to linear maps that the encoder's files do not have.
    """
    wanted = dict(recorded or MEAN)
    if encoder.pooling.to_dict() == wanted:
        return encoder
    if wanted["dense"]:
        raise CheckpointError(
            f"Expected the sentence embeddings that {where} was fitted to, {_in_words(wanted)}; found "
            f"{_in_words(encoder.pooling.to_dict())} of {encoder.identity.name}. Load the encoder with all its files "
            "of sentence-transformers and without another pooling, or train again."
        )
    return encoder.with_pooling(Pooling(tuple(wanted["modes"]), wanted["include_prompt"]))


def _in_words(pooling: Mapping[str, Any]) -> str:
    maps = [digest[:8] for digest in pooling["dense"]]
    return " and ".join(pooling["modes"]) + (f" with linear maps {', '.join(maps)}" if maps else " without linear maps")


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
