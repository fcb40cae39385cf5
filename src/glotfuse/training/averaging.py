"""The mean of the weights of a training's last steps.

Averaged checkpoints transfer better to other languages than the one that English chooses (Schmidt et al. 2023, arXiv
2305.16834), and generalise better at home (Izmailov et al. 2018, arXiv 1803.05407).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn
from transformers import TrainerCallback

from glotfuse.files import write_file
from glotfuse.model.fused_model import FusedModel
from glotfuse.recipes.training_config import TrainingConfig
from glotfuse.training.development import DevExamples, development_metrics

FILE = "average.safetensors"
_COUNT = "_count"


class Averaging(TrainerCallback):  # type: ignore[misc]
    """Adds up the trained weights after each of the last steps.

    Args:
        model: Whose weights that require a gradient are averaged.
        share: Of the steps.
    """

    def __init__(self, model: nn.Module, share: float):
        self._weights = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
        self._share = share
        self._mean: dict[str, Tensor] = {}
        self._count = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Takes the step's weights in, if it is one of the last."""
        if not self._share or state.global_step <= math.floor(state.max_steps * (1.0 - self._share)):
            return
        self._count += 1
        with torch.no_grad():
            for name, weights in self._weights.items():
                if name in self._mean:
                    self._mean[name].lerp_(weights.float(), 1.0 / self._count)
                else:
                    self._mean[name] = weights.detach().float().clone()

    @property
    def ready(self) -> bool:
        """Whether there is a mean of more than one step."""
        return self._count > 1

    def save(self, folder: Path) -> None:
        """Keeps what was added up so far, for a run that goes on from `folder`."""
        if self._count:
            write_file(folder / FILE, tensors_to_bytes({**self._mean, _COUNT: torch.tensor(self._count)}))

    def load(self, folder: Path) -> None:
        """Goes on with what `save` kept, if anything."""
        if (folder / FILE).exists():
            kept = load_file(folder / FILE)
            self._count = int(kept.pop(_COUNT))
            self._mean = {name: mean.to(self._weights[name].device) for name, mean in kept.items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the mean inside."""
        own = {name: self._weights[name].detach().clone() for name in self._mean}
        self.apply()
        try:
            yield
        finally:
            self._put(own)

    def apply(self) -> None:
        """Gives the model the mean."""
        self._put(self._mean)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self._weights[name].copy_(value)


def figure_of_average(
    model: FusedModel, averaging: Averaging, dev: DevExamples | None, config: TrainingConfig, batch_size: int
) -> float | None:
    """The development figure of the averaged weights; None where there are none, or nothing to judge them by."""
    if not averaging.ready or dev is None or config.select_by == "last":
        return None
    model.eval()
    with averaging.applied():
        return development_metrics(model, dev, batch_size)[f"eval_{config.select_by}"]


def is_better(figure: float, other: float | None, config: TrainingConfig) -> bool:
    """Whether a development figure beats another, by what the recipe selects by."""
    return other is None or (figure > other if config.select_by == "accuracy" else figure < other)
