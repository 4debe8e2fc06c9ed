"""Changes to fields."""

from __future__ import annotations

from tests.compat.case import Case, case

NUMBER, NAME = "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", "FIELD_NO_DELETE_UNLESS_NAME_RESERVED"
SAME_NAME, JSON_NAME = "FIELD_SAME_NAME", "FIELD_SAME_JSON_NAME"
TYPE, CARDINALITY = "FIELD_WIRE_JSON_COMPATIBLE_TYPE", "FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY"
ONEOF, DEFAULT, REQUIRED = "FIELD_SAME_ONEOF", "FIELD_SAME_DEFAULT", "MESSAGE_SAME_REQUIRED_FIELDS"
NO_MESSAGE = "PACKAGE_MESSAGE_NO_DELETE"


def retyped(name: str, was: str, breaks: str, allows: str, *, also: tuple[str, ...] = ()) -> Case:
    """One field with three types."""
    field = "message Order {{ {} amount = 1; }}"
    return case(TYPE, name, before=field.format(was), breaks=field.format(breaks), allows=field.format(allows), also=also)


DELETED = (
    case(
        NUMBER,
        "removed, the name reserved",
        before="message Order { string id = 1; string note = 2; }",
        breaks='message Order { string id = 1; reserved "note"; }',
        allows='message Order { string id = 1; reserved 2; reserved "note"; }',
    ),
    case(
        NUMBER,
        "removed, a range reserved beside it",
        before="message Order { string id = 1; string note = 12; }",
        breaks='message Order { string id = 1; reserved 2 to 11, 13 to max; reserved "note"; }',
        allows='message Order { string id = 1; reserved 10 to max; reserved "note"; }',
    ),
    case(
        NAME,
        "removed, the number reserved",
        before="message Order { string id = 1; string note = 2; }",
        breaks="message Order { string id = 1; reserved 2; }",
        allows='message Order { string id = 1; reserved 2; reserved "note"; }',
    ),
    case(
        NUMBER,
        "removed and nothing reserved, in a nested message",
        before="message Order { message Line { string sku = 1; int32 count = 2; } repeated Line lines = 1; }",
        breaks="message Order { message Line { string sku = 1; } repeated Line lines = 1; }",
        allows="message Order { message Line { string sku = 1; int32 count = 2; int32 price = 3; } repeated Line lines = 1; }",
        also=(NAME,),
    ),
    case(
        NUMBER,
        "given another number",
        before="message Order { string id = 1; string note = 2; }",
        breaks="message Order { string id = 1; string note = 3; }",
        allows="message Order { string note = 2; string id = 1; }",
        also=(NAME,),
    ),
    case(
        NAME,
        "a map removed, both reserved but its entry gone",
        before="message Order { string id = 1; map<string, string> tags = 2; }",
        breaks="message Order { string id = 1; reserved 2; }",
        allows="message Order { string id = 1; map<string, string> tags = 2 [deprecated = true]; }",
        also=(NO_MESSAGE,),
    ),
)

NAMED = (
    case(
        SAME_NAME,
        "renamed, the name in JSON kept",
        before="message Order { string note = 1; }",
        breaks='message Order { string remark = 1 [json_name = "note"]; }',
        allows="message Order { string note = 1; string remark = 2; }",
    ),
    case(
        SAME_NAME,
        "renamed",
        before="message Order { string note_text = 1; }",
        breaks="message Order { string remark_text = 1; }",
        allows="message Order { string note_text = 1 [deprecated = true]; }",
        also=(JSON_NAME,),
    ),
    case(
        SAME_NAME,
        "two fields trade their numbers",
        before="message Order { string first = 1; string second = 2; }",
        breaks="message Order { string first = 2; string second = 1; }",
        allows="message Order { string second = 2; string first = 1; string third = 3; }",
        also=(JSON_NAME,),
    ),
    case(
        SAME_NAME,
        "an extension renamed",
        before='syntax = "proto2"; package PKG; message Order { extensions 100 to 199; } extend Order { optional int32 weight = 100; }',
        breaks='syntax = "proto2"; package PKG; message Order { extensions 100 to 199; } extend Order { optional int32 grams = 100; }',
        allows='syntax = "proto2"; package PKG; message Order { extensions 100 to 199; } extend Order { optional int32 weight = 100; optional int32 grams = 101; }',
    ),
    case(
        JSON_NAME,
        "another name in JSON",
        before="message Order { string note_text = 1; }",
        breaks='message Order { string note_text = 1 [json_name = "note"]; }',
        allows='message Order { string note_text = 1 [json_name = "noteText"]; }',
    ),
    case(
        JSON_NAME,
        "the name in JSON taken off",
        before='message Order { string note_text = 1 [json_name = "note"]; }',
        breaks="message Order { string note_text = 1; }",
        allows='message Order { string note_text = 1 [json_name = "note", deprecated = true]; }',
    ),
)

