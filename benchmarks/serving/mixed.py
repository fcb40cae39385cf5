"""Requests of mixed kinds, each checked: labels, completions, chats, streams, invalid ones, ones that are given up."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.serving.hostile_requests import KINDS as HOSTILE
from benchmarks.serving.hostile_requests import ROUTES

REFUSED = "refused"
"""What a request comes to that was not taken: it may come again."""
SHARES = {"labels": 25, "completion": 20, "chat": 15, "stream": 20, "invalid": 10, "given up": 10}
_PAUSE = 0.25
"""Seconds after which a refused request comes again."""
_TIME = 60.0


class WrongError(Exception):
    """An answer that should not be; says what it is."""


@dataclass
class Tally:
    """What happened, by kind."""

    seen: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, kind: str, what: str, is_right: bool) -> None:
        self.seen.setdefault(kind, Counter())[what] += 1
        if not is_right:
            self.wrong.setdefault(kind, Counter())[what] += 1

    @property
    def num_wrong(self) -> int:
        return sum(sum(counts.values()) for counts in self.wrong.values())


class Mixed:
    """Sends requests and judges the answers.

    Args:
        address: Where the server is; it may change while requests are under way.
        texts: To ask about.
        tally: Where outcomes are counted.
        seed: Of texts and kinds.
    """

    def __init__(self, address: str, texts: Sequence[str], tally: Tally, seed: int = 0):
        self.restarting = False
        """Whether refused connections are in order."""
        self.in_flight = 0
        self.seconds: list[float] = []
        """That sound requests took."""
        self._tally = tally
        self._texts = texts
        self._rng = random.Random(seed)
        self._first: dict[str, str] = {}
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
        self._client = httpx.AsyncClient(base_url=address, timeout=_TIME, limits=limits)

    async def close(self) -> None:
        await self._client.aclose()

    async def one(self) -> None:
        """One request, until it is answered or has gone wrong."""
        kind = self._rng.choices(list(SHARES), list(SHARES.values()))[0]
        work = self._prepare(kind)
        while True:
            restarting, begun = self.restarting, time.monotonic()
            self.in_flight += 1
            try:
                what = await work()
            except WrongError as error:
                self._tally.add(kind, str(error)[:80], False)
                return
            except httpx.TransportError as error:
                what, name = REFUSED, type(error).__name__
                is_right = restarting or self.restarting
                self._tally.add("not taken", f"connection: {name}", is_right)
                if not is_right:
                    return
            finally:
                self.in_flight -= 1
            if what != REFUSED:
                self.seconds.append(time.monotonic() - begun)
                self._tally.add(kind, what, True)
                return
            await asyncio.sleep(_PAUSE)

    def _prepare(self, kind: str) -> Callable[[], Any]:
        rng = self._rng
        text = rng.choice(self._texts)
        tokens = rng.choice((1, 4, 16, 48))
        if kind == "labels":
            return lambda: self._whole("/v1/classify", {"input": [text] * rng.choice((1, 3))}, _labels)
        if kind == "chat":
            messages = [{"role": "system", "content": "Say."}, {"role": "user", "content": text}]
            return lambda: self._whole("/v1/chat/completions", {"messages": messages, "max_tokens": tokens}, _chat)
        body = {"prompt": text, "max_tokens": tokens}
        if kind == "completion":
            return lambda: self._whole("/v1/completions", body, _completion)
        if kind == "stream":
            return lambda: self._stream({**body, "stream": True})
        if kind == "given up":
            seconds = rng.uniform(0, 0.05)
            return lambda: self._given_up({"prompt": [text] * 2, "max_tokens": 400, "stream": True}, seconds)
        route = rng.choice(ROUTES)
        hostile = rng.choice(HOSTILE)
        request = {"method": "POST", "url": route, **hostile(rng, route)}
        if "content" in request and not isinstance(request["content"], bytes):
            request["content"] = b"".join(request["content"])
        return lambda: self._invalid(request)

    async def _whole(self, route: str, body: dict[str, Any], read: Callable[[Any], str]) -> str:
        response = await self._client.post(route, json=body)
        if self._is_refused(response):
            return REFUSED
        if response.status_code != 200:
            raise WrongError(f"{response.status_code} {response.text}")
        self._compare(route + json.dumps(body), read(response.json()))
        return "answered"

    async def _stream(self, body: dict[str, Any]) -> str:
        text, ended = "", False
        async with self._client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                await response.aread()
                if self._is_refused(response):
                    return REFUSED
                raise WrongError(f"{response.status_code} {response.text}")
            try:
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or ended:
                        continue
                    ended = line == "data: [DONE]"
                    if not ended:
                        event = json.loads(line[6:])
                        if "error" in event:
                            raise WrongError(f"an error in the stream: {event['error']['message']}")
                        text += event["choices"][0]["text"]
            except httpx.TransportError as error:
                raise WrongError(f"half a stream ({type(error).__name__})") from error
        if not ended:
            raise WrongError("a stream without its end")
        whole = {name: value for name, value in body.items() if name != "stream"}
        self._compare("/v1/completions" + json.dumps(whole), text)  # the text that a whole answer has
        return "answered"

    async def _given_up(self, body: dict[str, Any], seconds: float) -> str:
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream("POST", "/v1/completions", json=body) as response,
            ):
                if self._is_refused(response):
                    return REFUSED
                async for _ in response.aiter_lines():
                    pass
        except TimeoutError:
            return "given up"
        return "answered before"

    async def _invalid(self, request: dict[str, Any]) -> str:
        response = await self._client.request(**request)
        if self._is_refused(response):
            return REFUSED
        shaped = request["method"] in ("HEAD", "OPTIONS") or "error" in response.text
        if not 400 <= response.status_code < 500 or not shaped:
            raise WrongError(f"{response.status_code} {response.text}")
        return str(response.status_code)

    def _is_refused(self, response: httpx.Response) -> bool:
        """Whether it is a plain refusal; only during a restart may the server say 503."""
        if response.status_code == 429 or (response.status_code == 503 and self.restarting):
            self._tally.add("not taken", str(response.status_code), "retry-after" in response.headers)
            return True
        return False

    def _compare(self, asked: str, answer: str) -> None:
        """The same question has the same answer, whoever else asks."""
        if self._first.setdefault(asked, answer) != answer:
            raise WrongError("another answer than before")


def _labels(answer: Any) -> str:
    return ",".join(result["label"] for result in answer["data"])


def _chat(answer: Any) -> str:
    choice = answer["choices"][0]
    if choice["finish_reason"] not in ("stop", "length"):
        raise WrongError("an answer without its end")
    return str(choice["message"]["content"])


def _completion(answer: Any) -> str:
    choice = answer["choices"][0]
    if choice["finish_reason"] not in ("stop", "length"):
        raise WrongError("an answer without its end")
    return str(choice["text"])
