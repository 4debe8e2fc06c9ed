create table stock (
    sku text primary key,
    opening integer not null,
    on_hand integer not null
) strict;

-- reserve takes from the shelf, release and return put back.
create table movements (
    id integer primary key,
    kind text not null,
    ref text not null,
    sku text not null,
    pieces integer not null,
    at integer not null
) strict;
create index movements_of_order on movements (ref);
