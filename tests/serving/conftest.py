"""One server of a tiny model for all tests that do not change it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from glotfuse.api import FusedLM
    from serving_help import RunningServer


@pytest.fixture(scope="session")
def model() -> FusedLM:
    from tiny import tiny_model

    return tiny_model()


@pytest.fixture(scope="module")
def server(model: FusedLM) -> Iterator[RunningServer]:
    from serving_help import running

    with running(model) as server:
        yield server
