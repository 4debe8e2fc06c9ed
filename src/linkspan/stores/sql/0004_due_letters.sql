-- Parked letters by the time at which they are due, so that looking for them costs as much as it finds.
create index linkspan_letter_due on linkspan_letter (state, due);
