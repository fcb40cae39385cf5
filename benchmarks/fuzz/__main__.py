"""Tries every kind of input and prints what happened. `python -m benchmarks.fuzz --count 100000`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.fuzz import any_format, folders, requests, tables  # noqa: F401  each adds its kinds
from benchmarks.fuzz.case import KINDS, PASSED, READ, REFUSED, Case, outcome


def tried(name: str, count: int, start: int, wrong: list[str]) -> Counter[str]:
    """Tries about `count` inputs of a kind, fewer if there are no more, and returns how often what happened."""
    happened: Counter[str] = Counter()

    @seed(start)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[name])
    def run(case: Case) -> None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        try:
            happened[outcome(case, folder)] += 1
        except Exception as error:  # counted and shown, so that one fault does not hide the others
            happened["WRONG"] += 1
            wrong.append(f"{name}: {type(error).__name__}: {str(error)[:400]}")
        finally:
            shutil.rmtree(folder)

    run()
    return happened


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="Inputs in all.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="Kinds whose name holds this.")
    options = parser.parse_args()
    chosen = [name for name in KINDS if options.only in name]
    happened = {name: Counter[str]() for name in chosen}
    wrong: list[str] = []
    left, lively, start = options.count, list(chosen), options.seed
    while left > 0 and lively:  # kinds of few inputs leave their share to the others
        share = -(-left // len(lively))
        for name in list(lively):
            found = tried(name, share, start, wrong)
            happened[name] += found
            left -= found.total()
            if found.total() < share:
                lively.remove(name)
        start += 1
    print(f"{'kind of input':60} {'tried':>7} {READ:>10} {REFUSED:>8} {PASSED:>8} {'wrong':>6}")
    for name, counts in happened.items():
        print(
            f"{name:60} {counts.total():7} {counts[READ]:10} {counts[REFUSED]:8} {counts[PASSED]:8} {counts['WRONG']:6}"
        )
    total: Counter[str] = sum(happened.values(), Counter())
    print(f"{'all':60} {total.total():7} {total[READ]:10} {total[REFUSED]:8} {total[PASSED]:8} {total['WRONG']:6}")
    print("\n".join(wrong[:20]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
