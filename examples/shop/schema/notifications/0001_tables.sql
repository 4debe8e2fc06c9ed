create table mails (
    id integer primary key,
    kind text not null, -- receipt, shipped, declined, refunded, refund_refused
    ref text not null,
    at integer not null
) strict;
