-- Letters that may run, by lane, so that looking for them costs as much as it finds; those that wait or are dead are not in here.
create index linkspan_letter_due on linkspan_letter (lane, due) where state = 'parked';
create index linkspan_letter_asked on linkspan_letter (lane, position) where state = 'redrive';
