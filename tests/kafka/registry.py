"""A schema registry in this process, over real HTTP, as Confluent's interface is described."""

from __future__ import annotations

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


class Registry:
    """Subjects with versions, schemas with ids and GUIDs."""

    def __init__(self, *, guids: bool = True) -> None:
        self.subjects: dict[str, list[int]] = {}
        self.schemas: list[dict[str, Any]] = []
        self.guids = guids
        self.asked: list[tuple[str, str]] = []
        self.authorization = ""
        self.status = 200

    def register(self, subject: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        for reference in body.get("references", ()):
            if reference["version"] > len(self.subjects.get(reference["subject"], ())):
                return 422, {"error_code": 42201, "message": "no such reference"}
        schema = {name: body.get(name) for name in ("schemaType", "schema", "references")}
        if schema not in self.schemas:
            self.schemas.append(schema)
        number = self.schemas.index(schema) + 1
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return 200, self._described(subject, number)

    def _described(self, subject: str, number: int) -> dict[str, Any]:
        found = {"id": number, "version": self.subjects[subject].index(number) + 1, "subject": subject}
        return found | ({"guid": self.guid(number)} if self.guids else {})

    def guid(self, number: int) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(self.schemas[number - 1])))

    def find(self, path: list[str]) -> tuple[int, dict[str, Any]]:
        kind, name = path[1:]
        numbers = range(1, len(self.schemas) + 1)
        number = next((each for each in numbers if name == (str(each) if kind == "ids" else self.guid(each))), 0)
        return (200, self.schemas[number - 1]) if number else (404, {"error_code": 40403, "message": "Schema not found"})

    def __enter__(self) -> Self:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def handler_for(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = self._path()
            self._answer(*registry.register(unquote(path[1]), body))

        def do_GET(self) -> None:
            self._answer(*registry.find(self._path()))

        def _path(self) -> list[str]:
            registry.asked.append((self.command, self.path))
            registry.authorization = self.headers.get("Authorization", "")
            return urlsplit(self.path).path.strip("/").split("/")

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            status = registry.status if registry.status != 200 else status
            payload = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
