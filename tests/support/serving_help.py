"""A real uvicorn server of a tiny model, in a thread of the test process, on a free port."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai

from glotfuse.serving.batcher import BatchLimits
from glotfuse.serving.http.app import build_app
from glotfuse.serving.http.metrics import Metrics
from glotfuse.serving.http.server import GracefulServer, server_config
from glotfuse.serving.http.service import ServeSettings
from glotfuse.serving.local.engine import LocalEngine


class RunningServer:
    """What tests need of a server."""

    def __init__(self, url: str, server: GracefulServer, engine: LocalEngine):
        self.url = url
        self.server = server
        self.engine = engine
        self.http = httpx.Client(base_url=url, timeout=60)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def client(self, **options: Any) -> openai.OpenAI:
        """The official client."""
        return openai.OpenAI(base_url=f"{self.url}/v1", **{"api_key": "unused", "max_retries": 0, **options})


@contextmanager
def running(
    model: Any, *, limits: BatchLimits | None = None, settings: ServeSettings | None = None, grace: float = 20
) -> Iterator[RunningServer]:
    """A server of a model."""
    started = threading.Event()
    made: list[RunningServer] = []

    def work() -> None:
        asyncio.run(serve())

    async def serve() -> None:
        metrics = Metrics()
        engine = LocalEngine(model, name="tiny", limits=limits, on_batch=metrics.count_batch)
        app = build_app(engine, settings, metrics)
        config = server_config(app, port=0, timeout_graceful_shutdown=3)
        server = GracefulServer(config, app.state.service, grace, lambda: None)
        task = asyncio.create_task(server.serve())
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        made.append(RunningServer(f"http://127.0.0.1:{port}", server, engine))
        started.set()
        await task

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(60)
    try:
        yield made[0]
    finally:
        made[0].server.should_exit = True
        made[0].http.close()
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def slowed(engine: LocalEngine, seconds: float) -> Iterator[None]:
    """Each step of generation takes so long inside, which makes a tiny model last."""
    step = engine._decoder.step

    def slow() -> None:
        time.sleep(seconds)
        step()

    engine._decoder.step = slow  # type: ignore[method-assign]
    try:
        yield
    finally:
        engine._decoder.step = step  # type: ignore[method-assign]


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether a condition becomes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
