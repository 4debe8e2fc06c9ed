"""The broker's address: several servers, a login, settings of ours."""

from __future__ import annotations

import pytest

from linkspan.app import App
from linkspan.brokers.nats_address import NatsAddress
from linkspan.errors import SetupError


def test_servers_login_and_settings_are_read() -> None:
    found = NatsAddress.parse("tls://ada:s%40cret@a.example:4222,b.example,[::1]:4?replicas=3&monitoring=http://a:8222&publish_timeout=2.5")

    assert found.servers == ["tls://a.example:4222", "tls://b.example", "tls://[::1]:4"]
    assert (found.user, found.password) == ("ada", "s@cret")
    assert found.options == {"replicas": 3, "monitoring": "http://a:8222", "publish_timeout": 2.5}
    assert "s@cret" not in repr(found)


@pytest.mark.parametrize(
    ("address", "sentence"),
    {
        "port": ("nats://ada:secret@a:many", "cannot be read"),
        "second port": ("nats://ada:secret@a:1,b:99999", "cannot be read"),
        "no host": ("nats://ada:secret@a:1,,b:2", "a host is missing"),
        "setting": ("nats://ada:secret@a:1?replica=3", "a setting 'replica': there are replicas"),
        "even": ("nats://ada:secret@a:1?replicas=no", "replicas 'no': write 1 to 5"),
        "many": ("nats://ada:secret@a:1?replicas=7", "replicas '7': write 1 to 5"),
        "never": ("nats://ada:secret@a:1?publish_timeout=nan", "write seconds"),
        "file": ("nats://ada:secret@a:1?monitoring=file:///etc/passwd", "write http://host:port"),
    }.values(),
)
def test_wrong_address_is_refused_before_anything_is_opened(address: str, sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence) as caught:
        App(broker=address)

    assert "secret" not in str(caught.value)
