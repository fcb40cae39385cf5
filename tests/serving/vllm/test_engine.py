"""The vLLM engine against a stand-in server; expected answers come from the model itself, in this process."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import torch

for library in ("fastapi", "httpx", "uvicorn"):
    pytest.importorskip(library)

import httpx  # noqa: E402

from fake_vllm import FakeVllm, running  # noqa: E402
from glotfuse.api import FusedLM  # noqa: E402
from glotfuse.backbones import BackboneOptions, load_lm  # noqa: E402
from glotfuse.errors import BackboneError, ConfigError, PromptError  # noqa: E402
from glotfuse.serving.engine import OverloadedError, UnavailableError  # noqa: E402
from glotfuse.serving.http.answers import Usage, collect, generate_all  # noqa: E402
from glotfuse.serving.http.metrics import Metrics  # noqa: E402
from glotfuse.serving.requests import ClassifyRequest, GenerateRequest, Piece  # noqa: E402
from glotfuse.serving.vllm.client import VllmClient  # noqa: E402
from glotfuse.serving.vllm.engine import VllmEngine  # noqa: E402
from tiny import TEXTS, lm_folder, tiny_lm, tiny_model, with_labels  # noqa: E402

LABELS = ("science", "politics", "sports news", "sports results")


@pytest.fixture(scope="module")
def model() -> FusedLM:
    return with_labels(tiny_model(), LABELS)


@pytest.fixture
def fake() -> Iterator[FakeVllm]:
    with running(FakeVllm(tiny_lm())) as server:
        yield server


def run(model: FusedLM, fake: FakeVllm, use: Callable[[VllmEngine], Awaitable[Any]], **options: Any) -> Any:
    """Uses a started engine over a copy of the model."""

    async def work() -> Any:
        engine = VllmEngine(copy.deepcopy(model), fake.url, **options)
        try:
            await engine.start()
            fake.bodies.clear()
            return await use(engine)
        finally:
            await engine.close()

    return asyncio.run(work())


async def pieces(engine: VllmEngine, text: str, **options: Any) -> list[Piece]:
    request = GenerateRequest(text, **{"max_new_tokens": 12, **options})
    return [piece async for piece in engine.generate(request)]


async def answer(engine: VllmEngine, text: str, **options: Any) -> str:
    return "".join(piece.text for piece in await pieces(engine, text, **options))


def test_greedy_answers_are_those_of_the_model_alone_and_at_once(model: FusedLM, fake: FakeVllm) -> None:
    expected = model.generate(TEXTS, max_new_tokens=12)

    async def use(engine: VllmEngine) -> None:
        assert [await answer(engine, text) for text in TEXTS] == expected
        assert await asyncio.gather(*(answer(engine, text) for text in TEXTS * 4)) == expected * 4

    run(model, fake, use)


def test_an_instruction_of_ones_own_reaches_the_server(model: FusedLM, fake: FakeVllm) -> None:
    expected = model.generate(TEXTS[:1], instruction="Summarise.", max_new_tokens=12)
    assert run(model, fake, lambda engine: answer(engine, TEXTS[0], instruction="Summarise.")) == expected[0]


def test_the_last_piece_says_why_and_counts(model: FusedLM, fake: FakeVllm) -> None:
    found = run(model, fake, lambda engine: pieces(engine, TEXTS[0]))
    assert [piece.finish_reason is None for piece in found[:-1]] == [True] * (len(found) - 1)
    assert found[-1].finish_reason in ("stop", "length")
    assert 1 <= found[-1].completion_tokens <= 12
    (row,) = fake._rows(fake.bodies[-1])
    assert found[-1].prompt_tokens == len(row)


@pytest.mark.parametrize("knows_token_ids", [True, False])
def test_label_scores_are_those_of_the_model(model: FusedLM, fake: FakeVllm, knows_token_ids: bool) -> None:
    fake.knows_token_ids = knows_token_ids
    own = ("yes", "no", "not at all", "not yet")

    async def use(engine: VllmEngine) -> list[Any]:
        found = await engine.classify(ClassifyRequest(tuple(TEXTS)))
        asked = len(fake.bodies)
        assert asked == len(TEXTS) or not knows_token_ids
        return [*found, *await engine.classify(ClassifyRequest(tuple(TEXTS), labels=own))]

    assert max(map(len, model.label_ids)) > 1
    expected = [*model.classify(TEXTS), *model.with_labels(own, None).classify(TEXTS)]
    for one, other in zip(run(model, fake, use), expected, strict=True):
        assert one.label == other.label
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)
        assert sum(one.probabilities.values()) == pytest.approx(1)


def test_settings_of_a_request_reach_the_server_and_its_own_do_not_count(model: FusedLM, fake: FakeVllm) -> None:
    async def use(engine: VllmEngine) -> None:
        await answer(engine, TEXTS[0], temperature=0.7, top_p=0.9, seed=5, stop=("a", "b", "c", "d", "e"))
        await answer(engine, TEXTS[0], seed=5)

    run(model, fake, use)
    sampled, greedy = fake.bodies
    assert (sampled["temperature"], sampled["top_p"], sampled["seed"]) == (0.7, 0.9, 5)
    assert sampled["stop"] == ["a", "b", "c", "d"]
    assert set(model.prompt.end_ids) <= set(sampled["stop_token_ids"])
    assert sampled["ignore_eos"] is True
    assert greedy["temperature"] == 0
    assert "seed" not in greedy
    for body in (sampled, greedy):
        assert (body["top_k"], body["repetition_penalty"], body["min_p"]) == (0, 1.0, 0.0)


def test_a_stop_text_ends_the_answer_before_it(model: FusedLM, fake: FakeVllm) -> None:
    (whole,) = model.generate(TEXTS[:1], max_new_tokens=12)
    stop = next(whole[i : i + 2] for i in range(2, len(whole)) if "\ufffd" not in whole[i : i + 2])
    many = ("~~1", "~~2", "~~3", "~~4", stop)  # vLLM takes four; the fifth is looked for here

    async def use(engine: VllmEngine) -> list[list[Piece]]:
        return [await pieces(engine, TEXTS[0], stop=each) for each in ((stop,), many)]

    for found in run(model, fake, use):
        assert "".join(piece.text for piece in found) == whole[: whole.index(stop)].strip()
        assert found[-1].finish_reason == "stop"


def test_leaving_an_answer_frees_its_slot_and_stops_the_server(model: FusedLM, fake: FakeVllm) -> None:
    fake.pause = 0.02

    async def use(engine: VllmEngine) -> None:
        answers = engine.generate(GenerateRequest(TEXTS[0], max_new_tokens=400))
        await anext(answers)
        assert (fake.running, engine.load()["running"]) == (1, 1)
        await answers.aclose()
        waiting = asyncio.create_task(answer(engine, TEXTS[1], max_new_tokens=400))
        while fake.running < 1 or len(fake.bodies) < 2:
            await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert engine.load()["running"] == 0
        for _ in range(200):
            if not fake.running:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the server still runs the answers")

    run(with_ends(model, ()), fake, use)


def with_ends(model: FusedLM, ends: tuple[int, ...]) -> FusedLM:
    """A model whose answers end with their length alone."""
    from dataclasses import replace

    view = copy.copy(model)
    view.prompt = replace(model.prompt, end_ids=ends)
    return view


def test_a_busy_server_is_asked_again(model: FusedLM, fake: FakeVllm) -> None:
    async def use(engine: VllmEngine) -> str:
        fake.refusals = [(503, {}), (429, {"Retry-After": "0"})]
        return await answer(engine, TEXTS[0])

    assert run(model, fake, use) == model.generate(TEXTS[:1], max_new_tokens=12)[0]
    assert len(fake.bodies) == 3


def test_a_server_that_stays_busy_is_told_to_the_client(
    model: FusedLM, fake: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glotfuse.serving.vllm.client._FIRST_PAUSE", 0.001)
    monkeypatch.setattr("glotfuse.serving.vllm.client._LONGEST_PAUSE", 0.001)

    async def use(engine: VllmEngine) -> None:
        fake.refusals = [(429, {"Retry-After": "7"})] * 4
        with pytest.raises(OverloadedError) as caught:
            await answer(engine, TEXTS[0])
        assert caught.value.retry_after == 7
        fake.refusals = [(503, {})] * 4
        with pytest.raises(UnavailableError, match="503"):
            await engine.classify(ClassifyRequest((TEXTS[0],)))
        assert engine.load() == {"waiting": 0, "running": 0}

    run(model, fake, use)


def test_an_answer_that_breaks_off_is_an_error_not_an_end(model: FusedLM, fake: FakeVllm) -> None:
    async def use(engine: VllmEngine) -> None:
        fake.break_after = 2
        with pytest.raises(UnavailableError, match="the engine died"):
            await answer(engine, TEXTS[0])
        fake.silent = True
        with pytest.raises(UnavailableError, match="before the end"):
            await answer(engine, TEXTS[0])

    run(with_ends(model, ()), fake, use)


def test_no_more_requests_than_allowed(model: FusedLM, fake: FakeVllm) -> None:
    fake.pause = 0.01

    async def use(engine: VllmEngine) -> None:
        first = engine.generate(GenerateRequest(TEXTS[0], max_new_tokens=200))
        await anext(first)
        with pytest.raises(OverloadedError):
            await answer(engine, TEXTS[1])
        await first.aclose()
        await answer(engine, TEXTS[1], max_new_tokens=2)

    run(with_ends(model, ()), fake, use, max_requests=1)


def test_closing_ends_what_runs(model: FusedLM, fake: FakeVllm) -> None:
    fake.pause = 0.02

    async def use(engine: VllmEngine) -> None:
        begun = asyncio.create_task(answer(engine, TEXTS[0], max_new_tokens=400))
        while not fake.running:
            await asyncio.sleep(0.01)
        await engine.close()
        with pytest.raises(UnavailableError):
            await begun
        with pytest.raises(UnavailableError):
            await answer(engine, TEXTS[0])

    run(with_ends(model, ()), fake, use)


def test_a_prompt_without_room_is_refused(model: FusedLM, fake: FakeVllm) -> None:
    fake.max_model_len = 70

    async def use(engine: VllmEngine) -> None:
        assert await answer(engine, "a", max_new_tokens=500) is not None  # fewer tokens, as many as fit
        for call in (answer(engine, "word " * 60), engine.classify(ClassifyRequest(("word " * 60,)))):
            with pytest.raises(PromptError, match="--max-model-len"):
                await call

    plain = with_labels(model, LABELS, style="plain")
    run(plain, fake, use)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"takes_embeddings": False}, UnavailableError, "--enable-prompt-embeds"),
        ({"api_key": "secret"}, UnavailableError, "API key"),
        ({"off": 1.0}, BackboneError, "serve"),
        ({"lm": "seed"}, BackboneError, "another LM"),
        ({"lm": "family"}, BackboneError, "serve"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused_at_the_start(
    model: FusedLM, fake: FakeVllm, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    for name, value in change.items():
        if name == "lm":
            folder = lm_folder("llama", seed=6) if value == "seed" else lm_folder("gpt2")
            value = load_lm(folder, BackboneOptions(device="cpu"))
        setattr(fake, name, value)

    async def use(_: VllmEngine) -> None:
        raise AssertionError("it started")

    with pytest.raises(error, match=words):
        run(model, fake, use)


def test_the_model_is_found_by_name_or_alone(model: FusedLM, fake: FakeVllm) -> None:
    fake.api_key = "secret"

    async def use(engine: VllmEngine) -> bool:
        return await engine.healthy()

    assert run(model, fake, use, api_key="secret", model_name="tiny")
    with pytest.raises(UnavailableError, match=r"'other'.*tiny"):
        run(model, fake, use, api_key="secret", model_name="other")


def test_no_server_is_said_plainly(model: FusedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glotfuse.serving.vllm.client._FIRST_PAUSE", 0.001)
    with pytest.raises(UnavailableError, match=r"found none.*--enable-prompt-embeds"):
        run(model, FakeVllm(tiny_lm(), url="http://127.0.0.1:9"), lambda engine: engine.healthy())
    with pytest.raises(ConfigError, match="http://"):
        VllmEngine(model, "127.0.0.1:8000")


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma"])
def test_only_the_embeddings_of_the_local_lm_stay(family: str) -> None:
    model = tiny_model(lm=family)
    expected = model.generate(TEXTS[:1], max_new_tokens=8)[0]
    table = model.lm.model.get_input_embeddings().weight.clone()
    with running(FakeVllm(tiny_lm(family))) as fake:

        async def use(engine: VllmEngine) -> None:
            lm = engine._model.lm
            own = {id(p) for p in lm.model.get_input_embeddings().parameters()}
            assert all(p.is_meta for p in lm.model.parameters() if id(p) not in own)
            assert torch.equal(lm.model.get_input_embeddings().weight, table)
            assert lm.device.type == "cpu"
            assert await answer(engine, TEXTS[0], max_new_tokens=8) == expected

        run(model, fake, use)

        async def whole(engine: VllmEngine) -> bool:
            return not any(p.is_meta for p in engine._model.lm.model.parameters())

        assert run(model, fake, whole, keep_lm=True)


def test_lines_of_a_stream_end_at_line_feeds_alone() -> None:
    text = "one\u2028two\u0085three"
    content = f'data: {{"choices": [{{"text": "{text}"}}]}}\r\n\r\n: keep-alive\n\ndata: [DONE]\n\n'.encode()

    async def work() -> list[dict[str, Any]]:
        client = VllmClient("http://server/v1/")
        client._http = httpx.AsyncClient(
            base_url=client.url,
            transport=httpx.MockTransport(lambda request: httpx.Response(200, content=_bytes_one_by_one(content))),
        )
        return [chunk async for chunk in client.stream({})]

    assert asyncio.run(work())[0]["choices"][0]["text"] == text


async def _bytes_one_by_one(content: bytes) -> Any:
    for i in range(len(content)):
        yield content[i : i + 1]


def test_no_thread_is_left_behind(model: FusedLM, fake: FakeVllm) -> None:
    run(model, fake, lambda engine: answer(engine, TEXTS[0]))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("glotfuse-")]


def test_a_payload_is_the_rows_alone_and_nothing_of_their_batch() -> None:
    import base64
    import io

    from glotfuse.serving.vllm.protocol import payload

    batch = torch.randn(50, 20, 8)
    content = base64.b64decode(payload(batch[3, :5]))
    assert len(content) < 3000
    assert torch.equal(torch.load(io.BytesIO(content), weights_only=True), batch[3, :5])


def test_many_more_answers_than_connections_leave_every_connection_free(model: FusedLM, fake: FakeVllm) -> None:
    async def use(engine: VllmEngine) -> list[str]:
        texts = []
        for _ in range(6):  # as the routes ask: the task that reads is cancelled once it has the last piece
            requests = [GenerateRequest(TEXTS[0], max_new_tokens=3)]
            (answer,) = await collect(generate_all(engine, requests, Usage(), Metrics()), 1)
            texts.append(answer.text)
        return texts

    texts = run(model, fake, lambda engine: asyncio.wait_for(use(engine), 40), max_requests=2, timeout=5)
    assert len(texts) == 6
    assert len(set(texts)) == 1
