"""The page to try a model, mounted into the server's app: `glotfuse serve RUN --ui`.

It asks the engine as every other client does, so that batching and limits hold for it too.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glotfuse.errors import GlotfuseError
from glotfuse.inspection.weights import TokenWeights, example_weights, token_weights
from glotfuse.serving.engine import Engine
from glotfuse.serving.model_engine import ModelEngine
from glotfuse.serving.page.actions import Actions, ReadWeights
from glotfuse.serving.page.layout import HEAD, build, css, theme
from glotfuse.serving.page.samples import sample_sentences

if TYPE_CHECKING:
    from glotfuse.api import FusedLM
    from glotfuse.inputs.reader import Text

PATH = "/ui"
"""Where the page is."""

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<path fill="#0f766e" d="M1 2h14v3H1zm2 5h10v3H3zm3 5h4v3H6z"/></svg>'
)
_AT_ONCE = 32
"""Questions from pages that the engine is asked at the same time."""
_MOST_WAITING = 256
"""Questions from pages that wait for the engine to be asked."""
_POLL = 0.2
"""Seconds."""
_MOST_BYTES = 1_000_000
"""Largest body."""
_NEEDED = {
    "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/login", "/logout",
    *(f"/gradio_api/{name}" for name in (
        "queue/join", "queue/data", "cancel", "reset", "startup-events", "login_check", "user", "app_id", "info",
        "theme.css",
    )),
}  # fmt: skip
_NEEDED_FOLDERS = ("/static/", "/assets/", "/svelte/", "/gradio_api/heartbeat/")


class UiError(GlotfuseError):
    """The page cannot be shown."""


def require_gradio() -> None:
    """Checks that Gradio is there.

    Raises:
        UiError: It is missing or older than 6.
    """
    try:
        import gradio
    except ImportError as error:
        raise UiError(
            f"Expected gradio for the page; found none ({error}). Install it with: pip install 'glotfuse[ui]'"
        ) from None
    if int(gradio.__version__.split(".")[0]) < 6:
        raise UiError(
            f"Expected gradio 6 or newer; found {gradio.__version__}. Update it with: pip install 'glotfuse[ui]' -U"
        )


def mount(
    app: FastAPI, engine: Engine, model: FusedLM, *, api_key: str | None = None, timeout: float = 120.0
) -> FastAPI:
    """Puts the page under `/ui` of an app, before the app starts.

    Args:
        app: The server's app.
        engine: Answers the page's questions.
        model: The model behind the engine; its weights are read on the engine's own threads.
        api_key: Asked for in a login form where it is set.
        timeout: Seconds after which an answer is given up.

    Returns:
        The same app.

    Raises:
        UiError: Gradio is missing or too old.
    """
    require_gradio()
    import gradio as gr

    actions = Actions(engine, _reader(engine, model), timeout)
    tokenizer = model.encoder.tokenizer
    page = build(
        actions,
        engine.description,
        sample_sentences(),
        question=model.trained_instruction,
        needs_language=hasattr(tokenizer, "src_lang") and model.encoder.src_lang is None,
    )
    app.add_route("/favicon.ico", _icon)
    page.queue(default_concurrency_limit=_AT_ONCE, max_size=_MOST_WAITING, api_open=False)
    gr.mount_gradio_app(
        app,
        page,
        PATH,
        auth=None if api_key is None else lambda _, given: secrets.compare_digest(given.encode(), api_key.encode()),
        auth_message="Enter any user name, and the server's API key as the password.",
        run_history=False,
        footer_links=[],
        show_error=False,
        max_file_size=1,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        css=css(),
        head=HEAD,
    )
    mounted = cast(Any, app.routes[-1])
    page.extra_startup_events.append(_closing(app, mounted.app))
    mounted.app = _OnlyNeeded(mounted.app)
    return app


async def _icon(_: Request) -> Response:
    """Browsers ask for it at the root."""
    return Response(_ICON, media_type="image/svg+xml")


def _closing(app: FastAPI, inner: Any) -> Callable[[], Awaitable[None]]:
    """Ends the connections that open pages keep alive once the server drains; it would wait for them in vain."""
    tasks: list[asyncio.Task[None]] = []

    async def wait() -> None:
        while not app.state.service.state.draining:
            await asyncio.sleep(_POLL)
        inner.stop_event.set()

    async def start() -> None:
        if hasattr(app.state, "service"):
            tasks.append(asyncio.create_task(wait()))

    return start


class _OnlyNeeded:
    """Lets through what the page needs, and bodies of a size that it may have.

    The library's routes to upload, fetch or edit files are not among it.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_needed(scope["path"].removeprefix(PATH)):
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > _MOST_BYTES:
                raise HTTPException(413, f"Expected a body of at most {_MOST_BYTES:,} bytes; this one is larger.")
            return message

        await self.app(scope, counted, send)


def is_needed(path: str) -> bool:
    """Whether the page needs a path below `/ui`."""
    exact = path.rstrip("/") or "/"
    return exact in _NEEDED or any(path.startswith(folder) for folder in _NEEDED_FOLDERS)


def _reader(engine: Engine, model: FusedLM) -> ReadWeights | None:
    """Reads layer weights on the engine's threads; None for an engine that does not lend them."""
    if not isinstance(engine, ModelEngine):
        return None

    async def read(text: Text, language: str | None) -> TokenWeights | None:
        if not model.fusion.reads_encoder:
            return None
        example = await engine.on_reader(lambda: model.prepare([text], language)[0])
        weights = await engine.on_worker(lambda: example_weights(model, example))
        return await engine.on_reader(lambda: token_weights(model, text, language, example, weights))

    return read
