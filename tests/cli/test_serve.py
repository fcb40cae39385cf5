"""Options of `glotfuse serve` that do not fit are refused before a model is loaded."""

from __future__ import annotations

import importlib.util

import pytest
from typer.testing import CliRunner

from glotfuse.cli.main import app
from glotfuse.errors import ConfigError


def error(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["serve", "no/such/run", *arguments])
    assert isinstance(result.exception, ConfigError)
    return str(result.exception)


def test_a_vllm_server_needs_its_address() -> None:
    assert "--url" in error("--engine", "vllm")
    assert "vllm" in error("--url", "http://127.0.0.1:1")


@pytest.mark.parametrize(("module", "extra", "options"), [("fastapi", "serve", ()), ("gradio", "ui", ("--ui",))])
def test_a_missing_library_is_named_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch, module: str, extra: str, options: tuple[str, ...]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("glotfuse.cli.serve.find_spec", lambda name: None if name == module else find(name))
    assert f"pip install 'glotfuse[{extra}]'" in error(*options)
