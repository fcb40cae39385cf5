"""Writes rows of a TSV file with the columns premise, hypothesis and label as the harness's xnli reads them.

The hub's xnli has numbers for labels: 0 entailment, 1 neutral, 2 contradiction.

Example: python examples/lm_eval/xnli_data.py urd_Arab/dev.tsv data/xnli_ur.jsonl 200
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

LABELS = ("entailment", "neutral", "contradiction")


def main() -> None:
    """Writes the first rows, or all."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    most = int(sys.argv[3]) if len(sys.argv) > 3 else None
    with source.open(encoding="utf8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))[:most]
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(
            {"premise": row["premise"], "hypothesis": row["hypothesis"], "label": LABELS.index(row["label"])},
            ensure_ascii=False,
        )
        for row in rows
    ]
    target.write_text("\n".join(lines) + "\n", "utf8")
    print(f"{len(lines)} rows in {target}")


if __name__ == "__main__":
    main()
