"""Examples in docstrings that need no model run as written."""

from __future__ import annotations

import doctest

import pytest

from glotfuse import api
from glotfuse.recipes import loading
from glotfuse.tasks import registry


@pytest.mark.parametrize("module", [api, loading, registry], ids=lambda module: module.__name__)
def test_examples_run_as_written(module: object) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
