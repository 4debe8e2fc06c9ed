"""Who calls: tokens that are believed, tokens that are not, and what a refusal tells."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from linkspan import Code, Context, Error, Identity, SetupError
from linkspan.identity import Certificate
from linkspan.middleware import Authorize, BearerToken, JwtAuthentication, MtlsIdentity, anyone, require
from linkspan.path import Path, Side
from linkspan.testing.clock import fake_runtime
from tests.unit.app_shop import Orders
from tests.unit.tokens import EC, ISSUER, NOW, OTHER_RSA, RSA, SECRET, jwks, pem, token

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.testing.clock import FakeClock

URL = "https://id.example.org/keys"


class Home:
    """What the middleware asks of a context's home: the runtime."""

    def __init__(self) -> None:
        self.runtime, self.clock = fake_runtime()


def context(home: Any = None, operation: str = "app.shop.v1.Orders.Find", **more: Any) -> Context:
    return Context(home or Home(), operation, "1", "1", "1", **more)


async def answer(ctx: Context, _request: Any) -> Identity | None:
    return ctx.identity


def guarding(**more: Any) -> JwtAuthentication:
    return JwtAuthentication(**{"issuer": ISSUER, "audience": "orders", "keys": pem(RSA), **more})


async def ask(layer: Any, text: str | None = None, *, ctx: Context | None = None) -> Identity | None:
    ctx = ctx or context()
    if text is not None:
        ctx.headers["authorization"] = f"Bearer {text}"
    found: Identity | None = await layer(ctx, None, answer)
    return found


async def refusal(layer: Any, text: str | None = None, *, ctx: Context | None = None) -> Error:
    with pytest.raises(Error) as caught:
        await ask(layer, text, ctx=ctx)
    if text:
        assert text not in repr(caught.value.__dict__) + str(caught.value)
        assert caught.value.__cause__ is None
    return caught.value


async def test_valid_token_names_the_caller() -> None:
    found = await ask(guarding(), token())
    assert found == Identity("alice", ISSUER, "jwt", found.claims if found else {})
    assert found is not None
    assert found.claims["scope"] == "orders:read"


async def test_identity_and_context_show_no_claims_and_no_headers() -> None:
    ctx = context()
    identity = await ask(guarding(), token(email="alice@example.org"), ctx=ctx)
    assert repr(identity) == str(identity) == "Identity('alice')"
    assert "Bearer" not in repr(ctx)
    assert "example.org" not in repr(ctx)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda: token(exp=NOW - 31), "has expired", id="expired"),
        pytest.param(lambda: token(nbf=NOW + 31), "not valid yet", id="not-yet"),
        pytest.param(lambda: token(iss="https://evil.example"), "another issuer", id="issuer"),
        pytest.param(lambda: token(aud="payments"), "another audience", id="audience"),
        pytest.param(lambda: token(aud=None), "lacks a claim", id="no-audience"),
        pytest.param(lambda: token(exp=None), "lacks a claim", id="no-expiry"),
        pytest.param(lambda: token(sub=None), "lacks a claim", id="no-subject"),
        pytest.param(lambda: token(sub=7), "not valid", id="subject-type"),
        pytest.param(lambda: token(sub=""), "wrong type", id="empty-subject"),
        pytest.param(lambda: token(exp="soon"), "wrong type", id="expiry-type"),
        pytest.param(lambda: token(OTHER_RSA), "signature", id="other-key"),
        pytest.param(lambda: token()[:-6] + "AAAAAA", "signature", id="changed-signature"),
        pytest.param(lambda: token(None, "none"), "algorithm", id="none"),
        pytest.param(lambda: forged(pem(RSA)), "algorithm", id="public-key-as-secret"),
        pytest.param(lambda: token(algorithm="RS512"), "algorithm", id="algorithm-not-pinned"),
        pytest.param(lambda: token(EC, "ES256"), "signature", id="key-of-another-kind"),
        pytest.param(lambda: token(headers={"crit": ["b64"], "b64": False}), "cannot be read|not valid", id="critical-extension"),
        pytest.param(lambda: "a.b.c", "cannot be read", id="no-token"),
        pytest.param(lambda: token(note="x" * 9000), "cannot be read", id="too-long"),
    ],
)
async def test_token_is_refused(make: Callable[[], str], says: str) -> None:
    error = await refusal(guarding(), make())
    assert error.code is Code.UNAUTHENTICATED
    assert __import__("re").search(says, error.message), error.message


