-- Named queries. Parameters have their types, so that nothing depends on what the server guesses.

-- name: claim
insert into linkspan_inbox (source, id, at)
select source, id, $3::float8 from unnest($1::text[], $2::text[]) as claims (source, id) order by source, id
on conflict do nothing returning source, id

-- name: forget
delete from linkspan_inbox where ctid = any (array(select ctid from linkspan_inbox where at < $1::float8 limit $2::int))

-- name: fences
select service, lane, epoch from linkspan_lane
where (service, lane) in (select * from unnest($1::text[], $2::smallint[])) order by service, lane for share

-- name: fence_hold
select epoch, set_config('idle_in_transaction_session_timeout', $3::text, true) from linkspan_lane
where service = $1::text and lane = $2::smallint for share

-- name: entrance
with fence as (
  select epoch, set_config('idle_in_transaction_session_timeout', $3::text, true) from linkspan_lane
  where service = $1::text and lane = $2::smallint for share
), moved as (
  insert into linkspan_mark as mark (scope, topic, key, last)
  select $5::text, $6::text, $7::text, $8::bigint from fence where epoch = $4::bigint
  on conflict (scope, topic, key) do update set last = excluded.last where mark.last = excluded.last - 1
  returning 1
)
select (select epoch from fence) = $4::bigint, exists (select 1 from moved)

-- name: sequence_seen
select last from linkspan_sequence where topic = $1::text and key = $2::text for update

-- name: outbox_found
select id, position, sequence from linkspan_outbox where lane = any ($1::smallint[]) and id = any ($2::text[])

-- name: outbox_row
select true from linkspan_outbox where lane = $1::smallint and position = $2::bigint

-- name: marks
select scope, topic, key, last from linkspan_mark
where (scope, topic, key) in (select * from unnest($1::text[], $2::text[], $3::text[]))

-- name: mark_move
insert into linkspan_mark as mark (scope, topic, key, last)
select scope, topic, key, last from unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) as moved (scope, topic, key, last)
order by scope, topic, key
on conflict (scope, topic, key) do update set last = excluded.last
where mark.last = (
  select expected from unnest($1::text[], $2::text[], $3::text[], $5::bigint[]) as known (scope, topic, key, expected)
  where known.scope = mark.scope and known.topic = mark.topic and known.key = mark.key
)

-- name: outbox_add
with counted as (
  insert into linkspan_sequence as counter (topic, key, last)
  select topic, key, messages from unnest($1::text[], $2::text[], $3::bigint[]) as added (topic, key, messages) /* when */
  on conflict (topic, key) do update set last = counter.last + excluded.last
  returning topic, key, last
)
insert into linkspan_outbox (lane, format, at, topic, name, id, key, sequence, headers, data)
select row.lane, $4::smallint, $5::float8, row.topic, row.name, row.id, row.key, counted.last - row.behind, row.headers, row.data
from unnest(
  $6::smallint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[], $12::bytea[], $13::bytea[]
) with ordinality as row (lane, topic, name, id, key, behind, headers, data, place)
join counted using (topic, key)
order by row.place
returning position, sequence

-- name: outbox_add_one
with counted as (
  insert into linkspan_sequence as counter (topic, key, last) select $3::text, $6::text, 1 /* when */
  on conflict (topic, key) do update set last = counter.last + 1 returning last
)
insert into linkspan_outbox (lane, format, at, topic, name, id, key, sequence, headers, data)
select $7::smallint, $1::smallint, $2::float8, $3::text, $4::text, $5::text, $6::text, last, $8::bytea, $9::bytea from counted
returning position, sequence

-- name: outbox_delete
delete from linkspan_outbox using unnest($1::smallint[], $2::bigint[]) as done (lane, position)
where linkspan_outbox.lane = done.lane and linkspan_outbox.position = done.position