RETYPED = (
    retyped("int32 to int64, whose JSON is text", "int32", "int64", "uint32"),
    retyped("int64 to int32", "int64", "int32", "uint64"),
    retyped("uint32 to sint32, zigzag", "uint32", "sint32", "int32"),
    retyped("uint64 to fixed64, a fixed width", "uint64", "fixed64", "int64"),
    retyped("fixed32 to int32", "fixed32", "int32", "sfixed32"),
    retyped("sfixed64 to sfixed32", "sfixed64", "sfixed32", "fixed64"),
    retyped("sint32 to sint64", "sint32", "sint64", "sint32"),
    retyped("bool to int32, which has the same bytes", "bool", "int32", "bool"),
    retyped("string to bytes", "string", "bytes", "string"),
    retyped("bytes to string", "bytes", "string", "bytes"),
    retyped("float to double", "float", "double", "float"),
    retyped("int64 to string, which has the same JSON", "int64", "string", "int64"),
    case(
        TYPE,
        "an enum to int32",
        before="enum Status { NONE = 0; OPEN = 1; } message Order { Status status = 1; }",
        breaks="enum Status { NONE = 0; OPEN = 1; } message Order { int32 status = 1; }",
        allows="enum Status { NONE = 0; OPEN = 1; SHUT = 2; } message Order { Status status = 1; }",
    ),
    case(
        TYPE,
        "to another enum of the same values",
        before="enum Status { NONE = 0; OPEN = 1; } message Order { Status status = 1; } message Box { enum State { NONE = 0; OPEN = 1; } }",
        breaks="enum Status { NONE = 0; OPEN = 1; } message Order { Box.State status = 1; } message Box { enum State { NONE = 0; OPEN = 1; } }",
        allows="enum Status { NONE = 0; OPEN = 1; } message Order { Status state = 2; Status status = 1; } message Box { enum State { NONE = 0; OPEN = 1; } }",
    ),
    case(
        TYPE,
        "an enum moved into a message, one value lost",
        before="enum Status { NONE = 0; OPEN = 1; } message Order { Status status = 1; } message Box {}",
        breaks="enum Status { NONE = 0; OPEN = 1; } message Order { Box.Status status = 1; } message Box { enum Status { NONE = 0; SHUT = 1; } }",
        allows="enum Status { NONE = 0; OPEN = 1; } message Order { Box.Status status = 1; }"
        " message Box { enum Status { NONE = 0; OPEN = 1; SHUT = 2; } }",
    ),
    case(
        TYPE,
        "an enum moved, one number changed",
        before="enum Status { NONE = 0; OPEN = 1; } message Order { Status status = 1; } message Box {}",
        breaks="enum Status { NONE = 0; OPEN = 1; } message Order { Box.Status status = 1; } message Box { enum Status { NONE = 0; OPEN = 2; } }",
        allows="enum Status { NONE = 0; OPEN = 1; } message Order { Box.Status status = 1; } message Box { enum Status { NONE = 0; OPEN = 1; } }",
    ),
    case(
        TYPE,
        "another message of the same fields",
        before="message Line { string sku = 1; } message Item { string sku = 1; } message Order { Line line = 1; }",
        breaks="message Line { string sku = 1; } message Item { string sku = 1; } message Order { Item line = 1; }",
        allows="message Line { string sku = 1; int32 count = 2; } message Item { string sku = 1; } message Order { Line line = 1; }",
    ),
    case(
        TYPE,
        "the values of a map",
        before="message Order { map<string, int32> counts = 1; }",
        breaks="message Order { map<string, string> counts = 1; }",
        allows="message Order { map<string, uint32> counts = 1; }",
    ),
    case(
        TYPE,
        "the keys of a map",
        before="message Order { map<int32, string> names = 1; }",
        breaks="message Order { map<string, string> names = 1; }",
        allows="message Order { map<uint32, string> names = 1; }",
    ),
    case(
        TYPE,
        "elements of a list",
        before="message Order { repeated int32 counts = 1; }",
        breaks="message Order { repeated string counts = 1; }",
        allows="message Order { repeated uint32 counts = 1; }",
    ),
    case(
        TYPE,
        "a message becomes delimited, as groups are",
        before='edition = "2023"; package PKG; message Line {} message Order { Line line = 1; }',
        breaks='edition = "2023"; package PKG; message Line {} message Order { Line line = 1 [features.message_encoding = DELIMITED]; }',
        allows='edition = "2023"; package PKG; message Line {} message Order { Line line = 1 [features.message_encoding = LENGTH_PREFIXED]; }',
    ),
    case(
        TYPE,
        "all messages of a file become delimited",
        before='edition = "2023"; package PKG; message Line {} message Order { Line line = 1; map<string, Line> by_sku = 2; }',
        breaks='edition = "2023"; package PKG; option features.message_encoding = DELIMITED;'
        " message Line {} message Order { Line line = 1; map<string, Line> by_sku = 2; }",
        allows='edition = "2023"; package PKG; option features.message_encoding = DELIMITED;'
        " message Line {} message Order { Line line = 1 [features.message_encoding = LENGTH_PREFIXED]; map<string, Line> by_sku = 2; }",
    ),
    case(
        TYPE,
        "an extension",
        before='syntax = "proto2"; package PKG; message Order { extensions 100 to 199; } extend Order { optional int32 weight = 100; }',
        breaks='syntax = "proto2"; package PKG; message Order { extensions 100 to 199; } extend Order { optional string weight = 100; }',
        allows='syntax = "proto2"; package PKG; message Order { extensions 100 to 199; } extend Order { optional uint32 weight = 100; }',
    ),
)