def forged(secret: str) -> str:
    """Sign with HS256 and a public key as its secret (RFC 8725 §2.1), which PyJWT's encoder refuses to do."""

    def part(value: Any) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    import hashlib
    import hmac

    signed = part({"alg": "HS256", "typ": "JWT"}) + b"." + part({"iss": ISSUER, "aud": "orders", "sub": "eve", "exp": NOW + 60})
    mac = base64.urlsafe_b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).rstrip(b"=")
    return (signed + b"." + mac).decode()


async def test_clocks_may_differ_by_the_leeway() -> None:
    assert await ask(guarding(), token(exp=NOW - 29, nbf=NOW + 29)) is not None
    assert (await refusal(guarding(leeway=0), token(exp=NOW - 1))).code is Code.UNAUTHENTICATED


async def test_missing_token_is_refused_unless_optional() -> None:
    assert "authorization: Bearer" in (await refusal(guarding())).message
    assert await ask(guarding(optional=True)) is None
    await refusal(guarding(optional=True), token(exp=NOW - 100))
    ctx = context()
    ctx.headers["authorization"] = "Basic YWxpY2U6c2VjcmV0"
    assert "authorization: Bearer" in (await refusal(guarding(), ctx=ctx)).message


@pytest.mark.parametrize("where", [{"side": Side.CLIENT}, {"path": Path.DURABLE}])
async def test_calls_that_leave_and_durable_messages_are_not_asked(where: dict[str, Any]) -> None:
    assert await ask(guarding(), ctx=context(**where)) is None
    assert await ask(MtlsIdentity(), ctx=context(**where)) is None
    assert await ask(Authorize({}), ctx=context(**where)) is None


async def test_shared_secret_signs_only_where_it_is_asked_for() -> None:
    assert await ask(guarding(keys=SECRET, algorithms=["HS256"]), token(SECRET, "HS256")) is not None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"algorithms": ["none"]}, "cannot accept"),
        ({"algorithms": []}, "cannot accept"),
        ({"algorithms": "RS256"}, "a text as algorithms"),
        ({"algorithms": ["HS256", "RS256"]}, "pass for a secret"),
        ({"algorithms": ["HS256"], "keys": "short"}, "at least 32"),
        ({"algorithms": ["HS256"], "keys": pem(RSA)}, "no PEM"),
        ({"keys": "nonsense"}, "public key in PEM"),
        ({"keys": pem(EC), "algorithms": ["RS256"]}, None),
        ({"keys": {"keys": []}}, "no key"),
        ({"keys": None}, "either keys or jwks_url"),
        ({"audience": ""}, "issuer and audience"),
        ({"keys": None, "jwks_url": "http://id.example.org/keys"}, "https://"),
    ],
)
def test_unsafe_settings_are_refused_at_start(settings: dict[str, Any], says: str | None) -> None:
    with pytest.raises(SetupError, match=says or "fits its algorithms"):
        guarding(**settings)


class Issuer:
    """Publishes keys, and counts who asks."""

    def __init__(self, **keys: Any) -> None:
        self.keys, self.asked, self.away = keys, 0, False

    async def __call__(self, url: str) -> bytes:
        assert url == URL
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise OSError("away")
        return jwks(**self.keys)


def fetching(issuer: Issuer) -> tuple[JwtAuthentication, Home, FakeClock]:
    home = Home()
    return guarding(keys=None, jwks_url=URL, fetch=issuer), home, home.clock


