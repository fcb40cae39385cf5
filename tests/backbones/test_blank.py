"""Models that are built without torch's compiler have the weights and buffers that transformers gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

from glotfuse.backbones.blank import BlankTensors, from_pretrained
from tiny import ENCODERS, LMS, encoder_folder, lm_folder

FAMILIES = [
    *((AutoModel, encoder_folder, name) for name in ENCODERS),
    *((AutoModelForCausalLM, lm_folder, name) for name in LMS),
]


def tensors(model: nn.Module) -> dict[str, Any]:
    """All that a model holds, buffers that are not saved too."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("auto_class", "folder_of", "family"), FAMILIES, ids=[*ENCODERS, *LMS])
def test_weights_and_buffers_are_those_of_transformers(
    auto_class: Any, folder_of: Callable[[str], str], family: str, dtype: torch.dtype
) -> None:
    folder = folder_of(family)
    torch.manual_seed(0)
    expected = tensors(auto_class.from_pretrained(folder, dtype=dtype))
    torch.manual_seed(0)
    with BlankTensors():
        found = tensors(auto_class.from_pretrained(folder, dtype=dtype))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].device == tensor.device, name
        assert found[name].stride() == tensor.stride(), name
        assert torch.equal(found[name], tensor), name


def test_tensors_with_memory_get_their_random_values() -> None:
    torch.manual_seed(0)
    expected = [nn.Linear(3, 2).weight, nn.Embedding(3, 2).weight, torch.arange(3)]
    torch.manual_seed(0)
    with BlankTensors():
        found = [nn.Linear(3, 2).weight, nn.Embedding(3, 2).weight, torch.arange(3)]
        blank = nn.Linear(3, 2, device="meta").weight
    assert all(map(torch.equal, found, expected))
    assert blank.is_meta
    assert blank.shape == (2, 3)


def test_code_that_does_not_get_on_with_blank_tensors_is_left_alone() -> None:
    calls: list[dict[str, Any]] = []

    class Fussy:
        """Counts on positions to be on `meta`."""

        @staticmethod
        def from_pretrained(source: str, **options: Any) -> str:
            calls.append(options)
            with torch.device("meta"):
                torch.arange(3) + torch.empty(3)
            return source

    assert from_pretrained(Fussy, "x", trust_remote_code=False, dtype="auto") == "x"
    assert calls == [{"trust_remote_code": False, "dtype": "auto"}] * 2
    calls.clear()
    assert from_pretrained(Fussy, "x", trust_remote_code=True) == "x"
    assert len(calls) == 1, "code from the hub is left as it is"
