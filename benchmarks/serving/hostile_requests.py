"""Sends malformed and oversized requests to a running server and checks that each gets a 4xx.

    glotfuse serve runs/quickstart/default --port 8000
    python -m benchmarks.serving.hostile_requests http://127.0.0.1:8000 --count 1000 --pid PID

The server must live, still give the answer that it gave before, and, with `--pid`, take no more memory (Linux).
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/classify")
FIELD = {"/v1/completions": "prompt", "/v1/chat/completions": "messages", "/v1/classify": "input"}
WRONG = (None, 1, -1.5, True, [], {}, [[]], [None], [1], {"a": 1}, "", " ", "\n\t", [""], 10**30, ["a", 2])
TOO_MUCH_MEMORY = 30e6
"""Bytes that count as growth after the first hundred requests."""

Kind = Callable[[random.Random, str], dict[str, Any]]


def good(route: str, text: str = "a") -> dict[str, Any]:
    if route == "/v1/chat/completions":
        return {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
    return {FIELD[route]: text, **({"max_tokens": 1} if route == "/v1/completions" else {})}


def raw(content: bytes, kind: str = "application/json", **headers: str) -> dict[str, Any]:
    return {"content": content, "headers": {"content-type": kind, **headers}}


def random_bytes(rng: random.Random, _: str) -> dict[str, Any]:
    return raw(rng.randbytes(rng.randrange(1, 5000)))


def cut_json(rng: random.Random, route: str) -> dict[str, Any]:
    whole = json.dumps(good(route, "text " * 20)).encode()
    return raw(whole[: rng.randrange(1, len(whole) - 1)])


def deep_json(rng: random.Random, route: str) -> dict[str, Any]:
    depth = rng.randrange(1_000, 200_000)
    return raw(f'{{"{FIELD[route]}": {"[" * depth}{"]" * rng.choice((0, depth))}}}'.encode())


def huge_number(rng: random.Random, route: str) -> dict[str, Any]:
    digits = "9" * rng.randrange(400, 100_000)
    return raw(f'{{"{FIELD[route]}": {digits}}}'.encode())


def empty(_: random.Random, __: str) -> dict[str, Any]:
    return raw(b"")


def not_an_object(rng: random.Random, _: str) -> dict[str, Any]:
    return {"json": rng.choice([[], "a", 1, None, True, [1, 2]])}


def wrong_type(rng: random.Random, route: str) -> dict[str, Any]:
    return {"json": {**good(route), FIELD[route]: rng.choice(WRONG)}}


def missing_field(_: random.Random, __: str) -> dict[str, Any]:
    return {"json": {"model": None}}


def oversized_body(rng: random.Random, route: str) -> dict[str, Any]:
    return {"json": good(route, "a" * rng.randrange(1_000_000, 3_000_000))}


def oversized_chunks(_: random.Random, __: str) -> dict[str, Any]:
    def chunks() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(40):
            yield b"a" * 65_536

    return {"content": chunks(), "headers": {"content-type": "application/json"}}


def long_text(rng: random.Random, route: str) -> dict[str, Any]:
    return {"json": good(route, rng.choice("aක👩\u202e") * rng.randrange(20_001, 60_000))}


def many_texts(rng: random.Random, route: str) -> dict[str, Any]:
    if route == "/v1/chat/completions":
        return {"json": {"messages": [{"role": "user", "content": "a"}] * rng.randrange(201, 2_000)}}
    return {"json": {FIELD[route]: ["a"] * rng.randrange(129, 5_000)}}


def wrong_content_type(rng: random.Random, route: str) -> dict[str, Any]:
    kinds = (
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "",
    )
    return raw(json.dumps(good(route)).encode(), rng.choice(kinds))


def wrong_charset(rng: random.Random, route: str) -> dict[str, Any]:
    text = json.dumps(good(route, "ක්‍රීඩකයා"), ensure_ascii=False)
    return raw(b"\xff\xfe\xff" + text.encode(rng.choice(("utf-16-be", "utf-8"))))


def lone_surrogate(rng: random.Random, route: str) -> dict[str, Any]:
    return raw(json.dumps(good(route, "a\ud800" * rng.randrange(1, 50))).encode())


def wrong_numbers(rng: random.Random, route: str) -> dict[str, Any]:
    if route == "/v1/classify":
        labels = rng.choice(
            [[], ["a"], [1, 2], "a", ["a", ""], ["a"] * 3, ["x" * 500, "b"], [f"l{i}" for i in range(999)]]
        )
        return {"json": {**good(route), "labels": labels}}
    field = rng.choice(["max_tokens", "temperature", "top_p", "seed", "stop", "stream"])
    value = rng.choice([-1e9, 2**70, "", [1], {"a": 1}, [""] * 50, 1.5e300])
    return {"json": {**good(route), field: value}}


def not_a_number(rng: random.Random, route: str) -> dict[str, Any]:
    if route == "/v1/classify":
        return raw(b'{"input": NaN}')
    body = json.dumps(good(route))[:-1] + f', "temperature": {rng.choice(("NaN", "Infinity", "-Infinity"))}}}'
    return raw(body.encode())


def unsupported(rng: random.Random, route: str) -> dict[str, Any]:
    fields = {"n": 5, "tools": [{}], "logprobs": 5, "logit_bias": {"1": 1}, "echo": True, "best_of": 3, "suffix": "x"}
    field = rng.choice(list(fields))
    return {"json": {**good(route), field: fields[field]}}


def unknown_model(rng: random.Random, route: str) -> dict[str, Any]:
    return {"json": {**good(route), "model": "no-such-model" * rng.randrange(1, 40)}}


def unknown_columns(rng: random.Random, route: str) -> dict[str, Any]:
    row = {f"column{i}": "a" for i in range(rng.randrange(1, 40))}
    return {"json": {**good(route), FIELD[route]: row}}


def bad_images(_: random.Random, __: str) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    return {"json": {"messages": [{"role": "user", "content": [part]}], "prompt": [part], "input": [part]}}


def wrong_method(rng: random.Random, route: str) -> dict[str, Any]:
    return {"method": rng.choice(["GET", "DELETE", "OPTIONS", "HEAD"])}


def wrong_route(rng: random.Random, _: str) -> dict[str, Any]:
    return {
        "url": rng.choice(
            ["/v1/", "/v1/embeddings", "/v1/../etc/passwd", "/%00", "/v1/models/%2e%2e", "/" + "a" * 3000]
        )
    }


KINDS: tuple[Kind, ...] = (
    random_bytes, cut_json, deep_json, huge_number, empty, not_an_object, wrong_type, missing_field, oversized_body,
    oversized_chunks, long_text, many_texts, wrong_content_type, wrong_charset, lone_surrogate, wrong_numbers,
    not_a_number, unsupported, unknown_model, unknown_columns, bad_images, wrong_method, wrong_route,
)  # fmt: skip

BROKEN = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
    b"\r\n" * 10 + b"nonsense\r\n\r\n",
)
"""Bytes that are no HTTP; the server may also just close the connection."""


def broken(address: str, content: bytes) -> str:
    """Status of the answer to bytes that are no request, or `closed`."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=10) as connection:
        try:
            connection.sendall(content)
            answer = connection.recv(100)
        except (ConnectionError, TimeoutError):
            return "closed"
    return answer.split()[1].decode() if answer.startswith(b"HTTP/1.1 ") else "closed"


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--pid", type=int, help="The server's, to watch its memory.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    seen: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    memory: dict[int, int] = {}
    with httpx.Client(base_url=options.address, timeout=60) as client:
        before = client.post("/v1/completions", json={"prompt": "Hello.", "max_tokens": 8}).json()["choices"]
        for number in range(options.count):
            if options.pid and number % 100 == 0:
                memory[number] = resident_bytes(options.pid)
            if number % 25 == 24:
                name, status = "broken", broken(options.address, rng.choice(BROKEN))
                fine = status == "closed" or status.startswith("4")
            else:
                kind, route = KINDS[number % len(KINDS)], rng.choice(ROUTES)
                request = {"method": "POST", "url": route, **kind(rng, route)}
                name = kind.__name__
                try:
                    response = client.request(**request)
                    status, shaped = str(response.status_code), "error" in (response.text or '"error"')
                except httpx.TransportError as error:
                    status, shaped = type(error).__name__, False
                fine = shaped and status.startswith("4")
            seen.setdefault(name, Counter())[status] += 1
            if not fine:
                wrong.append(f"{name}: {status}")
        alive = client.get("/ready").status_code == 200
        after = client.post("/v1/completions", json={"prompt": "Hello.", "max_tokens": 8}).json()["choices"]
    for name, statuses in sorted(seen.items()):
        print(f"{name:20}", ", ".join(f"{status} x {count}" for status, count in sorted(statuses.items())))
    print(f"{options.count} requests, {len(wrong)} without a 4xx: {wrong[:10]}")
    print(f"server ready: {alive}; same answer as before: {before == after}")
    grown = 0
    if options.pid:
        memory[options.count] = resident_bytes(options.pid)
        print("resident MB:", ", ".join(f"{number}: {size / 1e6:.1f}" for number, size in memory.items()))
        grown = memory[options.count] - memory.get(100, memory[0])
        print(f"growth after the first hundred: {grown / 1e6:.1f} MB")
    return 0 if not wrong and alive and before == after and grown < TOO_MUCH_MEMORY else 1


if __name__ == "__main__":
    sys.exit(main())
