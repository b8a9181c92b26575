"""A hub for tests: the part of Hugging Face's interface that clients use to download a model."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789012345678901234567890123456789"
LARGE = (".safetensors", ".gguf")


class MockHub:
    """Serves one model, whose large files lie behind a redirect, as those of git-lfs do."""

    def __init__(self, name: str, folder: Path, pause: float = 0.0) -> None:
        self.name = name
        self.files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self.pause = pause
        self.requests: list[tuple[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def etag(self, name: str) -> str:
        data = self.files[name]
        if name.endswith(LARGE):
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def listed(self) -> dict:
        siblings = []
        for name, data in self.files.items():
            entry = {"rfilename": name, "size": len(data), "blobId": self.etag(name)}
            if name.endswith(LARGE):
                entry["lfs"] = {"sha256": self.etag(name), "size": len(data), "pointerSize": 100}
            siblings.append(entry)
        return {"id": self.name, "modelId": self.name, "sha": COMMIT, "siblings": siblings, "private": False}

    def tree(self) -> list:
        entries = []
        for name, data in self.files.items():
            entry = {"type": "file", "path": name, "size": len(data), "oid": self.etag(name)}
            if name.endswith(LARGE):
                entry["lfs"] = {"oid": self.etag(name), "size": len(data), "pointerSize": 100}
            entries.append(entry)
        return entries

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append((request.command, path))
        if path.startswith(f"/api/models/{self.name}/tree/"):
            return send(request, 200, json.dumps(self.tree()).encode(), {"Content-Type": "application/json"})
        if path.startswith(f"/api/models/{self.name}"):
            return send(request, 200, json.dumps(self.listed()).encode(), {"Content-Type": "application/json"})
        if path.startswith("/large/"):
            name = path.removeprefix("/large/")
            time.sleep(self.pause)
            return send(request, 200, self.files[name], {})
        prefix = f"/{self.name}/resolve/"
        if not path.startswith(prefix):
            return send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        name = path.removeprefix(prefix).split("/", 1)[1]
        headers = {"X-Repo-Commit": COMMIT}
        if name not in self.files:
            return send(request, 404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        headers["ETag"] = f'"{self.etag(name)}"'
        if not name.endswith(LARGE):
            return send(request, 200, self.files[name], headers)
        headers |= {
            "X-Linked-Etag": headers["ETag"],
            "X-Linked-Size": str(len(self.files[name])),
            # By another name of this machine: the hub's large files lie on another host.
            "Location": f"http://localhost:{self.server.server_port}/large/{name}",
        }
        return send(request, 302, b"", headers)

    def downloads(self) -> int:
        """How often the weights were sent."""
        return sum(method == "GET" and path.startswith("/large/") for method, path in self.requests)


def send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