-- name: outbox_unsent
-- A page takes some of each lane, and of these what lies before the end of the first lane that may have more. Only the index is read for
-- that, without what $5 names; then the rows of the page. The sets that are made once, and the `limit 1`, keep any plan to that.
with page as materialized (
  select found.* from unnest($3::smallint[]) as wanted (lane) cross join lateral (
    select lane, position from linkspan_outbox as entry
    where entry.lane = wanted.lane and entry.position > $1::bigint and entry.position not in (select unnest($5::bigint[]))
    order by entry.position limit $4::int
  ) as found
), finished as (
  select min(place) as last from (select max(position) as place from page group by lane having count(*) = $4::int) as full_lanes
), chosen as (
  select page.*, finished.last is not null as more from page cross join finished
  where finished.last is null or page.position <= finished.last order by page.position limit $2::int
)
select message.*, chosen.more from chosen cross join lateral (
  select topic, name, lane, id, key, headers, data, sequence, position from linkspan_outbox as entry
  where entry.lane = chosen.lane and entry.position = chosen.position limit 1
) as message order by chosen.position

-- name: outbox_depth
select count(*), min(at) from linkspan_outbox where position not in (select unnest($1::bigint[]))

-- name: letter_add
insert into linkspan_letter (
  format, lane, topic, key, source, id, type, headers, data, state, attempts, due, code, error, fingerprint,
  received, first_failed, last_failed, redrives
) select $1::smallint, $2::smallint, $3::text, $4::text, $5::text, $6::text, $7::text, $8::bytea, $9::bytea, $10::text, $11::int,
  $12::float8, $13::text, $14::text, $15::text, $16::float8, $17::float8, $18::float8, $19::int
where not exists (select 1 from linkspan_inbox where source = any ($20::text[]) and id = $6::text)
on conflict (topic, source, id) do nothing

-- name: letter_update
update linkspan_letter set state = $2::text, attempts = $3::int, due = $4::float8, code = $5::text, error = $6::text,
  fingerprint = $7::text, first_failed = $8::float8, last_failed = $9::float8, redrives = $10::int
where position = $1::bigint

-- name: letter_remove
delete from linkspan_letter where position = $1::bigint

-- name: letter_keys
select distinct topic, key from linkspan_letter where $1::smallint[] is null or lane = any ($1::smallint[])

-- name: letter_columns
select topic, key, source, id, type, headers, data, state, attempts, due, code, error, fingerprint,
  received, first_failed, last_failed, redrives, position, lane from linkspan_letter as letter

-- name: letter_is_head
(state in ('redrive', 'waiting') or (state = 'parked' and due <= $1::float8)) and ($3::smallint[] is null or lane = any ($3::smallint[]))
and not exists (
  select 1 from linkspan_letter as earlier
  where earlier.topic = letter.topic and earlier.key = letter.key and earlier.position < letter.position
) order by position limit $2::int

-- name: letter_due
select topic, key, position from unnest($3::smallint[]) as wanted (lane) cross join lateral (
  (
    select topic, key, position from linkspan_letter as letter
    where state = 'redrive' and letter.lane = wanted.lane and starts_with(topic, $4::text) and position = (
      select min(position) from linkspan_letter as first where first.topic = letter.topic and first.key = letter.key
    )
    order by position limit $2::int
  ) union all (
    select topic, key, position from linkspan_letter as letter
    where state = 'parked' and letter.lane = wanted.lane and due <= $1::float8 and starts_with(topic, $4::text) and position = (
      select min(position) from linkspan_letter as first where first.topic = letter.topic and first.key = letter.key
    )
    order by due limit $2::int
  )
) as soon order by position limit $2::int

-- name: redrive
with changed as (
  update linkspan_letter set state = 'redrive' where position = any ($1::bigint[]) and state = 'dead'
  returning position, topic, key, source, id, type, fingerprint
)
insert into linkspan_audit (at, action, who, why, letter, topic, key, source, id, type, fingerprint)
select $4::float8, 'redrive', $2::text, $3::text, position, topic, key, source, id, type, fingerprint from changed order by position
returning 1