async def test_published_keys_are_fetched_once_for_many() -> None:
    issuer = Issuer(a=RSA, b=EC)
    layer, home, clock = fetching(issuer)
    await asyncio.gather(*(ask(layer, token(kid="a"), ctx=context(home)) for _ in range(10)))
    assert await ask(layer, token(EC, "ES256", kid="b"), ctx=context(home)) is not None
    assert issuer.asked == 1
    await clock.advance(301)
    assert await ask(layer, token(kid="a", exp=NOW + 1000), ctx=context(home)) is not None
    await asyncio.sleep(0.01)
    assert issuer.asked == 2


async def test_new_key_is_found_and_unknown_ones_cannot_make_a_storm() -> None:
    issuer = Issuer(a=RSA)
    layer, home, clock = fetching(issuer)
    await ask(layer, token(kid="a"), ctx=context(home))
    issuer.keys["b"] = OTHER_RSA
    for _ in range(5):
        await refusal(layer, token(OTHER_RSA, kid="b"), ctx=context(home))
    assert issuer.asked == 1  # the first fetch was a moment ago
    await clock.advance(31)
    assert await ask(layer, token(OTHER_RSA, kid="b", exp=NOW + 1000), ctx=context(home)) is not None
    assert issuer.asked == 2


async def test_withdrawn_key_is_believed_no_more_after_a_refresh() -> None:
    issuer = Issuer(a=RSA, b=OTHER_RSA)
    layer, home, clock = fetching(issuer)
    await ask(layer, token(kid="a"), ctx=context(home))
    del issuer.keys["a"]
    await clock.advance(301)
    await ask(layer, token(OTHER_RSA, kid="b", exp=NOW + 1000), ctx=context(home))
    await asyncio.sleep(0.01)
    assert (await refusal(layer, token(kid="a", exp=NOW + 1000), ctx=context(home))).code is Code.UNAUTHENTICATED


async def test_issuer_that_is_away_is_told_apart_from_a_wrong_token() -> None:
    issuer = Issuer(a=RSA)
    issuer.away = True
    layer, home, clock = fetching(issuer)
    assert (await refusal(layer, token(kid="a"), ctx=context(home))).code is Code.UNAVAILABLE
    issuer.away = False
    await clock.advance(31)
    assert await ask(layer, token(kid="a"), ctx=context(home)) is not None
    issuer.away = True
    await clock.advance(3600)
    assert await ask(layer, token(kid="a", exp=NOW + 9000), ctx=context(home)) is not None  # the known keys go on serving
    await clock.advance(86_400)
    await asyncio.sleep(0.01)
    assert (await refusal(layer, token(kid="a", exp=NOW + 200_000), ctx=context(home))).code is Code.UNAVAILABLE


SPIFFE = "spiffe://example.org/orders"


async def test_client_certificate_names_the_caller() -> None:
    by_id = await ask(MtlsIdentity(), ctx=context(certificate=Certificate((SPIFFE,), ("orders.local",), "CN=ca", "1")))
    assert (by_id and by_id.subject, by_id and by_id.proof, by_id and by_id.issuer) == (SPIFFE, "mtls", "CN=ca")
    by_name = await ask(MtlsIdentity(), ctx=context(certificate=Certificate((), ("orders.local",))))
    assert by_name is not None
    assert by_name.subject == "orders.local"


@pytest.mark.parametrize(
    ("layer", "certificate", "says"),
    [
        (MtlsIdentity(), None, "no client certificate"),
        (MtlsIdentity(), Certificate(), "names nobody"),
        (MtlsIdentity(dns=False), Certificate((), ("a",)), "names nobody"),
        (MtlsIdentity(trust_domains=["other.org"]), Certificate((SPIFFE,), ("a",)), "another trust domain"),
        (MtlsIdentity(trust_domains=["example.org"]), Certificate((), ("a",)), "names nobody"),
        (MtlsIdentity(), Certificate((SPIFFE, "spiffe://example.org/admin")), "several SPIFFE IDs"),
    ],
)
async def test_certificate_is_refused(layer: MtlsIdentity, certificate: Certificate | None, says: str) -> None:
    error = await refusal(layer, ctx=context(certificate=certificate))
    assert error.code is Code.UNAUTHENTICATED
    assert says in error.message


