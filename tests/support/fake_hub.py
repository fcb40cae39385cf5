"""A small hub on 127.0.0.1: create, commit, revision and files, as huggingface_hub asks for them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """Serves in a thread; `files` holds what was pushed, by repository and path."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def commit(self, repo: str) -> str:
        """Commit id of a repository's content."""
        content = b"".join(name.encode() + data for name, data in sorted(self.files[repo].items()))
        return hashlib.sha1(content).hexdigest()

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub, path = self.owner, self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            values = json.loads(body)
            repo = f"{values.get('organization') or 'someone'}/{values['name']}"
            hub.files.setdefault(repo, {})
            hub.private[repo] = values.get("visibility") == "private" or bool(values.get("private"))
            return self._json({"url": f"{hub.endpoint}/{repo}", "name": repo})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            names = [file["path"] for file in json.loads(body)["files"]]
            return self._json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    hub.files[found[1]][item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            commit = hub.commit(found[1])
            return self._json({"commitUrl": f"{hub.endpoint}/{found[1]}/commit/{commit}", "commitOid": commit})
        return self._missing()

    def do_GET(self) -> None:
        hub, path = self.owner, self.path.partition("?")[0]
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.*|/tree/.*)?", path)
        if found and found[1] in hub.files:
            files = hub.files[found[1]]
            if (found[2] or "").startswith("/tree"):
                entries = [
                    {"type": "file", "path": n, "size": len(d), "oid": hashlib.sha1(d).hexdigest()}
                    for n, d in files.items()
                ]
                return self._json(entries)
            names = [{"rfilename": name} for name in files]
            commit = hub.commit(found[1])
            return self._json({"id": found[1], "sha": commit, "private": False, "siblings": names, "tags": []})
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        if found and found[2] in hub.files.get(found[1], {}):
            data = hub.files[found[1]][found[2]]
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": hub.commit(found[1])}
            return self._send(200, data, "application/octet-stream", headers)
        if found and found[1] in hub.files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit(found[1])}
            return self._send(404, b"{}", "application/json", headers)
        return self._missing()

    do_HEAD = do_GET

    def _json(self, values: Any) -> None:
        self._send(200, json.dumps(values).encode(), "application/json", {})

    def _missing(self) -> None:
        self._send(404, b'{"error":"Repository not found"}', "application/json", {"X-Error-Code": "RepoNotFound"})

    def _send(self, status: int, data: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
