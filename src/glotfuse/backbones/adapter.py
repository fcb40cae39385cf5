"""The trained tensors of an adapter inside an LM; `glotfuse.backbones.lora` puts them there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glotfuse.errors import CheckpointError


class Adapter:
    """The trained tensors inside an adapted LM.

    Args:
        tuner: The peft model whose layers are in the LM.
        base: The LM that was given, without adapter.
        learning: Whether the tensors get gradients.

    Attributes:
        tensors: Every trained tensor by its name in the LM.
    """

    def __init__(self, tuner: Any, base: nn.Module, learning: bool):
        self.tuner = tuner
        self.base = base
        drops = [module for name, module in tuner.model.named_modules() if name.endswith(".lora_dropout")]
        self._dropouts = [module for drop in drops for module in drop.modules() if isinstance(module, nn.Dropout)]
        self.tensors: dict[str, nn.Parameter] = {
            name: tensor for name, tensor in tuner.model.named_parameters() if ".lora_" in name
        }
        for tensor in self.tensors.values():
            tensor.data = tensor.data.float()
        self.learn(learning)

    def learn(self, learning: bool) -> None:
        """Lets the tensors be trained, or fixes them."""
        self.learning = learning
        for tensor in self.tensors.values():
            tensor.requires_grad_(learning)
        self.train(False)

    def train(self, mode: bool) -> None:
        """Switches the adapter's dropout, which is off once the adapter is fixed."""
        for module in self._dropouts:
            module.train(mode and self.learning)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts in tensors by the names of `tensors`.

        Raises:
            CheckpointError: Names or shapes do not fit.
        """
        expected = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if expected != found:
            odd = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
            raise CheckpointError(
                f"Expected adapter weights for this LM; found {len(odd)} that do not fit, such as {odd[0]}: "
                f"{expected.get(odd[0], 'not in the LM')} in the LM, {found.get(odd[0], 'none')} in the file."
            )
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(tensors[name])
