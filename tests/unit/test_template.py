"""Path templates of google.api.http: taken apart, compared, filled and found again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from linkspan.routes import Route
from linkspan.template import PathTemplate, relation
from linkspan.transport.endpoint import Endpoint
from linkspan.transport.rest_router import Router

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda text: text not in {".", ".."})
WORD = TEXT.filter(lambda text: "/" not in text)


class _Routed:
    """Stands where an operation would: the router only asks for its routes."""

    def __init__(self, *routes: str) -> None:
        split = [route.split(" ") for route in routes]
        self.routes = [Route(method, PathTemplate.parse(path), "", "") for method, path in split]


def router(*routes: str) -> Router:
    def endpoint(route: str) -> Endpoint:
        operation: Any = _Routed(route)
        return Endpoint(operation, serve=operation)

    return Router([endpoint(route) for route in routes])


def found(routes: Router, method: str, path: str) -> tuple[str, dict[str, str]] | tuple[str, ...] | None:
    match = routes.find(method, path)
    if match is None:
        return None
    return match.allowed or (str(match.route), match.path)


def test_template_is_taken_apart() -> None:
    template = PathTemplate.parse("/v1/{parent=shelves/*}/books/{book.name=**}:move")
    assert template.segments == ("v1", "shelves", "*", "books", "**")
    assert [(v.field, v.start, v.end, v.plain) for v in template.variables] == [("parent", 1, 3, False), ("book.name", 4, None, False)]
    assert template.verb == "move"


WRONG = {
    "v1/orders": "does not begin with '/'",
    "": "does not begin with '/'",
    "/": "an empty segment",
    "/v1//orders": "an empty segment",
    "/v1/orders/": "an empty segment",
    "/v1/or ders": "segment 'or ders' is neither",
    "/v1/a%20b": "segment 'a%20b' is neither",
    "/v1/{id": "segment '{id' is not one whole variable",
    "/v1/x{id}": "segment 'x{id}' is not one whole variable",
    "/v1/{a={b}}": "not one whole variable",
    "/v1/{}": "variable '{}' names no field",
    "/v1/{1a}": "variable '{1a}' names no field",
    "/v1/{a..b}": "names no field",
    "/v1/{a=}/x": None,
    "/v1/{a=**}/x": "'**' is not the last segment",
    "/v1/**/x": "'**' is not the last segment",
    "/v1/{a=x//y}": "segment '' is neither",
    "/v1/orders:": "verb after ':' is empty",
    "/v1/orders:a b": "verb ':a b' is no plain word",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_template_is_refused(text: str) -> None:
    sentence = WRONG[text]
    if sentence is None:  # an empty pattern is what no pattern means
        assert PathTemplate.parse(text).segments == ("v1", "*", "x")
        return
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - its text is looked at below
        PathTemplate.parse(text)
    assert sentence in str(raised.value)


RELATIONS = [
    ("/v1/a", "/v1/a", "same"),
    ("/v1/{a}", "/v1/{b}", "same"),
    ("/v1/a", "/v1/b", "apart"),
    ("/v1/a", "/v1/a/b", "apart"),
    ("/v1/me", "/v1/{id}", "narrower"),
    ("/v1/{id}", "/v1/me", "wider"),
    ("/v1/{a}/x", "/v1/y/{b}", "crossing"),
    ("/v1/{a=**}", "/v1", "wider"),
    ("/v1/{a=**}", "/v1/x/y", "wider"),
    ("/v1/{a=x/**}", "/v1/{a=**}", "narrower"),
    ("/v1/{a}/x", "/v1/{b=y/**}", "crossing"),
    ("/v1/{a}:go", "/v1/{a}", "narrower"),
    ("/v1/{a}:go", "/v1/{a}:stop", "apart"),
    ("/v1/x:go", "/v1/x", "apart"),
    ("/v1/x", "/v1/{a}:go", "apart"),
    ("/v1/{a}:go", "/v1/x:go", "wider"),
    ("/v1/{a}/{b}:go", "/v1/x/{b}", "crossing"),
]


@pytest.mark.parametrize(("one", "other", "wanted"), RELATIONS)
def test_templates_are_compared(one: str, other: str, wanted: str) -> None:
    turned = {"narrower": "wider", "wider": "narrower"}
    first, second = PathTemplate.parse(one), PathTemplate.parse(other)
    assert relation(first, second) == wanted
    assert relation(second, first) == turned.get(wanted, wanted)


def test_the_narrower_route_goes_first() -> None:
    routes = router("GET /v1/{id}", "GET /v1/me", "GET /v1/{id}:cancel", "GET /v1/{rest=**}", "GET /v1/me/{x}")
    assert found(routes, "GET", "/v1/me") == ("GET /v1/me", {})
    assert found(routes, "GET", "/v1/you") == ("GET /v1/{id}", {"id": "you"})
    assert found(routes, "GET", "/v1/you:cancel") == ("GET /v1/{id}:cancel", {"id": "you"})
    assert found(routes, "GET", "/v1/you:other") == ("GET /v1/{id}", {"id": "you:other"})
    assert found(routes, "GET", "/v1/you%3Acancel") == ("GET /v1/{id}", {"id": "you:cancel"})
    assert found(routes, "GET", "/v1/me/x/y") == ("GET /v1/{rest=**}", {"rest": "me/x/y"})
    assert found(routes, "GET", "/v1") == ("GET /v1/{rest=**}", {"rest": ""})


def test_a_route_of_another_method_does_not_hide_the_wider_one() -> None:
    routes = router("GET /v1/recent", "DELETE /v1/{id}")
    assert found(routes, "DELETE", "/v1/recent") == ("DELETE /v1/{id}", {"id": "recent"})
    assert found(routes, "PUT", "/v1/recent") == ("DELETE", "GET", "HEAD", "OPTIONS")
    assert found(routes, "PUT", "/v1/other") == ("DELETE", "OPTIONS")


@pytest.mark.parametrize("path", ["", "v1/x", "/", "/v1/", "/v1/x/", "//x", "/v2/x", "/v1/x/y", "/" + "x/" * 500])
def test_other_paths_lead_nowhere(path: str) -> None:
    assert found(router("GET /v1/{id}"), "GET", path) is None


def test_head_takes_the_route_of_get() -> None:
    assert found(router("GET /v1/{id}"), "HEAD", "/v1/7") == ("GET /v1/{id}", {"id": "7"})


@given(WORD, WORD, TEXT)
def test_what_is_built_is_found_again(one: str, two: str, rest: str) -> None:
    routes = {
        "GET /v1/a/{one}/b/{two}:go": {"one": one, "two": two},
        "GET /v1/c/{one=x/*}": {"one": f"x/{one}"},
        "GET /v1/d/{one}/{rest=**}": {"one": one, "rest": rest},
    }
    finder = router(*routes)
    for route, values in routes.items():
        template = PathTemplate.parse(route.split(" ")[1])
        if any(part in {"", ".", ".."} for part in values.get("rest", "x").split("/")):
            with pytest.raises(LookupError, match="rest"):
                template.build(values.__getitem__)
            continue
        path = template.build(values.__getitem__)
        assert path.isascii()
        assert not set(path) & set(" ?#")
        assert found(finder, "GET", path) == (route, values)


@given(st.text(max_size=40))
def test_any_path_is_found_or_not(text: str) -> None:
    routes = router("GET /v1/{id}", "GET /v1/a/{rest=**}:go", "POST /{any=**}")
    match = routes.find("GET", "/v1/" + text.encode("latin-1", "replace").decode("latin-1"))
    assert match is not None


@pytest.mark.parametrize("value", ["", ".", "..", "a/b"])
def test_value_that_would_change_the_path_is_refused(value: str) -> None:
    template = PathTemplate.parse("/v1/{name=shelves/*}/x")
    with pytest.raises(LookupError):
        template.build(lambda _: f"shelves/{value}")
    with pytest.raises(LookupError):
        template.build(lambda _: value)


def test_slash_inside_of_a_segment_is_kept_apart() -> None:
    routes = router("GET /v1/{id}", "GET /v2/{name=**}")
    assert found(routes, "GET", "/v1/a%2Fb") == ("GET /v1/{id}", {"id": "a/b"})
    assert found(routes, "GET", "/v2/a%2Fb%20c/d") == ("GET /v2/{name=**}", {"name": "a%2Fb c/d"})
