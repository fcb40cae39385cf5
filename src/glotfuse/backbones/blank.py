"""Tensors without memory, of which transformers builds a model before its weights are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_RANDOM = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, Tensor.normal_, Tensor.uniform_)


class BlankTensors(TorchFunctionMode):
    """Inside, tensors on `meta` are given no random values, and counted positions are on the CPU in place of `meta`.

    A model's layers draw random weights and count positions when they are made, which has no effect on `meta`. But
    torch goes the way of its compiler for it, and to make a tensor like one on `meta`, and imports SymPy: 650 modules,
    half a second. Buffers that are no weights are computed by transformers once more when the model has its memory,
    wherever they were before.
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
        if func is torch.arange and torch.device(named.get("device") or "cpu").type == "meta":
            named["device"] = "cpu"
        if func is torch.empty_like and set(named) == {"device"} and args[0].is_meta and args[0].is_contiguous():
            return torch.empty(args[0].shape, dtype=args[0].dtype, device=named["device"])
        return func(*args, **named)


def from_pretrained(model_class: Any, source: str, **options: Any) -> Any:
    """What the class's own `from_pretrained` gives, with `BlankTensors` where a model's code gets on with them.

    Args:
        model_class: Of transformers.
        source: Hub id or local folder.
        **options: Passed on; code from the hub is left as it is.
    """
    if not options["trust_remote_code"]:
        with suppress(RuntimeError, NotImplementedError), BlankTensors():
            return model_class.from_pretrained(source, **options)
    return model_class.from_pretrained(source, **options)
