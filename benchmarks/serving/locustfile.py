"""What one client of the load does; Locust runs it, and needs nothing of glotfuse for it.

Each client sends a request, reads the whole answer and sends the next. A file named in GLOTFUSE_LOAD_PLAN says what;
another one, named in it, gets a line per request, and in the end one with the number of requests that were sent.
"""

from __future__ import annotations

import json
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant, events, task

PLAN: dict[str, Any] = json.loads(Path(os.environ["GLOTFUSE_LOAD_PLAN"]).read_text("utf8"))
RECORDS = Path(PLAN["records"]).open("w", encoding="utf8")  # noqa: SIM115
HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
sent = count()


class Client(FastHttpUser):
    wait_time = constant(0)
    connection_timeout = PLAN["timeout"]
    network_timeout = PLAN["timeout"]
    max_retries = 0

    @task
    def ask(self) -> None:
        number = next(sent)
        body, begun = PLAN["bodies"][number % len(PLAN["bodies"])], time.perf_counter()
        found: dict[str, Any] = {"number": number, "begun": begun, "first": None, "tokens": None, "whole": False}
        with self.client.post(
            PLAN["route"], data=body, headers=HEADERS, stream=PLAN["stream"], catch_response=True
        ) as answer:
            found["status"] = answer.status_code
            try:
                if answer.status_code == 200:
                    found |= read_stream(answer.stream, begun) if PLAN["stream"] else read_whole(answer.content)
                elif answer.status_code:
                    answer.content  # noqa: B018  # reads it, so that the connection can serve again
            except Exception as error:
                found["fault"] = f"{type(error).__name__}: {error}"[:300]
            if not answer.status_code:
                found["fault"] = str(getattr(answer, "error", "no answer"))[:300]
            found["ended"] = time.perf_counter()
            found["retry_after"] = answer.headers.get("retry-after") if answer.headers else None
            answer.request_meta["response_time"] = 1000 * (found["ended"] - begun)
            answer.success() if found["whole"] else answer.failure(found.get("fault") or f"{answer.status_code}")
        RECORDS.write(json.dumps(found) + "\n")
        RECORDS.flush()
        if not found["whole"]:
            gevent.sleep(PLAN["pause"])


def read_whole(content: bytes) -> dict[str, Any]:
    answer = json.loads(content)
    if "data" in answer:
        return {"whole": bool(answer["data"][0]["label"])}
    return {"whole": bool(answer["choices"][0]["finish_reason"]), "tokens": answer["usage"]["completion_tokens"]}


def read_stream(lines: Any, begun: float) -> dict[str, Any]:
    """Reads events as they arrive. Locust's own `iter_lines` waits for 1,024 bytes, which would hide the first."""
    found: dict[str, Any] = {"first": None, "tokens": None, "whole": False}
    finished = False
    while line := lines.readline(b"\n"):
        if not line.startswith(b"data: "):
            continue
        now, data = time.perf_counter(), line[6:].strip()
        if data == b"[DONE]":
            found["whole"] = finished
            continue
        event = json.loads(data)
        if "error" in event:
            return {**found, "fault": f"event: {event['error']}"[:300]}
        for choice in event["choices"]:
            if found["first"] is None and (choice["text"] or choice["finish_reason"]):
                found["first"] = now - begun
            finished = finished or bool(choice["finish_reason"])
        if event.get("usage"):
            found["tokens"] = event["usage"]["completion_tokens"]
    return found


@events.quitting.add_listener
def finish(environment: Any, **_: Any) -> None:
    total = environment.stats.total
    RECORDS.write(json.dumps({"sent": next(sent), "counted_by_locust": total.num_requests}) + "\n")
    RECORDS.close()
