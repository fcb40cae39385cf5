"""Settings of all tests."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs a hub; a missing model fails at once


def pytest_runtest_setup() -> None:
    """Tiny models run fastest on one thread, and do not fight over cores with whatever else runs."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