async def test_calls_of_the_same_process_have_the_subject_that_was_given() -> None:
    assert await ask(MtlsIdentity(), ctx=context(same_process=True)) is None
    own = await ask(MtlsIdentity(same_process=SPIFFE), ctx=context(same_process=True))
    assert own is not None
    assert own.subject == SPIFFE
    assert (await refusal(MtlsIdentity(same_process=SPIFFE), ctx=context())).code is Code.UNAUTHENTICATED


ALICE = Identity("alice", ISSUER, "jwt", {"scope": "orders:read orders:write", "roles": ["clerk"]})


@pytest.mark.parametrize(
    ("rule", "identity", "code"),
    [
        (require(), ALICE, None),
        (require("orders:write", "orders:read"), ALICE, None),
        (require("orders:admin"), ALICE, Code.PERMISSION_DENIED),
        (require(subject="alice", issuer=ISSUER, roles="clerk"), ALICE, None),
        (require(subject="bob"), ALICE, Code.PERMISSION_DENIED),
        (require(issuer="https://evil.example"), ALICE, Code.PERMISSION_DENIED),
        (require(roles="admin"), ALICE, Code.PERMISSION_DENIED),
        (require(department="sales"), ALICE, Code.PERMISSION_DENIED),
        (lambda identity: identity.subject == "alice", ALICE, None),
        (require(), None, Code.UNAUTHENTICATED),
        (anyone, None, None),
        (require("a"), Identity("x", claims={"scp": ["a", "b"]}), None),
    ],
)
async def test_rule_says_who_may(rule: Any, identity: Identity | None, code: Code | None) -> None:
    ctx = context(identity=identity)
    if code is None:
        assert await ask(Authorize({Orders.find: rule}), ctx=ctx) is identity
    else:
        assert (await refusal(Authorize({Orders.find: rule}), ctx=ctx)).code is code


async def test_rules_are_found_by_operation_then_contract_then_star() -> None:
    layer = Authorize({Orders.find: anyone, Orders: require("orders:write"), "*": require(subject="root")})
    assert await ask(layer, ctx=context()) is None
    assert await ask(layer, ctx=context(operation="app.shop.v1.Orders.Place", identity=ALICE)) is ALICE
    error = await refusal(layer, ctx=context(operation="app.other.v1.Payments.Pay", identity=ALICE))
    assert error.code is Code.PERMISSION_DENIED
    assert "no rule" in (await refusal(Authorize({}), ctx=context(identity=ALICE))).message
    with pytest.raises(SetupError, match="name operations"):
        Authorize({"app.shop.v1.Orders.Find": anyone})


async def test_bearer_token_is_sent_where_it_belongs() -> None:
    async def fresh(_ctx: Context) -> str:
        return "t0ken"

    for source in ("t0ken", fresh, lambda _ctx: "t0ken"):
        layer = BearerToken(source, to=[Orders])
        ours, theirs = context(side=Side.CLIENT), context(side=Side.CLIENT, operation="app.other.v1.Payments.Pay")
        await ask(layer, ctx=ours)
        await ask(layer, ctx=theirs)
        assert (ours.headers, theirs.headers) == ({"authorization": "Bearer t0ken"}, {})
        assert "t0ken" not in repr(layer)
    came = context()
    await ask(BearerToken("t0ken"), ctx=came)
    assert came.headers == {}
    with pytest.raises(SetupError, match="empty token"):
        BearerToken("")


def test_jwt_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jwt", None)
    with pytest.raises(SetupError, match=r"install linkspan\[jwt\]"):
        guarding()
    assert jwt is not None
