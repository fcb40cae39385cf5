"""The page in a real browser: no request elsewhere, right-to-left texts, hostile texts, streaming, narrow screens.

Needs Chromium (Debian package `chromium`) and `playwright` for Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chromium import CHROMIUM, launched
from glotfuse.serving.local.engine import LocalEngine
from serving_help import slowed
from serving_ui_help import page_of

pytest.importorskip("playwright.sync_api", reason="playwright for Python is not installed")
HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script> ${window.hit=1} {{this}}'
PATIENCE = 60_000
"""Milliseconds."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]


@pytest.fixture(scope="module")
def served(model: Any) -> Iterator[tuple[str, LocalEngine]]:
    with page_of(model) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as chromium:
        yield chromium


class Page:
    """The page opened by a visitor."""

    def __init__(self, browser: Any, address: str, **context: Any):
        self.tab = browser.new_context(**context).new_page()
        self.tab.set_default_timeout(PATIENCE)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.tab.goto(f"{address}/ui/")
        self.tab.locator("button#gf-label").wait_for()

    @property
    def text(self) -> Any:
        return self.tab.locator(".gf-input textarea").first

    def take_sample(self, language: str) -> str:
        before = self.text.input_value()
        self.tab.locator("#gf-samples").get_by_text(language, exact=True).click()
        self.tab.wait_for_function(
            "before => document.querySelector('.gf-input textarea').value !== before", arg=before
        )
        return str(self.text.input_value())

    def label(self) -> None:
        self.tab.locator("button#gf-label").click()
        self.tab.locator(".gf-strips").wait_for()

    def computed(self, selector: str, style: str) -> str:
        return str(self.tab.locator(selector).first.evaluate("(node, s) => getComputedStyle(node)[s]", style))


@pytest.fixture
def opened(browser: Any, served: tuple[str, LocalEngine]) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def opened(**context: Any) -> Page:
        pages.append(Page(browser, served[0], **context))
        return pages[-1]

    yield opened
    for page in pages:
        page.tab.context.close()


def test_a_sample_is_labelled_without_any_request_elsewhere(
    opened: Callable[..., Page], served: tuple[str, LocalEngine]
) -> None:
    page = opened()
    page.take_sample("Sinhala")
    page.label()
    assert page.tab.locator(".gf-row").count() == 3
    assert page.tab.locator(".gf-strip").count() > 3
    elsewhere = [url for url in page.requests if not url.startswith((served[0], "data:", "blob:"))]
    assert elsewhere == []
    assert page.errors == []


def test_urdu_runs_from_the_right_and_tamil_from_the_left(opened: Callable[..., Page]) -> None:
    page = opened()
    for language, expected in (("Urdu", "rtl"), ("Tamil", "ltr")):
        page.take_sample(language)
        page.label()
        page.tab.locator(f".gf-strips[dir={expected}]").wait_for()
        assert page.computed(".gf-input textarea", "direction") == expected
        edges = page.tab.locator(".gf-strip").evaluate_all("all => all.map(x => x.getBoundingClientRect().x)")
        assert (edges[0] > edges[1]) == (expected == "rtl")
    assert page.computed(".gf-row", "direction") == "ltr"


def test_a_second_click_takes_another_sentence(opened: Callable[..., Page]) -> None:
    page = opened()
    assert page.take_sample("Tamil") != page.take_sample("Tamil")


def test_hostile_texts_and_labels_do_nothing(opened: Callable[..., Page]) -> None:
    page = opened()
    page.text.fill(HOSTILE)
    page.tab.get_by_label("Labels").first.fill(f"{HOSTILE}, b")
    page.tab.locator("button#gf-label").click()
    page.tab.locator(".gf-strips").wait_for()
    assert HOSTILE in page.tab.locator(".gf-name").all_inner_texts()
    assert page.tab.evaluate("window.hit") is None
    assert page.tab.locator("#gf-answer img, #gf-answer script, #gf-weights img").count() == 0


def test_an_error_is_a_message(opened: Callable[..., Page]) -> None:
    page = opened()
    page.tab.locator("button#gf-label").click()
    page.tab.locator(".gf-error").wait_for()
    assert "Type a text first" in page.tab.locator(".gf-error").inner_text()
    assert "Traceback" not in page.tab.content()


def test_text_is_streamed_and_stop_and_leaving_free_the_slot(
    opened: Callable[..., Page], served: tuple[str, LocalEngine]
) -> None:
    _, engine = served
    with slowed(engine, 0.2):
        page = opened()
        page.take_sample("Tamil")
        page.tab.get_by_role("tab", name="Write an answer").click()
        for leave in (lambda: page.tab.locator("button#gf-stop").click(), page.tab.close):
            page.tab.locator("button#gf-write").click()
            page.tab.locator(".gf-cursor").wait_for()
            first = page.tab.locator(".gf-text").inner_text()
            page.tab.wait_for_function("first => document.querySelector('.gf-text').innerText !== first", arg=first)
            assert engine.load()["running"] == 1
            leave()
            end = time.monotonic() + 10  # less than the 64 tokens would take
            while engine.load()["running"] and time.monotonic() < end:
                time.sleep(0.05)
            assert engine.load()["running"] == 0
            if not page.tab.is_closed():
                page.tab.locator(".gf-cursor").wait_for(state="detached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_one_column_that_fits(opened: Callable[..., Page], scheme: str) -> None:
    page = opened(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.take_sample("Urdu")
    page.label()
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 360
    text, answer = page.text.bounding_box(), page.tab.locator("#gf-answer").bounding_box()
    assert answer["y"] > text["y"] + text["height"]
    background = page.computed("body", "backgroundColor")
    assert (sum(map(int, background[4:-1].split(",")[:3])) < 380) == (scheme == "dark")
