"""What the page shows and does, without Gradio and without a browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

from glotfuse.errors import PromptError
from glotfuse.inputs.batch import collate
from glotfuse.inspection.weights import TokenWeights, example_weights, token_weights
from glotfuse.model.classification import Classification
from glotfuse.serving.engine import ModelDescription, OverloadedError
from glotfuse.serving.page.actions import Actions, parse_labels
from glotfuse.serving.page.html import MOST_TOKENS, direction, labels_html, message_html, text_html, weights_html
from glotfuse.serving.page.samples import sample_sentences
from glotfuse.serving.requests import ClassifyRequest, GenerateRequest, Piece
from tiny import SENTENCES, tiny_model

HOSTILE = "<script>window.hit=1</script><img src=x onerror=window.hit=1>\"'"
OWN = ("sports", "politics")


class Elements(HTMLParser):
    """The elements of a piece of HTML and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [found for found in self.attributes if name in (found.get("class") or "").split()]


def weights_of(tokens: tuple[str, ...], *, text: str = "text", shared: bool = False) -> TokenWeights:
    return TokenWeights(text, tokens, (False,) * len(tokens), ((0.5, 0.3, 0.2),) * len(tokens), shared)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("good, bad", ("good", "bad")),
        (" good news ;\nbad   news,, good news", ("good news", "bad news")),
        ("اچھا، برا", ("اچھا", "برا")),
        ("好、坏，中", ("好", "坏", "中")),
        ("", None),
        (" , ", None),
        ("sports, politics", None),
        ("politics, sports", ("politics", "sports")),
    ],
)
def test_labels_are_read_as_people_write_them(written: str, expected: tuple[str, ...] | None) -> None:
    assert parse_labels(written, OWN) == expected


@pytest.mark.parametrize(("written", "own"), [("only", OWN), ("", ()), (",".join(map(str, range(101))), OWN)])
def test_too_few_or_too_many_labels_are_refused(written: str, own: tuple[str, ...]) -> None:
    with pytest.raises(PromptError, match="Expected 2 to 100 labels"):
        parse_labels(written, own)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("اردو", "rtl"), ("12. שלום", "rtl"), ("සිංහල", "ltr"), ("USA میں", "ltr"), ("42", "ltr"), ("", "ltr")],
)
def test_the_first_letter_decides_the_direction(text: str, expected: str) -> None:
    assert direction(text) == expected


@pytest.mark.parametrize(
    "html",
    [
        labels_html(HOSTILE, {HOSTILE: 0.9, "b": 0.1}, [HOSTILE]),
        text_html(HOSTILE, running=True),
        text_html(HOSTILE, running=False, notes=[HOSTILE]),
        message_html(HOSTILE),
        weights_html(weights_of((HOSTILE, "b"), text=HOSTILE)),
    ],
)
def test_texts_of_users_and_models_stay_text(html: str) -> None:
    found = Elements(html)
    assert HOSTILE in found.text
    assert not {"script", "img"} & set(found.names)
    assert not any(name.startswith("on") for attributes in found.attributes for name in attributes)


def test_every_label_has_a_bar_and_the_most_probable_comes_first() -> None:
    html = labels_html("b", {"a": 0.125, "b": 0.75, "c": 0.125})
    assert re.findall(r'gf-name" dir="auto">(\w)<', html) == ["b", "a", "c"]
    assert re.findall(r"width:([\d.]+)%", html) == ["75.0", "12.5", "12.5"]


def test_tokens_stand_in_the_direction_of_their_text() -> None:
    urdu = Elements(weights_html(weights_of(("پیا", "نو"), text="پیانو")))
    assert [found["dir"] for found in urdu.with_class("gf-strips")] == ["rtl"]
    assert [found["dir"] for found in urdu.with_class("gf-token")] == ["auto", "auto"]
    assert [found["dir"] for found in urdu.with_class("gf-layers")] == ["ltr"]
    tamil = Elements(weights_html(weights_of(("தா",), text="தாலாட்டு")))
    assert [found["dir"] for found in tamil.with_class("gf-strips")] == ["ltr"]


