create table payments (
    id integer primary key,
    kind text not null, -- charged, declined, refunded
    ref text not null,
    cents integer not null,
    at integer not null
) strict;
