"""Keys, limits, errors, time-outs, clients that go away, and shutting down: over a real server."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from glotfuse.api import FusedLM
from glotfuse.serving.batcher import BatchLimits
from glotfuse.serving.http.service import ServeSettings
from serving_help import RunningServer, running, slowed, until
from tiny import TEXTS

JSON = {"content-type": "application/json"}
LONG = {"prompt": TEXTS[0], "max_tokens": 2000}


def is_error(response: httpx.Response, status: int, code: str | None = None) -> bool:
    """Whether it is this error in OpenAI's shape."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return response.status_code == status and (code is None or error["code"] == code)


@pytest.mark.parametrize(
    ("status", "code", "options"),
    [
        (400, "invalid_json", {"content": b"{", "headers": JSON}),
        (400, None, {"content": b"", "headers": JSON}),
        (400, None, {"content": b"[" * 100_000, "headers": JSON}),
        (400, None, {"content": b"\xff\xfe", "headers": JSON}),
        (400, "invalid_field", {"json": []}),
        (400, "invalid_field", {"json": {}}),
        (400, "invalid_field", {"json": {"prompt": [1, 2]}}),
        (400, "invalid_field", {"json": {"prompt": []}}),
        (400, "invalid_field", {"content": b'{"prompt": "\\ud800"}', "headers": JSON}),
        (400, "invalid_field", {"content": b'{"prompt": "a", "temperature": NaN}', "headers": JSON}),
        (400, "invalid_field", {"json": {"prompt": "a", "max_tokens": 10**9}}),
        (400, "invalid_input", {"json": {"prompt": {"other": "a"}}}),
        (400, "invalid_input", {"json": {"prompt": "\n"}}),
        (415, "unsupported_media_type", {"content": b"{}", "headers": {"content-type": "text/plain"}}),
        (415, "unsupported_media_type", {"content": b"{}"}),
        (413, "body_too_large", {"json": {"prompt": "a" * 1_000_001}}),
    ],
)
def test_faulty_requests_get_an_error_in_openais_shape(
    server: RunningServer, status: int, code: str | None, options: dict[str, Any]
) -> None:
    assert is_error(server.http.post("/v1/completions", **options), status, code)


def test_unknown_routes_and_methods(server: RunningServer) -> None:
    assert is_error(server.http.get("/v1/embeddings"), 404, "unknown_route")
    response = server.http.get("/v1/completions")
    assert is_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_a_body_without_a_length_is_cut_off_while_it_arrives(server: RunningServer) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 400_000_000:
            sent += 100_000
            yield b"a" * 100_000

    with contextlib.suppress(httpx.TransportError):  # the connection is closed while the client still writes
        assert is_error(server.http.post("/v1/completions", content=endless(), headers=JSON), 413)
    assert sent < 50_000_000
    assert server.http.get("/health").status_code == 200


def test_fields_of_other_clients_are_tolerated(server: RunningServer) -> None:
    body = {"prompt": "a", "max_tokens": 1, "user": "u", "metadata": {}, "n": 1, "logprobs": None, "tools": [], "x": 1}
    assert server.http.post("/v1/completions", json=body).status_code == 200


def test_the_api_key_is_asked_for_everywhere_but_at_health(model: FusedLM) -> None:
    with running(model, settings=ServeSettings(api_key="secret")) as server:
        for key in ("other", "secret2", "Secret", "ñ"):
            header = {"authorization": f"Bearer {key}".encode()}
            assert is_error(server.http.get("/v1/models", headers=header), 401, "invalid_api_key")
        assert is_error(server.http.post("/v1/completions", json={"prompt": "a"}), 401)
        with pytest.raises(openai.AuthenticationError):
            server.client(api_key="other").models.list()
        assert server.client(api_key="secret").models.list().data[0].id == "tiny"
        for route in ("/health", "/ready", "/metrics"):
            assert server.http.get(route).status_code == 200


def test_a_full_queue_answers_429_with_a_time(model: FusedLM) -> None:
    limits = BatchLimits(max_batch_size=1, queue_size=1)
    with running(model, limits=limits) as server, slowed(server.engine, 0.05), ThreadPoolExecutor(2) as pool:

        def ask(tokens: int) -> httpx.Response:
            return server.http.post("/v1/completions", json={"prompt": "a", "max_tokens": tokens})

        first = pool.submit(ask, 60)
        assert until(lambda: server.metric("glotfuse_running") == 1)
        second = pool.submit(ask, 1)
        assert until(lambda: server.metric("glotfuse_waiting") == 1)
        refused = ask(1)
        assert is_error(refused, 429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        with pytest.raises(openai.RateLimitError):
            server.client().completions.create(model="tiny", prompt="a")
        assert [first.result().status_code, second.result().status_code] == [200, 200]


def test_time_is_up(model: FusedLM) -> None:
    settings = ServeSettings(timeout=0.5)
    with running(model, settings=settings) as server, slowed(server.engine, 0.02):
        assert is_error(server.http.post("/v1/completions", json=LONG), 504, "timeout")
        with pytest.raises(openai.APIError, match="longer"):
            list(server.client().completions.create(model="tiny", stream=True, **LONG))
        assert until(lambda: server.metric("glotfuse_running") == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(model: FusedLM, stream: bool) -> None:
    with running(model, limits=BatchLimits(max_batch_size=1)) as server, slowed(server.engine, 0.02):
        body = json.dumps({**LONG, "stream": stream}).encode()
        head = (
            b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        )
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head % len(body) + body)
            if stream:
                assert b"200 OK" in client.recv(4096)
                assert server.metric("glotfuse_streams") == 1
            assert until(lambda: server.metric("glotfuse_running") == 1)
        assert until(lambda: server.metric("glotfuse_running") == 0, 5)
        assert server.metric("glotfuse_cancelled_total") == 1
        assert server.metric("glotfuse_streams") == 0
        assert server.metric("glotfuse_tokens_total") < 1000
        begun = time.monotonic()  # the only slot is free again
        assert server.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}).status_code == 200
        assert time.monotonic() - begun < 5


