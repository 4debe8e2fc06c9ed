-- Messages that leave later. They wait beside the outbox, so that their number costs nothing to what leaves now.

create table linkspan_scheduled (
  position integer primary key autoincrement,
  format integer not null,
  due real not null,
  at real not null,
  source text not null,
  topic text not null,
  name text not null,
  lane integer not null,
  id text not null,
  key text not null,
  headers blob not null,
  data blob not null,
  unique (source, id)
);
create index linkspan_scheduled_due on linkspan_scheduled (due, position);
