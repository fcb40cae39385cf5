"""`glotfuse serve`: an HTTP API of a run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from glotfuse.cli.options import Device, Run, say
from glotfuse.errors import ConfigError

if TYPE_CHECKING:
    from glotfuse.serving.engine import Engine

_NEEDED = ("fastapi", "uvicorn", "prometheus_client", "httpx")


def serve(
    run: Run,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    engine: Annotated[
        Literal["local", "vllm"], typer.Option(help="Where the LM runs: in this process, or in a vLLM server.")
    ] = "local",
    url: Annotated[str | None, typer.Option(help="Of the vLLM server, with --engine vllm.")] = None,
    lm_name: Annotated[
        str | None, typer.Option(help="The LM's name in the vLLM server; none takes the only one.")
    ] = None,
    lm_api_key: Annotated[
        str | None, typer.Option(help="The vLLM server's API key.", envvar="GLOTFUSE_LM_API_KEY", show_envvar=True)
    ] = None,
    name: Annotated[str | None, typer.Option(help="What clients call the model; none takes the run's name.")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="What clients must send as bearer token.", envvar="GLOTFUSE_API_KEY", show_envvar=True),
    ] = None,
    max_batch_size: Annotated[int, typer.Option(help="Most requests that run together.", min=1)] = 16,
    max_wait_ms: Annotated[
        float, typer.Option(help="Milliseconds that a first request waits for others.", min=0)
    ] = 5.0,
    queue_size: Annotated[int, typer.Option(help="Most requests that wait; more are refused (429).", min=1)] = 128,
    timeout: Annotated[float, typer.Option(help="Most seconds for a request (504).", min=0.01)] = 120.0,
    grace: Annotated[
        float, typer.Option(help="Seconds that running requests get when the server is stopped.", min=0)
    ] = 30.0,
    max_body_mb: Annotated[float, typer.Option(help="Largest request body, in megabytes.", min=0.001)] = 1.0,
    max_connections: Annotated[
        int, typer.Option(help="Most connections; for one more the longest idle one is closed.", min=1)
    ] = 1000,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="Of both backbones: auto, float32, bfloat16 or float16.")] = "auto",
    ui: Annotated[bool, typer.Option("--ui", help="Also serve a page to try the model, at /ui.")] = False,
) -> None:
    """Serve a run over HTTP.

    OpenAI's completions and chat completions with streaming, label scores, health and Prometheus metrics. Any OpenAI
    client works: its base URL is the address with /v1.
    """
    _check(engine, url, ui)
    from glotfuse.api import FusedLM

    say(f"Loading {run} ...")
    model = FusedLM.from_pretrained(run, device=device, dtype=dtype)

    from glotfuse.serving.batcher import BatchLimits
    from glotfuse.serving.http.app import build_app
    from glotfuse.serving.http.metrics import Metrics
    from glotfuse.serving.http.patience import Patience
    from glotfuse.serving.http.server import run as run_server
    from glotfuse.serving.http.service import ServeSettings

    metrics, name = Metrics(), name or (Path(run).resolve().name if Path(run).is_dir() else run)
    limits = BatchLimits(max_batch_size, max_wait_ms, queue_size)
    shared: dict[str, Any] = {"name": name, "limits": limits, "on_batch": metrics.count_batch}
    chosen: Engine
    if not url:
        from glotfuse.serving.local.engine import LocalEngine

        chosen = LocalEngine(model, **shared)
    else:
        from glotfuse.serving.vllm.engine import VllmEngine

        chosen = VllmEngine(model, url, lm_name, lm_api_key, timeout=timeout, **shared)
    patience = Patience(connections=max_connections)
    settings = ServeSettings(api_key or None, timeout, int(max_body_mb * 1_000_000), patience)
    app = build_app(chosen, settings, metrics)
    if ui:
        from glotfuse.serving.page.mount import mount

        mount(app, chosen, model, api_key=api_key or None, timeout=timeout)

    def announce(address: str) -> None:
        say(f"Serving {name} at {address}/v1 (engine {engine}{', API key asked for' if api_key else ''})")
        if ui:
            say(f"Page to try it: {address}/ui")

    run_server(app, host, port, grace, announce)
    say("Stopped.")


def _check(engine: str, url: str | None, ui: bool) -> None:
    """Everything that is wrong with the options, before anything is loaded."""
    missing = sorted(module for module in _NEEDED if find_spec(module) is None)
    if missing:
        raise ConfigError(
            f"Expected {', '.join(missing)} for `glotfuse serve`; found none. "
            "Install it with: pip install 'glotfuse[serve]'"
        )
    if engine == "vllm" and not url:
        raise ConfigError("Expected --url, the address of a vLLM server, with --engine vllm; found none.")
    if engine == "local" and url:
        raise ConfigError(f"Expected --url only with --engine vllm; found {url!r} with the local engine.")
    if ui and find_spec("gradio") is None:
        raise ConfigError("Expected gradio for --ui; found none. Install it with: pip install 'glotfuse[ui]'")
