"""The routes of operations as paths of OpenAPI: variables as parameters, what is left in the query, the rest as the body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.routes import ALL, fields_at, is_leaf_list, parameters
from linkspan.template import ONE, REST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protobuf import DescField, DescMessage

    from linkspan.contracts.json_schema import Schemas
    from linkspan.operation import Operation
    from linkspan.routes import Route

__all__ = ["RoutePaths"]


class RoutePaths:
    """Adds routes to a document's paths. Paths that differ in the names of their variables only are one path in OpenAPI."""

    def __init__(self, paths: dict[str, dict[str, Any]], schemas: Schemas) -> None:
        self._paths = paths
        self._schemas = schemas
        self._known: dict[str, tuple[str, list[str]]] = {}

    def add(self, operation: Operation[Any, Any], shared: dict[str, Any], headers: Sequence[dict[str, Any]]) -> None:
        """Add all routes of an operation; `shared` is what its other paths say, `headers` the parameters that all calls may have."""
        request, response = operation.request.desc(), operation.response.desc()
        for number, route in enumerate(operation.routes, 1):
            path, variables = self._path(route, request)
            query = [self._parameter(chain) for chain in parameters(route, request)]
            name = f"{operation.full_name}.http" if number == 1 else f"{operation.full_name}.http{number}"
            described: dict[str, Any] = {"operationId": name, **shared, "parameters": [*variables, *query, *headers]}
            if route.body:
                described["requestBody"] = {"required": route.body == ALL, "content": _json(self._body(route, request))}
            described["responses"] = {**shared["responses"], "200": self._answer(route, response)}
            self._paths.setdefault(path, {})[route.method.lower()] = described

    def _path(self, route: Route, request: DescMessage) -> tuple[str, list[dict[str, Any]]]:
        """Return the path with a name for each wildcard, and the parameters of these names."""
        names: list[str] = []
        schemas: list[dict[str, Any]] = []
        pieces = list(route.template.segments)
        for variable in route.template.variables:
            end = len(pieces) if variable.end is None else variable.end
            wild = [at for at in range(variable.start, end) if pieces[at] in {ONE, REST}]
            for number, at in enumerate(wild, 1):
                names.append(variable.field if len(wild) == 1 else f"{variable.field}_{number}")
                schemas.append(self._variable(route, request, variable.field, pieces[at], plain=variable.plain))
                pieces[at] = f"{{{len(names) - 1}}}"
        for at, piece in enumerate(pieces):
            if piece in {ONE, REST}:
                names.append(f"segment_{at + 1}")
                schemas.append({"schema": {"type": "string"}})
                pieces[at] = f"{{{len(names) - 1}}}"
        verb = f":{route.template.verb}" if route.template.verb else ""
        shape = "/".join("{}" if piece.startswith("{") else piece for piece in pieces) + verb
        text = "/" + "/".join(f"{{{names[int(piece[1:-1])]}}}" if piece.startswith("{") else piece for piece in pieces) + verb
        ordered = [int(piece[1:-1]) for piece in pieces if piece.startswith("{")]
        path, known = self._known.setdefault(shape, (text, [names[at] for at in ordered]))
        made = [{"name": name, "in": "path", "required": True, **schemas[at]} for name, at in zip(known, ordered, strict=True)]
        return path, made

    def _variable(self, route: Route, request: DescMessage, name: str, wildcard: str, *, plain: bool) -> dict[str, Any]:
        found = fields_at(request, name)[-1]
        if plain:
            return self._described(found)
        more = " May hold slashes, which stay as they are." if wildcard == REST else ""
        return {"description": f"Part of '{name}', as in '{route.template.text}'.{more}", "schema": {"type": "string"}}

    def _parameter(self, chain: list[DescField]) -> dict[str, Any]:
        made = {"name": ".".join(each.json_name for each in chain), "in": "query", **self._described(chain[-1])}
        if is_leaf_list(chain[-1]):
            made.update({"style": "form", "explode": True})
        return made

    def _described(self, found: DescField) -> dict[str, Any]:
        schema = self._schemas.of_field(found)
        text = schema.pop("description", "")
        return {"description": text, "schema": schema} if text else {"schema": schema}

    def _body(self, route: Route, request: DescMessage) -> dict[str, Any]:
        """Return the schema of the body: what is bound by the path is not part of it."""
        bound = {variable.field for variable in route.template.variables if "." not in variable.field}
        if route.body != ALL:
            return self._schemas.of_field(fields_at(request, route.body)[0])
        return self._schemas.message(request, bound) if bound else self._schemas.reference(request)

    def _answer(self, route: Route, response: DescMessage) -> dict[str, Any]:
        whole = not route.response_body
        schema = self._schemas.reference(response) if whole else self._schemas.of_field(fields_at(response, route.response_body)[0])
        return {"description": "The answer.", "content": _json(schema)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
