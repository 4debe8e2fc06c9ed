"""Changes to enums, messages, files and packages."""

from __future__ import annotations

from tests.compat.case import case

VALUE_NUMBER, VALUE_NAME = "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED", "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED"
VALUE_SAME, ENUM_JSON, MESSAGE_JSON = "ENUM_VALUE_SAME_NAME", "ENUM_SAME_JSON_FORMAT", "MESSAGE_SAME_JSON_FORMAT"
ENUM_RESERVED, MESSAGE_RESERVED = "RESERVED_ENUM_NO_DELETE", "RESERVED_MESSAGE_NO_DELETE"
NO_PACKAGE, NO_MESSAGE, NO_ENUM, NO_SERVICE = (
    "PACKAGE_NO_DELETE",
    "PACKAGE_MESSAGE_NO_DELETE",
    "PACKAGE_ENUM_NO_DELETE",
    "PACKAGE_SERVICE_NO_DELETE",
)

VALUES = (
    case(
        VALUE_NUMBER,
        "removed, the name reserved",
        before="enum Status { NONE = 0; OPEN = 1; }",
        breaks='enum Status { NONE = 0; reserved "OPEN"; }',
        allows='enum Status { NONE = 0; reserved 1; reserved "OPEN"; }',
    ),
    case(
        VALUE_NUMBER,
        "removed, a range reserved beside it",
        before="enum Status { NONE = 0; OPEN = 5; }",
        breaks='enum Status { NONE = 0; reserved 1 to 4, 6 to max; reserved "OPEN"; }',
        allows='enum Status { NONE = 0; reserved 4 to 5; reserved "OPEN"; }',
    ),
    case(
        VALUE_NAME,
        "removed, the number reserved",
        before="enum Status { NONE = 0; OPEN = 1; }",
        breaks="enum Status { NONE = 0; reserved 1; }",
        allows='enum Status { NONE = 0; reserved 1 to 9; reserved "OPEN"; }',
    ),
    case(
        VALUE_NAME,
        "removed with its alias, one name reserved",
        before="enum Status { option allow_alias = true; NONE = 0; OPEN = 1; LIVE = 1; }",
        breaks='enum Status { NONE = 0; reserved 1; reserved "OPEN"; }',
        allows='enum Status { NONE = 0; reserved 1; reserved "OPEN", "LIVE"; }',
    ),
    case(
        VALUE_NUMBER,
        "given another number",
        before="enum Status { NONE = 0; OPEN = 1; }",
        breaks="enum Status { NONE = 0; OPEN = 2; }",
        allows="enum Status { NONE = 0; OPEN = 1; SHUT = 2; }",
        also=(VALUE_NAME,),
    ),
    case(
        VALUE_SAME,
        "renamed",
        before="enum Status { NONE = 0; OPEN = 1; }",
        breaks="enum Status { NONE = 0; LIVE = 1; }",
        allows="enum Status { option allow_alias = true; NONE = 0; OPEN = 1; LIVE = 1; }",
    ),
    case(
        VALUE_SAME,
        "one of two names taken off",
        before="enum Status { option allow_alias = true; NONE = 0; OPEN = 1; LIVE = 1; }",
        breaks="enum Status { NONE = 0; OPEN = 1; }",
        allows="enum Status { option allow_alias = true; NONE = 0; LIVE = 1; OPEN = 1; UP = 1; }",
    ),
    case(
        VALUE_SAME,
        "renamed in a nested enum",
        before="message Order { enum Status { NONE = 0; OPEN = 1; } Status status = 1; }",
        breaks="message Order { enum Status { NONE = 0; LIVE = 1; } Status status = 1; }",
        allows="message Order { enum Status { NONE = 0; OPEN = 1 [deprecated = true]; } Status status = 1; }",
    ),
)

