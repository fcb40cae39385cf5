"""Writes the quickstart's test sentences as the harness reads them: one JSON-lines file per language.

Example: python examples/lm_eval/quickstart_data.py data
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from glotfuse import get_task


def main() -> None:
    """Writes <folder>/<language>.jsonl."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    task = get_task("quickstart")
    for language in task.languages("test"):
        rows = [{**example.fields, "label": example.label} for example in task.load("test", language)]
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (folder / f"{language}.jsonl").write_text("".join(lines), "utf8")
    print(f"{len(task.languages('test'))} languages in {folder}")


if __name__ == "__main__":
    main()
