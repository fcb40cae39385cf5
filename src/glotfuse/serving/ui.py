"""The page to try a model, mounted into the server's app: `glotfuse serve RUN --ui`.

It asks the engine as every other client does, so that batching and limits hold for it too.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, runtime_checkable

from glotfuse.errors import GlotfuseError
from glotfuse.serving.encoding import trained_instruction
from glotfuse.serving.engine import Engine
from glotfuse.serving.requests import Text
from glotfuse.serving.ui_actions import Actions, ReadWeights
from glotfuse.serving.ui_page import HEAD, build, css, theme
from glotfuse.serving.ui_samples import sample_sentences
from glotfuse.serving.ui_weights import TokenWeights, token_weights

if TYPE_CHECKING:
    from fastapi import FastAPI

    from glotfuse.model import FusedLM

PATH = "/ui"
"""Where the page is."""

Result = TypeVar("Result")

_AT_ONCE = 32
"""Questions from pages that the engine is asked at the same time."""
_MOST_WAITING = 256
"""Questions from pages that wait for the engine to be asked."""
_KEPT = (
    "/", "/config", "/static/", "/assets/", "/svelte/", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt",
    "/login", "/logout",
    *(f"/gradio_api/{name}" for name in (
        "queue/", "cancel", "reset", "heartbeat/", "startup-events", "login_check", "user", "app_id", "theme.css",
        "info",
    )),
)  # fmt: skip
"""Beginnings of the paths that the page needs."""


class UiError(GlotfuseError):
    """The page cannot be shown."""


@runtime_checkable
class HasWorker(Protocol):
    """An engine that lends the thread on which its model runs."""

    async def on_worker(self, function: Callable[[], Result]) -> Result:
        """Runs a function on that thread, between batches."""
        ...


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
        model: The model behind the engine; its weights are read on the engine's own thread.
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
        question=trained_instruction(model),
        needs_language=hasattr(tokenizer, "src_lang") and model.encoder.src_lang is None,
    )
    page.queue(default_concurrency_limit=_AT_ONCE, max_size=_MOST_WAITING, api_open=False)
    gr.mount_gradio_app(
        app,
        page,
        PATH,
        auth=None if api_key is None else _login(api_key),
        auth_message="Enter any user name, and the server's API key as the password.",
        run_history=False,
        footer_links=[],
        show_error=True,
        max_file_size=1,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        css=css(),
        head=HEAD,
    )
    mounted = cast(Any, app.routes[-1]).app
    mounted.router.routes[:] = [route for route in mounted.router.routes if _is_kept(getattr(route, "path", ""))]
    return app


def _is_kept(path: str) -> bool:
    """Whether the page needs a route; those to upload, fetch or edit files it does not."""
    return path in _KEPT or any(path.startswith(kept) for kept in _KEPT if kept != "/")


def _login(api_key: str) -> Callable[[str, str], bool]:
    def check(_: str, key: str) -> bool:
        return secrets.compare_digest(key.encode(), api_key.encode())

    return check


def _reader(engine: Engine, model: FusedLM) -> ReadWeights | None:
    """Reads layer weights on the engine's thread; None for an engine that does not lend it."""
    if not isinstance(engine, HasWorker):
        return None

    async def read(text: Text, language: str | None) -> TokenWeights | None:
        return await engine.on_worker(lambda: token_weights(model, text, language))

    return read
