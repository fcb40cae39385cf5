"""A few inputs of every kind that `make fuzz` tries: each is refused with a clear error, or read as it was written."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from benchmarks.fuzz import any_format, folders, requests, tables  # noqa: F401  each adds its kinds
from benchmarks.fuzz.case import ANYTHING, KINDS, PASSED, READ, REFUSED, Case, Wrong, outcome
from hypothesis import HealthCheck, Phase, given, settings

from glotfuse.errors import DataError


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_refused_or_read_as_it_was_written(kind: str) -> None:
    @settings(
        max_examples=5,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind])
    def run(case: Case) -> None:
        folder = Path(tempfile.mkdtemp())
        try:
            outcome(case, folder)
        finally:
            shutil.rmtree(folder)

    run()


def _refuse(_: Path) -> None:
    raise DataError("a.csv, row 2: expected x")


def _crash(_: Path) -> None:
    raise KeyError("x")


def test_the_harness_tells_right_from_wrong(tmp_path: Path) -> None:
    assert outcome(Case("", lambda _: [1], [1]), tmp_path) == READ
    assert outcome(Case("", lambda _: [1], ANYTHING), tmp_path) == PASSED
    for expected in (None, ANYTHING):
        assert outcome(Case("", _refuse, expected, mentions=("row 2",)), tmp_path) == REFUSED
    assert outcome(Case("", _refuse, [1], may_refuse=True), tmp_path) == REFUSED
    for case in (
        Case("", lambda _: [2], [1]),
        Case("", lambda _: [1], None),
        Case("", _refuse, [1]),
        Case("", _refuse, None, mentions=("row 3",)),
    ):
        with pytest.raises(Wrong):
            outcome(case, tmp_path)
    with pytest.raises(KeyError):
        outcome(Case("", _crash, ANYTHING), tmp_path)
