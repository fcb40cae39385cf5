"""HTTP bodies: the kinds of `benchmarks.serving.hostile_requests`, and sound ones, on the real application.

Its engine answers at once and keeps what it was asked, so that texts can be compared. No socket is opened.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
from hypothesis import strategies as st

from benchmarks.fuzz.case import ANYTHING, Case, kind
from benchmarks.fuzz.writers import all_texts
from benchmarks.serving.hostile_requests import KINDS as HOSTILE
from benchmarks.serving.hostile_requests import ROUTES, good
from glotfuse.errors import GlotfuseError
from glotfuse.model.classification import Classification
from glotfuse.serving.engine import ModelDescription
from glotfuse.serving.http.app import build_app
from glotfuse.serving.requests import ClassifyRequest, GenerateRequest, Piece

JUDGED_BY_ENGINE = ("wrong_type", "wrong_numbers", "unknown_columns")
"""Kinds that the application may pass on: blank texts, columns and label words are the model's matter."""


class EchoEngine:
    """Keeps the texts that it is asked about, and answers something."""

    description = ModelDescription("tiny", "e", "l", ("a", "b"), ("text",), 128, "local")

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def start(self) -> None: ...

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Piece]:
        self.asked.append(request.text)
        yield Piece("a", "stop", 1, 1)

    async def classify(self, request: ClassifyRequest) -> list[Classification]:
        self.asked += request.texts
        return [Classification.of(["a", "b"], [-0.7, -0.7], False) for _ in request.texts]

    async def healthy(self) -> bool:
        return True

    def load(self) -> dict[str, int]:
        return {"waiting": 0, "running": 0}

    async def close(self) -> None: ...


@lru_cache
def _served() -> tuple[EchoEngine, asyncio.Runner, httpx.AsyncClient]:
    engine = EchoEngine()
    transport = httpx.ASGITransport(app=build_app(engine))  # an exception of the application comes through
    return engine, asyncio.Runner(), httpx.AsyncClient(transport=transport, base_url="http://test")


def ask(request: dict[str, Any]) -> list[Any]:
    """Sends a request and returns the texts that reached the engine.

    Raises:
        GlotfuseError: With the body of an answer 4xx in the shape that all errors have.
    """
    engine, runner, client = _served()
    engine.asked.clear()
    response = runner.run(client.request(**request))
    if 400 <= response.status_code < 500:
        if request["method"] not in ("HEAD", "OPTIONS"):
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}, response.text
        raise GlotfuseError(f"{response.status_code} {response.text}")
    assert response.status_code == 200, f"{response.status_code} {response.text[:300]}"
    return list(engine.asked)


def _case(request: dict[str, Any], expected: Any) -> Case:
    def read(_: Path) -> list[Any]:
        return ask({"method": "POST", **request})

    return Case(str(request)[:300], read, expected)


def _add_hostile() -> None:
    for hostile in HOSTILE:

        @kind(f"http: {hostile.__name__.replace('_', ' ')}")
        def _(draw: Any, hostile: Any = hostile) -> Case:
            rng, route = random.Random(draw(st.integers(0, 2**32))), draw(st.sampled_from(ROUTES))
            request = {"url": route, **hostile(rng, route)}
            if "content" in request and not isinstance(request["content"], bytes):
                request["content"] = b"".join(request["content"])
            return _case(request, ANYTHING if hostile.__name__ in JUDGED_BY_ENGINE else None)


_add_hostile()


@kind("http: sound")
def _(draw: Any) -> Case:
    route, text = draw(st.sampled_from(ROUTES)), draw(all_texts())
    body = json.dumps(good(route, text), ensure_ascii=draw(st.booleans())).encode()
    return _case({"url": route, "content": body, "headers": {"content-type": "application/json"}}, [text])


@kind("http: a value of any type anywhere")
def _(draw: Any) -> Case:
    from benchmarks.fuzz.folders import VALUES

    route = draw(st.sampled_from(ROUTES))
    fields = ["prompt", "input", "messages", "model", "labels", "instruction", "language", "max_tokens", "temperature"]
    fields += ["top_p", "seed", "stop", "stream", "stream_options", "n", "tools", "response_format", "unheard_of"]
    body = {**good(route), draw(st.sampled_from(fields)): draw(VALUES)}
    content = json.dumps(body, default=str).encode()
    return _case({"url": route, "content": content, "headers": {"content-type": "application/json"}}, ANYTHING)


@kind("http: damaged bytes")
def _(draw: Any) -> Case:
    route = draw(st.sampled_from(ROUTES))
    raw = bytearray(json.dumps(good(route, "ක්‍රීඩා</s>")).encode())
    for place, byte in draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=4)):
        raw[place] = byte
    content = bytes(raw[: draw(st.integers(0, len(raw)))])
    return _case({"url": route, "content": content, "headers": {"content-type": "application/json"}}, ANYTHING)
