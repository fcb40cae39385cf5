"""Clients that are slow, silent, gone or too many: over real sockets, with short times."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from glotfuse.api import FusedLM
from glotfuse.serving.batcher import BatchLimits
from glotfuse.serving.http.connections import most_connections
from glotfuse.serving.http.patience import Patience
from glotfuse.serving.http.service import ServeSettings
from serving_help import RunningServer, running, slowed, until
from tiny import TEXTS

SHORT = Patience(idle=1.5, head=0.6, body=0.6, unread=0.8, connections=8)
LONG = {"prompt": TEXTS[0], "max_tokens": 400}


@pytest.fixture(scope="module")
def hasty(model: FusedLM) -> Iterator[RunningServer]:
    with running(model, settings=ServeSettings(patience=SHORT, timeout=20)) as server:
        with_small_buffers(server)
        yield server


def with_small_buffers(server: RunningServer) -> None:
    """The system keeps little of what a client of this server has not read."""
    server.server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


@contextmanager
def connected(server: RunningServer, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    with socket.socket() as client:
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(10)
        client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        yield client


def post(body: dict[str, Any], route: str = "/v1/completions", **headers: str) -> bytes:
    content = json.dumps(body).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return (
        f"POST {route} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{more}"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
    )


def all_of(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(65_536):
            found += part
    return found


def dribble(client: socket.socket, content: bytes, every: float = 0.05, seconds: float = 5) -> float:
    """Sends a byte at a time again and again until the server closes; returns after how long."""
    begun = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - begun < seconds:
            for byte in content:
                client.sendall(bytes([byte]))
                time.sleep(every)
                if time.monotonic() - begun > seconds:
                    break
    return time.monotonic() - begun


def open_connections(server: RunningServer) -> int:
    return len(server.server.server_state.connections)


def busy_connections(server: RunningServer) -> int:
    return sum(connection.is_busy for connection in list(server.server.server_state.connections))


def test_a_connection_that_says_nothing_is_closed(hasty: RunningServer) -> None:
    with connected(hasty) as client:
        begun = time.monotonic()
        assert all_of(client) == b""
        assert 1.2 < time.monotonic() - begun < 4


@pytest.mark.parametrize("answered_before", [False, True])
def test_headers_that_never_end_are_cut_off(hasty: RunningServer, answered_before: bool) -> None:
    with connected(hasty) as client:
        if answered_before:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"200 OK" in client.recv(4096)
        assert dribble(client, b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 50) < 3


def test_a_slow_request_within_its_time_is_answered(hasty: RunningServer) -> None:
    with connected(hasty) as client:
        for byte in b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n":
            client.sendall(bytes([byte]))
            time.sleep(0.005)
        assert b"200 OK" in client.recv(4096)


@pytest.mark.parametrize("headers", [b"Content-Length: 5000", b"Transfer-Encoding: chunked"])
def test_a_body_that_does_not_come_is_408(hasty: RunningServer, headers: bytes) -> None:
    with connected(hasty) as client:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        client.sendall(head + headers + b"\r\n\r\n")
        found = all_of(client)
        assert found.startswith(b"HTTP/1.1 408")
        assert b'"slow_body"' in found


def test_a_body_that_goes_on_after_the_answer_is_cut_off(hasty: RunningServer) -> None:
    with connected(hasty) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b"200 OK" in client.recv(4096)
        assert dribble(client, b"1\r\na\r\n") < 3


def test_a_body_that_no_route_reads_in_time_is_cut_off(hasty: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # a route beside /v1 that waits for the whole body, as the page's do
    monkeypatch.setattr("glotfuse.serving.http.connections._MORE_BODY", 0.2)
    app: Any = hasty.server.config.app

    async def wait(request: Any) -> Any:
        await request.body()

    app.add_route("/waits", wait, methods=["POST"])
    with connected(hasty) as client:
        client.sendall(b"POST /waits HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n")
        assert dribble(client, b"a") < 3


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "pipelined"])
def test_a_client_that_does_not_read_is_cut_off(
    hasty: RunningServer, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(hasty, receive_buffer=2048) as client, caplog.at_level(logging.WARNING):
        content = post({"prompt": [TEXTS[0]] * 32, "max_tokens": 400, "stream": True})
        if not stream:
            content = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 3000
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError, ConnectionError):
            client.sendall(content)
        assert until(lambda: open_connections(hasty) >= 1, 5)
        others = open_connections(hasty)
        assert until(lambda: behind(hasty), 15), "the answer never filled the buffers"
        assert until(lambda: not behind(hasty), 5)
        assert open_connections(hasty) <= others
        assert until(lambda: hasty.metric("glotfuse_streams") == 0, 10)
    assert "Traceback" not in caplog.text


def behind(server: RunningServer) -> bool:
    connections: Any = list(server.server.server_state.connections)
    return any(connection.transport.get_write_buffer_size() for connection in connections)


def test_a_stream_that_nobody_reads_ends_with_its_time_and_without_a_traceback(
    model: FusedLM, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ServeSettings(timeout=3, patience=Patience(unread=60))
    with running(model, settings=settings) as server:
        with_small_buffers(server)
        with connected(server, 2048) as client:
            client.sendall(post({"prompt": [TEXTS[0]] * 32, "max_tokens": 400, "stream": True}))
            assert until(lambda: server.metric("glotfuse_streams") == 1)
            assert until(lambda: behind(server), 2.5)
            other = server.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2})
            assert other.status_code == 200  # the batch goes on without the one that does not read
            assert until(lambda: server.metric("glotfuse_streams") == 0, 8)
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("reset", [True, False])
def test_a_client_that_goes_away_after_more_bytes_frees_its_slot(model: FusedLM, reset: bool) -> None:
    with (
        running(model, limits=BatchLimits(max_batch_size=1)) as server,
        slowed(server.engine, 0.05),
        connected(server) as client,
    ):
        client.sendall(post(LONG))
        assert until(lambda: server.metric("glotfuse_running") == 1)
        client.sendall(b"GARBAGE\r\n\r\n")  # a pipelined request, or not even that
        time.sleep(0.2)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert until(lambda: server.metric("glotfuse_running") == 0, 3)
        assert server.metric("glotfuse_cancelled_total") == 1


def test_pipelined_requests_are_answered_in_order(hasty: RunningServer) -> None:
    with connected(hasty) as client:
        one = {"prompt": TEXTS[0], "max_tokens": 3}
        client.sendall(post(one) + post({**one, "model": "other"}) + post(one, connection="close") + b"ignored")
        found = all_of(client)
    assert re.findall(rb"HTTP/1.1 (\d+)", found) == [b"200", b"404", b"200"]


def test_bytes_that_are_no_http_after_an_answer_make_no_traceback(
    hasty: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    with connected(hasty) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b"200 OK" in client.recv(4096)
        client.sendall(b"ZZ\r\n\r\n")
        all_of(client)
    with connected(hasty) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n\r\n")
        assert b"400 Bad Request" in all_of(client)
    with connected(hasty) as client:
        client.sendall(post(LONG, upgrade="websocket", connection="Upgrade")[:-5])
        assert b"408" in all_of(client)
    assert hasty.http.get("/health").status_code == 200
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


def test_idle_connections_make_room_for_new_ones(model: FusedLM) -> None:
    patience = Patience(connections=8)
    with running(model, settings=ServeSettings(patience=patience)) as server, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(server)) for _ in range(30)]
        with httpx.Client(base_url=server.url) as client:
            assert client.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}).status_code == 200
        assert until(lambda: open_connections(server) <= 9)
        assert idle[0].recv(10) == b""  # the oldest went
        idle[-1].sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200 OK" in idle[-1].recv(4096)


def test_where_all_connections_are_in_use_one_more_is_refused(model: FusedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServeSettings(patience=Patience(connections=4))
    with (
        running(model, settings=settings) as server,
        slowed(server.engine, 0.05),
        contextlib.ExitStack() as stack,
    ):
        for _ in range(4):
            client = stack.enter_context(connected(server))
            client.sendall(post(LONG))
        assert until(lambda: server.engine.load()["running"] == 4)
        with httpx.Client(base_url=server.url) as more:
            refused = more.post("/v1/completions", json={"prompt": "a"})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "too_many_connections"
            assert int(refused.headers["retry-after"]) > 0
            assert more.get("/health").status_code == 200  # a full server is not a dead one
        assert until(lambda: open_connections(server) == 4)
        monkeypatch.setattr("glotfuse.serving.http.gate._REFUSED_BODY", 60.0)  # they wait to be refused
        for number in range(150):
            client = stack.enter_context(connected(server))
            with contextlib.suppress(ConnectionError):
                client.sendall(post(LONG)[:-5])
            if number < 60:  # before it has asked it is idle, and the next one may take its place
                assert until(lambda number=number: busy_connections(server) == 4 + number + 1)
        assert until(lambda: 60 < open_connections(server) < 4 + 64 + 5)
        assert server.engine.load()["running"] == 4


def test_a_request_that_has_begun_goes_last_where_room_is_made(model: FusedLM) -> None:
    with (
        running(model, settings=ServeSettings(patience=Patience(connections=8))) as server,
        contextlib.ExitStack() as stack,
    ):
        slow = stack.enter_context(connected(server))
        slow.sendall(b"GET /health HTTP/1.1\r\nHo")
        assert until(lambda: open_connections(server) == 1)
        for _ in range(30):
            stack.enter_context(connected(server))
        assert until(lambda: open_connections(server) == 8)
        slow.sendall(b"st: a\r\n\r\n")
        assert b"200 OK" in slow.recv(4096)


@pytest.mark.parametrize("key", ["wrong", "right"])
def test_a_refused_request_gets_its_answer_though_it_still_sends(model: FusedLM, key: str) -> None:
    with running(model, settings=ServeSettings(api_key="right")) as server, connected(server) as client:
        kind = "application/json" if key == "wrong" else "text/plain"
        head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
        client.sendall(f"{head}Content-Type: {kind}\r\nContent-Length: 300000\r\n\r\n".encode())
        for _ in range(30):
            client.sendall(b"a" * 10_000)
            time.sleep(0.01)
        assert all_of(client).startswith(b"HTTP/1.1 401" if key == "wrong" else b"HTTP/1.1 415")


def test_a_half_sent_request_does_not_hold_up_the_shutdown(model: FusedLM) -> None:
    with running(model, grace=20) as server, connected(server) as client:
        client.sendall(post(LONG)[:-5])
        assert until(lambda: server.server._service.state.open_requests == 1)
        begun = time.monotonic()
        server.server.handle_exit(15, None)
        found = all_of(client)
        assert found.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in found.lower()
        assert time.monotonic() - begun < 4


def test_answers_during_shutdown_say_that_the_connection_ends(model: FusedLM) -> None:
    with running(model) as server, slowed(server.engine, 0.02), connected(server) as client:
        client.sendall(post({"prompt": TEXTS[0], "max_tokens": 20}))
        assert until(lambda: server.engine.load()["running"] == 1)
        server.server.handle_exit(15, None)
        found = all_of(client)
        assert found.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in found.lower()


def test_websockets_are_not_spoken_whatever_is_installed(hasty: RunningServer) -> None:
    # with the package `websockets` uvicorn would hand the connection to a protocol without these limits
    assert hasty.server.config.ws == "none"


def test_no_more_connections_than_the_process_may_open(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    for files, expected in ((1024, 640), (10**6, 1000), (resource.RLIM_INFINITY, 1000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert most_connections(1000) == expected


def test_requests_take_no_threads(model: FusedLM) -> None:
    with running(model) as server:
        server.http.get("/v1/models")
        before = {thread.name for thread in threading.enumerate()}
        for _ in range(3):
            assert server.http.get("/v1/models").status_code == 200
        assert not [name for name in before if "AnyIO" in name]
