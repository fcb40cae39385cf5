"""The report page in a real browser: no request, no error, sorting, choosing, right-to-left texts, narrow screens.

Needs Chromium (Debian package `chromium`) and `playwright` for Python; set GLOTFUSE_SCREENSHOTS to keep the pictures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chromium import CHROMIUM, launched
from glotfuse.html_report import write_report
from report_folders import write_comparison, write_run

pytest.importorskip("playwright.sync_api", reason="playwright for Python is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    leak = {
        "kind": "repeated rows",
        "language": "sin_Sinh",
        "count": 3,
        "examples": ["ආයුබෝවන්"],
        "advice": "Remove them.",
    }
    write_run(folder / "run", record={"leaks": [leak]})
    write_comparison(folder / "comparison")
    return {kind: write_report(folder / kind, folder / f"{kind}.html") for kind in ("run", "comparison")}


def opened(browser: Any, file: Path, **context: Any) -> tuple[Any, list[str], list[str]]:
    """The page, its requests and its errors."""
    page = browser.new_context(**context).new_page()
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.goto(file.as_uri())
    return page, requests, errors


def first_cells(page: Any, table: str) -> list[str]:
    return [text.split("\n")[0] for text in page.locator(f"#{table} tbody tr:visible th").all_inner_texts()]


@pytest.mark.parametrize("kind", ["run", "comparison"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_a_page_opens_without_request_or_error_and_fits_the_screen(
    browser: Any, pages: dict[str, Path], kind: str, width: int, scheme: str
) -> None:
    page, requests, errors = opened(
        browser, pages[kind], viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True
    )
    page.wait_for_timeout(300)
    assert [url for url in requests if not url.startswith("data:")] == [pages[kind].as_uri()]
    assert errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "only tables scroll sideways"
    if folder := os.environ.get("GLOTFUSE_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{kind}-{width}-{scheme}.png", full_page=True)


def test_a_heading_sorts_and_the_search_filters(browser: Any, pages: dict[str, Path]) -> None:
    page, _, errors = opened(browser, pages["run"])
    heading = page.locator("#scores thead button", has_text="Accuracy")
    heading.click()
    values = [
        float(v) for v in page.locator("#scores tbody td:nth-child(2)").evaluate_all("c => c.map(x => x.dataset.value)")
    ]
    assert values == sorted(values, reverse=True)
    assert heading.locator("xpath=..").get_attribute("aria-sort") == "descending"
    heading.click()
    values_up = page.locator("#scores tbody td:nth-child(2)").evaluate_all("c => c.map(x => Number(x.dataset.value))")
    assert values_up == sorted(values)
    page.locator("#scores thead button", has_text="Language").click()
    names = first_cells(page, "scores")
    assert names == sorted(names)
    page.get_by_label("Find a language").fill("sinh")
    assert len(first_cells(page, "scores")) == 1
    assert page.locator("[data-counts=scores]").inner_text() == "1 of 8 languages"
    assert errors == []


def test_mistakes_follow_the_choice_and_urdu_runs_from_the_right(browser: Any, pages: dict[str, Path]) -> None:
    page, _, errors = opened(browser, pages["run"])
    urdu = page.locator("#mistakes-language option", has_text="Urdu").get_attribute("value")
    page.select_option("#mistakes-language", urdu)
    text = page.locator("#mistakes-list .text").first
    assert text.get_attribute("lang") == "ur-Arab"
    assert text.evaluate("node => getComputedStyle(node).direction") == "rtl"
    everything = page.locator("#mistakes-list li").count()
    page.select_option("#mistakes-gold", "label:sports")
    shown = page.locator("#mistakes-list li").all_inner_texts()
    assert 0 < len(shown) < everything
    assert all("right: sports" in item for item in shown)
    page.select_option("#confusion-language", urdu)
    counts = page.locator("#confusion-table tbody td").all_inner_texts()
    assert sum(map(int, counts)) == 96
    tamil = page.locator("#mistakes-language option", has_text="Tamil").get_attribute("value")
    page.select_option("#mistakes-language", tamil)
    assert page.locator("#mistakes-list .text").first.evaluate("node => getComputedStyle(node).direction") == "ltr"
    assert errors == []


def test_a_comparison_switches_score_group_and_pair(browser: Any, pages: dict[str, Path]) -> None:
    page, _, errors = opened(browser, pages["comparison"])
    cell = page.locator("#scores tbody td.shaded").first
    accuracy = cell.inner_text()
    page.locator("#languages input[value=macro_f1]").check()
    assert cell.inner_text() != accuracy
    assert page.locator("#averages input[value=macro_f1]").is_checked()
    page.locator("#scores thead button", has_text="mean").click()
    values = page.locator("#scores tbody tr td:nth-child(4)").evaluate_all(
        "c => c.map(x => Number(x.dataset.macro_f1))"
    )
    assert values == sorted(values, reverse=True)
    page.select_option("#pair", "1")
    assert page.locator("#pair-statement").inner_text().startswith("transformer_softmax beats mean")
    assert page.locator("#pair-languages tbody tr").count() == 8
    page.select_option("#group", "2")
    assert "low-resource" in page.locator("#group-table caption").inner_text()
    assert errors == []


def test_hostile_texts_do_nothing(browser: Any, tmp_path: Path) -> None:
    text = '<img src=x onerror="window.hit=1"><script>window.hit=1</script></script><script>window.hit=1</script>'
    write_run(
        tmp_path, {"sin_Sinh": [({"text": text}, "a"), ({"text": "b"}, "b")] * 30}, ["a", "b"], {"command": text}, text
    )
    page, requests, errors = opened(browser, write_report(tmp_path, tmp_path / "page.html"))
    assert page.evaluate("window.hit") is None
    assert any("<script>" in shown for shown in page.locator("#mistakes-list .text").all_inner_texts())
    assert len([url for url in requests if not url.startswith("data:")]) == 1
    assert errors == []
