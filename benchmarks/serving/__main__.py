"""Measures `glotfuse serve` under load: `python -m benchmarks.serving RUN [--engine vllm --url URL]`.

First more and more clients, then, with a short queue, far more than there is room for. The server is started here on a
free port and stopped in the end. Exit code 1 where a promise of docs/serving-performance.md is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from benchmarks.serving.figures import Figures
from benchmarks.serving.generator import Generator, find_locust
from benchmarks.serving.rounds import Bench, Check, as_row, check_overload
from benchmarks.serving.server import LoadError, Server, serving, stop
from benchmarks.serving.tables import draw, show, show_checks
from benchmarks.serving.traffic import INSTRUCTION, NEW_TOKENS, WORKLOADS, quickstart_texts
from glotfuse.provenance import hardware, versions

VLLM_ROOM = 256
"""Requests that the vLLM engine has under way at most."""


def main() -> int:
    chosen = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=320, highlight=False)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            return measure(chosen, console, chosen.keep or Path(folder))
        except LoadError as error:
            console.print(f"error: {error}", style="red", markup=False)
            return 2


def measure(chosen: argparse.Namespace, console: Console, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    generator = Generator(find_locust(chosen.locust), folder, chosen.timeout + 10)
    setting = _setting(generator.version(), chosen)
    console.print_json(data=setting)
    texts, workloads = quickstart_texts(), [WORKLOADS[name] for name in chosen.workloads]
    arguments = [chosen.run, "--engine", chosen.engine, "--max-batch-size", str(chosen.max_batch_size)]
    arguments += ["--timeout", str(chosen.timeout)]
    arguments += ["--url", chosen.url] if chosen.url else []
    room = chosen.queue_size + 2 * chosen.max_batch_size if chosen.engine == "local" else VLLM_ROOM
    clients = chosen.overload_clients or max(8 * chosen.queue_size, 2 * room)

    def bench(server: Server) -> Bench:
        return Bench(server, generator, texts, chosen.seconds, chosen.pause, lambda line: console.print(line))

    rows: list[Figures] = []
    stopped: list[int] = []
    if chosen.clients:
        with serving(arguments, folder) as server:
            rows = list(bench(server).sweep(workloads, chosen.clients))
            stopped.append(stop(server.process))
    beyond: list[Figures] = []
    checks: list[Check] = []
    if chosen.rounds:
        with serving([*arguments, "--queue-size", str(chosen.queue_size)], folder) as server:
            before = _answer(server)
            beyond = list(bench(server).overload(workloads, clients, room, chosen.rounds))
            checks = check_overload(beyond, room, chosen.queue_size, server.alive, _answer(server) == before)
            stopped.append(stop(server.process))
    if chosen.url:
        checks.append(_vllm_idle(chosen.url))
    checks += _sweep_checks(rows, stopped)
    title = f"glotfuse serve --engine {chosen.engine}"
    if rows:
        show(console, title, rows)
    if beyond:
        show(console, f"{title} --queue-size {chosen.queue_size}, {clients} clients", beyond)
    show_checks(console, checks)
    if chosen.json:
        found = {"sweep": [as_row(row) for row in rows], "overload": [as_row(row) for row in beyond]}
        listed = [{"promise": c.promise, "found": c.found, "kept": c.kept} for c in checks]
        text = json.dumps({"setting": setting, **found, "checks": listed}, indent=1)
        chosen.json.write_text(text + "\n", "utf8")
    if chosen.plot and rows:
        draw(rows, chosen.plot, title)
    return 0 if all(check.kept for check in checks) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("run", help="run folder or hub id")
    parser.add_argument("--engine", choices=("local", "vllm"), default="local", help="of glotfuse serve")
    parser.add_argument("--url", help="of a vLLM server that runs; GLOTFUSE_LM_API_KEY holds its key")
    parser.add_argument("--clients", type=_numbers, default="1,2,4,8,16,32,64", help="numbers with commas; '' for none")
    parser.add_argument("--workloads", type=_workloads, default=",".join(WORKLOADS), help="with commas")
    parser.add_argument("--seconds", type=float, default=10, help="of each load at least; slow ones take up to 6 times")
    parser.add_argument("--max-batch-size", type=int, default=16, help="of glotfuse serve")
    parser.add_argument("--timeout", type=int, default=120, help="of glotfuse serve: seconds for a request")
    parser.add_argument("--queue-size", type=int, default=16, help="of glotfuse serve past saturation")
    parser.add_argument(
        "--overload-clients", type=int, help="past saturation; eight times the queue or more by default"
    )
    parser.add_argument("--rounds", type=int, default=2, help="past saturation; 0 for none")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds until a refused client asks again")
    parser.add_argument("--locust", help="the locust program; none looks for it")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, help="also draw them into this picture")
    parser.add_argument("--keep", type=Path, help="keep the logs and the line per request in this folder")
    chosen = parser.parse_args()
    if (chosen.engine == "vllm") != bool(chosen.url):
        parser.error("expected --url, of a vLLM server, with --engine vllm and only there")
    return chosen


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def _workloads(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(WORKLOADS):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(WORKLOADS)}; found {', '.join(sorted(unknown))}")
    return names


def _setting(locust: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "time": time.strftime("%Y-%m-%d %H:%M"),
        **hardware(),
        "cores_allowed": cores,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "load_average_before": os.getloadavg()[0],
        "versions": {**versions(), "locust": locust},
        "run": Path(chosen.run).name,
        "engine": chosen.engine,
        "max_batch_size": chosen.max_batch_size,
        "seconds": chosen.seconds,
        "new_tokens": NEW_TOKENS,
        "instruction": INSTRUCTION,
    }


def _answer(server: Server) -> Any:
    body = {"prompt": "Hello.", "instruction": INSTRUCTION, "max_tokens": 8, "temperature": 0}
    return server.client.post("/v1/completions", json=body).json()["choices"]


def _sweep_checks(rows: list[Figures], stopped: list[int]) -> list[Check]:
    lost = sum(row.sent - row.answered for row in rows)
    other = [row for row in rows if not (row.server["counts_the_same"] and row.server["idle_afterwards"])]
    found = f"{lost} of {sum(row.sent for row in rows)} requests without an answer"
    below = [
        Check("below saturation every request is answered", found, not lost),
        Check("there too: same counts, idle afterwards", f"not in {len(other)} of {len(rows)} loads", not other),
    ]
    return [
        *(below if rows else []),
        Check("the server ends by itself after SIGTERM", f"exit codes {stopped}", not any(stopped)),
    ]


def _vllm_idle(url: str) -> Check:
    """Whether the vLLM server has nothing left to do."""
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    found: dict[str, float] = {}
    for _ in range(50):
        text = httpx.get(f"{url.rstrip('/').removesuffix('/v1')}/metrics", timeout=10).text
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(names)]
        found = {name: sum(float(value) for line, value in lines if line.partition("{")[0] == name) for name in names}
        if lines and not any(found.values()):
            break
        time.sleep(0.2)
    shown = ", ".join(f"{name.removeprefix('vllm:num_requests_')} {count:.0f}" for name, count in found.items())
    return Check("the vLLM server is idle afterwards", shown, bool(lines) and not any(found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
