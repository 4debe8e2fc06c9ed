-- A customer who asks twice gets the same answer: the order's number is the key.
create table checkouts (
    order_id text primary key,
    customer text not null,
    pieces integer not null,
    cents integer not null,
    stock text not null, -- 'seen', or 'unseen' when inventory did not answer in time
    at integer not null -- microseconds since 1970, as in every table here
) strict;

create table returns (
    refund_id text primary key,
    order_id text not null,
    pieces integer not null,
    cents integer not null,
    at integer not null
) strict;
