"""A real server of a tiny model with the page mounted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from glotfuse.serving.http.app import build_app
from glotfuse.serving.http.server import GracefulServer, server_config
from glotfuse.serving.http.service import ServeSettings
from glotfuse.serving.local.engine import LocalEngine
from glotfuse.serving.page.mount import mount

pytest.importorskip("gradio", reason="gradio is not installed")


@contextmanager
def page_of(model: Any, *, api_key: str | None = None) -> Iterator[tuple[str, LocalEngine]]:
    """Address and engine."""
    started = threading.Event()
    made: list[Any] = []

    async def serve() -> None:
        engine = LocalEngine(model, name="tiny run")
        app = build_app(engine, ServeSettings(api_key))
        mount(app, engine, model, api_key=api_key)
        config = server_config(app, port=0, timeout_graceful_shutdown=2)
        server = GracefulServer(config, app.state.service, 2, lambda: None)
        task = asyncio.create_task(server.serve())
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        made.extend((server, engine, server.servers[0].sockets[0].getsockname()[1]))
        started.set()
        await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(60)
    server, engine, port = made
    try:
        yield f"http://127.0.0.1:{port}", engine
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
