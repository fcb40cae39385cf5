"""The load on `glotfuse serve` is counted completely and timed rightly; Locust sends it, where it is installed."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn")
fastapi = pytest.importorskip("fastapi")
pytest.importorskip("psutil")
pytest.importorskip("prometheus_client")

from benchmarks.serving.figures import Figures, read_requests, summarise  # noqa: E402
from benchmarks.serving.generator import Generator, find_locust  # noqa: E402
from benchmarks.serving.rounds import check_overload  # noqa: E402
from benchmarks.serving.server import LoadError, serving, stop  # noqa: E402
from benchmarks.serving.traffic import WORKLOADS, quickstart_texts  # noqa: E402


def has_locust() -> bool:
    try:
        find_locust(None)
    except LoadError:
        return False
    return True


needs_locust = pytest.mark.skipif(not has_locust(), reason="needs the program locust on the path")


def write(path: Path, rows: list[dict[str, Any]], sent: int) -> Path:
    lines = [*rows, {"sent": sent, "counted_by_locust": len(rows)}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf8")
    return path


def request(begun: float, ended: float, status: int = 200, **more: Any) -> dict[str, Any]:
    whole = {"whole": status == 200, "first": None, "tokens": None, "retry_after": None}
    return {"number": 0, "begun": begun, "ended": ended, "status": status, **whole, **more}


def test_rate_and_latency_are_of_the_time_after_the_warm_up(tmp_path: Path) -> None:
    # ten seconds, of which the first two do not count; the clock starts at 100
    rows = [
        request(100.0, 101.0, tokens=4),  # ends during the warm-up
        request(101.0, 103.0, tokens=4),  # begins in it: counts for the rate only
        request(103.0, 104.0, first=0.25, tokens=4),
        request(104.0, 107.0, first=0.75, tokens=8),
        request(107.0, 115.0, first=5.0, tokens=8),  # ends late: counts for the latency only
    ]
    figures = summarise("stream", 1, 10, read_requests(write(tmp_path / "r", rows, 5)))
    assert figures.measured == 3
    assert figures.rate == pytest.approx(3 / 8)
    assert figures.tokens_per_second == pytest.approx(16 / 8)
    assert (figures.p50, figures.longest) == pytest.approx((3.0, 8.0))
    assert figures.p99 == pytest.approx(3 + 0.98 * 5)
    assert figures.first_p50 == pytest.approx(0.75)


def test_every_request_is_answered_refused_or_lost(tmp_path: Path) -> None:
    rows = [
        request(0, 1),
        request(0, 1, 429, retry_after="3"),
        request(0, 1, 429),
        request(0, 1, 429, retry_after="soon"),
        request(0, 1, 500, fault="500"),
        request(0, 1, 0, fault="connection closed"),
        request(0, 1, 200, whole=False),  # a stream that broke off
    ]
    found = summarise("classify", 8, 2, read_requests(write(tmp_path / "r", rows, 9)))  # two never came back
    assert (found.sent, found.answered, found.refused, found.lost) == (9, 1, 3, 5)
    assert found.statuses == {0: 1, 200: 2, 429: 3, 500: 1}
    assert found.without_retry_after == 2


def test_a_generator_that_was_stopped_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "r").write_text(json.dumps(request(0, 1)) + "\n", "utf8")
    with pytest.raises(ValueError, match="did not"):
        read_requests(tmp_path / "r")


def overloaded(**changes: Any) -> Figures:
    about = {"rss_peak_mb": 1000.0, "counts_the_same": True, "idle_afterwards": True, "most_waiting": 16}
    values: dict[str, Any] = {
        "workload": "classify", "clients": 128, "seconds": 10, "sent": 110, "answered": 60, "refused": 50, "lost": 0,
        "statuses": {200: 60, 429: 50}, "faults": {}, "without_retry_after": 0, "measured": 50, "rate": 6.0,
        "tokens_per_second": None, "tokens_per_answer": None, "p50": 7.0, "p99": 8.0, "longest": 11.9,
        "first_p50": None, "first_p99": None, "refusal_p99": 0.01, "server": about,
    }  # fmt: skip
    return Figures(**{**values, **changes, "server": {**about, **changes.get("server", {})}})


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        ({}, None),
        ({"answered": 59, "lost": 1}, "nothing is lost"),
        ({"statuses": {200: 60, 429: 49, 500: 1}}, "only 200 and 429"),
        ({"without_retry_after": 1}, "each 429 says"),
        ({"longest": 12.1}, "accepted requests wait"),  # 1.5 x 48 requests at 6 per second are 12 s
        ({"rate": math.nan}, "accepted requests wait"),
        ({"server": {"rss_peak_mb": 1051.0}}, "memory is bounded"),
        ({"server": {"idle_afterwards": False}}, "idle afterwards"),
        ({"server": {"counts_the_same": False}}, "server, Locust"),
        ({"server": {"most_waiting": 17}}, "at most 16 wait"),
    ],
)
def test_a_broken_promise_is_named(changes: dict[str, Any], broken: str | None) -> None:
    checks = check_overload([overloaded(), overloaded(**changes)], 48, 16, alive=True, same_answer=True)
    failed = [check.promise for check in checks if not check.kept]
    assert len(failed) == (broken is not None)
    assert all(promise.startswith(broken or "") for promise in failed)


def test_texts_are_of_all_languages_and_several_lengths() -> None:
    texts = quickstart_texts()
    assert texts == quickstart_texts()
    for script in ("ක", "த", "ا", "አ", "ខ", "क", "ক", "a"):
        assert any(script in text for text in texts), script
    lengths = sorted(len(text) for text in texts)
    assert lengths[-10] > 3 * lengths[10]
    bodies = WORKLOADS["stream"].bodies(texts)
    assert [json.loads(body)["prompt"] for body in bodies] == texts


@dataclass
class Slow:
    """Answers one request after the other, each in the same time; has room for a few; loses some on purpose."""

    each: float = 0.05
    room: int = 3
    lose_every: int = 0
    inside: int = 0
    seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("answered", "refused", "lost"), 0))

    def app(self) -> Any:
        app, turn = fastapi.FastAPI(), asyncio.Lock()

        @app.post("/v1/classify")
        async def classify(body: dict[str, Any]) -> Any:
            if self.inside >= self.room:
                self.seen["refused"] += 1
                return fastapi.responses.JSONResponse({"error": {}}, 429, {"Retry-After": "2"})
            self.inside += 1
            try:
                async with turn:
                    await asyncio.sleep(self.each)
            finally:
                self.inside -= 1
            if self.lose_every and (self.seen["answered"] + self.seen["lost"]) % self.lose_every == 1:
                self.seen["lost"] += 1
                return fastapi.Response("{", media_type="application/json")
            self.seen["answered"] += 1
            return {"data": [{"label": body["input"][:1]}]}

        @app.post("/v1/completions")
        async def stream(body: dict[str, Any]) -> Any:
            async def events() -> Any:
                for text, reason in (("a", None), ("b", "stop")):
                    choice = {"text": text, "finish_reason": reason}
                    yield f"data: {json.dumps({'choices': [choice]})}\n\n"
                    await asyncio.sleep(0.3)
                yield 'data: {"choices": [], "usage": {"completion_tokens": 2}}\n\ndata: [DONE]\n\n'

            return fastapi.responses.StreamingResponse(events(), media_type="text/event-stream")

        return app


@contextmanager
def running(slow: Slow) -> Iterator[str]:
    config = uvicorn.Config(slow.app(), port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@needs_locust
def test_locust_counts_what_the_server_counts(tmp_path: Path) -> None:
    slow = Slow(lose_every=10)
    with running(slow) as address:
        generator = Generator(find_locust(None), tmp_path)
        found, share = generator.send(address, WORKLOADS["classify"], ['{"input": "x"}'], 12, 3, pause=0.1)
    figures = summarise("classify", 12, 3, found)
    assert {"answered": figures.answered, "refused": figures.refused, "lost": figures.lost} == slow.seen
    assert min(slow.seen.values()) > 0
    assert found.sent == found.counted_by_locust == sum(slow.seen.values())
    assert figures.without_retry_after == 0
    assert figures.rate < 1 / slow.each
    assert figures.p50 > 2 * slow.each, "three are inside, and answered one after the other"
    assert 0 < share < 2


@needs_locust
def test_the_first_text_of_a_stream_is_timed_when_it_comes(tmp_path: Path) -> None:
    with running(Slow()) as address:
        generator = Generator(find_locust(None), tmp_path)
        found, _ = generator.send(address, WORKLOADS["stream"], ['{"prompt": "x"}'], 2, 2, pause=0.1)
    figures = summarise("stream", 2, 2, found)
    assert figures.lost == figures.refused == 0
    assert figures.first_p50 is not None
    assert figures.first_p50 < 0.25 < 0.6 <= figures.p50
    assert figures.tokens_per_answer == 2


def test_without_locust_the_error_says_how_to_install_it() -> None:
    with pytest.raises(LoadError, match="pip install locust"):
        find_locust("no-such-program")


def test_a_server_that_does_not_start_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="Expected --url"), serving(["run", "--engine", "vllm"], tmp_path):
        pass


def test_a_process_that_does_not_end_is_ended() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        assert stop(process, 0.2) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
