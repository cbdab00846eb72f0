"""A server that answers wandb 0.31 as far as our runs and dashboards ask, and keeps what it was sent.

What the answers must hold was found by trying: wandb says what it misses.
"""

import gzip
import json
import re
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from local_server import QuietHandler, serving


class Sent:
    """What arrived: GraphQL operations as (name, variables), uploaded files by name, everything as bytes."""

    def __init__(self, runs: int, silent_on: Collection[str]) -> None:
        self.runs, self.silent_on, self.ended = runs, silent_on, threading.Event()
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.files: dict[str, list[bytes]] = {}
        self.streamed: dict[str, list[str]] = {}
        self.everything = b""

    def variables(self, operation: str) -> list[dict[str, Any]]:
        """The variables of every operation of that name."""
        return [variables for name, variables in self.operations if name == operation]

    def lines(self, file: str) -> list[dict[str, Any]]:
        """The lines of a streamed file (wandb-history.jsonl, wandb-summary.json), as JSON."""
        return [json.loads(line) for line in self.streamed.get(file, [])]


@contextmanager
def wandb_server(*, runs: int = 1, silent_on: Collection[str] = ()) -> Iterator[tuple[str, Sent]]:
    """The server's address, and what it was sent. Its project `p` holds so many runs.

    silent_on: operations that get no answer until the server ends.
    """
    sent = Sent(runs, silent_on)
    with serving(_Handler, sent=sent) as address:
        try:
            yield address, sent
        finally:
            sent.ended.set()


class _Handler(QuietHandler):
    sent: Sent

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # a client that was ended does not say goodbye
            self.close_connection = True

    def do_PUT(self) -> None:
        self.sent.files.setdefault(self.path.removeprefix("/up/"), []).append(self._body())
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path.endswith("/file_stream"):
            for name, part in (json.loads(body).get("files") or {}).items():
                self.sent.streamed.setdefault(name, []).extend(part["content"])
        if not self.path.endswith("/graphql"):
            return self._answer({})
        asked = json.loads(body)
        name = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"]).group(1)
        variables = asked.get("variables") or {}
        self.sent.operations.append((name, variables))
        if name in self.sent.silent_on:
            self.sent.ended.wait()
            return None
        return self._answer({"data": self._data(name, variables)})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.sent.everything += self.path.encode() + b"\n" + body + b"\n"
        return body

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _data(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "email": "", "teams": {"edges": []}}
        project = {"id": "p", "name": asked.get("project"), "entity": {"id": "e", "name": "me"}}
        bucket = {"id": "b", "name": asked.get("name"), "displayName": asked.get("displayName"), "sweepName": None}
        bucket |= {"historyLineCount": 0, "project": project, "config": "{}", "description": ""}
        manifest = {"id": "m", "file": self._place("m", "manifest")}
        files = asked.get("input", {}).get("artifactFiles") or []
        edges = [{"node": self._place(one["name"], f"artifact/{one['name']}")} for one in files]
        answers = {
            "Viewer": {"viewer": viewer},
            "GetDefaultEntity": {"viewer": viewer},
            "ServerFeaturesQuery": {"serverInfo": {"features": []}},
            "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}},
            "CreateRunFiles": {
                "createRunFiles": {
                    "runID": "b",
                    "uploadHeaders": [],
                    "files": [self._place(one, f"run/{one}") for one in asked.get("files", [])],
                }
            },
            "ArtifactType": {"project": {"artifact": None}},
            "CreateArtifact": {
                "createArtifact": {
                    "artifact": {"id": "a", "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}
                }
            },
            "CreateArtifactManifest": {"createArtifactManifest": {"artifactManifest": manifest}},
            "CreateArtifactFiles": {"createArtifactFiles": {"files": {"edges": edges}}},
            "CommitArtifact": {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}},
            "ArtifactByID": {"artifact": _ARTIFACT},
            "GetProjects": {"models": {"edges": [{"node": _PROJECT}], "pageInfo": _NO_PAGE["pageInfo"]}},
            "Runs": {"project": {"internalId": "1", "runCount": self.sent.runs, "readOnly": False, "runs": _NO_PAGE}},
            "UpsertView2": {"upsertView": {"view": {"id": "v", "name": "nw-v-v"}, "inserted": True}},
            "upsertView": {"upsertView": {"view": _REPORT, "inserted": True}},
        }
        return answers.get(name, {})

    def _place(self, name: str, path: str) -> dict[str, Any]:
        url = f"http://{self.headers['Host']}/up/{path}"
        return {"id": name, "name": name, "displayName": name, "uploadUrl": url, "uploadHeaders": [],
                "artifact": {"id": "a"}, "storagePath": None, "uploadMultipartUrls": None}  # fmt: skip


_NO_PAGE = {"edges": [], "pageInfo": {"endCursor": None, "hasNextPage": False}}
_PROJECT = {"id": "p", "internalId": "1", "name": "p", "entityName": "me", "createdAt": "2026-01-01T00:00:00"}
_PROJECT |= {"isBenchmark": False, "user": None}
_REPORT = {"id": "r", "displayName": "r", "description": "", "project": {"name": "p", "entityName": "me"}, "spec": "{}"}
_ARTIFACT = {
    "__typename": "Artifact",
    "id": "a",
    "artifactSequence": {
        "__typename": "ArtifactSequence",
        "id": "s",
        "name": "predictions",
        "project": {"id": "p", "internalId": "1", "name": "p", "entity": {"id": "e", "name": "me"}},
    },
    "versionIndex": 0,
    "artifactType": {"name": "predictions"},
    "description": "",
    "metadata": None,
    "ttlDurationSeconds": -2,
    "ttlIsInherited": True,
    "tags": [],
    "historyStep": None,
    "state": "COMMITTED",
    "size": 1,
    "digest": "d",
    "commitHash": None,
    "fileCount": 1,
    "createdAt": "2026-01-01T00:00:00",
    "updatedAt": None,
    "aliases": [],
}
