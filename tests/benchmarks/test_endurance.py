"""The endurance test finds servers that wait for ever, lose answers, or grow."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

uvicorn = pytest.importorskip("uvicorn")
fastapi = pytest.importorskip("fastapi")
pytest.importorskip("psutil")

from benchmarks.serving.bad_networks import KINDS, Kind, Outcome, Target, misbehave  # noqa: E402
from benchmarks.serving.endurance import State, judge_memory  # noqa: E402
from benchmarks.serving.mixed import Mixed, Tally  # noqa: E402

from glotfuse.serving.http.patience import Patience  # noqa: E402
from glotfuse.serving.http.service import ServeSettings  # noqa: E402
from serving_help import running  # noqa: E402
from tiny import tiny_model  # noqa: E402

SHORT = Patience(idle=2, head=1, body=2, unread=1.5)


def outcomes(address: str, kinds: list[Kind]) -> dict[str, Outcome]:
    target = Target("127.0.0.1", int(address.rpartition(":")[2]), SHORT)

    async def work() -> list[Outcome]:
        return await asyncio.gather(*(misbehave(kind, target, random.Random(0)) for kind in kinds))

    return dict(zip([kind.name for kind in kinds], asyncio.run(work()), strict=True))


@contextmanager
def served(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_the_server_gives_every_bad_client_what_it_should() -> None:
    with running(tiny_model(), settings=ServeSettings(patience=SHORT, timeout=60)) as server:
        found = outcomes(server.url, list(KINDS))
    assert {name: outcome.what for name, outcome in found.items() if not outcome.is_right} == {}


def test_a_server_that_waits_for_ever_is_found_out() -> None:
    app = fastapi.FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {}

    @app.get("/metrics")
    async def metrics() -> Any:
        return fastapi.Response("a" * 20_000)

    @app.post("/v1/completions")
    async def complete(body: dict[str, Any]) -> dict[str, str]:
        return {}

    names = ("silent", "endless_headers", "body_without_end", "body_after_the_answer", "never_reads_answers")
    chosen = [kind for kind in KINDS if kind.client.__name__ in names]
    with served(app) as address:
        found = outcomes(address, chosen)
    assert [name for name, outcome in found.items() if outcome.is_right] == []
    assert len(found) == len(names)


def test_lost_and_changed_answers_are_counted() -> None:
    app, count = fastapi.FastAPI(), 0

    @app.post("/v1/completions")
    async def complete(body: dict[str, Any]) -> Any:
        nonlocal count
        count += 1
        if body.get("stream"):
            return fastapi.Response('data: {"choices": [{"text": "a"}]}\n\n', media_type="text/event-stream")
        return {"choices": [{"text": str(count), "finish_reason": "stop"}]}

    @app.post("/v1/chat/completions")
    async def chat(body: dict[str, Any]) -> Any:
        return {"choices": [{"message": {"content": "a"}, "finish_reason": None}]}

    tally = Tally()

    async def work(address: str) -> None:
        mixed = Mixed(address, ["a"], tally)
        for _ in range(60):
            await mixed.one()
        await mixed.close()

    with served(app) as address:
        asyncio.run(work(address))
    assert "another answer than before" in tally.wrong["completion"]
    assert tally.wrong["stream"].total() == tally.seen["stream"].total() > 0
    assert set(tally.wrong["chat"]) == {"an answer without its end"}
    assert any(what.startswith("404") for what in tally.wrong["labels"])


def test_only_during_a_restart_may_a_connection_be_refused() -> None:
    tally = Tally()

    async def work(restarting: bool) -> None:
        mixed = Mixed("http://127.0.0.1:9", ["a"], tally)
        mixed.restarting = restarting
        try:
            async with asyncio.timeout(1):
                await mixed.one()
        except TimeoutError:  # it comes again until it is answered
            assert restarting
        await mixed.close()

    asyncio.run(work(True))
    assert tally.num_wrong == 0
    asyncio.run(work(False))
    assert tally.num_wrong == 1


@pytest.mark.parametrize(("per_second", "is_right"), [(0.0, True), (0.2, False)])
def test_memory_that_grows_is_found_out(per_second: float, is_right: bool) -> None:
    tally = Tally()
    samples = [(float(t), State(500 + per_second * t + (t % 7) / 2, 9, 5)) for t in range(100)]
    judge_memory(tally, samples, 1000)
    assert (tally.num_wrong == 0) is is_right
