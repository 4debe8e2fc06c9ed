-- Named queries. A `%` stands for as many rows of question marks as are written at once.

-- name: claim
insert or ignore into linkspan_inbox (source, id, at) values %

-- name: forget
delete from linkspan_inbox where position in (
  select position from (select position, at from linkspan_inbox order by position limit ?) where at < ?
)

-- name: outbox_add
insert into linkspan_outbox (position, format, at, topic, name, lane, id, key, sequence, headers, data) values %

-- name: outbox_last
select seq from sqlite_sequence where name = 'linkspan_outbox'

-- name: outbox_delete
delete from linkspan_outbox where position between ? and ?

-- name: outbox_unsent
select topic, name, lane, id, key, headers, data, sequence, position from linkspan_outbox where position > ? order by position limit ?

-- name: outbox_depth
select count(*) from linkspan_outbox

-- name: outbox_times
select position, at from linkspan_outbox order by position limit ?

-- name: sequence_load
with wanted (topic, key) as (values %)
select s.topic, s.key, s.last from wanted cross join linkspan_sequence s on s.topic = wanted.topic and s.key = wanted.key

-- name: sequence_store
insert into linkspan_sequence (topic, key, last) values % on conflict (topic, key) do update set last = excluded.last

-- name: letter_add
insert into linkspan_letter (
  format, topic, key, source, id, type, headers, data, state, attempts, due, code, error, fingerprint,
  received, first_failed, last_failed, redrives
) select ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
where not exists (select 1 from linkspan_inbox where source in (?, ?) and id = ?)
on conflict (topic, source, id) do nothing

-- name: letter_update
update linkspan_letter set state = ?, attempts = ?, due = ?, code = ?, error = ?, fingerprint = ?,
  first_failed = ?, last_failed = ?, redrives = ? where position = ?

-- name: letter_remove
delete from linkspan_letter where position = ?

-- name: letter_keys
select distinct topic, key from linkspan_letter

-- name: letter_columns
select topic, key, source, id, type, headers, data, state, attempts, due, code, error, fingerprint,
  received, first_failed, last_failed, redrives, position from linkspan_letter as letter

-- name: letter_is_head
(state in ('redrive', 'waiting') or (state = 'parked' and due <= ?)) and not exists (
  select 1 from linkspan_letter as earlier
  where earlier.topic = letter.topic and earlier.key = letter.key and earlier.position < letter.position
)

-- name: letter_redrive
update linkspan_letter set state = 'redrive' where position = ? and state = 'dead'

-- name: letter_due
select topic, key, position from (
  select * from (
    select topic, key, position from linkspan_letter as letter
    where state = 'redrive' and substr(topic, 1, length(?3)) = ?3 and position = (
      select min(position) from linkspan_letter as first where first.topic = letter.topic and first.key = letter.key
    )
    order by position limit ?1
  ) union all select * from (
    select topic, key, position from linkspan_letter as letter
    where state = 'parked' and due <= ?2 and substr(topic, 1, length(?3)) = ?3 and position = (
      select min(position) from linkspan_letter as first where first.topic = letter.topic and first.key = letter.key
    )
    order by due limit ?1
  )
) order by position limit ?1

-- name: letter_names
select topic, source, id from linkspan_letter where position = ? and state = 'dead'

-- name: letter_discard
delete from linkspan_letter where position = ? and state = 'dead'

-- name: audit
insert into linkspan_audit (at, action, who, why, letter, topic, key, source, id, type, fingerprint)
select ?, ?, ?, ?, position, topic, key, source, id, type, fingerprint from linkspan_letter where position = ? and state = 'dead'

-- name: scheduled_add
insert into linkspan_scheduled (format, due, at, source, topic, name, lane, id, key, headers, data)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (source, id) do nothing

-- name: scheduled_take
delete from linkspan_scheduled
where position in (select position from linkspan_scheduled where due <= ? order by due, position limit ?)
returning due, source, topic, name, lane, id, key, headers, data, position

-- name: scheduled_cancel
delete from linkspan_scheduled where source = ? and id = ? returning position

-- name: scheduled_next
select min(due) from linkspan_scheduled

-- name: scheduled_list
select due, source, topic, name, lane, id, key, headers, data, position from linkspan_scheduled
where (due, position) > (?, ?) and (? = '' or source = ?) order by due, position limit ?

-- name: scheduled_audit
insert into linkspan_audit (at, action, who, why, letter, topic, key, source, id, type, fingerprint)
select ?, 'cancel', ?, ?, position, topic, key, source, id,
  replace(replace(topic || '/', '.events/', '.'), '.commands/', '.') || name, ''
from linkspan_scheduled where position = ? and source = ?

-- name: scheduled_remove
delete from linkspan_scheduled where position = ? and source = ?

-- name: audit_expired
insert into linkspan_audit (at, action, who, why, letter, topic, key, source, id, type, fingerprint)
select ?, 'expire', ?, 'past its expirytime', position, topic, key, source, id, type, fingerprint from linkspan_letter where position = ?