def test_a_strip_has_a_cell_per_layer_and_names_the_heaviest() -> None:
    found = TokenWeights("ab", ("a", "b"), (False, False), ((0.1, 0.4, 0.5), (0.8, 0.1, 0.1)), False)
    html = weights_html(found)
    assert re.findall(r"--w:(\d+)%", html) == ["12", "50", "62", "100", "12", "12"]
    assert re.findall(r'gf-best">(\d)<', html) == ["3", "1"]


def test_weights_that_tokens_share_are_one_row() -> None:
    found = Elements(weights_html(weights_of(("a", "b"), shared=True)))
    assert found.names.count("tr") == 2  # numbers of layers, weights
    assert found.names.count("td") == 3
    assert not found.with_class("gf-strip")


def test_tokens_that_are_not_drawn_are_counted() -> None:
    html = weights_html(weights_of(("a",) * (MOST_TOKENS + 7)))
    assert f"The first {MOST_TOKENS} of {MOST_TOKENS + 7} tokens are drawn." in Elements(html).text
    assert html.count("gf-best") == MOST_TOKENS


@pytest.mark.parametrize("mixer", ["transformer_softmax", "global_softmax"])
def test_weights_are_those_that_the_fusion_mixes_with(mixer: str) -> None:
    model = tiny_model(mixer=mixer)
    text = SENTENCES[0]
    (example,) = model.prepare([text])
    found = token_weights(model, text, None, example, example_weights(model, example))
    batch = collate([example], model.encoder.pad_token_id)
    with torch.inference_mode():
        states = model.encoder(batch.encoder_ids, batch.encoder_mask)
        expected = model.fusion.mix(list(states), batch.encoder_mask).layer_weights
    expected = expected.expand(1, len(example.encoder_ids), -1)[0]
    torch.testing.assert_close(torch.tensor(found.weights), expected.float())
    assert found.shared == (mixer == "global_softmax")
    assert len(found.tokens) == len(example.encoder_ids)
    inner = [i for i, special in enumerate(found.special) if not special]
    assert 0 < len(inner) < len(found.tokens)
    torch.testing.assert_close(torch.tensor(found.mean), expected[inner].mean(0).float())


def test_sample_sentences_are_translations_of_one_another() -> None:
    from glotfuse.tasks import get_task

    samples = sample_sentences()
    assert [found.name for found in samples] == sorted(found.name for found in samples)
    assert {"Sinhala", "Tamil", "Urdu", "Khmer", "Burmese", "Amharic"} <= {found.name for found in samples}
    assert len(samples) == 14
    task = get_task("quickstart")
    labels = []
    for found in samples:
        of = {row.fields["text"]: row.label for row in task.load("test", found.code).examples}
        labels.append([of[sentence] for sentence in found.sentences])
    assert len(set(labels[0])) == len(labels[0]) > 1
    assert all(row == labels[0] for row in labels)


class FakeEngine:
    """Answers at once, or fails."""

    def __init__(self, error: Exception | None = None, columns: tuple[str, ...] = ("text",), truncated: bool = False):
        self.description = ModelDescription("m", "e", "l", OWN, columns, 9, "local")
        self.error, self.truncated = error, truncated
        self.asked: list[Any] = []
        self.closed = False

    async def classify(self, request: ClassifyRequest) -> list[Classification]:
        self.asked.append(request)
        if self.error:
            raise self.error
        return [Classification.of(request.labels or OWN, [-0.1, -2.4], self.truncated)]

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Piece]:
        self.asked.append(request)
        try:
            yield Piece("Good ")
            if self.error:
                raise self.error
            await asyncio.sleep(0)
            yield Piece("day.", "length", 5, 2, self.truncated)
        finally:
            self.closed = True


async def weights(text: Any, language: str | None) -> TokenWeights:
    return weights_of((str(text),))


def shown(steps: AsyncIterator[tuple[str, str]]) -> list[tuple[str, str]]:
    async def gather() -> list[tuple[str, str]]:
        return [(Elements(answer).text, Elements(below).text) async for answer, below in steps]

    return asyncio.run(gather())


