"""Settings of all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs a hub; a missing model fails at once


def pytest_make_parametrize_id(val: object) -> str | None:
    """Raw bytes are named by their length: readable, and the same in every worker whatever they hold."""
    return f"{len(val)}bytes" if isinstance(val, bytes) else None


def pytest_runtest_setup() -> None:
    """Tiny models run fastest on one thread, and do not fight over cores with whatever else runs."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("glotfuse-cache"))


@pytest.fixture(autouse=True)
def _cache_of_the_tests(request: pytest.FixtureRequest, _own_cache: str) -> Iterator[None]:
    """Only slow tests, which need the bundled models, use the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("slow") is None:
            patch.setenv("GLOTFUSE_CACHE", _own_cache)
        yield
