create table parcels (
    id integer primary key,
    order_id text not null,
    pieces integer not null,
    at integer not null
) strict;
