-- Linkspan's own tables, beside the user's in the same file, so that they commit together.

create table linkspan_migration (
  name text primary key,
  ordinal integer not null,
  digest text not null,
  at real not null
) without rowid;

-- Rows stand in order of arrival, so that forgetting reads only the oldest.
create table linkspan_inbox (
  position integer primary key,
  source text not null,
  id text not null,
  at real not null,
  unique (source, id)
);

-- Autoincrement: a position is never given twice, also when the table was empty in between.
create table linkspan_outbox (
  position integer primary key autoincrement,
  format integer not null,
  at real not null,
  topic text not null,
  name text not null,
  lane integer not null,
  id text not null,
  key text not null,
  sequence integer not null,
  headers blob not null,
  data blob not null
);

create table linkspan_sequence (
  topic text not null,
  key text not null,
  last integer not null,
  primary key (topic, key)
) without rowid;

create table linkspan_letter (
  position integer primary key autoincrement,
  format integer not null,
  topic text not null,
  key text not null,
  source text not null,
  id text not null,
  type text not null,
  headers blob not null,
  data blob not null,
  state text not null,
  attempts integer not null,
  due real not null,
  code text not null,
  error text not null,
  fingerprint text not null,
  received real not null,
  first_failed real not null,
  last_failed real not null,
  redrives integer not null,
  unique (topic, source, id)
);
create index linkspan_letter_order on linkspan_letter (topic, key, position);
create index linkspan_letter_state on linkspan_letter (state, position, due);

create table linkspan_audit (
  position integer primary key autoincrement,
  at real not null,
  action text not null,
  who text not null,
  why text not null,
  letter integer not null,
  topic text not null,
  key text not null,
  source text not null,
  id text not null,
  type text not null,
  fingerprint text not null
);