RESERVED = (
    case(
        ENUM_RESERVED,
        "a number taken off",
        before="enum Status { NONE = 0; reserved 3, 5 to 7; }",
        breaks="enum Status { NONE = 0; reserved 3, 5 to 6; }",
        allows="enum Status { NONE = 0; reserved 3 to 9; }",
    ),
    case(
        ENUM_RESERVED,
        "negative numbers taken off",
        before="enum Status { NONE = 0; reserved -9 to -1; }",
        breaks="enum Status { NONE = 0; reserved -9 to -5, -3 to -1; }",
        allows="enum Status { NONE = 0; reserved -9 to -5, -4 to -1; }",
    ),
    case(
        ENUM_RESERVED,
        "a name taken off",
        before='enum Status { NONE = 0; reserved "OPEN", "SHUT"; }',
        breaks='enum Status { NONE = 0; reserved "OPEN"; }',
        allows='enum Status { NONE = 0; reserved "SHUT", "OPEN", "LIVE"; }',
    ),
    case(
        ENUM_RESERVED,
        "a reserved number used again",
        before="enum Status { NONE = 0; reserved 1; }",
        breaks="enum Status { NONE = 0; OPEN = 1; }",
        allows="enum Status { NONE = 0; OPEN = 2; reserved 1; }",
    ),
    case(
        MESSAGE_RESERVED,
        "a number taken off",
        before="message Order { string id = 1; reserved 2, 4 to 8; }",
        breaks="message Order { string id = 1; reserved 2, 4 to 5, 7 to 8; }",
        allows="message Order { string id = 1; reserved 2 to 8; }",
    ),
    case(
        MESSAGE_RESERVED,
        "ranges cut otherwise",
        before="message Order { string id = 1; reserved 100 to max; }",
        breaks="message Order { string id = 1; reserved 100 to 1000; }",
        allows="message Order { string id = 1; reserved 100 to 1000, 1001 to max; }",
    ),
    case(
        MESSAGE_RESERVED,
        "a name taken off",
        before='message Order { string id = 1; reserved "note"; }',
        breaks="message Order { string id = 1; }",
        allows='message Order { string id = 1; reserved "note", "remark"; }',
    ),
    case(
        MESSAGE_RESERVED,
        "a reserved name used again",
        before='message Order { string id = 1; reserved 2; reserved "note"; }',
        breaks="message Order { string id = 1; string note = 3; reserved 2; }",
        allows='message Order { string id = 1; string remark = 3; reserved 2; reserved "note"; }',
    ),
)

_EDITION = 'edition = "2023"; package PKG; '

JSON = (
    case(
        ENUM_JSON,
        "JSON with best effort",
        before=_EDITION + "enum Status { NONE = 0; }",
        breaks=_EDITION + "enum Status { option features.json_format = LEGACY_BEST_EFFORT; NONE = 0; }",
        allows=_EDITION + "enum Status { option features.json_format = ALLOW; NONE = 0; }",
    ),
    case(
        MESSAGE_JSON,
        "JSON with best effort",
        before=_EDITION + "message Order { string id = 1; }",
        breaks=_EDITION + "message Order { option features.json_format = LEGACY_BEST_EFFORT; string id = 1; }",
        allows=_EDITION + "message Order { option features.json_format = ALLOW; string id = 1; }",
    ),
    case(
        MESSAGE_JSON,
        "a whole file, but one message",
        before=_EDITION + "message Order { message Line {} } message Box { option features.json_format = ALLOW; }",
        breaks=_EDITION
        + "option features.json_format = LEGACY_BEST_EFFORT; message Order { message Line {} } message Box { option features.json_format = ALLOW; }",
        allows=_EDITION
        + "option features.json_format = LEGACY_BEST_EFFORT; message Order { option features.json_format = ALLOW; message Line {} }"
        " message Box { option features.json_format = ALLOW; }",
    ),
    case(
        MESSAGE_JSON,
        "proto3 to proto2",
        before="message Order { string id = 1; }",
        breaks='syntax = "proto2"; package PKG; message Order { optional string id = 1; }',
        allows=_EDITION + "message Order { string id = 1; }",
    ),
    case(
        ENUM_JSON,
        "proto3 to proto2",
        before="enum Status { NONE = 0; }",
        breaks='syntax = "proto2"; package PKG; enum Status { NONE = 0; }',
        allows=_EDITION + "enum Status { NONE = 0; }",
    ),
)

_ORDER = 'syntax = "proto3"; package PKG; message Order { string id = 1; }'
_LINE = 'syntax = "proto3"; package PKG; message Line { string sku = 1; }'

