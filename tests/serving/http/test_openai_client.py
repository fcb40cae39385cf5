"""The official client gets from the server what the model gives by itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from glotfuse.api import FusedLM
from glotfuse.serving.http.schemas import MAX_TEXT_CHARS
from serving_help import RunningServer
from tiny import TEXTS, with_labels

TOKENS = 10


def complete(client: Any, prompt: Any, **options: Any) -> Any:
    return client.completions.create(model="tiny", prompt=prompt, **{"max_tokens": TOKENS, **options})


def test_completions_are_the_models_own_answers(server: RunningServer, model: FusedLM) -> None:
    texts = TEXTS[:3]
    answers = complete(server.client(), texts)
    assert [choice.text for choice in answers.choices] == model.generate(texts, max_new_tokens=TOKENS)
    assert [choice.index for choice in answers.choices] == [0, 1, 2]
    assert answers.model == "tiny"
    prompts = [len(prepared.encoder_ids) + 1 for prepared in model.prepare(texts)]  # the span, with its boundary
    constant = len(model.prompt.head_ids) + len(model.prompt.tail_ids)
    assert answers.usage.prompt_tokens == sum(prompts) + 3 * constant
    assert 3 <= answers.usage.completion_tokens <= 3 * TOKENS


def test_an_instruction_is_that_of_generate(server: RunningServer, model: FusedLM) -> None:
    expected = model.generate(TEXTS[:1], instruction="Say it again.", max_new_tokens=TOKENS)
    answer = complete(server.client(), TEXTS[0], extra_body={"instruction": "Say it again."})
    assert answer.choices[0].text == expected[0]
    assert expected != model.generate(TEXTS[:1], max_new_tokens=TOKENS)


def test_chat_reads_the_last_user_message_and_takes_system_messages_for_the_instruction(
    server: RunningServer, model: FusedLM
) -> None:
    messages = [
        {"role": "system", "content": "Say it again."},
        {"role": "user", "content": "An earlier turn."},
        {"role": "assistant", "content": "Its answer."},
        {"role": "user", "content": [{"type": "text", "text": TEXTS[1]}]},
    ]
    raw = server.client().chat.completions.with_raw_response.create(
        model="tiny", messages=messages, max_completion_tokens=TOKENS
    )
    assert raw.headers["x-glotfuse-messages-ignored"] == "2"
    (choice,) = raw.parse().choices
    (expected,) = model.generate(TEXTS[1:2], instruction="Say it again.", max_new_tokens=TOKENS)
    assert (choice.message.role, choice.message.content) == ("assistant", expected)


def test_streams_add_up_to_the_answer(server: RunningServer, model: FusedLM) -> None:
    client = server.client()
    (expected,) = model.generate(TEXTS[:1], max_new_tokens=TOKENS)
    chunks = list(complete(client, TEXTS[0], stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == expected
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == complete(client, TEXTS[0]).usage.completion_tokens
    chat = list(
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": TEXTS[0]}], max_tokens=TOKENS, stream=True
        )
    )
    assert chat[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chat) == expected
    assert len(chat) > 2


def test_a_stream_of_several_prompts_keeps_them_apart(server: RunningServer, model: FusedLM) -> None:
    texts = ["", "", ""]
    for chunk in complete(server.client(), TEXTS[:3], stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == model.generate(TEXTS[:3], max_new_tokens=TOKENS)


def test_answers_under_concurrency_are_those_alone(server: RunningServer, model: FusedLM) -> None:
    texts = [TEXTS[i % len(TEXTS)] * (1 + i % 2) for i in range(24)]
    lengths = [3 + i % 9 for i in range(24)]
    expected = [model.generate([t], max_new_tokens=n)[0] for t, n in zip(texts, lengths, strict=True)]
    client = server.client()
    with ThreadPoolExecutor(24) as pool:
        found = pool.map(lambda i: complete(client, texts[i], max_tokens=lengths[i]).choices[0].text, range(24))
    assert list(found) == expected
    assert server.metric("glotfuse_batch_size_sum") > server.metric("glotfuse_batch_size_count")  # some ran together


def test_a_stop_text_ends_the_answer_before_it(server: RunningServer, model: FusedLM) -> None:
    (whole,) = model.generate(TEXTS[:1], max_new_tokens=TOKENS)
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    expected = whole[: whole.index(stop)].strip()
    client = server.client()
    choice = complete(client, TEXTS[0], stop=stop).choices[0]
    assert (choice.text, choice.finish_reason) == (expected, "stop")
    chunks = complete(client, TEXTS[0], stop=["never", stop], stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected


def test_seeds_make_samples_repeatable(server: RunningServer) -> None:
    client = server.client()

    def sample(seed: int) -> str:
        return complete(client, TEXTS[0], temperature=1.5, seed=seed).choices[0].text

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_models_are_listed(server: RunningServer, model: FusedLM) -> None:
    client = server.client()
    (found,) = client.models.list().data
    assert (found.id, found.object) == ("tiny", "model")
    assert client.models.retrieve("tiny").labels == list(model.labels)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


def test_label_scores_are_the_models_own(server: RunningServer, model: FusedLM) -> None:
    data = server.http.post("/v1/classify", json={"input": TEXTS[:3]}).json()["data"]
    for found, expected in zip(data, model.classify(TEXTS[:3]), strict=True):
        assert found["label"] == expected.label
        assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


def test_label_words_of_a_request_are_scored_as_trained_ones_would_be(server: RunningServer, model: FusedLM) -> None:
    labels = ("economy and trade", "weather", "economy")
    other = with_labels(model, labels)
    body = {"input": TEXTS[0], "labels": labels, "instruction": "Answer with one of: {labels}."}
    (found,) = server.http.post("/v1/classify", json=body).json()["data"]
    assert found["probabilities"] == pytest.approx(other.classify(TEXTS[:1])[0].probabilities, abs=1e-5)


def test_a_cut_text_is_said_to_be_cut_and_a_huge_one_is_refused(server: RunningServer) -> None:
    long = {"input": ["word " * 400, "word"]}
    assert [row["truncated"] for row in server.http.post("/v1/classify", json=long).json()["data"]] == [True, False]
    answer = server.http.post("/v1/completions", json={"prompt": "word " * 400, "max_tokens": 2}).json()
    assert answer["choices"][0]["truncated"] is True
    with pytest.raises(openai.BadRequestError):
        complete(server.client(), "a" * (MAX_TEXT_CHARS + 1))


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 2), ("logprobs", 3), ("echo", True), ("suffix", "x"), ("logit_bias", {"5": 1}), ("best_of", 3)],
)
def test_features_that_are_not_there_are_refused(server: RunningServer, field: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(server.client(), TEXTS[0], **{field: value})
    assert (caught.value.param, caught.value.code) == (field, "unsupported_parameter")


def test_faults_are_the_clients_exceptions(server: RunningServer) -> None:
    client = server.client()
    with pytest.raises(openai.NotFoundError, match="'tiny'"):
        client.completions.create(model="tinny", prompt="a")
    for options in ({"temperature": 3}, {"max_tokens": 0}, {"top_p": -1}, {"prompt": ""}, {"prompt": " "}):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(**{"model": "tiny", "prompt": "a", **options})
    with pytest.raises(openai.BadRequestError, match="tools"):
        client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "a"}],
            tools=[{"type": "function", "function": {"name": "f"}}],
        )
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    for messages in ([{"role": "assistant", "content": "a"}], [{"role": "user", "content": image}]):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="tiny", messages=messages)
