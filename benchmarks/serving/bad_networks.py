"""Clients that no network should have: slow, silent, endless, gone. Each says what happened and whether it may.

A kind is a coroutine that connects, misbehaves and returns an `Outcome`. `KINDS` lists them with the seconds that they
take and how many are there at once.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from benchmarks.serving.hostile_requests import BROKEN
from glotfuse.serving.http.patience import Patience

_LATE = 5.0
"""Seconds by which a server may be late on a busy machine."""
_HEAD = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
_GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass(frozen=True)
class Target:
    """Where the server is, and how long it should wait."""

    host: str
    port: int
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class Outcome:
    """What happened to a client."""

    what: str
    is_right: bool


class Line:
    """A connection without a library between."""

    def __init__(self, raw: socket.socket):
        self.raw = raw
        self.begun = time.monotonic()

    async def send(self, content: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.raw, content)

    async def some(self, size: int = 65_536) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.raw, size)

    async def rest(self, seconds: float) -> tuple[bytes, bool]:
        """What comes until the server closes, and whether it does in time."""
        found, closed = bytearray(), True
        try:
            async with asyncio.timeout(seconds):
                while part := await self.some():
                    found += part
                    await asyncio.sleep(0)  # what is there already is read without waiting: time would never be up
        except TimeoutError:
            closed = False
        except ConnectionError:
            pass
        return bytes(found), closed

    async def dribble(self, content: bytes, every: float, seconds: float | None = None) -> None:
        """A byte at a time: once, or again and again until the server closes or time is up."""
        end = time.monotonic() + (seconds or 0)
        while True:
            for byte in content:
                await self.send(bytes([byte]))
                await asyncio.sleep(every)
                if seconds and time.monotonic() > end:
                    return
            if not seconds:
                return

    def reset(self) -> None:
        """Closes without a FIN."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()

    @property
    def age(self) -> float:
        return time.monotonic() - self.begun


@asynccontextmanager
async def line(target: Target, receive_buffer: int | None = None) -> AsyncGenerator[Line]:
    with socket.socket() as raw:
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (target.host, target.port))
        yield Line(raw)


def post(max_tokens: int = 8, stream: bool = False, prompts: int = 1) -> bytes:
    content = json.dumps({"prompt": ["Hello there."] * prompts, "max_tokens": max_tokens, "stream": stream}).encode()
    return f"{_HEAD}Content-Length: {len(content)}\r\n\r\n".encode() + content


def status(answer: bytes) -> str:
    return answer.split()[1].decode() if answer.startswith(b"HTTP/1.1 ") else "closed"


async def _closed(open_line: Line, within: float, right: tuple[str, ...] = ("closed",)) -> Outcome:
    """Waits for the server to close: in time, with one of these answers."""
    answer, closed = await open_line.rest(within + _LATE - open_line.age)
    what = status(answer)
    return Outcome(what if closed else f"{what}, still open after {open_line.age:.0f} s", closed and what in right)


async def _fed(open_line: Line, content: bytes, every: float, within: float, right: tuple[str, ...]) -> Outcome:
    """The same, while a byte comes now and then."""
    feeding = asyncio.create_task(open_line.dribble(content, every, within + _LATE))
    outcome = await _closed(open_line, within, right)
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    return outcome


async def _answered(open_line: Line) -> Outcome:
    async with asyncio.timeout(60):
        answer = await open_line.some()
    return Outcome(status(answer), status(answer) == "200")


async def silent(target: Target, _: random.Random) -> Outcome:
    async with line(target) as it:
        return await _closed(it, target.patience.idle)


async def kept_alive(target: Target, _: random.Random) -> Outcome:
    async with line(target) as it:
        await it.send(_GET)
        if status(await it.some()) != "200":
            return Outcome("no answer", False)
        return await _closed(it, target.patience.idle)


async def slow_headers(target: Target, _: random.Random) -> Outcome:
    async with line(target) as it:
        await it.dribble(_GET, min(0.05, target.patience.head / 100))
        return await _answered(it)