-- name: discard
with gone as (
  delete from linkspan_letter where position = $1::bigint and state = 'dead'
  returning position, topic, key, source, id, type, fingerprint
)
insert into linkspan_audit (at, action, who, why, letter, topic, key, source, id, type, fingerprint)
select $4::float8, 'discard', $2::text, $3::text, position, topic, key, source, id, type, fingerprint from gone
returning topic, source, id

-- name: lanes_lock
select pg_advisory_xact_lock(hashtextextended('linkspan lanes ' || current_schema() || ' ' || $1::text, 0)),
  set_config('idle_in_transaction_session_timeout', $2::text, true)

-- name: lanes_make
insert into linkspan_lane (service, lane, epoch)
select $1::text, lane, 0 from generate_series(0, $2::int - 1) as every (lane)
where (select count(*) from linkspan_lane where service = $1::text) < $2::int
on conflict do nothing

-- name: member_lives
insert into linkspan_member (service, instance, expires)
values ($1::text, $2::text, clock_timestamp() + make_interval(secs => $3::float8))
on conflict (service, instance) do update set expires = excluded.expires

-- name: members_bury
delete from linkspan_member where service = $1::text and expires < clock_timestamp()

-- name: members
select instance from linkspan_member where service = $1::text order by instance

-- name: member_leave
delete from linkspan_member where service = $1::text and instance = $2::text

-- name: lanes_give
update linkspan_lane set owner = null
where service = $1::text and owner = $2::text and ($3::smallint[] is null or lane <> all ($3::smallint[]))

-- name: lanes_take
with free as (
  select lane, owner from linkspan_lane where service = $1::text and (
    owner is null or owner not in (select instance from linkspan_member where service = $1::text)
  ) order by lane limit greatest(0, $3::int - (select count(*) from linkspan_lane where service = $1::text and owner = $2::text))
  for update skip locked
)
update linkspan_lane as taken set owner = $2::text, epoch = epoch + 1 from free
where taken.service = $1::text and taken.lane = free.lane
returning taken.lane, free.owner is not null

-- name: lanes_mine
select lane, epoch from linkspan_lane where service = $1::text and owner = $2::text order by lane

-- name: letter_expire
with gone as (
  delete from linkspan_letter where position = $3::bigint returning position, topic, key, source, id, type, fingerprint
)
insert into linkspan_audit (at, action, who, why, letter, topic, key, source, id, type, fingerprint)
select $1::float8, 'expire', $2::text, 'past its expirytime', position, topic, key, source, id, type, fingerprint from gone

-- name: scheduled_add
insert into linkspan_scheduled (format, due, at, source, topic, name, lane, id, key, headers, data)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) on conflict (source, id) do nothing

-- name: scheduled_take
with turn as materialized (
  select pg_advisory_xact_lock(hashtextextended('linkspan scheduled ' || current_schema(), 0)) is null as mine
), chosen as materialized (
  select message.position from turn cross join linkspan_scheduled as message where message.due <= $1::float8
  order by message.due, message.position limit $2::int for update of message
)
delete from linkspan_scheduled as message using chosen where message.position = chosen.position
returning due, source, topic, name, lane, id, key, headers, data, message.position

-- name: scheduled_cancel
delete from linkspan_scheduled where source = $1::text and id = $2::text returning position

-- name: scheduled_next
select due from linkspan_scheduled order by due, position limit 1

-- name: scheduled_list
select due, source, topic, name, lane, id, key, headers, data, position from linkspan_scheduled
where (due, position) > ($1::float8, $2::bigint) and ($3::text = '' or source = $3::text) order by due, position limit $4::int

-- name: scheduled_end
with gone as (
  delete from linkspan_scheduled where position = $1::bigint and source = $2::text returning position, topic, key, source, id, name
)
insert into linkspan_audit (at, action, who, why, letter, topic, key, source, id, type, fingerprint)
select $3::float8, 'cancel', $4::text, $5::text, position, topic, key, source, id,
  replace(replace(topic || '/', '.events/', '.'), '.commands/', '.') || name, '' from gone
returning 1
