"""What syntax, edition and `features` mean for a field, a message or an enum (protobuf.dev/editions/features)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from protobuf.wkt.google.protobuf.descriptor_pb import FeatureSet

if TYPE_CHECKING:
    from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorProto

__all__ = ["Features", "features_of"]


@dataclass(frozen=True, slots=True)
class Features:
    """The features that the rules ask for: presence 'required', messages in delimited encoding, and JSON fully allowed."""

    required: bool
    delimited: bool
    json: bool

    def within(self, own: FeatureSet | None) -> Features:
        """Return what holds inside, where some features may be set anew."""
        if own is None:
            return self
        presence, encoding, form = own.field_presence, own.message_encoding, own.json_format
        return Features(
            required=presence == FeatureSet.FieldPresence.LEGACY_REQUIRED if presence else self.required,
            delimited=encoding == FeatureSet.MessageEncoding.DELIMITED if encoding else self.delimited,
            json=form == FeatureSet.JsonFormat.ALLOW if form else self.json,
        )


def features_of(file: FileDescriptorProto) -> Features:
    """Return what holds in a file: by its syntax, then by its own options."""
    proto2 = file.syntax in {"", "proto2"}
    own = file.options.features if file.options is not None else None
    return Features(required=False, delimited=False, json=not proto2).within(own)
