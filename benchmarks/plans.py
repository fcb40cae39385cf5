"""`glotfuse plan` for every recipe of the paper, with the models' configurations kept with the tests.

    python -m benchmarks.plans [--memory 24GB] [--device cuda] [--markdown]

No hub is asked: neither weights nor data nor tokenizers are read, so numbers of examples are the recipes' own limits.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from glotfuse.cli.plan import bytes_of, plan_table
from glotfuse.recipes.loading import load_recipe
from glotfuse.runs.planning import Plan, plan_run

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "tests" / "fixtures" / "model_configs"


def plan_paper(path: Path, memory: int, device: str = "cuda") -> Plan:
    """The plan of one of the paper's recipes."""
    return plan_run(
        load_recipe(path),
        device=device,
        memory=memory,
        encoder_config=CONFIGS / path.parent.name,
        lm_config=CONFIGS / "llama-3.2-1b-instruct",
        read_data=False,
    )


def row(path: Path, plan: Plan) -> str:
    """A line of a table in Markdown."""
    task = plan.stages[-1]
    states = next(part for part in task.memory.passes if part.name == "training: encoder pass")
    learning = next(part for part in task.memory.passes if part.name.startswith("training: fusion"))
    measuring = next(part for part in task.memory.passes if part.name == "measuring")
    cells = [
        f"`{path.parent.name}/{path.stem}`",
        f"{task.num_trained / 1e6:.1f} M",
        f"at most {task.num_steps:,}",
        *(f"{part.num_bytes / 1e9:.2f}" for part in (states, learning, measuring)),
        f"{(task.cache_bytes or 0) / 1e9:,.0f}",
        f"{plan.needed / 1e9:.1f}",
        "yes" if plan.fits else "no",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Prints all plans, or one table of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", default="24GB")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--markdown", action="store_true", help="one table with a line per recipe")
    chosen = parser.parse_args()
    paths = sorted((ROOT / "recipes" / "paper").rglob("*.yaml"))
    plans = {path: plan_paper(path, bytes_of(chosen.memory), chosen.device) for path in paths}
    if chosen.markdown:
        print("| recipe | trained | steps | encoder pass | fusion and LM | measuring | states on disk | peak | fits |")
        print("|---|---|---|---|---|---|---|---|---|")
        for path, plan in plans.items():
            print(row(path, plan))
        return
    from rich.console import Console

    for path, plan in plans.items():
        console = Console(width=110)
        console.print(plan_table(plan, f"{path.parent.name}/{path.name}"))
        for remark in plan.remarks:
            print(f"- {remark}")
        print(f"{plan.sentence()}\n")


if __name__ == "__main__":
    main()
