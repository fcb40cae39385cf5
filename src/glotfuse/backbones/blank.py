"""Tensors without memory, which a model is built of before its weights are read, need no values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_RANDOM = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, Tensor.normal_, Tensor.uniform_)
"""What asks for random values; transformers puts others in the place of torch's names later, when weights are there."""


class NoBlankValues(TorchFunctionMode):
    """Inside, random values are not drawn for tensors on `meta`; all other tensors get theirs.

    transformers builds a model on `meta`, where torch's layers still ask for random weights. There is nothing to fill,
    but for the normal distribution torch goes the way of its compiler, which imports SymPy (half a second).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Passes a call on, or leaves it."""
        named = dict(kwargs or {})
        if func in _RANDOM:
            tensor = args[0] if args else named.get("tensor")
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                return tensor
        return func(*args, **named)
