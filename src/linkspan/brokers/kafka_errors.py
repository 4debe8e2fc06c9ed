"""What Kafka's errors mean, as an `Error` that says what to do."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException

from linkspan.errors import Code, Error, SetupError

__all__ = ["LOGIN", "code_of", "meaning", "reason_of"]

LOGIN = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM})  # noqa: SLF001 - librdkafka's own codes begin so
_MISSING = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})  # noqa: SLF001 - as above
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})
_DENIED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_WRONG = frozenset({KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.POLICY_VIOLATION, KafkaError.INVALID_CONFIG})


def code_of(error: KafkaError | BaseException) -> int:
    """Return librdkafka's number of an error."""
    return _inner(error).code()


def reason_of(error: KafkaError | BaseException | None) -> str:
    """Return an error's name, such as `_TRANSPORT`: a text could name what must not be logged."""
    return _inner(error).name()


def _inner(error: KafkaError | BaseException | None) -> KafkaError:
    first: Any = error.args[0] if isinstance(error, KafkaException) and error.args else error
    return first if isinstance(first, KafkaError) else KafkaError(KafkaError._FAIL)  # noqa: SLF001 - as above


def meaning(error: KafkaError | BaseException, what: str) -> Error | SetupError:
    """Say what an error means for `what`, such as "Topic 'x'"; anything not known may pass by itself."""
    code, name = code_of(error), reason_of(error)
    if code in LOGIN:
        return SetupError("The Kafka brokers refused the login: check user, password and 'sasl.mechanism'.")
    if code in _MISSING:
        return Error(Code.NOT_FOUND, f"{what} does not exist: declare it first.")
    if code in _TOO_LARGE:
        return Error(Code.INVALID_ARGUMENT, f"{what} does not take messages of this size ({name}): send smaller ones, or raise its limit.")
    if code in _DENIED:
        return Error(Code.PERMISSION_DENIED, f"{what} is not open to this login ({name}): ask for the access rights.")
    if code in _WRONG:
        return SetupError(f"{what} cannot be made as declared ({name}): check the option 'replicas' and the cluster's policy.")
    return Error(Code.UNAVAILABLE, f"{what} did not answer ({name}): try again, a message with the same id.")