PACKAGES = (
    case(
        "FILE_SAME_PACKAGE",
        "another package in the same file",
        before={"a.proto": _ORDER, "b.proto": _LINE},
        breaks={"a.proto": _ORDER.replace("PKG", "PKG.v2"), "b.proto": _LINE},
        allows={"a.proto": _ORDER, "b.proto": _LINE, "c.proto": _ORDER.replace("PKG", "PKG.v2")},
        also=(NO_MESSAGE,),
    ),
    case(
        NO_PACKAGE,
        "a package gone",
        before={"a.proto": _ORDER, "b.proto": _LINE.replace("PKG", "PKG.v2")},
        breaks={"a.proto": _ORDER},
        allows={"a.proto": _ORDER, "moved.proto": _LINE.replace("PKG", "PKG.v2")},
    ),
    case(
        NO_PACKAGE,
        "a package gone, its message elsewhere",
        before={"a.proto": _ORDER, "b.proto": _LINE.replace("PKG", "PKG.v2")},
        breaks={"a.proto": _ORDER, "c.proto": _LINE},
        allows={"a.proto": _ORDER, "b.proto": _LINE.replace("PKG", "PKG.v2"), "c.proto": _LINE},
    ),
    case(
        NO_MESSAGE,
        "a message gone",
        before="message Order { string id = 1; } message Line {}",
        breaks="message Order { string id = 1; }",
        allows="message Line {} message Order { string id = 1; }",
    ),
    case(
        NO_MESSAGE,
        "a nested message gone",
        before="message Order { string id = 1; message Line {} }",
        breaks="message Order { string id = 1; } message Line {}",
        allows="message Order { string id = 1; message Line {} message Box {} }",
    ),
    case(
        NO_MESSAGE,
        "a message renamed",
        before="message Order { string id = 1; }",
        breaks="message Purchase { string id = 1; }",
        allows="message Order { string id = 1; } message Purchase { string id = 1; }",
    ),
    case(
        NO_MESSAGE,
        "a message moved to another file of its package",
        before={"a.proto": _ORDER, "b.proto": _LINE},
        breaks={"a.proto": _ORDER},
        allows={"a.proto": _ORDER.replace("}", "} message Line { string sku = 1; }")},
    ),
    case(
        NO_MESSAGE,
        "the last message of its package gone",
        before="enum Status { NONE = 0; } message Order {}",
        breaks="enum Status { NONE = 0; }",
        allows="enum Status { NONE = 0; } message Order { Status status = 1; }",
        unseen=(NO_MESSAGE,),
    ),
    case(
        NO_ENUM,
        "an enum gone",
        before="enum Status { NONE = 0; } enum Size { SMALL = 0; } message Order {}",
        breaks="enum Size { SMALL = 0; } message Order {}",
        allows="message Order {} enum Size { SMALL = 0; } enum Status { NONE = 0; } enum Kind { PLAIN = 0; }",
    ),
    case(
        NO_ENUM,
        "the last enum of its package gone",
        before="enum Status { NONE = 0; } message Order {}",
        breaks="message Order {}",
        allows="message Order {} enum Status { NONE = 0; } enum Size { SMALL = 0; }",
        unseen=(NO_ENUM,),
    ),
    case(
        NO_ENUM,
        "a nested enum gone with its message",
        before="enum Status { NONE = 0; } message Order {} message Box { enum Size { SMALL = 0; } }",
        breaks="enum Status { NONE = 0; } message Order {}",
        allows="enum Status { NONE = 0; } message Order {} message Box { enum Size { SMALL = 0; LARGE = 1; } }",
        also=(NO_MESSAGE,),
    ),
    case(
        NO_SERVICE,
        "a service gone",
        before="message Order {} service Orders { rpc Get(Order) returns (Order); }",
        breaks="message Order {}",
        allows="message Order {} service Orders { rpc Get(Order) returns (Order); } service Boxes {}",
    ),
    case(
        NO_SERVICE,
        "a service renamed",
        before="message Order {} service Orders { rpc Get(Order) returns (Order); }",
        breaks="message Order {} service Purchases { rpc Get(Order) returns (Order); }",
        allows="message Order {} service Orders { option deprecated = true; rpc Get(Order) returns (Order); }",
    ),
)

CASES = (*VALUES, *RESERVED, *JSON, *PACKAGES)
