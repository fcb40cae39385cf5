"""A small hub of data sets on 127.0.0.1, as `datasets` and huggingface_hub ask one for revisions, trees and files."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import datasets
import huggingface_hub
import pytest


class FakeDatasetHub:
    """Serves folders in a thread; a repository is its revisions' folders, and `requests` what was asked for."""

    def __init__(self, repositories: dict[str, dict[str, Path]]) -> None:
        self.repositories = repositories
        self.requests: list[str] = []
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def folder(self, repo: str, revision: str) -> tuple[str, Path] | None:
        """Commit and files of a revision, which may be named by either."""
        for name, folder in self.repositories[repo].items():
            commit = name if re.fullmatch("[0-9a-f]{40}", name) else hashlib.sha1(f"{repo}@{name}".encode()).hexdigest()
            if revision in (name, commit):
                return commit, folder
        return None

    def use(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        """Makes the libraries ask this hub, with caches of their own."""
        for name, value in (("HF_ENDPOINT", self.endpoint), ("HF_HUB_OFFLINE", False), ("USE_PARQUET_EXPORT", False)):
            patch.setattr(datasets.config, name, value)
        patch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache / "datasets"))
        patch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(cache / "downloads"))
        for name, value in (("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_XET", True)):
            patch.setattr(huggingface_hub.constants, name, value)
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache / "hub"))
        patch.setenv("NO_PROXY", "127.0.0.1")

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: FakeDatasetHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.owner.requests.append(unquote(path))
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            return self._revision(found[1], unquote(found[2] or "main"), self._info)
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", path):
            return self._revision(found[1], unquote(found[2]), self._tree, unquote(found[3] or ""))
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._revision(found[1], unquote(found[2]), self._file, unquote(found[3]))
        return self._missing("RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        found = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/paths-info/([^/]+)", self.path.partition("?")[0])
        if not found:
            return self._missing("RepoNotFound")
        return self._revision(found[1], unquote(found[2]), self._paths, body["paths"])

    def _revision(self, repo: str, revision: str, answer: Any, *arguments: Any) -> None:
        if repo not in self.owner.repositories:
            return self._missing("RepoNotFound")
        at = self.owner.folder(repo, revision)
        return answer(repo, *at, *arguments) if at else self._missing("RevisionNotFound")

    def _info(self, repo: str, commit: str, folder: Path) -> None:
        names = [{"rfilename": p.relative_to(folder).as_posix()} for p in folder.rglob("*") if p.is_file()]
        self._json({"id": repo, "sha": commit, "private": False, "siblings": names, "tags": [], "downloads": 0})

    def _tree(self, repo: str, commit: str, folder: Path, path: str) -> None:
        if not (folder / path).is_dir():
            return self._missing("EntryNotFound")
        paths = (folder / path).rglob("*") if "recursive=true" in self.path.lower() else (folder / path).iterdir()
        return self._json([_entry(folder, found) for found in sorted(paths)])

    def _paths(self, repo: str, commit: str, folder: Path, paths: list[str]) -> None:
        self._json([_entry(folder, folder / path) for path in paths if (folder / path).exists()])

    def _file(self, repo: str, commit: str, folder: Path, path: str) -> None:
        if not (folder / path).is_file():
            return self._missing("EntryNotFound", {"X-Repo-Commit": commit})
        data = (folder / path).read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}
        return self._send(200, data, "application/octet-stream", headers)

    def _json(self, values: Any) -> None:
        self._send(200, json.dumps(values).encode(), "application/json", {})

    def _missing(self, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(404, b'{"error":"not found"}', "application/json", {"X-Error-Code": code, **(headers or {})})

    def _send(self, status: int, data: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    oid = hashlib.sha1(name.encode()).hexdigest()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": oid, "size": 0}
    return {"type": "file", "path": name, "oid": oid, "size": path.stat().st_size}