def test_the_answer_comes_before_the_weights() -> None:
    engine = FakeEngine()
    steps = shown(Actions(engine, weights, 5).label(["hello"], "", "", "sin_Sinh"))
    assert engine.asked == [ClassifyRequest(("hello",), "sin_Sinh", None, None)]
    assert "sports" in steps[-2][0]
    assert "hello" not in steps[-2][1]
    assert "hello" in steps[-1][1]


def test_own_labels_and_question_reach_the_engine_and_are_remarked_on() -> None:
    engine = FakeEngine()
    steps = shown(Actions(engine, weights, 5).label(["hello"], "good, bad", " How is it? {labels} ", ""))
    assert engine.asked == [ClassifyRequest(("hello",), None, ("good", "bad"), "How is it? {labels}")]
    assert "not the labels that the model was trained on" in steps[-1][0]


def test_an_input_of_several_columns_is_a_row() -> None:
    engine = FakeEngine(columns=("premise", "hypothesis"))
    shown(Actions(engine, None, 5).label(["a", "b"], "", ""))
    assert engine.asked[0].texts == ({"premise": "a", "hypothesis": "b"},)
    (step,) = shown(Actions(engine, None, 5).label(["a", " "], "", ""))
    assert "Type a text first (hypothesis)" in step[0]


def test_text_is_streamed_and_cuts_are_said() -> None:
    engine = FakeEngine(truncated=True)
    steps = shown(Actions(engine, weights, 5).write(["hello"], "", 2, 0))
    assert engine.asked == [GenerateRequest("hello", max_new_tokens=2)]
    assert [answer for answer, _ in steps][1:3] == ["Good ", "Good day."]
    assert "longer than the 9 tokens" in steps[-1][0]
    assert "stopped at the limit of 2 tokens" in steps[-1][0]
    assert engine.closed


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OverloadedError("The queue is full. Ask again in 3 s."), "Ask again in 3 s."),
        (RuntimeError("secret path"), "The server could not answer."),
    ],
)
def test_errors_are_messages_and_unexpected_ones_are_not_spelt_out(error: Exception, message: str) -> None:
    actions = Actions(FakeEngine(error), weights, 5)
    for steps in (shown(actions.label(["a"], "", "")), shown(actions.write(["a"], "", 5, 0))):
        assert message in steps[-1][0]
        assert "secret" not in str(steps)
    assert "Good " in steps[-1][0]  # what was written stays


def test_empty_and_endless_texts_do_not_reach_the_engine() -> None:
    engine = FakeEngine()
    actions = Actions(engine, weights, 5)
    assert "Type a text first" in shown(actions.label([" \n"], "", ""))[-1][0]
    assert "at most 20,000 characters" in shown(actions.write(["a" * 20_001], "", 5, 0))[-1][0]
    assert "at most 20,000 characters" in shown(actions.write(["a"], "b" * 20_001, 5, 0))[-1][0]
    assert engine.asked == []


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    class Slow(FakeEngine):
        async def generate(self, request: GenerateRequest) -> AsyncGenerator[Piece]:
            try:
                yield Piece("Good ")
                await asyncio.sleep(60)
            finally:
                self.closed = True

    engine = Slow()
    steps = shown(Actions(engine, weights, 0.1).write(["a"], "", 5, 0))
    assert "took too long" in steps[-1][0]
    assert engine.closed


def test_leaving_closes_the_engines_generator() -> None:
    engine = FakeEngine()

    async def leave() -> None:
        steps = Actions(engine, weights, 5).write(["a"], "", 5, 0)
        async for answer, _ in steps:
            if "Good" in answer:
                break
        await steps.aclose()  # type: ignore[attr-defined]
        assert engine.closed

    asyncio.run(leave())


def test_an_engine_without_weights_says_so() -> None:
    assert "does not show layer weights" in shown(Actions(FakeEngine(), None, 5).label(["a"], "", ""))[-1][1]

    async def none(text: Any, language: str | None) -> None:
        return None

    assert "no layer weights" in shown(Actions(FakeEngine(), none, 5).label(["a"], "", ""))[-1][1]