COUNTED = (
    case(
        CARDINALITY,
        "single to repeated",
        before="message Order { string tag = 1; }",
        breaks="message Order { repeated string tag = 1; }",
        allows="message Order { optional string tag = 1; }",
    ),
    case(
        CARDINALITY,
        "repeated to single",
        before="message Order { repeated string tags = 1; }",
        breaks="message Order { string tags = 1; }",
        allows="message Order { repeated string tags = 1; string tag = 2; }",
    ),
    case(
        CARDINALITY,
        "a map to a list of its entries, which have the same bytes",
        before="message Entry { string key = 1; string value = 2; } message Order { map<string, string> tags = 1; }",
        breaks="message Entry { string key = 1; string value = 2; } message Order { repeated Entry tags = 1; }",
        allows="message Entry { string key = 1; string value = 2; } message Order { map<string, string> tags = 1; repeated Entry entries = 2; }",
        also=(TYPE, NO_MESSAGE),
    ),
    case(
        CARDINALITY,
        "optional to required",
        before='syntax = "proto2"; package PKG; message Order { optional string id = 1; }',
        breaks='syntax = "proto2"; package PKG; message Order { required string id = 1; }',
        allows='syntax = "proto2"; package PKG; message Order { optional string id = 1; optional string note = 2; }',
        also=(REQUIRED,),
    ),
    case(
        CARDINALITY,
        "a field of an edition becomes required",
        before='edition = "2023"; package PKG; message Order { string id = 1; }',
        breaks='edition = "2023"; package PKG; message Order { string id = 1 [features.field_presence = LEGACY_REQUIRED]; }',
        allows='edition = "2023"; package PKG; message Order { string id = 1 [features.field_presence = IMPLICIT]; }',
    ),
    case(
        CARDINALITY,
        "an extension",
        before='syntax = "proto2"; package PKG; message Order { extensions 100 to 199; } extend Order { optional int32 weight = 100; }',
        breaks='syntax = "proto2"; package PKG; message Order { extensions 100 to 199; } extend Order { repeated int32 weight = 100; }',
        allows='syntax = "proto2"; package PKG; message Order { extensions 100 to 299; } extend Order { optional int32 weight = 100; }',
    ),
    case(
        REQUIRED,
        "a required field added",
        before='syntax = "proto2"; package PKG; message Order { required string id = 1; }',
        breaks='syntax = "proto2"; package PKG; message Order { required string id = 1; required string note = 2; }',
        allows='syntax = "proto2"; package PKG; message Order { required string id = 1; optional string note = 2; }',
    ),
    case(
        REQUIRED,
        "a required field removed, reserved",
        before='syntax = "proto2"; package PKG; message Order { required string id = 1; optional string note = 2; }',
        breaks='syntax = "proto2"; package PKG; message Order { optional string note = 2; reserved 1; reserved "id"; }',
        allows='syntax = "proto2"; package PKG; message Order { required string id = 1; reserved 2; reserved "note"; }',
    ),
    case(
        REQUIRED,
        "required no more",
        before='syntax = "proto2"; package PKG; message Order { required string id = 1; }',
        breaks='syntax = "proto2"; package PKG; message Order { optional string id = 1; }',
        allows='syntax = "proto2"; package PKG; message Order { required string id = 1 [deprecated = true]; }',
        also=(CARDINALITY,),
    ),
)

