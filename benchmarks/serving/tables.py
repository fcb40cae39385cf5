"""Tables in Markdown, ready for docs/serving-performance.md, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.serving.figures import Figures
from benchmarks.serving.rounds import Check

_ANSWERS = ("rate", "answers/s"), ("p50", "p50 s"), ("p99", "p99 s"), ("longest", "longest s")
_NAMES = {"classify": "labels", "completions": "16 tokens, whole", "stream": "16 tokens, streamed"}


def show(console: Console, title: str, rows: Sequence[Figures]) -> None:
    """Prints loads as a table; memory is the server process's resident set."""
    table = Table(title=title, box=box.MARKDOWN)
    heads = ["request", "clients", *(head for _, head in _ANSWERS), "first text p50 / p99 s", "tokens/s", "measured"]
    heads += [
        "sent",
        "answered",
        "refused",
        "lost",
        "statuses",
        "RSS before / peak / after MB",
        "most waiting",
        "generator's core",
    ]
    for head in heads:
        table.add_column(head, justify="left" if head == "request" else "right", no_wrap=True)
    for row in rows:
        memory = " / ".join(f"{row.server[f'rss_{when}_mb']:.0f}" for when in ("before", "peak", "after"))
        table.add_row(
            _NAMES.get(row.workload, row.workload),
            str(row.clients),
            *(f"{getattr(row, name):.2f}" for name, _ in _ANSWERS),
            "" if row.first_p50 is None else f"{row.first_p50:.2f} / {row.first_p99:.2f}",
            "" if row.tokens_per_second is None else f"{row.tokens_per_second:.1f}",
            str(row.measured),
            str(row.sent),
            str(row.answered),
            str(row.refused),
            str(row.lost),
            ", ".join(f"{status}: {count}" for status, count in row.statuses.items()),
            memory,
            str(row.server["most_waiting"]),
            f"{100 * row.server['generator_core_share']:.0f}%",
        )
    console.print(table)


def show_checks(console: Console, checks: Sequence[Check]) -> None:
    """Prints what was promised past saturation, and what was found."""
    table = Table(title="past saturation", box=box.MARKDOWN)
    for head in ("promise", "found", "kept"):
        table.add_column(head, no_wrap=True)
    for check in checks:
        table.add_row(check.promise, check.found, "yes" if check.kept else "NO")
    console.print(table)


def draw(rows: Sequence[Figures], path: Path, about: str) -> None:
    """Answers per second, and latency, against clients."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker
    from matplotlib.lines import Line2D

    figure, (rates, waits) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in dict.fromkeys(row.workload for row in rows):
        mine = [row for row in rows if row.workload == name]
        clients: list[Any] = [row.clients for row in mine]
        (line,) = rates.plot(clients, [row.rate for row in mine], "o-", label=_NAMES.get(name, name))
        waits.plot(clients, [row.p50 for row in mine], "o-", color=line.get_color())
        waits.plot(clients, [row.p99 for row in mine], "o--", color=line.get_color())
        if all(row.first_p50 is not None for row in mine):
            waits.plot(clients, [row.first_p50 for row in mine], "o:", color=line.get_color())
    for axes, what in ((rates, "answers per second"), (waits, "seconds")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({row.clients for row in rows}), [str(n) for n in sorted({row.clients for row in rows})])
        axes.set_xlabel("clients at once")
        axes.set_ylabel(what)
        axes.grid(visible=True, alpha=0.3)
    rates.set_ylim(bottom=0)
    waits.set_yscale("log")
    waits.yaxis.set_major_formatter("{x:g}")
    waits.yaxis.set_minor_formatter(ticker.NullFormatter())
    styles = [Line2D([], [], color="0.3", linestyle=style) for style in ("-", "--", ":")]
    waits.legend(styles, ["p50", "p99", "first text, p50"])
    rates.legend()
    figure.suptitle(about)
    figure.savefig(path, dpi=120)
    plt.close(figure)
