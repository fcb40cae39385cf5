"""The benchmark of start-up measures commands in turns and holds the processor's seconds against the targets."""

from __future__ import annotations

import pytest
from benchmarks import startup


def test_wall_and_processor_are_told_apart() -> None:
    sleeping = startup.timed(["-c", "import time; time.sleep(0.5)"])
    working = startup.timed(["-c", "import time\nwhile time.process_time() < 0.5: pass"])
    assert sleeping[0] > 0.5
    assert working[1] > 0.45
    assert sleeping[1] < 0.45
    with pytest.raises(SystemExit, match="no such thing"):
        startup.timed(["-c", "raise ValueError('no such thing')"])


def test_commands_take_turns_after_a_first_round(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(startup, "timed", lambda command: order.append(command[0]) or (float(len(order)), 0.0))
    found = startup.in_turns({"a": ["a"], "b": ["b"]}, 2)
    assert "".join(order) == "ab" + "ba" + "ab"
    assert found == {"a": [(4.0, 0.0), (5.0, 0.0)], "b": [(3.0, 0.0), (6.0, 0.0)]}


def test_targets_are_held_against_the_medians_of_the_processor() -> None:
    found = {
        "--help": [(5.0, 0.1), (5.0, 0.2), (5.0, 9.0)],
        "models": [(1.0, 1.0)] * 3,
        "classify": [(3.0, 4.1), (3.0, 4.2), (3.0, 3.0)],
        "in Python": [(9.0, 8.2)] * 3,
    }
    lines = startup.rows(found)
    assert [line.met for line in lines] == [True, True, False, True]
    assert (lines[0].first, lines[0].second, lines[0].spread) == (5.0, 0.2, "0.10 to 9.00")
    assert lines[3].ratio == pytest.approx(2.0)