async def endless_headers(target: Target, _: random.Random) -> Outcome:
    async with line(target) as it:
        return await _fed(it, _GET[:-2] + b"X: y\r\n" * 50, 0.1, target.patience.head, ("closed", "400"))


async def slow_body(target: Target, _: random.Random) -> Outcome:
    async with line(target) as it:
        head, _, body = post().partition(b"\r\n\r\n")
        await it.send(head + b"\r\n\r\n")
        await it.dribble(body, min(0.05, target.patience.body / 200))
        return await _answered(it)


async def body_without_end(target: Target, _: random.Random) -> Outcome:
    async with line(target) as it:
        await it.send(f"{_HEAD}Content-Length: 900000\r\n\r\n".encode())
        return await _fed(it, b" ", 0.1, target.patience.body, ("408",))


async def chunks_without_end(target: Target, _: random.Random) -> Outcome:
    async with line(target) as it:
        await it.send(f"{_HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        return await _fed(it, b"1\r\n \r\n", 0.02, target.patience.body, ("408",))


async def flood_of_chunks(target: Target, _: random.Random) -> Outcome:
    """Counted by what the server takes: nobody sends more than it has room for."""
    async with line(target) as it:
        await it.send(f"{_HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        sent = 0
        try:
            while sent < 200_000_000 and it.age < target.patience.body + _LATE:
                await it.send(b"10000\r\n" + b" " * 65_536 + b"\r\n")
                sent += 65_536
        except ConnectionError:
            pass
        answer, closed = await it.rest(_LATE)
        return Outcome(status(answer), closed and sent < 50_000_000 and status(answer) in ("413", "closed"))


async def body_after_the_answer(target: Target, _: random.Random) -> Outcome:
    async with line(target) as it:
        await it.send(_GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\n")
        return await _fed(it, b"1\r\n \r\n", 0.1, target.patience.head, ("200",))


async def body_too_short_then_silence(target: Target, _: random.Random) -> Outcome:
    async with line(target) as it:
        await it.send(post()[:-3])
        return await _closed(it, target.patience.body, ("408",))


async def body_too_short_then_gone(target: Target, rng: random.Random) -> Outcome:
    async with line(target) as it:
        await it.send(post()[: -rng.randrange(1, 40)])
        await asyncio.sleep(0.05)
        if rng.random() < 0.5:
            it.reset()
    return Outcome("left", True)


async def body_too_large(target: Target, _: random.Random) -> Outcome:
    async with line(target) as it:
        content = b" " * 3_000_000
        await it.send(f"{_HEAD}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        return await _closed(it, target.patience.body, ("413",))


async def reset_in_a_stream(target: Target, _: random.Random) -> Outcome:
    async with line(target) as it:
        await it.send(post(400, stream=True, prompts=4))
        outcome = await _answered(it)
        it.reset()
    return Outcome("left in the middle" if outcome.is_right else outcome.what, outcome.is_right)


async def reset_in_an_answer(target: Target, rng: random.Random) -> Outcome:
    async with line(target) as it:
        await it.send(post(400, prompts=4) + b"more" * rng.randrange(2))
        await asyncio.sleep(0.1)
        it.reset()
    return Outcome("left before the answer", True)


async def slow_reader(target: Target, _: random.Random) -> Outcome:
    """Takes its time, but reads: gets everything."""
    async with line(target, 4096) as it:
        await it.send(post(200, stream=True, prompts=4))
        found = b""
        while not found.endswith(b"0\r\n\r\n") and it.age < 60:
            part = await it.some(2048)
            if not part:
                break
            found += part
            await asyncio.sleep(0.01)
        whole = b"data: [DONE]" in found and found.endswith(b"0\r\n\r\n")
        return Outcome("whole" if whole else f"cut after {len(found)} bytes", whole)


async def never_reads_a_stream(target: Target, _: random.Random) -> Outcome:
    """Reads only in the end: a whole answer, or one whose connection was cut; never one that just ends."""
    async with line(target, 4096) as it:
        await it.send(post(200, stream=True, prompts=8))
        await asyncio.sleep(target.patience.unread / 2)
        found, _ = await it.rest(_LATE)
        ended, whole = found.endswith(b"0\r\n\r\n"), b"data: [DONE]" in found
        return Outcome("whole, read late" if whole else "cut", ended == whole)


async def never_reads_answers(target: Target, _: random.Random) -> Outcome:
    """Asks for far more than buffers hold and reads nothing."""
    async with line(target, 4096) as it:
        try:
            async with asyncio.timeout(3):
                await it.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 4000)
        except (TimeoutError, ConnectionError):
            pass
        await asyncio.sleep(target.patience.unread + _LATE)
        _, closed = await it.rest(_LATE)
        return Outcome("cut" if closed else "still open", closed)


async def garbage_after_a_request(target: Target, rng: random.Random) -> Outcome:
    async with line(target) as it:
        await it.send(post() + rng.randbytes(rng.randrange(1, 2000)) + b"\r\n\r\n")
        answer, closed = await it.rest(30)
        return Outcome(f"{status(answer)}, then closed" if closed else "still open", closed and status(answer) == "200")


async def no_http(target: Target, rng: random.Random) -> Outcome:
    async with line(target) as it:
        await it.send(rng.choice([*BROKEN, rng.randbytes(500) + b"\r\n\r\n"]))
        async with asyncio.timeout(target.patience.body + _LATE):
            what = status(await it.some())
        return Outcome(what, what == "closed" or what.startswith("4"))


@dataclass(frozen=True)
class Kind:
    """One way to be a bad client."""

    name: str
    client: Callable[[Target, random.Random], Awaitable[Outcome]]
    seconds: Callable[[Patience], float] = lambda _: 1.0
    at_once: int = 2


KINDS = (
    Kind("connect, say nothing", silent, lambda p: p.idle, 20),
    Kind("one request, then idle", kept_alive, lambda p: p.idle, 20),
    Kind("headers byte by byte", slow_headers, lambda p: p.head / 5),
    Kind("headers byte by byte, without end", endless_headers, lambda p: p.head, 10),
    Kind("body byte by byte", slow_body, lambda p: p.body / 5),
    Kind("body byte by byte, too slow", body_without_end, lambda p: p.body, 10),
    Kind("chunks without end, slow", chunks_without_end, lambda p: p.body, 10),
    Kind("chunks without end, fast", flood_of_chunks),
    Kind("body goes on after the answer", body_after_the_answer, lambda p: p.head, 10),
    Kind("body shorter than declared, silence", body_too_short_then_silence, lambda p: p.body, 10),
    Kind("body shorter than declared, gone", body_too_short_then_gone),
    Kind("body over the limit", body_too_large),
    Kind("reset in a stream", reset_in_a_stream),
    Kind("reset before the answer", reset_in_an_answer),
    Kind("stream read slowly", slow_reader, lambda _: 5.0),
    Kind("stream not read", never_reads_a_stream, lambda p: p.unread / 2, 1),
    Kind("answers not read", never_reads_answers, lambda p: p.unread + 2 * _LATE, 3),
    Kind("garbage after a request", garbage_after_a_request),
    Kind("bytes that are no HTTP", no_http),
)


async def misbehave(kind: Kind, target: Target, rng: random.Random) -> Outcome:
    """One client; a connection that breaks while it still sends is one that the server has closed."""
    try:
        async with asyncio.timeout(kind.seconds(target.patience) + 60):
            return await kind.client(target, rng)
    except ConnectionRefusedError:
        return Outcome("connection refused", False)
    except ConnectionError:
        return Outcome("closed", kind.client in (flood_of_chunks, body_too_large, no_http))
    except TimeoutError:
        return Outcome("no answer", False)
