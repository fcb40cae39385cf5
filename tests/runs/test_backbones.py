"""How a recipe's backbones are loaded on devices that are not here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from glotfuse.backbones import LM
from glotfuse.recipes.config import Recipe
from glotfuse.runs import backbones
from tiny import tiny_lm


@pytest.fixture
def _precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize(("device", "expected"), [("cuda", "high"), ("cpu", "highest")])
def test_float32_products_run_in_tf32_on_cuda_devices_alone(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: str
) -> None:
    monkeypatch.setattr(backbones, "resolve_device", torch.device)
    monkeypatch.setattr(backbones.distributed, "start", lambda **_: None)
    backbones.start_processes(Recipe(device=device))
    assert torch.get_float32_matmul_precision() == expected


@pytest.mark.usefixtures("_precision")
def test_checks_of_an_lm_allow_for_the_rounding_of_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("llama")
    torch.set_float32_matmul_precision("high")
    assert lm.tolerance == 1e-3
    monkeypatch.setattr(LM, "device", torch.device("cuda"))
    assert lm.tolerance == 5e-2
    torch.set_float32_matmul_precision("highest")
    assert lm.tolerance == 1e-3
