"""The page inside a real server: what it hands out, to whom, and what it does not."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from glotfuse.serving.page.mount import UiError, is_needed, require_gradio
from serving_ui_help import page_of
from tiny import SENTENCES

KEY = "a-key"


@pytest.fixture(scope="module")
def locked(model: Any) -> Iterator[str]:
    with page_of(model, api_key=KEY) as (address, _):
        yield f"{address}/ui"


@pytest.fixture
def visitor(locked: str) -> Iterator[Any]:
    with httpx.Client(base_url=locked, timeout=60, follow_redirects=True) as client:
        yield client


@pytest.fixture
def user(visitor: Any) -> Any:
    assert visitor.post("/login", data={"username": "me", "password": KEY}).status_code == 200
    return visitor


def ask(client: Any, function: int, data: list[Any]) -> list[Any]:
    """What a button's function yields, by Gradio's own protocol."""
    joined = client.post("/gradio_api/queue/join", json={"data": data, "fn_index": function, "session_hash": "s"})
    assert joined.status_code == 200, joined.text
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "s"}) as events:
        messages = [json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: ")]
    assert messages[-1]["msg"] == "close_stream"
    assert [m["success"] for m in messages if m["msg"] == "process_completed"] == [True]
    return [m["output"]["data"] for m in messages if m["msg"] == "process_generating"]


def functions(client: Any) -> dict[int, int]:
    """Index of each function with its number of inputs."""
    return {found["id"]: len(found["inputs"]) for found in client.get("/config").json()["dependencies"]}


def test_without_the_key_there_is_a_login_and_nothing_else(visitor: Any) -> None:
    page = visitor.get("/")
    assert page.status_code == 200
    assert '"auth_required":true' in page.text.replace(" ", "")
    assert "Sinhala" not in page.text
    assert visitor.get("/config").status_code == 401
    body = {"data": ["a", "", "", None], "fn_index": 1, "session_hash": "s"}
    assert visitor.post("/gradio_api/queue/join", json=body).status_code == 401
    assert visitor.post("/login", data={"username": "me", "password": "wrong"}).status_code == 400
    assert visitor.get("/config").status_code == 401


def test_with_the_key_the_page_answers_as_the_model_does(user: Any, model: Any) -> None:
    label = next(index for index, inputs in functions(user).items() if inputs == 4)
    steps = ask(user, label, [SENTENCES[0], "", "", None])
    shown = str(steps)
    (expected,) = model.classify([SENTENCES[0]])
    assert f'gf-label" dir="auto">{expected.label}<' in shown
    for label, probability in expected.probabilities.items():
        assert re.search(rf">{label}<.*?{100 * probability:.1f}%", shown)
    assert "gf-strips" in shown


def test_nothing_is_reported_or_fetched_elsewhere(user: Any) -> None:
    config = user.get("/config").json()
    assert config["analytics_enabled"] is False
    page = user.get("/").text
    loaded = re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["'](https?:)?//""", page)
    assert loaded == []
    assert not re.search("googleapis|gstatic|jsdelivr|cdnjs|unpkg", page + user.get("/theme.css").text)
    assert not [sheet for sheet in config.get("stylesheets") or [] if sheet.startswith("http")]


def test_files_cannot_be_uploaded_fetched_or_edited(user: Any) -> None:
    assert user.post("/gradio_api/upload", files={"files": b"abc"}).status_code == 404
    for path in ("file=/etc/hostname", "proxy=http://127.0.0.1/", "vibe-edit", "api/label", "run/label"):
        assert user.get(f"/gradio_api/{path}").status_code == 404
    assert user.get("/monitoring").status_code == 404


def test_a_large_body_is_refused(user: Any) -> None:
    body = {"data": ["a" * 1_100_000, "", "", None], "fn_index": 1, "session_hash": "s"}
    assert user.post("/gradio_api/queue/join", json=body).status_code == 413


def test_the_icon_that_browsers_ask_for_is_there(visitor: Any) -> None:
    assert visitor.get(str(visitor.base_url).replace("/ui/", "/favicon.ico")).headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("", True), ("/", True), ("/config", True), ("/config/", True), ("/assets/index.js", True),
        ("/gradio_api/queue/join", True), ("/gradio_api/heartbeat/abc", True),
        ("/gradio_api/upload", False), ("/gradio_api/queue/joinx", False), ("/configs", False),
    ],
)  # fmt: skip
def test_only_the_needed_paths_are_open(path: str, needed: bool) -> None:
    assert is_needed(path) is needed


def test_without_gradio_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UiError, match=re.escape("pip install 'glotfuse[ui]'")):
        require_gradio()
