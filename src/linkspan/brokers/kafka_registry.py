"""A client of a schema registry with Confluent's HTTP interface: registers protobuf files, looks schemas up. Blocks: for a thread."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorProto

from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from protobuf import DescFile

__all__ = ["Registered", "SchemaRegistry"]

ASK = 5.0
"""Seconds for an answer."""
_TYPE = "application/vnd.schemaregistry.v1+json"
_BUILT_IN = "google/protobuf/"
_MISSING = 404
_REFUSED = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Registered:
    """A schema that the registry knows; `guid` is empty where it gives none (before Confluent Platform 8)."""

    id: int
    guid: str


class SchemaRegistry:
    """Speaks to one registry; user and password may stand in the URL, and go nowhere else."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SetupError("The schema registry's address cannot be read: write http://host:port or https://host.")
        address, _, host = parts.netloc.rpartition("@")
        self._url = urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._headers = {"Content-Type": _TYPE, "Accept": _TYPE}
        if address:
            login = base64.b64encode(urllib.parse.unquote(address).encode()).decode()
            self._headers["Authorization"] = f"Basic {login}"

    def register(self, subject: str, file: DescFile) -> Registered:
        """Register a file under a subject, what it imports first; the same again changes nothing. Raises `Error` or `SetupError`."""
        answer = self._register(subject, file)
        number = answer.get("id")
        if not isinstance(number, int):
            raise Error(Code.FAILED_PRECONDITION, "The schema registry's answer has no id: is it a schema registry?")
        return Registered(number, str(answer.get("guid") or ""))

    def file(self, schema: int | str) -> FileDescriptorProto:
        """Return the file of a schema id or of a GUID, 32 hex digits. Raises `Error(NOT_FOUND)`."""
        what = f"ids/{schema}" if isinstance(schema, int) else f"guids/{_dashed(schema)}"
        answer = self._ask("GET", f"/schemas/{what}?format=serialized")
        try:
            return FileDescriptorProto.from_binary(base64.b64decode(answer["schema"], validate=True))
        except (KeyError, ValueError, TypeError) as error:
            raise Error(Code.FAILED_PRECONDITION, "The schema registry's answer is no serialized protobuf file.") from error

    def _register(self, subject: str, file: DescFile) -> dict[str, Any]:
        references = [self._reference(each) for each in file.dependencies if not each.proto.name.startswith(_BUILT_IN)]
        body = {
            "schemaType": "PROTOBUF",
            "schema": base64.b64encode(file.proto.to_binary()).decode(),
            "references": references,
        }
        return self._ask("POST", f"/subjects/{urllib.parse.quote(subject, safe='')}/versions", body)

    def _reference(self, file: DescFile) -> dict[str, Any]:
        """Register an import under its own name, and return how to name it."""
        name = file.proto.name
        answer = self._register(name, file)
        version = answer.get("version")
        if version is None:  # older registries answer with the id alone
            body = {"schemaType": "PROTOBUF", "schema": base64.b64encode(file.proto.to_binary()).decode()}
            version = self._ask("POST", f"/subjects/{urllib.parse.quote(name, safe='')}", body).get("version")
        return {"name": name, "subject": name, "version": version}

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        payload = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}{path}", payload, self._headers, method=method)  # noqa: S310 - http or https, checked
        try:
            with urllib.request.urlopen(request, timeout=ASK) as answer:  # noqa: S310 - as above
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            error.close()
            raise _refusal(error.code, path) from error
        except (OSError, ValueError) as error:
            text = f"The schema registry does not answer ({type(error).__name__}): start it, or check its address."
            raise Error(Code.UNAVAILABLE, text) from error


def _dashed(guid: str) -> str:
    """Write 32 hex digits as the registry names them."""
    return "-".join((guid[:8], guid[8:12], guid[12:16], guid[16:20], guid[20:]))


def _refusal(status: int, path: str) -> Error | SetupError:
    what = path.partition("?")[0]
    if status == _MISSING:
        return Error(Code.NOT_FOUND, f"The schema registry does not know '{what}': register it first.")
    if status in _REFUSED:
        return SetupError(f"The schema registry refused the login for '{what}': check user and password in its address.")
    if status < 500:  # noqa: PLR2004 - as in HTTP
        text = f"The schema registry refused '{what}' ({status}): look at its compatibility rules for the subject."
        return Error(Code.FAILED_PRECONDITION, text)
    return Error(Code.UNAVAILABLE, f"The schema registry failed at '{what}' ({status}): try again.")
