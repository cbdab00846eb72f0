"""A server that answers huggingface_hub 2.4 as far as `patientdx push` asks, and keeps what it was sent."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from local_server import QuietHandler, serving


class Sent:
    """The body of every request to make a repository, the messages of commits, and the files of the last by name."""

    def __init__(self) -> None:
        self.created: list[dict[str, Any]] = []
        self.messages: list[str] = []
        self.files: dict[str, bytes] = {}


@contextmanager
def hub_server(*, refuses: bool = False) -> Iterator[tuple[str, Sent]]:
    """The server's address, and what it was sent. refuses: it makes no repository, as for a token without the right."""
    sent = Sent()
    with serving(_Handler, sent=sent, refuses=refuses) as address:
        yield address, sent


class _Handler(QuietHandler):
    sent: Sent
    refuses: bool

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        address = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            self.sent.created.append(json.loads(body))
            if self.refuses:
                return self._answer({"error": "You don't have the rights to create a model"}, 403)
            return self._answer({"url": f"{address}/org/name", "name": "org/name"})
        if self.path.endswith("/preupload/main"):
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for file in json.loads(body)["files"]]  # fmt: skip
            return self._answer({"files": files})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        assert self.path.endswith("/commit/main"), self.path
        lines = [json.loads(line) for line in body.splitlines()]
        self.sent.messages += [line["value"]["summary"] for line in lines if line["key"] == "header"]
        added = [line["value"] for line in lines if line["key"] == "file"]
        self.sent.files = {file["path"]: base64.b64decode(file["content"]) for file in added}
        return self._answer({"commitUrl": f"{address}/org/name/commit/1", "commitOid": "1", "success": True})

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
