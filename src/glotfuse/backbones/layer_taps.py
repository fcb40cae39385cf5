"""Hidden states one layer at a time, as the encoder computes them, so that they need not all be held at once.

transformers collects all layers' states in a tuple. A mixer whose weights are the same for every token needs only their
running sum. Which module gives which layer's state is not looked up by name but found out: a probe runs with a hook on
every module, and a module whose output is the very tensor of a layer is that layer's tap.

Shapes: B batch, T tokens, L layers, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def find_taps(model: nn.Module, run: Callable[[], Sequence[Tensor]]) -> list[nn.Module] | None:
    """The module that gives each layer's state, or None where some layer has none.

    Args:
        model: The encoder.
        run: Runs it and returns all L states.
    """
    outputs: list[tuple[nn.Module, Tensor]] = []

    def record(module: nn.Module, _: Any, output: Any) -> None:
        tensor = _first(output)
        if tensor is not None:
            outputs.append((module, tensor))

    handles = [module.register_forward_hook(record) for module in model.modules()]
    try:
        states = run()
    finally:
        for handle in handles:
            handle.remove()
    taps = []
    for state in states:
        found = [module for module, tensor in outputs if tensor.data_ptr() == state.data_ptr()]
        if not found:
            return None
        taps.append(found[0])
    counts = [sum(module is tap for module, _ in outputs) for tap in taps]
    distinct = len({id(tap) for tap in taps}) == len(taps)
    return taps if distinct and set(counts) == {1} else None


def run_tapped(taps: Sequence[nn.Module], receive: Callable[[int, Tensor], None], run: Callable[[], object]) -> None:
    """Runs the encoder and hands over each layer's state (B,T,D) as soon as it is there.

    Args:
        taps: What `find_taps` found.
        receive: Called with the layer's index and its state.
        run: Runs the encoder.
    """
    with ExitStack() as stack:
        for layer, tap in enumerate(taps):
            stack.enter_context(tapped(tap, partial(receive, layer)))
        run()


@contextmanager
def tapped(tap: nn.Module, receive: Callable[[Tensor], None]) -> Iterator[None]:
    """Hands over one layer's state (B,T,D) in every pass inside.

    Args:
        tap: Of the layer.
        receive: Called with its state.
    """
    handle = tap.register_forward_hook(lambda _module, _inputs, output: receive(_tensor(output)))
    try:
        yield
    finally:
        handle.remove()


def _first(output: Any) -> Tensor | None:
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, torch.Tensor) and output.is_floating_point() else None


def _tensor(output: Any) -> Tensor:
    found = _first(output)
    assert found is not None, "taps give tensors"
    return found