GROUPED = (
    case(
        ONEOF,
        "into a oneof",
        before="message Pay { string iban = 1; string card = 2; }",
        breaks="message Pay { oneof by { string iban = 1; string card = 2; } }",
        allows="message Pay { string iban = 1; string card = 2; oneof by { string cash = 3; } }",
    ),
    case(
        ONEOF,
        "out of a oneof",
        before="message Pay { oneof by { string iban = 1; string card = 2; } }",
        breaks="message Pay { oneof by { string iban = 1; } string card = 2; }",
        allows="message Pay { oneof by { string card = 2; string iban = 1; string cash = 3; } }",
    ),
    case(
        ONEOF,
        "into another oneof",
        before="message Pay { oneof by { string iban = 1; string card = 2; } oneof at { string now = 3; } }",
        breaks="message Pay { oneof by { string iban = 1; } oneof at { string now = 3; string card = 2; } }",
        allows="message Pay { oneof by { string iban = 1; string card = 2; } oneof at { string now = 3; string later = 4; } }",
    ),
    case(
        ONEOF,
        "the oneof renamed",
        before="message Pay { oneof by { string iban = 1; string card = 2; } }",
        breaks="message Pay { oneof how { string iban = 1; string card = 2; } }",
        allows="message Pay { oneof by { string iban = 1; string card = 2; } optional string how = 3; }",
    ),
    case(
        ONEOF,
        "an optional field, whose own oneof is none, into one",
        before="message Pay { optional string iban = 1; string card = 2; }",
        breaks="message Pay { oneof by { string iban = 1; } string card = 2; }",
        allows="message Pay { string iban = 1; optional string card = 2; }",
    ),
)

_TWO = 'syntax = "proto2"; package PKG; enum Size {{ SMALL = {}; LARGE = {}; }} message Order {{ optional {} x = 1 {}; }}'


def absent(name: str, kind: str, was: str, breaks: str, allows: str) -> Case:
    """One proto2 field with three defaults."""
    return case(
        DEFAULT,
        name,
        before=_TWO.format(1, 2, kind, was),
        breaks=_TWO.format(1, 2, kind, breaks),
        allows=_TWO.format(1, 2, kind, allows),
    )


DEFAULTED = (
    absent("of text", "string", '[default = "eu"]', '[default = "us"]', '[default = "eu", deprecated = true]'),
    absent("taken off", "int32", "[default = 7]", "", "[default = 7]"),
    absent("given", "int64", "", "[default = 7]", "[default = 0]"),
    absent("of a boolean", "bool", "[default = true]", "[default = false]", "[default = true]"),
    absent("of a float", "float", "[default = 0.1]", "[default = 0.2]", "[default = 0.10000000000000001]"),
    absent("of a double", "double", "[default = inf]", "[default = -inf]", "[default = inf]"),
    absent("not a number", "double", "[default = nan]", "[default = 1]", "[default = nan]"),
    absent("of bytes", "bytes", r'[default = "\001\xffa"]', r'[default = "\002\xffa"]', r'[default = "\x01\377a"]'),
    absent("of an enum", "Size", "[default = SMALL]", "[default = LARGE]", ""),
    case(
        DEFAULT,
        "the first value of an enum",
        before=_TWO.format(1, 2, "Size", ""),
        breaks=_TWO.format(1, 2, "Size", "").replace("SMALL = 1; LARGE = 2;", "LARGE = 2; SMALL = 1;"),
        allows=_TWO.format(1, 2, "Size", "").replace("LARGE = 2;", "LARGE = 2; HUGE = 3;"),
    ),
    case(
        DEFAULT,
        "of an edition",
        before='edition = "2023"; package PKG; message Order { int32 x = 1 [default = 3]; }',
        breaks='edition = "2023"; package PKG; message Order { int32 x = 1 [default = 4]; }',
        allows='edition = "2023"; package PKG; message Order { uint32 x = 1 [default = 3]; }',
    ),
)

CASES = (*DELETED, *NAMED, *RETYPED, *COUNTED, *GROUPED, *DEFAULTED)
