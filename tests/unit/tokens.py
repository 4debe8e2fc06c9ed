"""Keys, tokens and a clock for the tests of authentication."""

from __future__ import annotations

import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from linkspan.testing.clock import START

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
SECRET = "0123456789abcdef0123456789abcdef"
ISSUER = "https://id.example.org"
NOW = int(START)


def pem(key: Any) -> str:
    text: str = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return text


def token(key: Any = RSA, algorithm: str = "RS256", *, kid: str | None = None, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    said = {"iss": ISSUER, "aud": "orders", "sub": "alice", "exp": NOW + 60, "scope": "orders:read", **claims}
    said = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(said, key, algorithm=algorithm, headers={**(headers or {}), **({"kid": kid} if kid else {})})


def jwks(**keys: Any) -> bytes:
    listed = []
    for kid, key in keys.items():
        algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        listed.append({**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"})
    return json.dumps({"keys": listed}).encode()
