create table orders (
    order_id text primary key,
    customer text not null,
    pieces integer not null,
    cents integer not null,
    status text not null -- placed, reserved, settled, declined
) strict;

create table refunds (
    refund_id text primary key,
    order_id text not null,
    pieces integer not null,
    cents integer not null,
    request blob not null,
    status text not null -- asked, refunded, refused
) strict;

-- Ledgers have no unique business key on purpose: an effect that happened twice must show, not be hidden.
create table log (
    id integer primary key,
    step text not null,
    ref text not null,
    pieces integer not null,
    cents integer not null,
    at integer not null
) strict;
