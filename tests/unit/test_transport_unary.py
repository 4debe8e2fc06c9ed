"""Connect's unary calls as both ends write and read them, against connectrpc's own writing."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from connectrpc._protocol import ConnectWireError  # no public name: the body that its server sends
from hypothesis import given, strategies as st
from protobuf.wkt import Any as AnyMessage, Duration, StringValue

from linkspan.errors import Code, Error
from linkspan.transport.unary import FORMS, error_body, http_status, read_error, registry_of
from linkspan.transport.wire import connect_error
from tests.integration.direct_orders import Order

REGISTRY = registry_of(StringValue)
details = st.one_of(
    st.builds(StringValue, value=st.text(max_size=20)),
    st.builds(Duration, seconds=st.integers(-100, 100)),
    st.builds(AnyMessage, type_url=st.sampled_from(["type.googleapis.com/a.B", "x/y.Z", "plain"]), value=st.binary(max_size=20)),
)
errors = st.builds(Error, st.sampled_from(Code), st.text(max_size=40), st.lists(details, max_size=3))
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["type", "value", "code", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(errors)
def test_error_is_written_as_connectrpc_writes_it(error: Error) -> None:
    theirs = ConnectWireError.from_exception(connect_error(error))
    assert error_body(error.code, error.message, error.details) == theirs.to_json_bytes()
    assert http_status(error.code) == theirs.to_http_status().code


@given(errors)
def test_error_comes_back_as_it_was(error: Error) -> None:
    back = read_error(http_status(error.code), error_body(error.code, error.message, error.details), REGISTRY)
    assert back.code is error.code
    assert back.message == (error.message or "The peer gave no reason: look into its log.")
    known = [detail for detail in error.details if isinstance(detail, StringValue)]
    assert [detail for detail in back.details if isinstance(detail, StringValue)] == known
    assert len(back.details) == len(error.details)


@given(
    st.integers(201, 599),
    st.one_of(st.binary(max_size=40), st.fixed_dictionaries({}, optional=dict.fromkeys(("code", "message", "details"), anything))),
)
def test_any_body_is_an_error_or_no_connect_error(status: int, body: bytes | dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read_error(status, body if isinstance(body, bytes) else json.dumps(body).encode(), REGISTRY), Error)


@pytest.mark.parametrize("kind", FORMS)
def test_messages_come_back_in_every_form(kind: str) -> None:
    form, order = FORMS[kind], Order(order_id="7", quantity=3, note="ä")
    assert form.read(form.write(order), Order, Code.INTERNAL) == order