def test_running_requests_are_finished_and_new_ones_refused_on_shutdown(model: FusedLM) -> None:
    with running(model) as server, slowed(server.engine, 0.05), ThreadPoolExecutor(1) as pool:
        keep_alive = httpx.Client(base_url=server.url)
        assert keep_alive.get("/ready").status_code == 200
        body = {"prompt": TEXTS[0], "max_tokens": 40}
        answer = pool.submit(server.http.post, "/v1/completions", json=body)
        assert until(lambda: keep_alive.get("/ready").status_code == 200 and server.engine.load()["running"] == 1)
        server.server.handle_exit(15, None)
        assert is_error(keep_alive.post("/v1/completions", json=body), 503, "unavailable")
        assert keep_alive.get("/ready").status_code == 503
        assert keep_alive.get("/health").status_code == 200
        assert answer.result().json()["choices"][0]["text"] == model.generate(TEXTS[:1], max_new_tokens=40)[0]
        assert until(lambda: server.server.should_exit)


def test_requests_beyond_the_grace_are_told_why_they_end(model: FusedLM) -> None:
    with running(model, grace=0.3) as server, slowed(server.engine, 0.05):
        failures: list[Exception] = []

        def read() -> None:
            try:
                list(server.client().completions.create(model="tiny", stream=True, **LONG))
            except Exception as error:
                failures.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        assert until(lambda: server.engine.load()["running"] == 1)
        server.server.handle_exit(15, None)
        reader.join(10)
        assert not reader.is_alive()
        assert isinstance(failures[0], openai.APIError)
        assert "shutting down" in str(failures[0])


def test_requests_are_counted_by_route_and_status(model: FusedLM) -> None:
    with running(model) as server:
        server.http.post("/v1/classify", json={"input": ["a", "b"]})
        server.http.post("/v1/classify", json={"input": []})
        server.http.get("/random/path/1")
        text = server.http.get("/metrics").text
        assert 'glotfuse_requests_total{route="/v1/classify",status="200"} 1.0' in text
        assert 'glotfuse_requests_total{route="/v1/classify",status="400"} 1.0' in text
        assert 'glotfuse_requests_total{route="other",status="404"} 1.0' in text
        assert 'glotfuse_texts_total{kind="classify",truncated="false"} 2.0' in text
        assert "random" not in text


def test_the_command_serves_a_saved_run_and_exits_with_0_on_sigterm(model: FusedLM, tmp_path: Path) -> None:
    from glotfuse.runs.train import train_run
    from small_runs import small_recipe, write_task

    train_run(small_recipe(write_task(tmp_path / "data"), training={"epochs": 1, "evaluations": 1}), tmp_path / "run")
    command = [
        sys.executable,
        "-c",
        "from glotfuse.cli.main import main; main()",
        "serve",
        str(tmp_path / "run"),
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "Serving" in line:
                break
        url = next(word for word in lines[-1].split() if word.startswith("http"))
        answer = openai.OpenAI(base_url=url, api_key="x").completions.create(model="run", prompt="a", max_tokens=2)
        assert answer.choices[0].finish_reason
        process.terminate()
        assert process.wait(30) == 0
        assert "Stopped." in process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_an_answer_ends_where_the_lm_has_no_more_positions(model: FusedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(model) as server:
        body = {"prompt": TEXTS[0], "max_tokens": 2}
        num_prompt = server.http.post("/v1/completions", json=body).json()["usage"]["prompt_tokens"]
        monkeypatch.setattr(model.lm.model.config, "max_position_embeddings", num_prompt + 5)
        answer = server.http.post("/v1/completions", json=LONG).json()
        (expected,) = model.generate(TEXTS[:1], max_new_tokens=6)  # the sixth is never read
        assert answer["choices"][0]["text"] == expected
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 6
        long = {**body, "instruction": "word " * 200}
        assert is_error(server.http.post("/v1/completions", json=long), 400, "invalid_input")
