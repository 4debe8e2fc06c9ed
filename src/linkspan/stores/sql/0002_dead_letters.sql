-- What people need who look after held letters: how each failed, what is being redriven, what an edited one was before.

-- One row per failed round of tries; the newest ones of a letter stay, and go with it.
create table linkspan_attempt (
  topic text not null,
  source text not null,
  id text not null,
  attempts integer not null,
  at real not null,
  code text not null,
  error text not null,
  stack text not null,
  primary key (topic, source, id, attempts)
) without rowid;

-- A redrive of many: asked for by a person, carried out by the running service. `fingerprint` and `key` choose, '' for all.
create table linkspan_redrive (
  id text primary key,
  service text not null,
  fingerprint text not null,
  key text not null,
  last integer not null,
  total integer not null,
  rate real not null,
  canary integer not null,
  patience real not null,
  who text not null,
  why text not null,
  at real not null,
  state text not null,
  reason text not null,
  ended real not null,
  seen real not null
) without rowid;
create index linkspan_redrive_state on linkspan_redrive (service, state);

-- The letters that a redrive took, each once. One that did not fail and is gone from linkspan_letter was handled, or discarded.
create table linkspan_redriven (
  letter integer not null,
  redrive text not null,
  failed integer not null,
  primary key (letter, redrive)
) without rowid;
create index linkspan_redriven_of on linkspan_redriven (redrive, failed);

-- A letter as it came, before a person corrected it; `resolved_by` is the id of the copy that took its place.
create table linkspan_original (
  letter integer not null,
  topic text not null,
  key text not null,
  source text not null,
  id text not null,
  type text not null,
  headers blob not null,
  data blob not null,
  resolved_by text not null,
  at real not null,
  primary key (letter, id)
) without rowid;

create index linkspan_letter_group on linkspan_letter (fingerprint, state, position);
